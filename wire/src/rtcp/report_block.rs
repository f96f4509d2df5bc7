//! Report block (RFC 3550 section 6.4.1): what a receiver says about one source.

use crate::WriteError;
use crate::cursor::{Cursor, u32_at};

/// Bytes of one block.
pub const REPORT_BLOCK_LEN: usize = 24;

/// Reception of one source, in SR and RR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportBlock {
    /// The source reported on.
    pub ssrc: u32,
    /// Packets lost since the last report, in 256ths of those expected.
    pub fraction_lost: u8,
    /// Packets lost since the beginning; 24 bits, negative where duplicates arrived.
    pub cumulative_lost: i32,
    /// Cycles of the sequence number and the highest one received.
    pub extended_highest_sequence: u32,
    /// Interarrival jitter in timestamp units.
    pub jitter: u32,
    /// The middle 32 bits of the last SR's NTP time; 0 where none came.
    pub last_sender_report: u32,
    /// Since that SR, in 65,536ths of a second.
    pub delay_since_last_sender_report: u32,
}

impl ReportBlock {
    /// The 24-bit count is clamped on writing.
    const CUMULATIVE_LOST: std::ops::RangeInclusive<i32> = -0x80_0000..=0x7F_FFFF;

    fn read(bytes: &[u8; REPORT_BLOCK_LEN]) -> Self {
        let word = |at| u32_at(bytes, at).unwrap_or_default();
        Self {
            ssrc: word(0),
            fraction_lost: bytes[4],
            // Shifted up and down again for the sign.
            cumulative_lost: (word(4) << 8) as i32 >> 8,
            extended_highest_sequence: word(8),
            jitter: word(12),
            last_sender_report: word(16),
            delay_since_last_sender_report: word(20),
        }
    }

    pub(super) fn write(&self, cursor: &mut Cursor<'_>) -> Result<(), WriteError> {
        let (least, most) = (*Self::CUMULATIVE_LOST.start(), *Self::CUMULATIVE_LOST.end());
        let lost = self.cumulative_lost.clamp(least, most) as u32 & 0xFF_FFFF;
        cursor.put_u32(self.ssrc)?;
        cursor.put_u32(u32::from(self.fraction_lost) << 24 | lost)?;
        cursor.put_u32(self.extended_highest_sequence)?;
        cursor.put_u32(self.jitter)?;
        cursor.put_u32(self.last_sender_report)?;
        cursor.put_u32(self.delay_since_last_sender_report)
    }
}

/// The blocks of a checked slice.
pub(super) fn blocks(bytes: &[u8]) -> impl Iterator<Item = ReportBlock> + use<'_> {
    bytes
        .as_chunks::<REPORT_BLOCK_LEN>()
        .0
        .iter()
        .map(ReportBlock::read)
}
