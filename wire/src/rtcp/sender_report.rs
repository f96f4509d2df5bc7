//! SR (RFC 3550 section 6.4.1): ties a source's RTP clock to wall time and counts what it sent.

use super::report_block::{REPORT_BLOCK_LEN, ReportBlock, blocks};
use crate::ParseError;
use crate::cursor::{u32_at, u64_at};

/// What a sender says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderInfo {
    /// The sender.
    pub ssrc: u32,
    /// 32 bits of seconds since 1900, 32 of fraction.
    pub ntp: u64,
    /// The same instant on the RTP clock.
    pub rtp_timestamp: u32,
    /// Packets sent since the beginning.
    pub packet_count: u32,
    /// Payload bytes sent since the beginning.
    pub octet_count: u32,
}

/// A sender report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderReport<'a> {
    /// The sender's own part.
    pub sender: SenderInfo,
    blocks: &'a [u8],
}

const SENDER_LEN: usize = 24;

impl<'a> SenderReport<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Result<Self, ParseError> {
        let (info, rest) = body.split_at_checked(SENDER_LEN).ok_or(ParseError::Length)?;
        let blocks = rest
            .get(..REPORT_BLOCK_LEN * usize::from(count))
            .ok_or(ParseError::Length)?;
        let word = |at| u32_at(info, at).ok_or(ParseError::Length);
        let sender = SenderInfo {
            ssrc: word(0)?,
            ntp: u64_at(info, 4).ok_or(ParseError::Length)?,
            rtp_timestamp: word(12)?,
            packet_count: word(16)?,
            octet_count: word(20)?,
        };
        Ok(Self { sender, blocks })
    }

    /// At most 31 report blocks.
    pub fn reports(&self) -> impl Iterator<Item = ReportBlock> + use<'a> {
        blocks(self.blocks)
    }
}
