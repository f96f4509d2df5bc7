//! A sink of usage records beside everything else that happens: nodes deliver to it, note late or never what they delivered,
//! and are killed in between.

use std::collections::BTreeSet;

use metering::ledger::{Cursor, Entry, EntryId};

use super::super::*;
use super::{Luck, Node};

const NAME: &str = "webhook";

pub(super) struct Sink {
    seed: u64,
    /// Of its own: the world's history is the same with and without it.
    luck: Luck,
    /// What it was given, each entry once, in the order in which it first came.
    given: Vec<(EntryId, Entry)>,
    seen: BTreeSet<EntryId>,
    /// Of each node, what it delivered and has not noted.
    noted: BTreeMap<usize, Cursor>,
}

impl Sink {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            luck: Luck(seed ^ 0x0075_7462_6f78),
            given: Vec::new(),
            seen: BTreeSet::new(),
            noted: BTreeMap::new(),
        }
    }

    /// Some node delivers, or notes what it delivered before; one that is killed in between has forgotten it.
    pub(super) fn look(&mut self, nodes: &mut [Node], now: Instant) {
        let place = self.luck.below(nodes.len() as u64) as usize;
        let most = 1 + self.luck.below(20) as usize;
        let Some(ledger) = nodes[place].outbox(now) else {
            self.noted.remove(&place);
            return;
        };
        if let Some(cursor) = self.noted.remove(&place) {
            if self.luck.percent(70) {
                // Disks that fail and answers that are lost: then it is delivered again.
                let _ = ledger.sent(NAME, &cursor);
            }
        } else if let Ok(Some(unsent)) = ledger.unsent(NAME, most) {
            let mut cursor = unsent.cursor;
            for leaving in unsent.entries {
                cursor.pass(leaving.id);
                if self.seen.insert(leaving.id) {
                    self.given.push((leaving.id, leaving.entry));
                }
            }
            self.noted.insert(place, cursor);
        }
    }

    /// Everybody is well: what is left is delivered, and then nothing is missing.
    pub(super) fn finish(&mut self, nodes: &mut [Node], now: Instant) {
        let journal = nodes[0].books().journal(None, usize::MAX).unwrap();
        let journal: BTreeSet<EntryId> = journal.into_iter().map(|(id, _)| id).collect();
        for _ in 0..100_000 {
            if self.seen.len() >= journal.len() {
                break;
            }
            self.look(nodes, now);
        }
        assert_eq!(
            self.seen, journal,
            "seed {}: a record was lost, or made up",
            self.seed
        );
        let mut numbers: BTreeMap<&AccountId, u64> = BTreeMap::new();
        for (id, entry) in &self.given {
            if let Some(number) = entry.number {
                let last = numbers.entry(&entry.account).or_default();
                assert_eq!(number, *last + 1, "seed {}: {id} out of order", self.seed);
                *last = number;
            }
        }
    }
}
