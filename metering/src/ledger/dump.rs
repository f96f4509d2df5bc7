//! Whole books as a stream of rows, which either ledger writes and either reads: a backup, and the way from one to the
//! other.
//!
//! Entries come before accounts and segments, in an order in which they can have happened. Whoever loads them counts
//! each account's entries and settlements anew, for old books did not.

use super::{
    AccountView, Cursor, Denied, Entry, EntryId, Kind, LeaseView, LedgerError, SessionRow, SignedReceipt,
    Sums, Tally, TopUp, VoucherRow,
};
use crate::{AccountId, LeaseId, Msat, SessionId, receipt::Segment};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DumpRow {
    /// An entry of a journal.
    Entry(EntryId, Box<Entry>),
    /// An account.
    Account(Box<AccountView>),
    /// A voucher that was credited.
    Voucher(Box<VoucherRow>),
    /// A lease.
    Lease(LeaseId, Box<LeaseView>),
    /// A session.
    Session(SessionId, Box<SessionRow>),
    /// A settled segment, by its place in its session.
    Segment(SessionId, u32, Box<Segment>),
    /// What was set aside under a payer's grant.
    PayerGrant(String, Msat),
    /// A sum with a ceiling: its name, until when it is asked for, what it came to.
    Ceiling(String, u64, Msat),
    /// What is known of an issuer.
    Issuer(String, Tally),
    /// A signed receipt.
    Receipt(SessionId, Box<SignedReceipt>),
    /// A top-up with money from outside.
    TopUp(Box<TopUp>),
    /// Something on the deny list.
    Denied(Denied),
    /// How far a sink of usage records is. After the entries.
    Sink(String, Cursor),
}

/// Numbers rows for the books that they are loaded into: one journal, of this shard.
#[derive(Debug, Default)]
pub struct Renumbering {
    shard: u32,
    next: u64,
    commit: Option<(u32, u64)>,
    commits: u64,
    entries: BTreeMap<EntryId, EntryId>,
    accounts: HashMap<AccountId, (u64, u64)>,
    sums: Sums,
    lease_max: u64,
}

impl Renumbering {
    /// For a journal of this shard.
    pub fn new(shard: u32) -> Self {
        Self {
            shard,
            ..Self::default()
        }
    }

    /// The row as the new books have it.
    pub fn take(&mut self, row: DumpRow) -> Result<DumpRow, LedgerError> {
        Ok(match row {
            DumpRow::Entry(id, mut entry) => {
                let new = EntryId {
                    shard: self.shard,
                    number: self.next,
                };
                self.next += 1;
                let commit = (id.shard, entry.commit);
                if self.commit.replace(commit) != Some(commit) {
                    self.commits += 1;
                }
                entry.commit = self.commits - 1;
                entry.kind.move_sums(&mut self.sums, entry.msat)?;
                if entry.kind.is_of_account() {
                    let (entries, settlements) = self.accounts.entry(entry.account.clone()).or_default();
                    *entries += 1;
                    entry.number = Some(*entries);
                    if entry.kind == Kind::Settle {
                        *settlements += 1;
                        entry.settlement = Some(*settlements);
                    }
                }
                self.entries.insert(id, new);
                DumpRow::Entry(new, entry)
            }
            DumpRow::Account(mut account) => {
                let counted = self.accounts.get(&account.account).copied().unwrap_or_default();
                (account.entries, account.settlements) = counted;
                DumpRow::Account(account)
            }
            DumpRow::Segment(session, number, mut segment) => {
                segment.entry = segment.entry.and_then(|id| self.entries.get(&id).copied());
                DumpRow::Segment(session, number, segment)
            }
            DumpRow::Lease(id, lease) => {
                self.lease_max = self.lease_max.max(id.get());
                DumpRow::Lease(id, lease)
            }
            DumpRow::Sink(sink, cursor) => {
                // The first entry, as they stand now, that the sink lacks: what it has beyond that it gets again.
                let lacks = self.entries.iter().filter(|(old, _)| !cursor.has_passed(**old));
                let next = lacks.map(|(_, new)| new.number).min().unwrap_or(self.next);
                DumpRow::Sink(
                    sink,
                    Cursor {
                        journals: BTreeMap::from([(self.shard, next)]),
                        records: cursor.records,
                    },
                )
            }
            same => same,
        })
    }

    /// What the entries moved, how many commits and entries there were, and the largest number of a lease.
    pub fn finish(self) -> (Sums, u64, u64, u64) {
        (self.sums, self.commits, self.next, self.lease_max)
    }
}
