//! When each session is to be looked at next: a binary heap that knows where each session is in it, so that a
//! session's instant can be moved forward in place. No scan over all sessions, no allocation once all are in.

use std::time::Instant;

use crate::stream::SessionKey;

const ABSENT: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Entry {
    due: Instant,
    key: u32,
}

/// One instant a session.
pub(crate) struct Timers {
    heap: Vec<Entry>,
    /// By session: its place in the heap.
    places: Vec<u32>,
}

impl Timers {
    pub(crate) fn new() -> Timers {
        Timers {
            heap: Vec::new(),
            places: Vec::new(),
        }
    }

    /// The earliest instant.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.first().map(|entry| entry.due)
    }

    /// Sessions that have one.
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// Makes sure that the session's turn comes by `due`.
    pub(crate) fn urge(&mut self, key: SessionKey, due: Instant) {
        if self.places.len() <= key {
            self.places.resize(key + 1, ABSENT);
        }
        let place = match self.places[key] {
            ABSENT => {
                self.heap.push(Entry { due, key: key as u32 });
                self.heap.len() - 1
            }
            place => {
                let entry = &mut self.heap[place as usize];
                if entry.due <= due {
                    return;
                }
                entry.due = due;
                place as usize
            }
        };
        self.rise(place);
    }

    /// Takes out the earliest session, if its instant has come.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<SessionKey> {
        let first = self.heap.first().filter(|entry| entry.due <= now)?.key as usize;
        self.remove(first);
        Some(first)
    }

    /// Forgets a session.
    pub(crate) fn remove(&mut self, key: SessionKey) {
        let Some(&place) = self.places.get(key).filter(|place| **place != ABSENT) else {
            return;
        };
        let place = place as usize;
        self.heap.swap_remove(place);
        self.places[key] = ABSENT;
        if place < self.heap.len() {
            self.sink(place);
            self.rise(place);
        }
    }

    fn rise(&mut self, mut place: usize) {
        let entry = self.heap[place];
        while place > 0 {
            let above = (place - 1) / 2;
            if self.heap[above].due <= entry.due {
                break;
            }
            self.put(place, self.heap[above]);
            place = above;
        }
        self.put(place, entry);
    }

    fn sink(&mut self, mut place: usize) {
        let entry = self.heap[place];
        loop {
            let left = 2 * place + 1;
            let earlier = |at: &usize| self.heap[*at].due;
            let Some(below) = (left..(left + 2).min(self.heap.len())).min_by_key(earlier) else {
                break;
            };
            if entry.due <= self.heap[below].due {
                break;
            }
            self.put(place, self.heap[below]);
            place = below;
        }
        self.put(place, entry);
    }

    fn put(&mut self, place: usize, entry: Entry) {
        self.heap[place] = entry;
        self.places[entry.key as usize] = place as u32;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn the_earliest_comes_first_whatever_was_urged_and_removed() {
        let start = Instant::now();
        let mut rng = StdRng::seed_from_u64(11);
        let (mut timers, mut model) = (Timers::new(), BTreeMap::<usize, Instant>::new());
        for _ in 0..20_000 {
            let key = rng.random_range(0..50);
            let at = start + Duration::from_millis(rng.random_range(0..10_000));
            match rng.random_range(0..10) {
                0 => {
                    timers.remove(key);
                    model.remove(&key);
                }
                1..=3 => {
                    if let Some(popped) = timers.pop(at) {
                        let due = model.remove(&popped).unwrap();
                        assert!(due <= at && model.values().all(|other| *other >= due));
                    } else {
                        assert!(model.values().all(|due| *due > at));
                    }
                }
                _ => {
                    timers.urge(key, at);
                    let due = model.entry(key).or_insert(at);
                    *due = at.min(*due);
                }
            }
            assert_eq!(timers.next(), model.values().min().copied());
            assert_eq!(timers.len(), model.len());
        }
    }
}
