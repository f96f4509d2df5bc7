//! An account: what is available, what is set aside, what was spent, and the lots it came in.
//!
//! A lot is what is left of one voucher. Non-refundable lots are spent first, so that promotional credit is never
//! paid out as money, and within each sort the oldest.

use super::{
    LedgerError, Outcome, Refusal, Stop,
    books::{Books, Rows, Tally},
    credit::CreditLine,
    journal::{Entry, EntryId, Kind},
};
use crate::{AccountId, Msat};
use serde::{Deserialize, Serialize};

/// Vouchers of one account that have something left. An account is one row, which a settlement rewrites.
pub(super) const LOTS_MAX: usize = 1_024;

/// What is left of one voucher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lot {
    /// DID of the issuer.
    pub iss: String,
    /// The issuer's name for the voucher.
    pub jti: String,
    /// Whether it is paid back on request.
    pub refundable: bool,
    /// What is left of it: available or set aside.
    pub left: Msat,
}

/// An account as the books have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountView {
    /// Its name.
    pub account: AccountId,
    /// Free to spend; nothing while it owes.
    pub available: Msat,
    /// By how much it is below zero.
    #[serde(default, skip_serializing_if = "owes_nothing")]
    pub owed: Msat,
    /// How far below it may go; kept past its end while something is owed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credit: Option<CreditLine>,
    /// Set aside for leases.
    pub reserved: Msat,
    /// Spent over its life.
    pub spent: Msat,
    /// Paid back over its life.
    pub refunded: Msat,
    /// What it came in, in the order it is spent. They add up to available and reserved.
    pub lots: Vec<Lot>,
    /// Sessions that hold a lease now.
    pub live_sessions: u32,
    /// It may not spend.
    pub frozen: bool,
    /// Journal entries that moved it; the latest has this number.
    #[serde(default)]
    pub entries: u64,
    /// Settlements, numbered without gaps; the latest has this number.
    #[serde(default)]
    pub settlements: u64,
    /// Top-ups that it waits for.
    #[serde(default)]
    pub open_top_ups: u32,
}

impl AccountView {
    /// An account that nobody has credited yet.
    pub fn empty(account: &AccountId) -> Self {
        Self {
            account: account.clone(),
            available: Msat::ZERO,
            owed: Msat::ZERO,
            credit: None,
            reserved: Msat::ZERO,
            spent: Msat::ZERO,
            refunded: Msat::ZERO,
            lots: Vec::new(),
            live_sessions: 0,
            frozen: false,
            entries: 0,
            settlements: 0,
            open_top_ups: 0,
        }
    }

    /// Takes `msat` out of the lots, in their order, choosing those that `from` allows, and says whose they were.
    pub(super) fn consume(
        &mut self,
        msat: Msat,
        from: impl Fn(&Lot) -> bool,
        mut of: impl FnMut(&str, Msat),
    ) -> Result<(), LedgerError> {
        let mut due = msat;
        for lot in self.lots.iter_mut().filter(|lot| from(lot)) {
            let part = due.min(lot.left);
            lot.left = lot.left.saturating_sub(part);
            if !part.is_zero() {
                of(&lot.iss, part);
            }
            due = due.saturating_sub(part);
        }
        self.lots.retain(|lot| !lot.left.is_zero());
        if due.is_zero() {
            Ok(())
        } else {
            Err(LedgerError::Corrupt(format!("the lots lack {due}")))
        }
    }

    /// Adds a lot where it belongs in the order of spending.
    pub(super) fn insert_lot(&mut self, lot: Lot) {
        let at = if lot.refundable {
            self.lots.len()
        } else {
            self.lots.partition_point(|lot| !lot.refundable)
        };
        self.lots.insert(at, lot);
    }

    /// What would be paid back now: available, and in lots that are refundable. Leases spend the non-refundable
    /// first, but may reach into the rest: they keep what they hold.
    pub fn refundable(&self) -> Msat {
        let refundable = self
            .lots
            .iter()
            .filter(|lot| lot.refundable)
            .fold(Msat::ZERO, |sum, lot| sum.saturating_add(lot.left));
        let promotional = self.lots_total().saturating_sub(refundable);
        let held_of_refundable = self.reserved.saturating_sub(promotional);
        refundable.saturating_sub(held_of_refundable).min(self.available)
    }

    pub(super) fn lots_total(&self) -> Msat {
        self.lots
            .iter()
            .fold(Msat::ZERO, |sum, lot| sum.saturating_add(lot.left))
    }

    /// True when the lots add up to what is there and paid for, within the largest balance.
    pub fn adds_up(&self) -> bool {
        let Some(held) = self.available.checked_add(self.reserved) else {
            return false;
        };
        held.saturating_sub(self.owed) == self.lots_total()
            && held <= Msat::MAX_BALANCE
            && (self.owed.is_zero() || (self.available.is_zero() && self.credit.is_some()))
    }
}

/// What most rows need not say.
fn owes_nothing(owed: &Msat) -> bool {
    owed.is_zero()
}

fn lacks(what: &str) -> LedgerError {
    LedgerError::Corrupt(format!("an account lacks what it has {what}"))
}

impl<R: Rows> Books<R> {
    pub(super) fn account(&mut self, account: &AccountId) -> Result<AccountView, LedgerError> {
        let row = self.rows.account(account)?;
        Ok(row.unwrap_or_else(|| AccountView::empty(account)))
    }

    pub(super) fn put_account(&mut self, row: &AccountView) -> Result<(), LedgerError> {
        if !row.adds_up() {
            return Err(LedgerError::Corrupt(format!(
                "the lots of {:?} do not add up",
                row.account
            )));
        }
        self.rows.put_account(row)
    }

    /// Available to reserved, on credit where the account may. A free lease of somebody new is in the
    /// journal as well.
    pub(super) fn reserve(&mut self, row: &mut AccountView, entry: Entry) -> Result<(), LedgerError> {
        if entry.msat.is_zero() && row.entries > 0 {
            return Ok(());
        }
        self.take(row, entry.msat)?;
        row.reserved = row.reserved.saturating_add(entry.msat);
        self.post(row, entry).map(drop)
    }

    /// Reserved to available.
    pub(super) fn unreserve(&mut self, row: &mut AccountView, entry: Entry) -> Result<(), LedgerError> {
        if entry.msat.is_zero() {
            return Ok(());
        }
        row.reserved = row
            .reserved
            .checked_sub(entry.msat)
            .ok_or_else(|| lacks("reserved"))?;
        self.fill(row, entry.msat)?;
        self.post(row, entry).map(drop)
    }

    /// Reserved to earned. An entry of nothing is kept too: it is usage. Returns the entry and the settlement's number.
    pub(super) fn earn(
        &mut self,
        row: &mut AccountView,
        mut entry: Entry,
    ) -> Result<(EntryId, u64), LedgerError> {
        row.reserved = row
            .reserved
            .checked_sub(entry.msat)
            .ok_or_else(|| lacks("reserved"))?;
        row.spent = row.spent.saturating_add(entry.msat);
        let mut of = Vec::new();
        // What the lots do not pay for is paid by the next credit.
        let paid = entry.msat.min(row.lots_total());
        row.consume(paid, |_| true, |iss, part| of.push((iss.to_owned(), part)))?;
        for (iss, spent) in of {
            self.tally(&iss, |tally| tally.spent = tally.spent.saturating_add(spent));
        }
        row.settlements += 1;
        entry.settlement = Some(row.settlements);
        Ok((self.post(row, entry)?, row.settlements))
    }

    pub(super) fn freeze(&mut self, account: &AccountId, frozen: bool) -> Result<Outcome, Stop> {
        let mut row = self.account(account)?;
        if row.frozen != frozen {
            row.frozen = frozen;
            let kind = if frozen { Kind::Freeze } else { Kind::Unfreeze };
            self.post(&mut row, Entry::new(kind, account, Msat::ZERO))?;
            self.put_account(&row)?;
            self.rows.note_freeze()?;
        }
        Ok(Outcome::Frozen(frozen))
    }

    /// Pays back what is available and refundable. What is set aside for live sessions is not available.
    pub(super) fn refund(&mut self, account: &AccountId, reason: &str) -> Result<Outcome, Stop> {
        let row = self.account(account)?;
        let msat = row.refundable();
        if msat.is_zero() {
            return Err(Refusal::BalanceExhausted {
                available: row.available,
            }
            .into());
        }
        self.pay_back(account, msat, reason)
    }

    /// Pays so much back, which must be there and refundable.
    pub(super) fn pay_back(
        &mut self,
        account: &AccountId,
        msat: Msat,
        reason: &str,
    ) -> Result<Outcome, Stop> {
        let mut row = self.account(account)?;
        if row.refundable() < msat {
            return Err(Refusal::BalanceExhausted {
                available: row.available,
            }
            .into());
        }
        row.available = row
            .available
            .checked_sub(msat)
            .ok_or_else(|| lacks("available"))?;
        row.refunded = row.refunded.saturating_add(msat);
        let mut of = Vec::new();
        row.consume(
            msat,
            |lot| lot.refundable,
            |iss, part| of.push((iss.to_owned(), part)),
        )?;
        for (iss, part) in of {
            self.tally(&iss, |tally| tally.refunded = tally.refunded.saturating_add(part));
        }
        let entry = Entry {
            reason: Some(reason.to_owned()),
            ..Entry::new(Kind::Refund, account, msat)
        };
        self.post(&mut row, entry)?;
        self.put_account(&row)?;
        Ok(Outcome::Released(msat))
    }

    /// Adds to what is known of an issuer.
    pub(super) fn tally(&mut self, iss: &str, change: impl FnOnce(&mut Tally)) {
        change(self.tallies.entry(iss.to_owned()).or_default());
    }
}
