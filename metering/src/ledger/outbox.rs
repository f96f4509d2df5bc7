//! The outbox: the journal, as those see it who carry it out of the house. Nothing is copied: the journal is append-only,
//! so a sink is a [`Cursor`] over it that is moved once the sink has acknowledged, and a sink that is down costs no row.
//!
//! Delivered at least once: whoever is killed between the acknowledgement and the cursor's commit delivers again, under
//! the same names. Each account's entries leave in the order of their numbers, also where several nodes wrote them.

use super::journal::{Entry, EntryId};
use crate::{AccountId, Voucher};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// How far a sink is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Of each journal the first entry that was not acknowledged; a journal that is not named, its beginning.
    pub journals: BTreeMap<u32, u64>,
    /// Records that the sink has acknowledged; kept by who delivers.
    pub records: u64,
}

impl Cursor {
    /// The first entry of a journal that is not acknowledged.
    pub fn next(&self, shard: u32) -> u64 {
        self.journals.get(&shard).copied().unwrap_or_default()
    }

    /// Moves past an entry, which was the journal's next one.
    pub fn pass(&mut self, id: EntryId) {
        self.journals.insert(id.shard, id.number + 1);
    }

    /// Whether an entry was acknowledged.
    pub fn has_passed(&self, id: EntryId) -> bool {
        id.number < self.next(id.shard)
    }
}

/// One entry on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// Its name.
    pub id: EntryId,
    /// What it says.
    pub entry: Entry,
    /// Of a credit: the whole voucher.
    pub voucher: Option<Voucher>,
}

/// What a sink has not acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unsent {
    /// Where the sink is.
    pub cursor: Cursor,
    /// What comes next, in the order of delivery.
    pub entries: Vec<Leaving>,
    /// Entries that it lacks, those above among them.
    pub behind: u64,
}

/// How a sink stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkView {
    /// Its name.
    pub sink: String,
    /// How far it is.
    pub cursor: Cursor,
    /// Entries that it lacks.
    pub behind: u64,
}

/// Brings what was read of several journals into an order in which each account's entries follow their numbers. An
/// entry whose predecessor is neither in hand nor acknowledged stops its journal: `elsewhere` names those accounts.
pub fn in_account_order(
    journals: BTreeMap<u32, Vec<(EntryId, Entry)>>,
    elsewhere: &[AccountId],
) -> Vec<(EntryId, Entry)> {
    let mut next: HashMap<AccountId, u64> = HashMap::new();
    for (_, entry) in journals.values().flatten() {
        if let Some(number) = entry.number {
            let first = next.entry(entry.account.clone()).or_insert(number);
            *first = number.min(*first);
        }
    }
    for account in elsewhere {
        // Numbers begin at 1: none is the next.
        next.insert(account.clone(), 0);
    }
    let mut journals: Vec<_> = journals
        .into_values()
        .map(|journal| journal.into_iter().peekable())
        .collect();
    let mut ordered = Vec::new();
    loop {
        let before = ordered.len();
        for journal in &mut journals {
            while let Some((id, entry)) = journal.next_if(|(_, entry)| {
                entry
                    .number
                    .is_none_or(|number| next.get(&entry.account) == Some(&number))
            }) {
                if let (Some(number), Some(next)) = (entry.number, next.get_mut(&entry.account)) {
                    *next = number + 1;
                }
                ordered.push((id, entry));
            }
        }
        if ordered.len() == before {
            return ordered;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Msat, ledger::Kind};

    fn entry(shard: u32, number: u64, account: &str, of_account: Option<u64>) -> (EntryId, Entry) {
        let entry = Entry {
            number: of_account,
            ..Entry::new(Kind::Settle, &AccountId::new(account), Msat::new(1))
        };
        (EntryId { shard, number }, entry)
    }

    fn names(ordered: &[(EntryId, Entry)]) -> Vec<String> {
        ordered.iter().map(|(id, _)| id.to_string()).collect()
    }

    #[test]
    fn an_account_that_two_nodes_wrote_leaves_in_the_order_of_its_entries() {
        let journals = BTreeMap::from([
            (
                1,
                vec![entry(1, 0, "anna", Some(2)), entry(1, 1, "anna", Some(4))],
            ),
            (
                2,
                vec![
                    entry(2, 0, "anna", Some(1)),
                    entry(2, 1, "ben", None),
                    entry(2, 2, "anna", Some(3)),
                ],
            ),
        ]);
        let ordered = in_account_order(journals, &[]);
        assert_eq!(names(&ordered), ["2-0", "2-1", "1-0", "2-2", "1-1"]);
    }

    #[test]
    fn what_waits_for_an_entry_that_is_not_in_hand_stops_its_journal_and_no_other() {
        let journals = BTreeMap::from([
            (1, vec![entry(1, 0, "anna", Some(7)), entry(1, 1, "ben", Some(1))]),
            (2, vec![entry(2, 0, "carl", Some(1))]),
        ]);
        let ordered = in_account_order(journals, &[AccountId::new("anna")]);
        assert_eq!(names(&ordered), ["2-0"]);
    }
}
