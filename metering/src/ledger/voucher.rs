//! Vouchers: credited once for ever, checked in the same commit as the balance (DESIGN 4.4).

use super::{
    Bounds, Refusal, Stop,
    account::{LOTS_MAX, Lot},
    books::{Books, Rows},
    journal::{Entry, Kind, VoucherName},
};
use crate::{Msat, Voucher};
use serde::{Deserialize, Serialize};

/// What a voucher did. `credited` and `available` are those of the first time; `repeated` says whether this was it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credited {
    /// What was added.
    pub credited: Msat,
    /// What was available right after.
    pub available: Msat,
    /// It had been credited before, and nothing happened.
    pub repeated: bool,
}

/// The row that makes (`iss`, `jti`) unique.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoucherRow {
    /// What it claimed.
    pub voucher: Voucher,
    /// What was answered.
    pub answer: Credited,
    /// Unix nanoseconds of the credit.
    pub at: u64,
}

impl<R: Rows> Books<R> {
    /// Credits a voucher, once. `reason`: the operator's, where it is a gift of the operator's.
    pub(super) fn credit(
        &mut self,
        voucher: &Voucher,
        reason: Option<&str>,
        bounds: &Bounds,
    ) -> Result<Credited, Stop> {
        self.credit_once(voucher, reason, bounds, true)
    }

    /// Credits what was paid for with money, once. No issuer stands for it, so no issuer's limit applies.
    pub(super) fn credit_paid(&mut self, voucher: &Voucher) -> Result<Credited, Stop> {
        self.credit_once(voucher, None, &Bounds::default(), false)
    }

    fn credit_once(
        &mut self,
        voucher: &Voucher,
        reason: Option<&str>,
        bounds: &Bounds,
        is_promise: bool,
    ) -> Result<Credited, Stop> {
        let name = VoucherName {
            iss: voucher.iss.clone(),
            jti: voucher.jti.clone(),
        };
        if let Some(row) = self.rows.voucher(&name)? {
            if !row.voucher.same_claims(voucher) {
                return Err(Refusal::VoucherConflict.into());
            }
            return Ok(Credited {
                repeated: true,
                ..row.answer
            });
        }
        let mut account = self.account(&voucher.account)?;
        let held = account
            .available
            .checked_add(account.reserved)
            .and_then(|held| held.checked_add(voucher.balance));
        if held.is_none_or(|held| held > Msat::MAX_BALANCE) || !self.has_room_for(voucher.balance) {
            return Err(Refusal::BalanceTooLarge.into());
        }
        if is_promise
            && let Some(most) = bounds.outstanding_max.or(self.limits.of(&voucher.iss))
            && self.outstanding(&voucher.iss)?.saturating_add(voucher.balance) > most
        {
            return Err(Refusal::IssuerLimit.into());
        }
        if account.lots.len() >= LOTS_MAX {
            return Err(Refusal::TooManyLots.into());
        }
        if !self.fits(&bounds.ceilings, voucher.balance)? {
            return Err(Refusal::CeilingReached.into());
        }
        self.count(&bounds.ceilings, voucher.balance)?;
        let debt = account.debt().min(voucher.balance);
        self.fill(&mut account, voucher.balance)?;
        if !voucher.balance.is_zero() {
            account.insert_lot(Lot {
                iss: voucher.iss.clone(),
                jti: voucher.jti.clone(),
                refundable: voucher.refundable,
                left: voucher.balance,
            });
        }
        // What was spent on credit is what this voucher is spent on first.
        let mut settled = Msat::ZERO;
        account.consume(debt, |_| true, |_, part| settled = settled.saturating_add(part))?;
        let answer = Credited {
            credited: voucher.balance,
            available: account.available,
            repeated: false,
        };
        let row = VoucherRow {
            voucher: voucher.clone(),
            answer,
            at: self.now,
        };
        self.rows.put_voucher(&name, &row)?;
        let entry = Entry {
            voucher: Some(name),
            reason: reason.map(str::to_owned),
            ..Entry::new(Kind::Credit, &voucher.account, voucher.balance)
        };
        self.post(&mut account, entry)?;
        self.put_account(&account)?;
        self.tally(&voucher.iss, |tally| {
            tally.vouchers += 1;
            tally.credited = tally.credited.saturating_add(voucher.balance);
            tally.spent = tally.spent.saturating_add(settled);
        });
        if bounds.allowance && !voucher.balance.is_zero() {
            self.append(Entry::new(Kind::Allowance, &voucher.account, voucher.balance))?;
        }
        Ok(answer)
    }
}
