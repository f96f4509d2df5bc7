//! The recent packets of one published stream, by reference: what is forwarded now, and what a NACK may ask for
//! later. One history a stream, shared by all its subscribers.
//!
//! Bounded three ways: in packets (the ring), in bytes, and in time ([`AGE_MAX`]). Whatever falls out is handed
//! to the caller, who knows whose slot it is: the shard that made it takes it back into its pool, any other
//! shard lets go of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::media::Kind;
use crate::slot::Slot;

/// Video packets remembered: 2 s at 4 Mbit/s. Faster streams are bounded by this and by their bytes first.
pub(crate) const VIDEO_PACKETS: usize = 1024;
/// Audio packets remembered: 2.5 s at 50 packets a second.
pub(crate) const AUDIO_PACKETS: usize = 128;
/// Payload bytes of video remembered: 2 s at 4 Mbit/s.
const VIDEO_BYTES: usize = 1 << 20;
/// Payload bytes of audio remembered: 2 s at 256 kbit/s.
const AUDIO_BYTES: usize = 1 << 16;
/// Nobody waits longer for a retransmission: a jitter buffer gives a frame up after about a second.
pub(crate) const AGE_MAX: Duration = Duration::from_secs(2);
/// What a stream keeps when the pool runs dry: enough to forward what just came and repair a short loss.
const KEPT_MIN: u64 = 64;

const _: () = assert!(VIDEO_PACKETS.is_power_of_two() && AUDIO_PACKETS.is_power_of_two());
const _: () = assert!(KEPT_MIN < AUDIO_PACKETS as u64);

/// The first and the last index that may be there.
#[derive(Debug, Clone, Copy)]
struct Span {
    oldest: u64,
    highest: u64,
}

/// The history.
pub(crate) struct History {
    ring: Box<[Option<Arc<Slot>>]>,
    span: Option<Span>,
    bytes: usize,
    bytes_max: usize,
}

impl History {
    /// An empty history for a stream of this kind.
    pub(crate) fn new(kind: Kind) -> History {
        let (packets, bytes_max) = match kind {
            Kind::Audio => (AUDIO_PACKETS, AUDIO_BYTES),
            Kind::Video => (VIDEO_PACKETS, VIDEO_BYTES),
        };
        History {
            ring: vec![None; packets].into_boxed_slice(),
            span: None,
            bytes: 0,
            bytes_max,
        }
    }

    fn position(&self, index: u64) -> usize {
        (index as usize) & (self.ring.len() - 1)
    }

    /// Whether a packet with this index could be stored: not there yet, and not older than the ring.
    pub(crate) fn has_room(&self, index: u64) -> bool {
        let new = self.ring[self.position(index)]
            .as_ref()
            .is_none_or(|slot| slot.stored().index < index);
        let length = self.ring.len() as u64;
        new && self.span.is_none_or(|span| index + length > span.highest)
    }

    /// Remembers a packet, and forgets into `evicted` what is now too old or too much.
    ///
    /// # Errors
    /// The slot comes back, and nothing happened, when [`History::has_room`] says no.
    pub(crate) fn store(
        &mut self,
        slot: Arc<Slot>,
        mut evicted: impl FnMut(Arc<Slot>),
    ) -> Result<(), Arc<Slot>> {
        let (index, arrival) = (slot.stored().index, slot.stored().arrival);
        if !self.has_room(index) {
            return Err(slot);
        }
        let length = self.ring.len() as u64;
        if self.span.is_some_and(|span| index >= span.highest + length) {
            self.clear(&mut evicted);
        }
        let mut span = self.span.unwrap_or(Span {
            oldest: index,
            highest: index,
        });
        span.oldest = span.oldest.min(index);
        span.highest = span.highest.max(index);
        while span.highest - span.oldest >= length {
            self.forget(span.oldest, &mut evicted);
            span.oldest += 1;
        }
        self.bytes += usize::from(slot.stored().payload_length);
        let position = self.position(index);
        self.ring[position] = Some(slot);
        while span.oldest < span.highest {
            let kept = self.get(span.oldest).is_some_and(|slot| {
                let age = arrival.saturating_duration_since(slot.stored().arrival);
                age <= AGE_MAX && self.bytes <= self.bytes_max
            });
            if kept {
                break;
            }
            self.forget(span.oldest, &mut evicted);
            span.oldest += 1;
        }
        self.span = Some(span);
        Ok(())
    }

    /// The packet with this index.
    pub(crate) fn get(&self, index: u64) -> Option<&Arc<Slot>> {
        self.ring[self.position(index)]
            .as_ref()
            .filter(|slot| slot.stored().index == index)
    }

    /// The packet with this index, unless it is too old to be sent again.
    pub(crate) fn recent(&self, index: u64, now: Instant) -> Option<&Arc<Slot>> {
        let young = |slot: &&Arc<Slot>| now.saturating_duration_since(slot.stored().arrival) <= AGE_MAX;
        self.get(index).filter(young)
    }

    /// Gives up the oldest packet before its time, where there are plenty.
    pub(crate) fn shrink(&mut self) -> Option<Arc<Slot>> {
        let mut span = self.span?;
        let mut given = None;
        while given.is_none() && span.highest - span.oldest > KEPT_MIN {
            self.forget(span.oldest, &mut |slot| given = Some(slot));
            span.oldest += 1;
        }
        self.span = Some(span);
        given
    }

    /// Forgets everything into `evicted`.
    pub(crate) fn clear(&mut self, mut evicted: impl FnMut(Arc<Slot>)) {
        self.ring
            .iter_mut()
            .filter_map(Option::take)
            .for_each(&mut evicted);
        (self.span, self.bytes) = (None, 0);
    }

    fn forget(&mut self, index: u64, evicted: &mut impl FnMut(Arc<Slot>)) {
        let position = self.position(index);
        if let Some(slot) = self.ring[position].take_if(|slot| slot.stored().index == index) {
            self.bytes -= usize::from(slot.stored().payload_length);
            evicted(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::Stored;

    fn slot(index: u64, arrival: Instant, payload: &[u8]) -> Arc<Slot> {
        let mut slot = Slot::new(arrival);
        slot.room()[..payload.len()].copy_from_slice(payload);
        let stored = Stored {
            index,
            payload_length: payload.len() as u16,
            ..Stored::empty(arrival)
        };
        slot.describe(stored, &[]);
        Arc::new(slot)
    }

    fn store(history: &mut History, slot: Arc<Slot>) -> (bool, usize) {
        let mut evicted = 0;
        let stored = history.store(slot, |_| evicted += 1).is_ok();
        (stored, evicted)
    }

    fn remembered(history: &History) -> usize {
        history.ring.iter().flatten().count()
    }

    #[test]
    fn a_packet_is_found_by_its_index_until_the_ring_comes_round() {
        let now = Instant::now();
        let mut history = History::new(Kind::Audio);
        let mut evicted = 0;
        for index in 0..(AUDIO_PACKETS as u64 + 10) {
            let (stored, more) = store(&mut history, slot(index, now, &[index as u8]));
            assert!(stored);
            evicted += more;
        }
        assert_eq!(evicted, 10, "every slot comes back");
        assert!(history.get(9).is_none());
        for index in 10..(AUDIO_PACKETS as u64 + 10) {
            assert_eq!(history.get(index).unwrap().payload(), &[index as u8]);
        }
        assert!(!history.has_room(9), "older than the ring");
        assert!(!store(&mut history, slot(20, now, &[1])).0, "there already");
    }

    #[test]
    fn what_is_too_old_is_forgotten_when_something_new_comes_and_never_sent_again() {
        let now = Instant::now();
        let mut history = History::new(Kind::Video);
        for index in 5..10 {
            store(&mut history, slot(index, now, b"abc"));
        }
        let late = now + AGE_MAX + Duration::from_millis(1);
        assert!(history.recent(5, now + AGE_MAX).is_some());
        assert!(history.recent(5, late).is_none());
        assert_eq!(store(&mut history, slot(10, late, b"abc")), (true, 5));
        assert_eq!((remembered(&history), history.bytes), (1, 3));
    }

    #[test]
    fn bytes_are_bounded_whatever_the_packets() {
        let now = Instant::now();
        let mut history = History::new(Kind::Video);
        for index in 0..VIDEO_PACKETS as u64 {
            store(&mut history, slot(index, now, &[0; 1_400]));
            let real: usize = history
                .ring
                .iter()
                .flatten()
                .map(|slot| slot.payload().len())
                .sum();
            assert_eq!(history.bytes, real);
            assert!(real <= VIDEO_BYTES);
        }
        assert!(remembered(&history) > VIDEO_BYTES / 1_400 - 2);
    }

    #[test]
    fn late_packets_find_their_place_and_a_jump_forgets_everything() {
        let now = Instant::now();
        let mut history = History::new(Kind::Audio);
        store(&mut history, slot(1_000, now, b"a"));
        assert!(store(&mut history, slot(998, now, b"b")).0);
        assert!(!store(&mut history, slot(1_000 - AUDIO_PACKETS as u64, now, b"c")).0);
        assert_eq!(store(&mut history, slot(1_003, now, b"d")), (true, 0));
        assert_eq!(store(&mut history, slot(1 << 40, now, b"e")), (true, 3));
        assert_eq!((remembered(&history), history.bytes), (1, 1));
    }

    #[test]
    fn a_history_gives_up_its_oldest_packets_but_not_its_last() {
        let now = Instant::now();
        let mut history = History::new(Kind::Video);
        for index in 0..KEPT_MIN + 3 {
            store(&mut history, slot(index * 2, now, b"a"));
        }
        let given = std::iter::from_fn(|| history.shrink()).map(|slot| slot.stored().index);
        assert!(given.collect::<Vec<_>>().starts_with(&[0, 2]));
        assert!(remembered(&history) as u64 >= KEPT_MIN / 2);
    }

    #[test]
    fn random_arrivals_agree_with_a_map() {
        use rand::{RngExt, SeedableRng, rngs::StdRng};
        let mut rng = StdRng::seed_from_u64(7);
        let now = Instant::now();
        let mut history = History::new(Kind::Audio);
        let (mut at, mut held) = (500u64, 0i64);
        for _ in 0..20_000 {
            at += rng.random_range(0..3u64) + if rng.random_bool(0.001) { 300 } else { 0 };
            let index = at.saturating_sub(rng.random_range(0..140u64));
            let before = history.get(index).is_some();
            let (stored, evicted) = store(&mut history, slot(index, now, &[index as u8]));
            assert!(!(before && stored), "never twice");
            held += i64::from(stored) - evicted as i64;
            assert_eq!(held, remembered(&history) as i64, "no slot is lost");
            if stored {
                assert_eq!(history.get(index).unwrap().payload(), &[index as u8]);
            }
        }
    }
}
