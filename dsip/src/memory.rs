//! Envelope ids seen in the last 120 s, bounded, shared by all connections of a node.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest;

use crate::receiver::TS_WINDOW;

/// Ids per generation; two generations of 32-byte hashes are about 8 MB.
pub const IDS_MAX: usize = 1 << 16;

/// How long an id is remembered at least, seconds: an envelope is acceptable from `TS_WINDOW` before its `ts` to
/// `TS_WINDOW` after.
const REMEMBERED: u64 = 120;
const _: () = assert!(REMEMBERED >= 2 * TS_WINDOW);

/// Remembers (key, id) pairs. When an attacker's fresh keys fill it, the older half is forgotten early: a replayed
/// invite or update still fails, because a connection's challenge serves only that connection.
#[derive(Default)]
pub struct Memory(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    began: u64,
    current: HashSet<[u8; 32]>,
    previous: HashSet<[u8; 32]>,
}

impl Memory {
    /// An empty memory.
    pub fn new() -> Memory {
        Memory::default()
    }

    /// True the first time, false for a replay.
    #[must_use]
    pub(crate) fn is_new(&self, kid: &str, id: &str, now: u64) -> bool {
        // A DID URL contains no NUL, so the pairs cannot run into each other.
        let hash = digest::digest(&digest::SHA256, format!("{kid}\0{id}").as_bytes());
        let hash: [u8; 32] = hash.as_ref().try_into().expect("SHA-256 has 32 bytes");
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let age = now.saturating_sub(generations.began);
        if age >= REMEMBERED || generations.current.len() >= IDS_MAX {
            generations.previous = std::mem::take(&mut generations.current);
            if age >= 2 * REMEMBERED {
                generations.previous.clear();
            }
            generations.began = now;
        }
        !generations.previous.contains(&hash) && generations.current.insert(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_remembered_for_120_seconds_per_key() {
        let memory = Memory::new();
        assert!(memory.is_new("a", "1", 1000));
        assert!(memory.is_new("b", "1", 1000));
        assert!(memory.is_new("a", "2", 1119));
        for now in [1000, 1060, 1119, 1120, 1238] {
            assert!(!memory.is_new("a", "2", now), "at {now}");
        }
        assert!(memory.is_new("a", "1", 2000));
    }

    #[test]
    fn the_memory_is_bounded_and_keeps_the_newest() {
        let memory = Memory::new();
        for id in 0..3 * IDS_MAX {
            assert!(memory.is_new("a", &id.to_string(), 1000));
        }
        assert!(!memory.is_new("a", &(3 * IDS_MAX - 1).to_string(), 1000));
        let generations = memory.0.lock().unwrap();
        assert!(generations.current.len() + generations.previous.len() <= 2 * IDS_MAX);
    }
}
