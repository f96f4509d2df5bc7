//! A whole RTP packet in plain text: header, payload, padding.

use std::ops::Deref;

use super::header::HeaderView;
use crate::ParseError;

/// A packet whose payload is in the clear. The header's getters are [`HeaderView`]'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    header: HeaderView<'a>,
    padding_len: usize,
}

impl<'a> Packet<'a> {
    /// Checks the header and that the padding fits.
    pub fn parse(packet: &'a [u8]) -> Result<Self, ParseError> {
        let header = HeaderView::parse(packet)?;
        let padding_len = match header.body().last() {
            Some(&len) if header.padding() => usize::from(len),
            None if header.padding() => return Err(ParseError::Padding),
            _ => 0,
        };
        if header.padding() && (padding_len == 0 || padding_len > header.body().len()) {
            return Err(ParseError::Padding);
        }
        Ok(Self { header, padding_len })
    }

    /// The header's view.
    pub fn header(&self) -> HeaderView<'a> {
        self.header
    }

    /// The payload without padding; empty in a packet that is padding only.
    pub fn payload(&self) -> &'a [u8] {
        let body = self.header.body();
        &body[..body.len() - self.padding_len]
    }

    /// Bytes of padding, the count at its end included.
    pub fn padding_len(&self) -> usize {
        self.padding_len
    }
}

impl<'a> Deref for Packet<'a> {
    type Target = HeaderView<'a>;

    fn deref(&self) -> &HeaderView<'a> {
        &self.header
    }
}
