//! Writes RTCP packets one after another into a buffer of the caller's: a compound packet, or a reduced-size one.

use super::full_intra_request::{FirEntry, FullIntraRequest};
use super::nack::{self, Nack};
use super::picture_loss::PictureLossIndication;
use super::remb::{self, Remb};
use super::report_block::ReportBlock;
use super::sender_report::SenderInfo;
use super::source_description::Item;
use super::transport_wide::{self, TransportWideFeedback};
use super::{COUNT_MAX, packet_type};
use crate::WriteError;
use crate::cursor::Cursor;

/// A datagram being written. A packet that does not fit leaves no trace, so that what was written before it can
/// still be sent.
pub struct Writer<'b> {
    cursor: Cursor<'b>,
}

impl<'b> Writer<'b> {
    /// An empty datagram.
    pub fn new(buffer: &'b mut [u8]) -> Self {
        Self {
            cursor: Cursor::new(buffer),
        }
    }

    /// How many bytes of the buffer are used.
    pub fn len(&self) -> usize {
        self.cursor.position()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes of the buffer the datagram takes.
    pub fn finish(self) -> usize {
        self.len()
    }

    /// SR, with at most 31 report blocks.
    pub fn sender_report(
        &mut self,
        sender: &SenderInfo,
        reports: &[ReportBlock],
    ) -> Result<&mut Self, WriteError> {
        self.packet(packet_type::SENDER_REPORT, reports.len(), |cursor| {
            cursor.put_u32(sender.ssrc)?;
            cursor.put(&sender.ntp.to_be_bytes())?;
            cursor.put_u32(sender.rtp_timestamp)?;
            cursor.put_u32(sender.packet_count)?;
            cursor.put_u32(sender.octet_count)?;
            reports.iter().try_for_each(|report| report.write(cursor))
        })
    }

    /// RR, with at most 31 report blocks.
    pub fn receiver_report(&mut self, ssrc: u32, reports: &[ReportBlock]) -> Result<&mut Self, WriteError> {
        self.packet(packet_type::RECEIVER_REPORT, reports.len(), |cursor| {
            cursor.put_u32(ssrc)?;
            reports.iter().try_for_each(|report| report.write(cursor))
        })
    }

    /// SDES with the CNAME of one source, at most 255 bytes.
    pub fn source_description(&mut self, ssrc: u32, cname: &str) -> Result<&mut Self, WriteError> {
        let len = u8::try_from(cname.len()).map_err(|_| WriteError::ValueTooLong)?;
        self.packet(packet_type::SOURCE_DESCRIPTION, 1, |cursor| {
            cursor.put_u32(ssrc)?;
            cursor.put(&[Item::CNAME, len])?;
            cursor.put(cname.as_bytes())?;
            // The list's end; the packet's own padding to a word makes up the rest.
            cursor.put_u8(0)
        })
    }

    /// BYE of at most 31 sources, with a reason of at most 255 bytes.
    pub fn goodbye(&mut self, sources: &[u32], reason: Option<&str>) -> Result<&mut Self, WriteError> {
        self.packet(packet_type::GOODBYE, sources.len(), |cursor| {
            sources.iter().try_for_each(|ssrc| cursor.put_u32(*ssrc))?;
            let Some(reason) = reason else { return Ok(()) };
            cursor.put_u8(u8::try_from(reason.len()).map_err(|_| WriteError::ValueTooLong)?)?;
            cursor.put(reason.as_bytes())
        })
    }

    /// NACK for sequence numbers in ascending order, around the wrap too.
    pub fn nack(
        &mut self,
        sender_ssrc: u32,
        media_ssrc: u32,
        sequence_numbers: impl IntoIterator<Item = u16>,
    ) -> Result<&mut Self, WriteError> {
        self.feedback(
            packet_type::TRANSPORT_FEEDBACK,
            Nack::FORMAT,
            sender_ssrc,
            media_ssrc,
            |cursor| nack::write_pairs(sequence_numbers, cursor),
        )
    }

    /// PLI.
    pub fn picture_loss_indication(
        &mut self,
        sender_ssrc: u32,
        media_ssrc: u32,
    ) -> Result<&mut Self, WriteError> {
        let format = PictureLossIndication::FORMAT;
        self.feedback(
            packet_type::PAYLOAD_FEEDBACK,
            format,
            sender_ssrc,
            media_ssrc,
            |_| Ok(()),
        )
    }

    /// FIR.
    pub fn full_intra_request(
        &mut self,
        sender_ssrc: u32,
        entries: &[FirEntry],
    ) -> Result<&mut Self, WriteError> {
        self.feedback(
            packet_type::PAYLOAD_FEEDBACK,
            FullIntraRequest::FORMAT,
            sender_ssrc,
            0,
            |cursor| {
                entries.iter().try_for_each(|entry| {
                    cursor.put_u32(entry.ssrc)?;
                    cursor.put(&[entry.sequence_number, 0, 0, 0])
                })
            },
        )
    }

    /// REMB in bits per second, of at most 255 sources.
    pub fn remb(&mut self, sender_ssrc: u32, bitrate: u64, ssrcs: &[u32]) -> Result<&mut Self, WriteError> {
        self.feedback(
            packet_type::PAYLOAD_FEEDBACK,
            Remb::FORMAT,
            sender_ssrc,
            0,
            |cursor| remb::write_body(bitrate, ssrcs, cursor),
        )
    }

    /// Transport-wide feedback. `reference_time` is in units of 64 ms, of which 24 bits count; `arrivals` has one
    /// item for each number from the base on: the delta to the packet received before it in units of 250 us (the
    /// first: to the reference time), or `None` where it was not received.
    pub fn transport_wide_feedback<I>(
        &mut self,
        sender_ssrc: u32,
        media_ssrc: u32,
        base_sequence_number: u16,
        reference_time: i32,
        feedback_count: u8,
        arrivals: I,
    ) -> Result<&mut Self, WriteError>
    where
        I: IntoIterator<Item = Option<i16>> + Clone,
    {
        let format = TransportWideFeedback::FORMAT;
        self.feedback(
            packet_type::TRANSPORT_FEEDBACK,
            format,
            sender_ssrc,
            media_ssrc,
            |cursor| {
                transport_wide::write_body(
                    base_sequence_number,
                    reference_time,
                    feedback_count,
                    arrivals,
                    cursor,
                )
            },
        )
    }

    fn feedback(
        &mut self,
        packet_type: u8,
        format: u8,
        sender_ssrc: u32,
        media_ssrc: u32,
        body: impl FnOnce(&mut Cursor<'b>) -> Result<(), WriteError>,
    ) -> Result<&mut Self, WriteError> {
        self.packet(packet_type, usize::from(format), |cursor| {
            cursor.put_u32(sender_ssrc)?;
            cursor.put_u32(media_ssrc)?;
            body(cursor)
        })
    }

    fn packet(
        &mut self,
        packet_type: u8,
        count: usize,
        body: impl FnOnce(&mut Cursor<'b>) -> Result<(), WriteError>,
    ) -> Result<&mut Self, WriteError> {
        if count > COUNT_MAX {
            return Err(WriteError::ValueTooLong);
        }
        let start = self.cursor.position();
        let written = self.frame(start, [0x80 | count as u8, packet_type, 0, 0], body);
        if let Err(error) = written {
            self.cursor.rewind(start);
            return Err(error);
        }
        Ok(self)
    }

    fn frame(
        &mut self,
        start: usize,
        header: [u8; 4],
        body: impl FnOnce(&mut Cursor<'b>) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        self.cursor.put(&header)?;
        body(&mut self.cursor)?;
        self.cursor.pad_to_word(start)?;
        let words = (self.cursor.position() - start) / 4 - 1;
        self.cursor.patch_u16(
            start + 2,
            u16::try_from(words).map_err(|_| WriteError::ValueTooLong)?,
        );
        Ok(())
    }
}
