//! The first stage: what a client's datagram is.

use wire::channel_data::ChannelData;
use wire::demux;
use wire::stun::{Class, Message, Method};

use crate::discard::Discard;

/// A datagram from a client.
pub(crate) enum Classified<'a> {
    /// Application data on a channel.
    ChannelData(ChannelData<'a>),
    /// Application data in a Send indication.
    Send(Message<'a>),
    /// Something to answer.
    Request(Message<'a>),
}

pub(crate) fn classify(datagram: &[u8]) -> Result<Classified<'_>, Discard> {
    match demux::classify(datagram) {
        demux::Kind::TurnChannel => channel_data(datagram),
        // No RTP shares this port, so the channels of RFC 5766 clients (coturn's tools among them), which RFC 7983
        // leaves without a range of first bytes, are told apart all the same.
        demux::Kind::Unknown if matches!(datagram, [80..=127, ..]) => channel_data(datagram),
        demux::Kind::Stun => {
            let message = Message::parse(datagram).map_err(|_| Discard::MalformedStun)?;
            if message.verify_fingerprint() == Some(false) {
                return Err(Discard::MalformedStun);
            }
            match (message.class(), message.method()) {
                (Class::Indication, Method::SEND) => Ok(Classified::Send(message)),
                (Class::Request, _) => Ok(Classified::Request(message)),
                _ => Err(Discard::UnexpectedStun),
            }
        }
        _ => Err(Discard::UnknownProtocol),
    }
}

fn channel_data(datagram: &[u8]) -> Result<Classified<'_>, Discard> {
    ChannelData::parse_datagram(datagram)
        .map(Classified::ChannelData)
        .map_err(|_| Discard::MalformedChannelData)
}
