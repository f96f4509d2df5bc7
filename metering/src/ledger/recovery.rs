//! After a kill: every lease that was open is settled with what it had reported, and the rest of it is released.
//!
//! The user loses nothing that was not used; the operator loses what was not yet reported, at most an interval.

use super::{Ledger, LedgerError, Stop, rows::Books};
use crate::{LeaseId, Msat};
use redb::ReadableTable;

/// The reason on the receipts of sessions that a kill ended.
const REASON: &str = "relay-restarted";

/// What opening the books had to put right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Leases that were left open.
    pub leases: usize,
    /// What they had reported and is now earned.
    pub earned: Msat,
    /// What went back to its accounts.
    pub released: Msat,
}

impl Ledger {
    pub(super) fn recover(&mut self, now: u64) -> Result<Recovery, LedgerError> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_two_phase_commit(true);
        let mut recovery = Recovery::default();
        {
            let mut books = Books::open(&transaction, now)?;
            let before = books.totals.clone();
            let open: Vec<LeaseId> = books
                .open_leases
                .iter()?
                .map(|row| row.map(|(id, _)| LeaseId::new(id.value())))
                .collect::<Result<_, _>>()?;
            for lease in &open {
                match books.reclaim(*lease, REASON) {
                    Ok(_) => {}
                    Err(Stop::Refused(_)) => {
                        return Err(LedgerError::Corrupt(format!(
                            "lease {lease} is listed as open and is not"
                        )));
                    }
                    Err(Stop::Broken(error)) => return Err(error),
                }
            }
            recovery.leases = open.len();
            recovery.earned = books.totals.earned.saturating_sub(before.earned);
            recovery.released = books.totals.available.saturating_sub(before.available);
            books.close()?;
        }
        transaction.commit()?;
        Ok(recovery)
    }
}
