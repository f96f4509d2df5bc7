//! PLI (RFC 4585 section 6.3.1): a decoder that needs a keyframe.

use crate::ParseError;
use crate::cursor::u32_at;

/// A picture loss indication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureLossIndication {
    /// Who asks.
    pub sender_ssrc: u32,
    /// Whose keyframe.
    pub media_ssrc: u32,
}

impl PictureLossIndication {
    pub(super) const FORMAT: u8 = 1;

    pub(super) fn parse(body: &[u8]) -> Result<Self, ParseError> {
        let sender_ssrc = u32_at(body, 0).ok_or(ParseError::Length)?;
        let media_ssrc = u32_at(body, 4).ok_or(ParseError::Length)?;
        Ok(Self {
            sender_ssrc,
            media_ssrc,
        })
    }
}
