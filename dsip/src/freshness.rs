//! Freshness: an envelope counts once, and only near its time.
//!
//! `ts` has to lie within 60 s of ours, and an id is remembered for 120 s, which is the whole span in which a copy of it
//! could still pass the first check.

use std::collections::{HashSet, VecDeque};

use crate::Envelope;

/// How far `ts` may be from our clock, seconds, either way.
pub const WINDOW: u64 = 60;
/// How long an id is remembered, seconds.
pub const MEMORY: u64 = 120;

const _: () = assert!(
    MEMORY >= 2 * WINDOW,
    "an id must outlive every copy that still looks fresh"
);

/// Why a correctly signed envelope is not acted upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FreshnessError {
    /// `ts` is off by more than [`WINDOW`].
    #[error("`ts` is more than 60 s off; set the clock, and send unix seconds")]
    Stale,
    /// The sender used this `id` before.
    #[error("this `id` was used before; every envelope needs a new one")]
    Replay,
    /// As many ids as fit are remembered.
    #[error("too many envelopes in two minutes; send fewer")]
    Full,
}

/// The ids seen in the last [`MEMORY`] seconds, at most a fixed number of them.
pub struct IdMemory {
    seen: HashSet<(String, String)>,
    /// In order of arrival, with the time of it.
    order: VecDeque<(u64, (String, String))>,
    capacity: usize,
}

impl IdMemory {
    /// Remembers at most `capacity` ids; when that many are fresh, [`FreshnessError::Full`] is the answer, because
    /// forgetting one would let it be replayed.
    pub fn new(capacity: usize) -> IdMemory {
        IdMemory {
            seen: HashSet::new(),
            order: VecDeque::new(),
            capacity,
        }
    }

    /// Checks and remembers a *verified* envelope at `now` (unix seconds).
    pub fn admit(&mut self, envelope: &Envelope, now: u64) -> Result<(), FreshnessError> {
        if envelope.timestamp().abs_diff(now) > WINDOW {
            return Err(FreshnessError::Stale);
        }
        while let Some((arrived, _)) = self.order.front() {
            if now.saturating_sub(*arrived) <= MEMORY {
                break;
            }
            let (_, name) = self.order.pop_front().expect("looked at above");
            self.seen.remove(&name);
        }
        let name = (envelope.from().as_str().to_owned(), envelope.id().to_owned());
        if self.seen.contains(&name) {
            return Err(FreshnessError::Replay);
        }
        if self.seen.len() >= self.capacity {
            return Err(FreshnessError::Full);
        }
        self.seen.insert(name.clone());
        self.order.push_back((now, name));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use identity::SigningKey;

    use super::*;
    use crate::Draft;

    fn envelope(id: &str, timestamp: u64) -> Envelope {
        let key = SigningKey::from_seed(&[7; 32]);
        let draft = Draft {
            kind: "dsip.bye",
            id,
            timestamp,
            to: None,
            correlates: None,
            body: Default::default(),
        };
        Envelope::parse(&draft.sign(&key)).unwrap()
    }

    #[test]
    fn an_envelope_counts_once() {
        let mut memory = IdMemory::new(8);
        assert_eq!(memory.admit(&envelope("a", 1000), 1000), Ok(()));
        assert_eq!(
            memory.admit(&envelope("a", 1000), 1001),
            Err(FreshnessError::Replay)
        );
        assert_eq!(memory.admit(&envelope("b", 1000), 1001), Ok(()));
    }

    #[test]
    fn a_copy_cannot_outwait_the_memory() {
        let mut memory = IdMemory::new(8);
        // Signed as late as it may be, and replayed at the last moment at which it still looks fresh.
        assert_eq!(memory.admit(&envelope("a", 1060), 1000), Ok(()));
        assert_eq!(
            memory.admit(&envelope("a", 1060), 1120),
            Err(FreshnessError::Replay)
        );
        assert_eq!(
            memory.admit(&envelope("a", 1060), 1121),
            Err(FreshnessError::Stale)
        );
    }

    #[test]
    fn clocks_off_by_the_window_pass_and_past_it_do_not() {
        let mut memory = IdMemory::new(8);
        assert_eq!(memory.admit(&envelope("a", 940), 1000), Ok(()));
        assert_eq!(
            memory.admit(&envelope("b", 939), 1000),
            Err(FreshnessError::Stale)
        );
        assert_eq!(memory.admit(&envelope("c", 1060), 1000), Ok(()));
        assert_eq!(
            memory.admit(&envelope("d", 1061), 1000),
            Err(FreshnessError::Stale)
        );
    }

    #[test]
    fn a_full_memory_refuses_and_recovers_with_time() {
        let mut memory = IdMemory::new(2);
        assert_eq!(memory.admit(&envelope("a", 1000), 1000), Ok(()));
        assert_eq!(memory.admit(&envelope("b", 1000), 1000), Ok(()));
        assert_eq!(
            memory.admit(&envelope("c", 1000), 1000),
            Err(FreshnessError::Full)
        );
        assert_eq!(memory.admit(&envelope("c", 1121), 1121), Ok(()));
    }
}
