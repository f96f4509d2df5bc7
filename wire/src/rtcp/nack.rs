//! Generic NACK (RFC 4585 section 6.2.1): pairs of a lost packet's number and a mask of the sixteen after it.

use crate::cursor::{Cursor, u32_at};
use crate::{ParseError, WriteError};

/// A negative acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nack<'a> {
    /// Who asks.
    pub sender_ssrc: u32,
    /// Whose packets are missed.
    pub media_ssrc: u32,
    pairs: &'a [u8],
}

impl<'a> Nack<'a> {
    pub(super) const FORMAT: u8 = 1;

    pub(super) fn parse(body: &'a [u8]) -> Result<Self, ParseError> {
        let sender_ssrc = u32_at(body, 0).ok_or(ParseError::Length)?;
        let media_ssrc = u32_at(body, 4).ok_or(ParseError::Length)?;
        Ok(Self {
            sender_ssrc,
            media_ssrc,
            pairs: &body[8..],
        })
    }

    /// Every sequence number asked for: 17 at most for each four bytes of the packet.
    pub fn sequence_numbers(&self) -> SequenceNumbers<'a> {
        SequenceNumbers {
            pairs: self.pairs,
            next: 0,
            mask: 0,
        }
    }
}

/// Iterator of [`Nack::sequence_numbers`].
#[derive(Clone, Debug)]
pub struct SequenceNumbers<'a> {
    pairs: &'a [u8],
    next: u16,
    mask: u32,
}

impl Iterator for SequenceNumbers<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        if self.mask == 0 {
            let (pair, rest) = self.pairs.split_first_chunk::<4>()?;
            self.pairs = rest;
            self.next = u16::from_be_bytes([pair[0], pair[1]]);
            // The packet itself, then the mask's bits from the least significant up.
            self.mask = u32::from(u16::from_be_bytes([pair[2], pair[3]])) << 1 | 1;
        }
        let skip = self.mask.trailing_zeros();
        let number = self.next.wrapping_add(skip as u16);
        self.mask = self.mask >> skip >> 1;
        self.next = number.wrapping_add(1);
        Some(number)
    }
}

/// Numbers ascending (around the wrap too); out of order they only make more pairs.
pub(super) fn write_pairs(
    sequence_numbers: impl IntoIterator<Item = u16>,
    cursor: &mut Cursor<'_>,
) -> Result<(), WriteError> {
    let mut pair: Option<(u16, u16)> = None;
    for number in sequence_numbers {
        pair = match pair {
            Some((first, mask)) => match number.wrapping_sub(first) {
                0 => Some((first, mask)),
                distance @ 1..=16 => Some((first, mask | 1 << (distance - 1))),
                _ => {
                    cursor.put_u16(first)?;
                    cursor.put_u16(mask)?;
                    Some((number, 0))
                }
            },
            None => Some((number, 0)),
        };
    }
    let Some((first, mask)) = pair else { return Ok(()) };
    cursor.put_u16(first)?;
    cursor.put_u16(mask)
}
