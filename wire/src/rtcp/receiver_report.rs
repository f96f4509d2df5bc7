//! RR (RFC 3550 section 6.4.2): report blocks of somebody who sends nothing.

use super::report_block::{REPORT_BLOCK_LEN, ReportBlock, blocks};
use crate::ParseError;
use crate::cursor::u32_at;

/// A receiver report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiverReport<'a> {
    /// Who reports.
    pub ssrc: u32,
    blocks: &'a [u8],
}

impl<'a> ReceiverReport<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Result<Self, ParseError> {
        let ssrc = u32_at(body, 0).ok_or(ParseError::Length)?;
        let blocks = body[4..]
            .get(..REPORT_BLOCK_LEN * usize::from(count))
            .ok_or(ParseError::Length)?;
        Ok(Self { ssrc, blocks })
    }

    /// At most 31 report blocks.
    pub fn reports(&self) -> impl Iterator<Item = ReportBlock> + use<'a> {
        blocks(self.blocks)
    }
}
