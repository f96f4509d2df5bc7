//! Credit on somebody's word, and sums that may not pass a ceiling: both are checked in the commit that moves the money,
//! so that they hold on every node, through races, restarts and restorations.
//!
//! An account may go below zero by its line and no further. What it owes is filled by whatever comes in next,
//! promotional or not, before anything of it is available; it is never paid back. What all accounts owe on the word of
//! one scorer is one sum, which has a ceiling of its own.

use super::{
    LedgerError, Outcome, Stop,
    account::AccountView,
    books::{Books, Rows},
    journal::{Entry, Kind},
};
use crate::{AccountId, Msat, Rates};
use serde::{Deserialize, Serialize};

/// A named sum and the most that it may come to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ceiling {
    /// Names the sum; for one that is of a day, with the day.
    pub name: String,
    /// The most that it may come to.
    pub max: Msat,
    /// Unix seconds after which nobody asks for it any more; [`Ceiling::LASTING`] for one that is never forgotten.
    pub until: u64,
}

impl Ceiling {
    /// Of a sum that goes down again by itself: credit that is owed.
    pub const LASTING: u64 = i64::MAX as u64;
}

/// How far below zero an account may go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreditLine {
    /// The line.
    pub msat: Msat,
    /// What all that is owed on the same word has to stay within; lasting.
    pub within: Ceiling,
    /// Unix seconds until which it may be drawn on. What is owed then stays owed.
    pub until: u64,
}

/// Within what a voucher is credited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Sums that it counts against.
    pub ceilings: Vec<Ceiling>,
    /// What its issuer may have outstanding, where that is another amount than the ledger's own.
    pub outstanding_max: Option<Msat>,
    /// It is a free allowance: the memo account hears of it.
    pub allowance: bool,
}

/// On which conditions a lease is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Within what its voucher is credited. One that does not fit is left uncredited, and the lease opened all the same.
    pub bounds: Bounds,
    /// The account's line from now on; none leaves it as it is.
    pub credit: Option<CreditLine>,
    /// It costs nothing: the lease's rates are to be zero, and what these would have come to goes to the memo account.
    pub free_instead_of: Option<Rates>,
}

impl AccountView {
    /// What it has: below zero where it owes.
    pub fn balance(&self) -> i64 {
        let signed = |msat: Msat| i64::try_from(msat.get()).unwrap_or(i64::MAX);
        signed(self.available).saturating_sub(signed(self.owed))
    }

    /// What it may still draw on credit at a time (Unix seconds), as far as the account alone is concerned.
    pub fn credit_left(&self, unix_seconds: u64) -> Msat {
        match &self.credit {
            Some(line) if line.until > unix_seconds => line.msat.saturating_sub(self.owed),
            _ => Msat::ZERO,
        }
    }

    /// Spent, and not paid for yet. There are no lots while there is any.
    pub(super) fn debt(&self) -> Msat {
        self.owed
            .saturating_sub(self.available)
            .saturating_sub(self.reserved)
    }
}

impl<R: Rows> Books<R> {
    /// What an account can spend: what is available, and what it may draw.
    pub(super) fn spendable(&mut self, account: &AccountView) -> Result<Msat, LedgerError> {
        let left = account.credit_left(self.now / 1_000_000_000);
        let Some(line) = account.credit.as_ref().filter(|_| !left.is_zero()) else {
            return Ok(account.available);
        };
        let used = self.rows.ceiling(&line.within)?;
        let left = left.min(line.within.max.saturating_sub(used));
        Ok(account.available.saturating_add(left))
    }

    /// Takes from what is available, and draws the rest.
    pub(super) fn take(&mut self, row: &mut AccountView, msat: Msat) -> Result<(), LedgerError> {
        let own = msat.min(row.available);
        let drawn = msat.saturating_sub(own);
        row.available = row.available.saturating_sub(own);
        if drawn.is_zero() {
            return Ok(());
        }
        let owed = row.owed.saturating_add(drawn);
        let line = row.credit.clone().filter(|line| owed <= line.msat);
        let line =
            line.ok_or_else(|| LedgerError::Corrupt("an account lacks what it has available".into()))?;
        row.owed = owed;
        let used = self.rows.ceiling(&line.within)?.saturating_add(drawn);
        if used > line.within.max {
            return Err(LedgerError::Corrupt("credit passes its ceiling".into()));
        }
        self.put_ceiling(&line.within, used)
    }

    /// Fills what is owed, and makes the rest available.
    pub(super) fn fill(&mut self, row: &mut AccountView, msat: Msat) -> Result<(), LedgerError> {
        let part = msat.min(row.owed);
        row.available = row.available.saturating_add(msat.saturating_sub(part));
        if part.is_zero() {
            return Ok(());
        }
        row.owed = row.owed.saturating_sub(part);
        let Some(line) = row.credit.clone() else {
            return Err(LedgerError::Corrupt("an account owes on nobody's word".into()));
        };
        let used = self.rows.ceiling(&line.within)?;
        let used = used
            .checked_sub(part)
            .ok_or_else(|| LedgerError::Corrupt("less credit is counted than is owed".into()))?;
        self.put_ceiling(&line.within, used)
    }

    /// An account's line from now on.
    pub(super) fn grant_line(&mut self, account: &AccountId, line: &CreditLine) -> Result<Outcome, Stop> {
        let mut row = self.account(account)?;
        self.set_line(&mut row, line)?;
        Ok(Outcome::LineGranted(
            row.credit.map_or(Msat::ZERO, |line| line.msat),
        ))
    }

    /// The same, of a row that was read. What is owed on another's word moves to this one's, or, where it does not fit
    /// there, the line stays as it was.
    pub(super) fn set_line(&mut self, row: &mut AccountView, line: &CreditLine) -> Result<(), LedgerError> {
        if row.credit.as_ref() == Some(line) {
            return Ok(());
        }
        if let Some(old) = row.credit.clone()
            && old.within.name != line.within.name
            && !row.owed.is_zero()
        {
            let used = self.rows.ceiling(&line.within)?.saturating_add(row.owed);
            if used > line.within.max {
                return Ok(());
            }
            self.put_ceiling(&line.within, used)?;
            let used = self.rows.ceiling(&old.within)?.saturating_sub(row.owed);
            self.put_ceiling(&old.within, used)?;
        }
        let before = row.credit.as_ref().map_or(Msat::ZERO, |line| line.msat);
        row.credit = Some(line.clone());
        if before != line.msat {
            let entry = Entry::new(Kind::Line, &row.account, line.msat);
            self.post(row, entry)?;
        }
        self.put_account(row)
    }

    /// Whether so much more fits below every ceiling.
    pub(super) fn fits(&mut self, ceilings: &[Ceiling], msat: Msat) -> Result<bool, LedgerError> {
        for ceiling in ceilings {
            if self.rows.ceiling(ceiling)?.saturating_add(msat) > ceiling.max {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Counts it against every ceiling.
    pub(super) fn count(&mut self, ceilings: &[Ceiling], msat: Msat) -> Result<(), LedgerError> {
        for ceiling in ceilings {
            let used = self.rows.ceiling(ceiling)?.saturating_add(msat);
            self.put_ceiling(ceiling, used)?;
        }
        Ok(())
    }

    fn put_ceiling(&mut self, ceiling: &Ceiling, used: Msat) -> Result<(), LedgerError> {
        self.rows.put_ceiling(ceiling, used, self.now / 1_000_000_000)
    }
}
