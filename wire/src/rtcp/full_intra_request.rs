//! FIR (RFC 5104 section 4.3.1): a numbered order for a keyframe; the same number again is the same order.

use crate::ParseError;
use crate::cursor::u32_at;

/// A full intra request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FullIntraRequest<'a> {
    /// Who asks.
    pub sender_ssrc: u32,
    entries: &'a [u8],
}

/// One source asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirEntry {
    /// Whose keyframe.
    pub ssrc: u32,
    /// Counts the asker's orders to this source.
    pub sequence_number: u8,
}

impl<'a> FullIntraRequest<'a> {
    pub(super) const FORMAT: u8 = 4;

    pub(super) fn parse(body: &'a [u8]) -> Result<Self, ParseError> {
        let sender_ssrc = u32_at(body, 0).ok_or(ParseError::Length)?;
        // The media SSRC of the feedback header is unused here.
        let entries = body.get(8..).ok_or(ParseError::Length)?;
        Ok(Self { sender_ssrc, entries })
    }

    /// The sources asked.
    pub fn entries(&self) -> impl Iterator<Item = FirEntry> + use<'a> {
        self.entries
            .as_chunks::<8>()
            .0
            .iter()
            .map(|&[a, b, c, d, sequence_number, ..]| FirEntry {
                ssrc: u32::from_be_bytes([a, b, c, d]),
                sequence_number,
            })
    }
}
