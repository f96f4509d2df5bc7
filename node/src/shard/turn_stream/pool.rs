//! Buffers of connections, lent while there is something in them: an idle connection holds none. What all connections of
//! a shard hold together is bounded.

/// Holds any message, and what a client that does not read at once may leave lying: 25 ms of 20 Mbit/s and more.
pub(super) const LARGE: usize = 128 * 1024;

/// Holds what is cut off at the end of most reads: one packet.
const SMALL: usize = 2 * 1024;

/// What all connections of one shard may hold: 64 MiB.
const TOTAL_MAX: usize = 64 << 20;

/// Free buffers that are kept for the next one who needs one.
const KEPT_MAX: usize = 64;

const _: () = assert!(LARGE >= wire::stream::MESSAGE_MAX, "a whole message fits");

/// Bytes that wait.
#[derive(Debug)]
pub(super) struct Lent {
    bytes: Vec<u8>,
    large: bool,
}

impl Lent {
    /// What is in it.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How much more fits.
    pub(super) fn room(&self) -> usize {
        self.size() - self.bytes.len()
    }

    /// Adds to it. The caller has looked at the room.
    pub(super) fn extend(&mut self, more: &[u8]) {
        debug_assert!(more.len() <= self.room(), "looked at before");
        self.bytes.extend_from_slice(more);
    }

    /// Takes away what has gone.
    pub(super) fn consume(&mut self, gone: usize) {
        self.bytes.drain(..gone);
    }

    fn size(&self) -> usize {
        if self.large { LARGE } else { SMALL }
    }
}

/// The buffers of one shard.
#[derive(Default)]
pub(super) struct Pool {
    small: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
    lent: usize,
}

impl Pool {
    /// A buffer with room for so many bytes; none once too much is lent.
    pub(super) fn lend(&mut self, room: usize) -> Option<Lent> {
        let large = room > SMALL;
        let size = if large { LARGE } else { SMALL };
        if room > size || self.lent + size > TOTAL_MAX {
            return None;
        }
        self.lent += size;
        let kept = if large { &mut self.large } else { &mut self.small };
        let bytes = kept.pop().unwrap_or_else(|| Vec::with_capacity(size));
        Some(Lent { bytes, large })
    }

    /// Takes a buffer back.
    pub(super) fn give_back(&mut self, mut lent: Lent) {
        self.lent = self.lent.saturating_sub(lent.size());
        let kept = if lent.large {
            &mut self.large
        } else {
            &mut self.small
        };
        if kept.len() < KEPT_MAX {
            lent.bytes.clear();
            kept.push(lent.bytes);
        }
    }

    /// Makes room for `more` in a buffer, by a larger one if need be. False if there is none to be had.
    pub(super) fn make_room(&mut self, buffer: &mut Option<Lent>, more: usize) -> bool {
        let Some(held) = buffer else {
            *buffer = self.lend(more);
            return buffer.is_some();
        };
        if held.room() >= more {
            return true;
        }
        if held.large {
            return false;
        }
        let Some(mut larger) = self
            .lend(LARGE.min(held.bytes.len() + more))
            .filter(|lent| lent.large)
        else {
            return false;
        };
        larger.extend(held.bytes());
        if let Some(smaller) = buffer.replace(larger) {
            self.give_back(smaller);
        }
        buffer.as_ref().is_some_and(|held| held.room() >= more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lent_is_bounded_and_comes_back() {
        let mut pool = Pool::default();
        let mut held: Vec<Lent> = std::iter::from_fn(|| pool.lend(LARGE)).collect();
        assert_eq!(held.len(), TOTAL_MAX / LARGE);
        assert!(pool.lend(1).is_none());
        pool.give_back(held.pop().unwrap());
        assert!(pool.lend(1).is_some());
        held.into_iter().for_each(|lent| pool.give_back(lent));
        assert!(pool.large.len() <= KEPT_MAX);
    }

    #[test]
    fn a_buffer_grows_with_what_is_in_it_and_not_past_its_limit() {
        let (mut pool, mut buffer) = (Pool::default(), None);
        for _ in 0..LARGE / 1000 {
            assert!(pool.make_room(&mut buffer, 1000));
            buffer.as_mut().unwrap().extend(&[7; 1000]);
        }
        assert!(!pool.make_room(&mut buffer, 1000), "full");
        assert_eq!(buffer.as_ref().unwrap().bytes().len(), LARGE / 1000 * 1000);
        buffer.as_mut().unwrap().consume(500);
        assert!(pool.make_room(&mut buffer, 500));
        assert_eq!(pool.lent, LARGE, "the small one has come back");
    }
}
