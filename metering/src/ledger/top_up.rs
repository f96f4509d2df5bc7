//! Top-ups with money from outside: begun before anything is asked of a Lightning node or a mint, credited once when it
//! has arrived, in the commit that says so.
//!
//! A top-up's name is the payment's own: a Lightning payment hash, or the hash of the coins of a Cashu token. So one
//! payment is one row, whoever claims it and on whatever node, and its credit is the voucher (method, name). What the
//! method needs to get at the money after a crash lies in `detail`, which is not looked at here.

use super::{
    Outcome, Refusal, Stop,
    books::{Books, Rows},
    vouchers::Credited,
};
use crate::{AccountId, Msat, Voucher};
use serde::{Deserialize, Serialize};

/// Where a top-up stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TopUpState {
    /// The money may still come.
    Open,
    /// It came and was credited.
    Settled,
    /// It did not come: nothing was paid, or somebody else had spent it.
    Failed,
}

/// A top-up as the books have it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopUp {
    /// The payment's own name.
    pub id: String,
    /// How it is paid: "lightning" or "cashu". The issuer of its voucher.
    pub method: String,
    /// Whose account it is for.
    pub account: AccountId,
    /// What it adds.
    pub msat: Msat,
    /// Where it stands.
    pub state: TopUpState,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Unix nanoseconds of the beginning.
    pub begun: u64,
    /// Unix nanoseconds of the last change.
    pub changed: u64,
    /// Unix seconds: nobody should pay later. 0: no such time.
    pub expires: u64,
    /// The operator has taken the coins out.
    #[serde(default)]
    pub exported: bool,
    /// What the method needs: an invoice; or coins, and what they are exchanged for. Money: not for logs.
    pub detail: serde_json::Value,
}

// Neither the payer nor the money prints.
impl std::fmt::Debug for TopUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopUp")
            .field("method", &self.method)
            .field("account", &self.account)
            .field("msat", &self.msat)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl TopUp {
    /// One that begins now; the commit sets the times.
    pub fn new(id: &str, method: &str, account: &AccountId, msat: Msat, detail: serde_json::Value) -> Self {
        Self {
            id: id.to_owned(),
            method: method.to_owned(),
            account: account.clone(),
            msat,
            state: TopUpState::Open,
            reason: None,
            begun: 0,
            changed: 0,
            expires: 0,
            exported: false,
            detail,
        }
    }
}

impl<R: Rows> Books<R> {
    /// Begins a top-up, unless it was begun before: then it is shown as it stands. One that failed may be begun again, by
    /// anybody: it credited nobody.
    pub(super) fn begin_top_up(&mut self, new: &TopUp, open_max: u32) -> Result<Outcome, Stop> {
        if let Some(row) = self.rows.top_up(&new.id)?
            && row.state != TopUpState::Failed
        {
            if row.account != new.account || row.method != new.method {
                return Err(Refusal::TopUpTaken.into());
            }
            return Ok(shown(row, None, true));
        }
        let mut account = self.account(&new.account)?;
        let held = account
            .available
            .checked_add(account.reserved)
            .and_then(|held| held.checked_add(new.msat));
        if held.is_none_or(|held| held > Msat::MAX_BALANCE) {
            return Err(Refusal::BalanceTooLarge.into());
        }
        if account.open_top_ups >= open_max {
            return Err(Refusal::TooManyTopUps.into());
        }
        account.open_top_ups += 1;
        self.put_account(&account)?;
        let row = TopUp {
            state: TopUpState::Open,
            reason: None,
            begun: self.now,
            changed: self.now,
            exported: false,
            ..new.clone()
        };
        self.rows.put_top_up(&row)?;
        Ok(shown(row, None, false))
    }

    /// The money is there: credits it, once, whatever was thought of the top-up before.
    pub(super) fn settle_top_up(
        &mut self,
        id: &str,
        account: &AccountId,
        operator: &str,
        detail: &serde_json::Value,
    ) -> Result<Outcome, Stop> {
        let mut row = self.own_top_up(id, account)?;
        let voucher = Voucher {
            iss: row.method.clone(),
            jti: row.id.clone(),
            sub: account.as_str().to_owned(),
            payer: None,
            aud: operator.to_owned(),
            balance: row.msat,
            account: account.clone(),
            // It was paid for with money.
            refundable: true,
        };
        let credited = self.credit_paid(&voucher)?;
        if row.state == TopUpState::Settled {
            return Ok(shown(row, Some(credited), true));
        }
        if row.state == TopUpState::Open {
            self.close_top_up(account)?;
        }
        row.state = TopUpState::Settled;
        row.reason = None;
        row.changed = self.now;
        row.detail = detail.clone();
        self.rows.put_top_up(&row)?;
        Ok(shown(row, Some(credited), false))
    }

    /// The money will not come.
    pub(super) fn fail_top_up(
        &mut self,
        id: &str,
        account: &AccountId,
        reason: &str,
    ) -> Result<Outcome, Stop> {
        let mut row = self.own_top_up(id, account)?;
        if row.state != TopUpState::Open {
            return Ok(shown(row, None, true));
        }
        self.close_top_up(account)?;
        row.state = TopUpState::Failed;
        row.reason = Some(reason.to_owned());
        row.changed = self.now;
        self.rows.put_top_up(&row)?;
        Ok(shown(row, None, false))
    }

    /// The operator has taken its coins out.
    pub(super) fn export_top_up(&mut self, id: &str) -> Result<Outcome, Stop> {
        let mut row = self.rows.top_up(id)?.ok_or(Refusal::NoSuchTopUp)?;
        let repeated = std::mem::replace(&mut row.exported, true);
        self.rows.put_top_up(&row)?;
        Ok(shown(row, None, repeated))
    }

    fn own_top_up(&mut self, id: &str, account: &AccountId) -> Result<TopUp, Stop> {
        let row = self.rows.top_up(id)?;
        row.filter(|row| row.account == *account)
            .ok_or_else(|| Refusal::NoSuchTopUp.into())
    }

    fn close_top_up(&mut self, account: &AccountId) -> Result<(), Stop> {
        let mut account = self.account(account)?;
        account.open_top_ups = account.open_top_ups.saturating_sub(1);
        Ok(self.put_account(&account)?)
    }
}

fn shown(row: TopUp, credited: Option<Credited>, repeated: bool) -> Outcome {
    Outcome::ToppedUp {
        top_up: Box::new(row),
        credited,
        repeated,
    }
}
