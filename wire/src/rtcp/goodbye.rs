//! BYE (RFC 3550 section 6.6): sources that end, and perhaps why.

use crate::ParseError;

/// A goodbye.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goodbye<'a> {
    sources: &'a [u8],
    /// For people; UTF-8 where the sender was honest.
    pub reason: Option<&'a [u8]>,
}

impl<'a> Goodbye<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Result<Self, ParseError> {
        let (sources, rest) = body
            .split_at_checked(4 * usize::from(count))
            .ok_or(ParseError::Length)?;
        let reason = match rest {
            [] => None,
            &[len, ref text @ ..] => Some(text.get(..usize::from(len)).ok_or(ParseError::Length)?),
        };
        Ok(Self { sources, reason })
    }

    /// At most 31 sources.
    pub fn sources(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.sources
            .as_chunks()
            .0
            .iter()
            .map(|ssrc| u32::from_be_bytes(*ssrc))
    }
}
