//! After a kill: every lease that was open is settled with what it had reported, and the rest of it is released.
//!
//! The user loses nothing that was not used; the operator loses what was not yet reported, at most an interval.

use super::{
    LedgerError, Tally,
    account::{AccountView, Lot},
    books::{Books, LeaseView, Rows},
    embedded::{Embedded, Tables},
    journal::Kind,
};
use crate::{LeaseId, Msat, allowance::REPORT_INTERVAL, meter};
use std::collections::BTreeMap;

/// The reason on the receipts of sessions that a kill ended.
pub const REASON: &str = "relay-restarted";

/// What opening the books had to put right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Leases that were left open.
    pub leases: usize,
    /// What they had reported and is now earned.
    pub earned: Msat,
    /// What went back to its accounts.
    pub released: Msat,
    /// Revenue that may be lost: what those leases would have spent in one more report interval, at the average pace of
    /// the segment that ran, and within what they held. What was really used and not reported, nobody knows.
    pub at_risk: Msat,
}

/// What a lease may have spent after its last report.
fn at_risk(lease: &LeaseView) -> Msat {
    let used = &lease.reported;
    let second = u128::from(REPORT_INTERVAL.as_nanos() as u64);
    match used.owed(&lease.rates).checked_mul(second) {
        _ if used.nanoseconds == 0 => Msat::ZERO,
        Some(owed) => meter::closing(owed / u128::from(used.nanoseconds)).min(lease.unspent()),
        None => lease.unspent(),
    }
}

impl<R: Rows> Books<R> {
    /// Settles and takes back leases whose node is gone.
    pub fn recover(&mut self, open: &[LeaseId], reason: &str) -> Result<Recovery, LedgerError> {
        let before = self.moved.clone();
        let mut risk = Msat::ZERO;
        for lease in open {
            if let Some(row) = self.rows.lease(*lease)? {
                risk = risk.saturating_add(at_risk(&row));
            }
            let command = super::Command::Reclaim {
                lease: *lease,
                reason: reason.to_owned(),
            };
            if self.execute(&command)?.is_err() {
                return Err(LedgerError::Corrupt(format!(
                    "lease {lease} is listed as open and is not"
                )));
            }
        }
        let moved = |after: i64, before: i64| Msat::new(u64::try_from(after - before).unwrap_or(0));
        Ok(Recovery {
            leases: open.len(),
            earned: moved(self.moved.earned, before.earned),
            released: moved(self.moved.available, before.available),
            at_risk: risk,
        })
    }
}

impl Embedded {
    pub(super) fn recover(&mut self, now: u64) -> Result<Recovery, LedgerError> {
        self.commit(now, |books| {
            if !books.rows.has_tallies()? {
                books.tallies = tallies_of(&books.rows)?;
            }
            let open = books.rows.open_leases()?;
            books.recover(&open, REASON)
        })
    }
}

/// What books that are older than the tallies know of their issuers: the journal, replayed lot by lot.
fn tallies_of(tables: &Tables<'_>) -> Result<BTreeMap<String, Tally>, LedgerError> {
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    let mut accounts: BTreeMap<_, AccountView> = BTreeMap::new();
    let refundable: BTreeMap<_, bool> = tables
        .all_vouchers()?
        .into_iter()
        .map(|row| ((row.voucher.iss, row.voucher.jti), row.voucher.refundable))
        .collect();
    for entry in tables.all_entries()? {
        let account = accounts
            .entry(entry.account.clone())
            .or_insert_with(|| AccountView::empty(&entry.account));
        match entry.kind {
            Kind::Credit => {
                let Some(name) = entry.voucher else { continue };
                let tally = tallies.entry(name.iss.clone()).or_default();
                tally.vouchers += 1;
                tally.credited = tally.credited.saturating_add(entry.msat);
                let key = (name.iss, name.jti);
                let refundable = refundable.get(&key).copied().unwrap_or(true);
                if !entry.msat.is_zero() {
                    account.insert_lot(Lot {
                        iss: key.0,
                        jti: key.1,
                        refundable,
                        left: entry.msat,
                    });
                }
            }
            Kind::Settle => account.consume(
                entry.msat,
                |_| true,
                |iss, part| {
                    let tally = tallies.entry(iss.to_owned()).or_default();
                    tally.spent = tally.spent.saturating_add(part);
                },
            )?,
            Kind::Refund => account.consume(
                entry.msat,
                |lot| lot.refundable,
                |iss, part| {
                    let tally = tallies.entry(iss.to_owned()).or_default();
                    tally.refunded = tally.refunded.saturating_add(part);
                },
            )?,
            _ => {}
        }
    }
    Ok(tallies)
}
