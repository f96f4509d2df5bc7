//! REMB (draft-alvestrand-rmcat-remb-03): the bit rate a receiver would like the sender to stay under.

use crate::cursor::{Cursor, u32_at};
use crate::{ParseError, WriteError};

/// A receiver's estimated maximum bit rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remb<'a> {
    /// Who asks.
    pub sender_ssrc: u32,
    /// Bits per second, saturating.
    pub bitrate: u64,
    ssrcs: &'a [u8],
}

/// What tells REMB from other application layer feedback.
const IDENTIFIER: &[u8; 4] = b"REMB";

/// Bits of the mantissa.
const MANTISSA_BITS: u32 = 18;

impl<'a> Remb<'a> {
    /// Application layer feedback (RFC 4585 section 6.4).
    pub(super) const FORMAT: u8 = 15;

    /// `None` for application layer feedback of another kind.
    pub(super) fn parse(body: &'a [u8]) -> Result<Option<Self>, ParseError> {
        let sender_ssrc = u32_at(body, 0).ok_or(ParseError::Length)?;
        if body.get(8..12) != Some(IDENTIFIER) {
            return Ok(None);
        }
        let word = u32_at(body, 12).ok_or(ParseError::Length)?;
        let (count, exponent, mantissa) = (word >> 24, word >> MANTISSA_BITS & 0x3F, word & 0x3_FFFF);
        let ssrcs = body[16..].get(..4 * count as usize).ok_or(ParseError::Length)?;
        let mantissa = u64::from(mantissa);
        let bitrate = if mantissa.leading_zeros() < exponent {
            u64::MAX
        } else {
            mantissa << exponent
        };
        Ok(Some(Self {
            sender_ssrc,
            bitrate,
            ssrcs,
        }))
    }

    /// The sources it is about.
    pub fn ssrcs(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.ssrcs
            .as_chunks()
            .0
            .iter()
            .map(|ssrc| u32::from_be_bytes(*ssrc))
    }
}

/// A rate of more than 18 bits is rounded down.
pub(super) fn write_body(bitrate: u64, ssrcs: &[u32], cursor: &mut Cursor<'_>) -> Result<(), WriteError> {
    let count = u8::try_from(ssrcs.len()).map_err(|_| WriteError::ValueTooLong)?;
    let exponent = (u64::BITS - bitrate.leading_zeros()).saturating_sub(MANTISSA_BITS);
    let mantissa = (bitrate >> exponent) as u32;
    cursor.put(IDENTIFIER)?;
    cursor.put_u32(u32::from(count) << 24 | exponent << MANTISSA_BITS | mantissa)?;
    ssrcs.iter().try_for_each(|ssrc| cursor.put_u32(*ssrc))
}
