//! A shard's pool of packet slots: a fixed number, made as they are first needed and used for ever.
//!
//! The pool's shard holds a reference to every slot it made: in the pool, or in the history of one of its
//! streams. So a reference that another shard drops is never the last one, and no shard frees what it did not
//! make. What comes back while another shard still reads it waits in *limbo* until nobody does.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::discard::Discard;
use crate::slot::Slot;

/// Slots in limbo that one packet looks at: another shard lets go of its slots in about the order it got them.
const LOOKS_MAX: usize = 8;
/// Slots made at once when traffic grows beyond what it ever was: 128 KiB.
const BLOCK: usize = 64;

/// The slots of one shard.
pub(crate) struct Pool {
    /// The one that the next packet is opened into; nobody else holds it.
    spare: Option<Arc<Slot>>,
    /// Used last, used first: what is in the cache is used again.
    free: Vec<Arc<Slot>>,
    limbo: VecDeque<Arc<Slot>>,
    made: usize,
    slots_max: usize,
}

impl Pool {
    /// A pool of `slots_max` slots. Their memory is touched as traffic first needs them.
    pub(crate) fn new(slots_max: usize) -> Pool {
        Pool {
            spare: None,
            free: Vec::with_capacity(slots_max),
            limbo: VecDeque::with_capacity(slots_max),
            made: 0,
            slots_max,
        }
    }

    /// A slot that nobody else holds, to open a packet into. The same one again until [`Pool::take`] takes it.
    pub(crate) fn spare(&mut self, now: Instant) -> Result<&mut Slot, Discard> {
        if self.spare.is_none() {
            self.spare = self.unused(now);
        }
        self.spare.as_mut().and_then(Arc::get_mut).ok_or(Discard::NoSlot)
    }

    /// The slot that [`Pool::spare`] showed, written.
    pub(crate) fn take(&mut self) -> Option<Arc<Slot>> {
        self.spare.take()
    }

    /// Whether there is nothing left but what others give back.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.spare.is_none() && self.free.is_empty() && self.made == self.slots_max
    }

    /// Takes a slot back, at the latest when its shard forgets the packet.
    pub(crate) fn give(&mut self, slot: Arc<Slot>) {
        if Arc::strong_count(&slot) == 1 {
            self.free.push(slot);
        } else {
            self.limbo.push_back(slot);
        }
    }

    fn unused(&mut self, now: Instant) -> Option<Arc<Slot>> {
        if let Some(slot) = self.free.pop() {
            return Some(slot);
        }
        for _ in 0..self.limbo.len().min(LOOKS_MAX) {
            let slot = self.limbo.pop_front()?;
            if Arc::strong_count(&slot) == 1 {
                return Some(slot);
            }
            self.limbo.push_back(slot);
        }
        let more = BLOCK.min(self.slots_max - self.made);
        self.made += more;
        self.free
            .extend(std::iter::repeat_with(|| Arc::new(Slot::new(now))).take(more));
        self.free.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(pool: &mut Pool, now: Instant) -> Option<Arc<Slot>> {
        pool.spare(now).ok()?;
        pool.take()
    }

    #[test]
    fn a_pool_makes_no_more_slots_than_it_may_and_uses_each_again() {
        let now = Instant::now();
        let mut pool = Pool::new(3);
        let mut held: Vec<_> = (0..3).map(|_| next(&mut pool, now).unwrap()).collect();
        assert!(pool.is_exhausted());
        assert!(matches!(pool.spare(now), Err(Discard::NoSlot)));
        let address = Arc::as_ptr(&held[1]);
        pool.give(held.remove(1));
        assert!(!pool.is_exhausted());
        let again = next(&mut pool, now).unwrap();
        assert_eq!(Arc::as_ptr(&again), address);
        assert!(next(&mut pool, now).is_none());
    }

    #[test]
    fn a_slot_that_another_shard_reads_is_not_written_until_it_lets_go() {
        let now = Instant::now();
        let mut pool = Pool::new(2);
        let (one, two) = (next(&mut pool, now).unwrap(), next(&mut pool, now).unwrap());
        let elsewhere = Arc::clone(&one);
        pool.give(one);
        assert!(pool.spare(now).is_err(), "it is still read");
        pool.give(two);
        assert!(pool.spare(now).is_ok());
        assert!(pool.take().is_some());
        drop(elsewhere);
        assert!(pool.spare(now).is_ok(), "the last reader is gone");
    }

    #[test]
    fn a_packet_that_was_opened_but_not_taken_takes_no_slot() {
        let now = Instant::now();
        let mut pool = Pool::new(1);
        for _ in 0..10 {
            assert!(pool.spare(now).is_ok());
        }
        assert!(pool.take().is_some());
    }
}
