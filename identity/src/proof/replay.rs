//! Each (`jkt`, `jti`) once. Two generations of hashes, so that forgetting costs nothing per entry: an entry lives
//! for one to two lifetimes of a nonce, and a proof needs a fresh nonce.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use super::nonce::NONCE_LIFETIME;
use crate::key::{Thumbprint, sha256};
use crate::refusal::Refusal;

/// Proofs with a token remembered per generation: 400 a second on one node. Two generations take at most 40 MB.
pub(super) const PROOFS_MAX: usize = 1 << 17;
/// Proofs without one, which anybody can make: half of that.
pub(super) const STRANGERS_MAX: usize = PROOFS_MAX / 2;
/// Of one key: several a second for five minutes, so that one key cannot fill the memory for all.
pub(super) const PROOFS_PER_KEY_MAX: u32 = 2048;

pub(super) struct ReplayCache {
    generations: Mutex<Generations>,
    capacity: usize,
    per_key: u32,
}

#[derive(Default)]
struct Generations {
    /// When the current one began, unix seconds.
    began: u64,
    current: Generation,
    previous: Generation,
}

#[derive(Default)]
struct Generation {
    seen: HashSet<[u8; 32]>,
    by_key: HashMap<Thumbprint, u32>,
}

impl ReplayCache {
    pub(super) fn new(capacity: usize, per_key: u32) -> ReplayCache {
        ReplayCache {
            generations: Mutex::default(),
            capacity,
            per_key,
        }
    }

    /// Remembers the proof, or refuses because it was seen or because there is no room to remember it.
    pub(super) fn once(&self, key: &Thumbprint, id: &str, now: u64) -> Result<(), Refusal> {
        let hash = sha256(&[key.as_bytes(), id.as_bytes()].concat());
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.turn(now);
        let Generations {
            current, previous, ..
        } = &mut *generations;
        if current.seen.contains(&hash) || previous.seen.contains(&hash) {
            return Err(Refusal::ProofReplayed);
        }
        let of_key = current.by_key.get(key).copied().unwrap_or(0);
        // Full means refuse, never forget: forgetting would let the forgotten be replayed.
        if current.seen.len() >= self.capacity || of_key >= self.per_key {
            return Err(Refusal::ProofsExhausted);
        }
        current.seen.insert(hash);
        current.by_key.insert(*key, of_key + 1);
        Ok(())
    }
}

impl Generations {
    fn turn(&mut self, now: u64) {
        // A clock set back must not keep a generation for ever, nor throw one away early.
        let age = now.saturating_sub(self.began);
        if age >= NONCE_LIFETIME {
            self.previous = std::mem::take(&mut self.current);
            if age >= 2 * NONCE_LIFETIME {
                self.previous = Generation::default();
            }
            self.began = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SigningKey;

    fn key(seed: u8) -> Thumbprint {
        SigningKey::from_seed(&[seed; 32]).public_key().thumbprint()
    }

    #[test]
    fn a_proof_id_serves_once_per_key_while_its_nonce_could_be_fresh() {
        let cache = ReplayCache::new(100, 100);
        assert_eq!(cache.once(&key(1), "a", 1000), Ok(()));
        assert_eq!(cache.once(&key(2), "a", 1000), Ok(()));
        for now in [1000, 1001, 1299, 1300] {
            assert_eq!(
                cache.once(&key(1), "a", now),
                Err(Refusal::ProofReplayed),
                "at {now}"
            );
        }
        assert_eq!(
            cache.once(&key(1), "a", 2000),
            Ok(()),
            "no nonce of that time is fresh any more"
        );
    }

    #[test]
    fn an_entry_at_the_end_of_a_generation_outlives_the_turn() {
        let cache = ReplayCache::new(100, 100);
        cache.once(&key(1), "first", 1000).unwrap();
        cache.once(&key(1), "late", 1299).unwrap();
        for now in 1300..1599 {
            assert_eq!(cache.once(&key(1), "late", now), Err(Refusal::ProofReplayed));
        }
    }

    #[test]
    fn a_full_memory_refuses_new_proofs_and_forgets_none() {
        let cache = ReplayCache::new(3, 2);
        cache.once(&key(1), "a", 1000).unwrap();
        cache.once(&key(1), "b", 1000).unwrap();
        assert_eq!(
            cache.once(&key(1), "c", 1000),
            Err(Refusal::ProofsExhausted),
            "its share is used up"
        );
        cache.once(&key(2), "a", 1000).unwrap();
        assert_eq!(cache.once(&key(3), "a", 1000), Err(Refusal::ProofsExhausted));
        assert_eq!(cache.once(&key(1), "a", 1000), Err(Refusal::ProofReplayed));
        assert_eq!(cache.once(&key(3), "a", 1300), Ok(()));
    }

    #[test]
    fn one_proof_on_many_threads_passes_once() {
        let cache = ReplayCache::new(100, 100);
        let passed = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    if cache.once(&key(1), "race", 1000).is_ok() {
                        passed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(passed.into_inner(), 1);
    }
}
