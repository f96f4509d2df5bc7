//! A compound packet (RFC 3550 section 6.1): one header after another, each with its own length.

use super::{
    FullIntraRequest, Goodbye, HEADER_LEN, Nack, PictureLossIndication, ReceiverReport, Remb, SenderReport,
    SourceDescription, TransportWideFeedback, packet_type,
};
use crate::ParseError;
use crate::cursor::u16_at;

/// One RTCP packet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Packet<'a> {
    /// RFC 3550 section 6.4.1.
    SenderReport(SenderReport<'a>),
    /// RFC 3550 section 6.4.2.
    ReceiverReport(ReceiverReport<'a>),
    /// RFC 3550 section 6.5.
    SourceDescription(SourceDescription<'a>),
    /// RFC 3550 section 6.6.
    Goodbye(Goodbye<'a>),
    /// RFC 4585 section 6.2.1.
    Nack(Nack<'a>),
    /// RFC 4585 section 6.3.1.
    PictureLossIndication(PictureLossIndication),
    /// RFC 5104 section 4.3.1.
    FullIntraRequest(FullIntraRequest<'a>),
    /// draft-alvestrand-rmcat-remb.
    Remb(Remb<'a>),
    /// draft-holmer-rmcat-transport-wide-cc-extensions.
    TransportWideFeedback(TransportWideFeedback<'a>),
    /// Anything else, well framed.
    Unknown(Unknown<'a>),
}

/// A packet of a type or format that is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown<'a> {
    /// The second byte of the header.
    pub packet_type: u8,
    /// The five-bit count or format.
    pub count: u8,
    /// What follows the header, without padding.
    pub body: &'a [u8],
}

/// The packets of a datagram, in order. The first one that is malformed is the last item.
pub fn compound(datagram: &[u8]) -> Compound<'_> {
    Compound { rest: datagram }
}

/// Iterator of [`compound()`].
#[derive(Clone, Debug)]
pub struct Compound<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Compound<'a> {
    type Item = Result<Packet<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let packet = split(&mut self.rest).and_then(parse);
        if packet.is_err() {
            self.rest = &[];
        }
        Some(packet)
    }
}

/// Takes the first packet's frame off `rest`.
fn split<'a>(rest: &mut &'a [u8]) -> Result<Unknown<'a>, ParseError> {
    let &[first, packet_type, ..] = *rest else {
        return Err(ParseError::Truncated);
    };
    let words = u16_at(rest, 2).ok_or(ParseError::Truncated)?;
    if first >> 6 != 2 {
        return Err(ParseError::Version);
    }
    let (packet, after) = rest
        .split_at_checked(HEADER_LEN + 4 * usize::from(words))
        .ok_or(ParseError::Length)?;
    *rest = after;
    let mut body = &packet[HEADER_LEN..];
    if first & 0x20 != 0 {
        let padding = usize::from(*body.last().ok_or(ParseError::Padding)?);
        let len = body
            .len()
            .checked_sub(padding)
            .filter(|_| padding != 0)
            .ok_or(ParseError::Padding)?;
        body = &body[..len];
    }
    Ok(Unknown {
        packet_type,
        count: first & 0x1F,
        body,
    })
}

fn parse(frame: Unknown<'_>) -> Result<Packet<'_>, ParseError> {
    use packet_type::*;
    let Unknown {
        packet_type,
        count,
        body,
    } = frame;
    Ok(match (packet_type, count) {
        (SENDER_REPORT, _) => Packet::SenderReport(SenderReport::parse(count, body)?),
        (RECEIVER_REPORT, _) => Packet::ReceiverReport(ReceiverReport::parse(count, body)?),
        (SOURCE_DESCRIPTION, _) => Packet::SourceDescription(SourceDescription::parse(count, body)?),
        (GOODBYE, _) => Packet::Goodbye(Goodbye::parse(count, body)?),
        (TRANSPORT_FEEDBACK, Nack::FORMAT) => Packet::Nack(Nack::parse(body)?),
        (TRANSPORT_FEEDBACK, TransportWideFeedback::FORMAT) => {
            Packet::TransportWideFeedback(TransportWideFeedback::parse(body)?)
        }
        (PAYLOAD_FEEDBACK, PictureLossIndication::FORMAT) => {
            Packet::PictureLossIndication(PictureLossIndication::parse(body)?)
        }
        (PAYLOAD_FEEDBACK, FullIntraRequest::FORMAT) => {
            Packet::FullIntraRequest(FullIntraRequest::parse(body)?)
        }
        (PAYLOAD_FEEDBACK, Remb::FORMAT) => match Remb::parse(body)? {
            Some(remb) => Packet::Remb(remb),
            None => Packet::Unknown(frame),
        },
        _ => Packet::Unknown(frame),
    })
}
