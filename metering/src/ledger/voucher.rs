//! Vouchers: credited once for ever, checked in the same commit as the balance (DESIGN 4.4).

use super::{
    Refusal, Stop,
    account::{LOTS_MAX, Lot},
    journal::{Entry, Kind, VoucherName},
    rows::{self, Books},
};
use crate::{Msat, Voucher};
use redb::ReadableTable;
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
#[derive(Serialize, Deserialize)]
struct VoucherRow {
    voucher: Voucher,
    answer: Credited,
    at: u64,
}

impl Books<'_> {
    pub(super) fn credit(&mut self, voucher: &Voucher) -> Result<Credited, Stop> {
        let name = (voucher.iss.as_str(), voucher.jti.as_str());
        if let Some(row) = rows::load::<VoucherRow>(self.vouchers.get(name)?)? {
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
        if held.is_none_or(|held| held > Msat::MAX_BALANCE)
            || self.totals.issued.checked_add(voucher.balance).is_none()
        {
            return Err(Refusal::BalanceTooLarge.into());
        }
        if account.lots.len() >= LOTS_MAX {
            return Err(Refusal::TooManyLots.into());
        }
        account.available = account.available.saturating_add(voucher.balance);
        if !voucher.balance.is_zero() {
            account.insert_lot(Lot {
                iss: voucher.iss.clone(),
                jti: voucher.jti.clone(),
                refundable: voucher.refundable,
                left: voucher.balance,
            });
        }
        let answer = Credited {
            credited: voucher.balance,
            available: account.available,
            repeated: false,
        };
        self.put_account(&account)?;
        let row = VoucherRow {
            voucher: voucher.clone(),
            answer,
            at: self.now,
        };
        self.vouchers.insert(name, rows::store(&row).as_slice())?;
        self.post(Entry {
            voucher: Some(VoucherName {
                iss: voucher.iss.clone(),
                jti: voucher.jti.clone(),
            }),
            ..Entry::new(Kind::Credit, &voucher.account, voucher.balance)
        })?;
        Ok(answer)
    }
}
