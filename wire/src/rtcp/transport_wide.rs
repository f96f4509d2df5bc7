//! Transport-wide congestion control feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1):
//! for a run of transport-wide numbers, which packets came and how far apart.
//!
//! Statuses are packed in chunks: a run of one status, fourteen one-bit statuses or seven two-bit ones. Arrival
//! times follow as deltas of 250 us, one byte (small) or two (large, or backwards).

use crate::cursor::{Cursor, u16_at, u32_at};
use crate::{ParseError, WriteError};

const NOT_RECEIVED: u8 = 0;
const SMALL_DELTA: u8 = 1;
const LARGE_DELTA: u8 = 2;

/// Statuses that the thirteen bits of a run can say.
const RUN_MAX: usize = 0x1FFF;

/// Feedback on the arrival of every packet of a transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportWideFeedback<'a> {
    /// Who reports.
    pub sender_ssrc: u32,
    /// A source of the transport.
    pub media_ssrc: u32,
    /// The first number reported on.
    pub base_sequence_number: u16,
    /// How many numbers are reported on.
    pub status_count: u16,
    /// What the first delta is relative to, in units of 64 ms; 24 bits, signed.
    pub reference_time: i32,
    /// Counts feedback packets, so that lost ones are seen.
    pub feedback_count: u8,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl<'a> TransportWideFeedback<'a> {
    pub(super) const FORMAT: u8 = 15;

    pub(super) fn parse(body: &'a [u8]) -> Result<Self, ParseError> {
        let word = |at| u32_at(body, at).ok_or(ParseError::Length);
        let (numbers, time) = (word(8)?, word(12)?);
        let status_count = numbers as u16;
        let rest = &body[16..];
        let (mut at, mut statuses, mut delta_bytes) = (0, 0, 0);
        while statuses < usize::from(status_count) {
            let chunk = Chunk(u16_at(rest, at).ok_or(ParseError::Length)?);
            let counted = chunk.len().min(usize::from(status_count) - statuses);
            delta_bytes += chunk.delta_bytes(counted);
            statuses += counted;
            at += 2;
        }
        let (chunks, rest) = rest.split_at(at);
        let deltas = rest.get(..delta_bytes).ok_or(ParseError::Length)?;
        Ok(Self {
            sender_ssrc: word(0)?,
            media_ssrc: word(4)?,
            base_sequence_number: (numbers >> 16) as u16,
            status_count,
            reference_time: time as i32 >> 8,
            feedback_count: time as u8,
            chunks,
            deltas,
        })
    }

    /// Every number with its delta to the one received before it (the first: to the reference time), in units of
    /// 250 us; `None` where it was not received. Up to 65,535 items out of a small packet.
    pub fn statuses(&self) -> Statuses<'a> {
        Statuses {
            number: self.base_sequence_number,
            left: self.status_count,
            chunks: self.chunks,
            chunk: Chunk(0),
            at: 0,
            deltas: self.deltas,
        }
    }
}

/// Iterator of [`TransportWideFeedback::statuses`].
#[derive(Clone, Debug)]
pub struct Statuses<'a> {
    number: u16,
    left: u16,
    chunks: &'a [u8],
    chunk: Chunk,
    at: usize,
    deltas: &'a [u8],
}

impl Iterator for Statuses<'_> {
    type Item = (u16, Option<i16>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        while self.at == self.chunk.len() {
            let (chunk, rest) = self.chunks.split_first_chunk()?;
            (self.chunk, self.chunks, self.at) = (Chunk(u16::from_be_bytes(*chunk)), rest, 0);
        }
        let delta = match self.chunk.status(self.at) {
            SMALL_DELTA => {
                let (&delta, rest) = self.deltas.split_first()?;
                self.deltas = rest;
                Some(i16::from(delta))
            }
            LARGE_DELTA => {
                let (delta, rest) = self.deltas.split_first_chunk()?;
                self.deltas = rest;
                Some(i16::from_be_bytes(*delta))
            }
            _ => None,
        };
        self.at += 1;
        let number = self.number;
        self.number = number.wrapping_add(1);
        Some((number, delta))
    }
}

/// A packet status chunk.
#[derive(Clone, Copy, Debug)]
struct Chunk(u16);

impl Chunk {
    const ONE_BIT_VECTOR: u16 = 0x8000;
    const TWO_BIT_VECTOR: u16 = 0xC000;

    fn is_run(self) -> bool {
        self.0 & 0x8000 == 0
    }

    fn len(self) -> usize {
        match self.0 & 0xC000 {
            Self::ONE_BIT_VECTOR => 14,
            Self::TWO_BIT_VECTOR => 7,
            _ => usize::from(self.0) & RUN_MAX,
        }
    }

    fn status(self, at: usize) -> u8 {
        match self.0 & 0xC000 {
            Self::ONE_BIT_VECTOR => (self.0 >> (13 - at) & 1) as u8,
            Self::TWO_BIT_VECTOR => (self.0 >> (12 - 2 * at) & 3) as u8,
            _ => (self.0 >> 13 & 3) as u8,
        }
    }

    /// Of its first `statuses`, at most [`Chunk::len`].
    fn delta_bytes(self, statuses: usize) -> usize {
        let size = |status| match status {
            SMALL_DELTA => 1,
            LARGE_DELTA => 2,
            _ => 0,
        };
        if self.is_run() {
            return statuses * size(self.status(0));
        }
        (0..statuses).map(|at| size(self.status(at))).sum()
    }
}

fn status(delta: Option<i16>) -> u8 {
    match delta {
        None => NOT_RECEIVED,
        Some(0..=255) => SMALL_DELTA,
        Some(_) => LARGE_DELTA,
    }
}

/// Reference time to deltas, after the two SSRCs. `arrivals` has one item a number, from the base on.
pub(super) fn write_body<I>(
    base_sequence_number: u16,
    reference_time: i32,
    feedback_count: u8,
    arrivals: I,
    cursor: &mut Cursor<'_>,
) -> Result<(), WriteError>
where
    I: IntoIterator<Item = Option<i16>> + Clone,
{
    let count = arrivals.clone().into_iter().count();
    cursor.put_u16(base_sequence_number)?;
    cursor.put_u16(u16::try_from(count).map_err(|_| WriteError::ValueTooLong)?)?;
    cursor.put_u32((reference_time as u32) << 8 | u32::from(feedback_count))?;
    write_chunks(arrivals.clone().into_iter().map(status), cursor)?;
    for delta in arrivals.into_iter().flatten() {
        match u8::try_from(delta) {
            Ok(small) => cursor.put_u8(small)?,
            Err(_) => cursor.put(&delta.to_be_bytes())?,
        }
    }
    // Zeroes without the padding bit, which only the last packet of a compound may set.
    cursor.pad_to_word(0)
}

/// Collects statuses until a chunk is full: a run while they are all the same, else a vector.
fn write_chunks(statuses: impl Iterator<Item = u8>, cursor: &mut Cursor<'_>) -> Result<(), WriteError> {
    let mut pending = Pending::default();
    for status in statuses {
        while !pending.accepts(status) {
            cursor.put_u16(pending.take(false))?;
        }
        pending.push(status);
    }
    while pending.len > 0 {
        cursor.put_u16(pending.take(true))?;
    }
    Ok(())
}

/// Statuses that no chunk holds yet.
#[derive(Default)]
struct Pending {
    /// The first fourteen; a longer run needs no more than its first.
    first: [u8; 14],
    len: usize,
    uniform: bool,
    large: bool,
}

impl Pending {
    fn accepts(&self, status: u8) -> bool {
        let uniform = self.len == 0 || self.uniform && self.first[0] == status;
        let large = self.large || status == LARGE_DELTA;
        self.len < 7 || uniform && self.len < RUN_MAX || !large && self.len < 14
    }

    fn push(&mut self, status: u8) {
        self.uniform = self.len == 0 || self.uniform && self.first[0] == status;
        self.large |= status == LARGE_DELTA;
        if let Some(slot) = self.first.get_mut(self.len) {
            *slot = status;
        }
        self.len += 1;
    }

    /// One chunk off the front. Only the last chunk may be a vector that is not full.
    fn take(&mut self, last: bool) -> u16 {
        if self.uniform && self.len > 0 {
            let chunk = u16::from(self.first[0]) << 13 | self.len as u16;
            *self = Self::default();
            return chunk;
        }
        if !self.large && (self.len == self.first.len() || last) {
            let bits = self.first[..self.len.min(14)].iter().enumerate();
            let chunk = bits.fold(Chunk::ONE_BIT_VECTOR, |chunk, (at, s)| {
                chunk | u16::from(*s) << (13 - at)
            });
            *self = Self::default();
            return chunk;
        }
        let taken = self.len.min(7);
        let symbols = self.first[..taken].iter().enumerate();
        let chunk = symbols.fold(Chunk::TWO_BIT_VECTOR, |chunk, (at, s)| {
            chunk | u16::from(*s) << (12 - 2 * at)
        });
        let (rest, len) = (self.first, self.len.min(14));
        *self = Self::default();
        rest[taken..len].iter().for_each(|status| self.push(*status));
        chunk
    }
}
