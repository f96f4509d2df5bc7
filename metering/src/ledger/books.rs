//! The rules of the books, over whatever holds their rows: one commit is a [`Books`] that executes commands, and the
//! embedded and the shared ledger differ only in their [`Rows`].
//!
//! At every commit `issued = available + reserved + earned + refunded`: each entry that is posted moves the same
//! amount out of one sum and into another, and the rows change beside it.

use super::{
    AccountView, Bounds, Cap, Ceiling, Command, LedgerError, Outcome, Refusal, Stop, TopUp, VoucherRow,
    journal::{Entry, EntryId, Kind, VoucherName},
};
use crate::{
    AccountId, LeaseId, Msat, Rates, Service, SessionId, meter,
    receipt::{self, Segment},
    report::Usage,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What sessions owed beyond what their lease held.
pub(super) const MEMO_UNCOLLECTED: &str = "uncollected";
/// What was reported after the ledger had taken a lease back.
pub(super) const MEMO_OLD_EPOCH: &str = "old-epoch";
/// What emergency sessions would have cost.
pub(super) const MEMO_EMERGENCY: &str = "emergency";
/// What was given for nothing.
pub(super) const MEMO_ALLOWANCE: &str = "allowance";

/// The rows that one commit reads and writes. A row that is put is read back as it was put.
pub trait Rows {
    /// An account.
    fn account(&mut self, account: &AccountId) -> Result<Option<AccountView>, LedgerError>;
    /// Writes an account.
    fn put_account(&mut self, row: &AccountView) -> Result<(), LedgerError>;
    /// A voucher that was credited.
    fn voucher(&mut self, name: &VoucherName) -> Result<Option<VoucherRow>, LedgerError>;
    /// Writes a voucher that was not there.
    fn put_voucher(&mut self, name: &VoucherName, row: &VoucherRow) -> Result<(), LedgerError>;
    /// A top-up with money from outside.
    fn top_up(&mut self, id: &str) -> Result<Option<TopUp>, LedgerError>;
    /// Writes it.
    fn put_top_up(&mut self, row: &TopUp) -> Result<(), LedgerError>;
    /// A lease, open or not.
    fn lease(&mut self, lease: LeaseId) -> Result<Option<LeaseView>, LedgerError>;
    /// Writes a lease.
    fn put_lease(&mut self, lease: LeaseId, row: &LeaseView) -> Result<(), LedgerError>;
    /// A name for a new lease.
    fn new_lease(&mut self) -> Result<LeaseId, LedgerError>;
    /// Puts a lease on, or takes it off, the list of those that are open.
    fn list_lease(&mut self, lease: LeaseId, open: bool) -> Result<(), LedgerError>;
    /// An account's open leases, on whatever node.
    fn open_leases_of(&mut self, account: &AccountId) -> Result<Vec<LeaseId>, LedgerError>;
    /// A session.
    fn session(&mut self, session: SessionId) -> Result<Option<SessionRow>, LedgerError>;
    /// Writes a session.
    fn put_session(&mut self, session: SessionId, row: &SessionRow) -> Result<(), LedgerError>;
    /// Writes a settled segment that was not there.
    fn put_segment(&mut self, session: SessionId, number: u32, row: &Segment) -> Result<(), LedgerError>;
    /// What was set aside under a payer's grant.
    fn grant_used(&mut self, grant: &str) -> Result<Msat, LedgerError>;
    /// Writes it.
    fn put_grant_used(&mut self, grant: &str, used: Msat) -> Result<(), LedgerError>;
    /// Appends to the journal.
    fn post(&mut self, entry: Entry) -> Result<EntryId, LedgerError>;
    /// What is known of an issuer before this commit; exact, and nobody else changes it until this commit is done.
    fn tally(&mut self, iss: &str) -> Result<Tally, LedgerError>;
    /// What a sum with a ceiling has come to; exact, and nobody else changes it until this commit is done.
    fn ceiling(&mut self, ceiling: &Ceiling) -> Result<Msat, LedgerError>;
    /// Writes it. Sums that nobody asks for at `unix_seconds` any more may be forgotten.
    fn put_ceiling(&mut self, ceiling: &Ceiling, used: Msat, unix_seconds: u64) -> Result<(), LedgerError>;
    /// Keeps a signed receipt, unless there is one of that number. False: there is.
    fn put_receipt(&mut self, session: SessionId, row: &SignedReceipt) -> Result<bool, LedgerError>;
    /// Whether something is on the deny list.
    fn is_denied(&mut self, denied: &Denied) -> Result<bool, LedgerError>;
    /// Puts it on the list or takes it off, and counts the list's version up.
    fn put_denied(&mut self, denied: &Denied, on: bool) -> Result<(), LedgerError>;
    /// An account was frozen or released: every node is to look.
    fn note_freeze(&mut self) -> Result<(), LedgerError>;
    /// The sum of all vouchers so far, as far as this node's own limit is concerned.
    fn issued(&self) -> i64;
}

/// Sums that one commit, or one node over its life, moved: any of them may be below zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// Credited by vouchers.
    pub issued: i64,
    /// Free to spend.
    pub available: i64,
    /// Set aside for leases.
    pub reserved: i64,
    /// Spent, and the operator's.
    pub earned: i64,
    /// Paid back.
    pub refunded: i64,
    /// Amounts outside the sum, by name.
    pub memo: BTreeMap<String, i64>,
}

impl Sums {
    /// True when nothing was created or destroyed.
    pub fn balance(&self) -> bool {
        [self.available, self.reserved, self.earned, self.refunded]
            .into_iter()
            .map(i128::from)
            .sum::<i128>()
            == i128::from(self.issued)
    }

    /// Both together, unless a sum overflows.
    pub fn plus(&self, other: &Self) -> Option<Self> {
        let mut memo = self.memo.clone();
        for (name, msat) in &other.memo {
            let sum = memo.entry(name.clone()).or_default();
            *sum = sum.checked_add(*msat)?;
        }
        Some(Self {
            issued: self.issued.checked_add(other.issued)?,
            available: self.available.checked_add(other.available)?,
            reserved: self.reserved.checked_add(other.reserved)?,
            earned: self.earned.checked_add(other.earned)?,
            refunded: self.refunded.checked_add(other.refunded)?,
            memo,
        })
    }

    /// As the sums of whole books, where none is below zero but what is available.
    pub fn totals(&self, commits: u64, next_lease: u64) -> Result<Totals, LedgerError> {
        let sum = |of: i64| {
            u64::try_from(of)
                .map(Msat::new)
                .map_err(|_| LedgerError::Corrupt(format!("a sum is below zero: {self:?}")))
        };
        let memo = self
            .memo
            .iter()
            .map(|(name, msat)| Ok((name.clone(), sum(*msat)?)))
            .collect::<Result<_, LedgerError>>()?;
        Ok(Totals {
            issued: sum(self.issued)?,
            available: self.available,
            reserved: sum(self.reserved)?,
            earned: sum(self.earned)?,
            refunded: sum(self.refunded)?,
            memo,
            commits,
            next_lease,
        })
    }
}

/// The sums over all accounts, and the memo accounts beside them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Credited by vouchers.
    pub issued: Msat,
    /// Free to spend, less what accounts owe on credit.
    pub available: i64,
    /// Set aside for leases.
    pub reserved: Msat,
    /// Spent, and the operator's.
    pub earned: Msat,
    /// Paid back.
    pub refunded: Msat,
    /// Amounts outside the sum, by name.
    pub memo: BTreeMap<String, Msat>,
    /// Commits that moved money.
    pub commits: u64,
    /// The number of the next lease.
    pub next_lease: u64,
}

impl Totals {
    /// True when nothing was created or destroyed.
    pub fn balance(&self) -> bool {
        let held = [self.reserved, self.earned, self.refunded].map(|msat| i128::from(msat.get()));
        i128::from(self.available) + held.into_iter().sum::<i128>() == i128::from(self.issued.get())
    }

    /// Every memo account by name, those with nothing in them included.
    pub fn memo_accounts(&self) -> BTreeMap<String, Msat> {
        let mut memo = self.memo.clone();
        for name in [MEMO_UNCOLLECTED, MEMO_OLD_EPOCH, MEMO_EMERGENCY, MEMO_ALLOWANCE] {
            memo.entry(name.to_owned()).or_default();
        }
        memo
    }

    /// The same, as sums that can be reckoned with.
    pub fn sums(&self) -> Result<Sums, LedgerError> {
        let sum = |of: Msat| {
            i64::try_from(of.get()).map_err(|_| LedgerError::Corrupt("a sum is past the limit".to_owned()))
        };
        let memo = self
            .memo
            .iter()
            .map(|(name, msat)| Ok((name.clone(), sum(*msat)?)))
            .collect::<Result<_, LedgerError>>()?;
        Ok(Sums {
            issued: sum(self.issued)?,
            available: self.available,
            reserved: sum(self.reserved)?,
            earned: sum(self.earned)?,
            refunded: sum(self.refunded)?,
            memo,
        })
    }
}

/// Whether a lease can still be spent from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaseState {
    /// It can.
    Open,
    /// Its last segment was settled.
    Closed,
    /// The ledger took it back.
    Reclaimed,
}

/// A lease as the books have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseView {
    /// Who pays.
    pub account: AccountId,
    /// For which session.
    pub session: SessionId,
    /// For which relay.
    pub service: Service,
    /// Id of the tariff.
    pub tariff: String,
    /// At these rates.
    pub rates: Rates,
    /// Granted over its life. What is reserved is this less what was settled.
    pub granted: Msat,
    /// The sum of its settled segments.
    pub settled: Msat,
    /// The segment that runs.
    pub segment: u32,
    /// What was reported of it.
    pub reported: Usage,
    /// The latest report.
    pub sequence: u64,
    /// How often the ledger took it back.
    pub epoch: u32,
    /// Whether it can be spent from.
    pub state: LeaseState,
    /// What was counted in the memo account for the segment that ran when it was taken back.
    pub memo: Msat,
    /// The payer's ceiling it counts against.
    pub cap: Option<Cap>,
    /// It costs nothing, and the memo account hears what it would have cost at these rates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_instead_of: Option<Rates>,
    /// Unix nanoseconds of the last report.
    pub touched_at: u64,
}

impl LeaseView {
    /// Set aside and not settled.
    pub fn reserved(&self) -> Msat {
        self.granted.saturating_sub(self.settled)
    }

    /// Set aside and not even reported as used.
    pub fn unspent(&self) -> Msat {
        self.reserved()
            .saturating_sub(meter::running(self.reported.owed(&self.rates)))
    }
}

/// A session's part of its receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// Who pays.
    pub account: AccountId,
    /// The tariffs it ran under.
    pub terms: Vec<receipt::Terms>,
    /// Settled segments.
    pub segments: u32,
    /// Leases that are open.
    pub open_leases: u32,
    /// Unix nanoseconds of the admission.
    pub started: u64,
    /// Unix nanoseconds of the end.
    pub ended: Option<u64>,
    /// Why it ended.
    pub reason: Option<String>,
    /// The relay stopped without settling.
    pub recovered: bool,
}

/// A receipt as it was signed. The receipts of a session are a chain: each names the hash of the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedReceipt {
    /// Counts the session's receipts, from 0.
    pub number: u32,
    /// Settled segments that it covers.
    pub segments: u32,
    /// Whether the session had ended.
    pub ended: bool,
    /// The compact JWS.
    pub jws: String,
}

/// Something that is not served.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Denied {
    /// `jti`, `sub`, `kid` or `iss`.
    pub kind: String,
    /// Which.
    pub value: String,
}

/// What is known of one issuer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Vouchers credited.
    pub vouchers: u64,
    /// What they added.
    pub credited: Msat,
    /// What of that was spent.
    pub spent: Msat,
    /// What of that was paid back.
    pub refunded: Msat,
}

impl Tally {
    /// Credited and neither spent nor paid back: what the operator owes service for.
    pub fn outstanding(&self) -> Msat {
        self.credited
            .saturating_sub(self.spent)
            .saturating_sub(self.refunded)
    }

    /// Both together.
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            vouchers: self.vouchers.saturating_add(other.vouchers),
            credited: self.credited.saturating_add(other.credited),
            spent: self.spent.saturating_add(other.spent),
            refunded: self.refunded.saturating_add(other.refunded),
        }
    }
}

/// How much an issuer may have outstanding: credited, and neither spent nor paid back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IssuerLimits {
    /// Of every issuer that is not named; none means no limit.
    pub each: Option<Msat>,
    /// Of those that are named.
    pub named: BTreeMap<String, Msat>,
}

impl IssuerLimits {
    /// The limit of an issuer.
    pub fn of(&self, iss: &str) -> Option<Msat> {
        self.named.get(iss).copied().or(self.each)
    }
}

/// One commit over some rows.
#[derive(Debug)]
pub struct Books<R> {
    /// The rows.
    pub rows: R,
    /// What moved in this commit.
    pub moved: Sums,
    /// What each issuer's tally changed by.
    pub tallies: BTreeMap<String, Tally>,
    pub(super) limits: IssuerLimits,
    pub(super) now: u64,
}

impl<R: Rows> Books<R> {
    /// A commit at `now` (Unix nanoseconds).
    pub fn new(rows: R, limits: IssuerLimits, now: u64) -> Self {
        Self {
            rows,
            moved: Sums::default(),
            tallies: BTreeMap::new(),
            limits,
            now,
        }
    }

    /// Executes a batch in order. A refused command changes nothing and the others go on.
    pub fn execute_all(&mut self, batch: &[Command]) -> Result<Vec<Result<Outcome, Refusal>>, LedgerError> {
        batch.iter().map(|command| self.execute(command)).collect()
    }

    /// Executes one command.
    pub fn execute(&mut self, command: &Command) -> Result<Result<Outcome, Refusal>, LedgerError> {
        let done = match command {
            Command::Credit(voucher) => self
                .credit(voucher, None, &Bounds::default())
                .map(Outcome::Credited),
            Command::CreditWithin { voucher, bounds } => {
                self.credit(voucher, None, bounds).map(Outcome::Credited)
            }
            Command::Gift { voucher, reason } => self
                .credit(voucher, Some(reason), &Bounds::default())
                .map(Outcome::Credited),
            Command::GrantLine { account, line } => self.grant_line(account, line),
            Command::Open(open) => self.open_lease(open),
            Command::Renew { lease, want, minimum } => self.renew(*lease, *want, *minimum),
            Command::Report(report) => self.report(report),
            Command::Settle { report, reason } => self.settle(report, reason),
            Command::Release { lease } => self.release(*lease),
            Command::Reclaim { lease, reason } => self.reclaim(*lease, reason),
            Command::CloseAccount { account, reason } => self.close_account(account, reason),
            Command::Freeze { account, frozen } => self.freeze(account, *frozen),
            Command::Refund { account, reason } => self.refund(account, reason),
            Command::Replay(record) => self.replay(record),
            Command::KeepReceipt { session, receipt } => self
                .rows
                .put_receipt(*session, receipt)
                .map(Outcome::Kept)
                .map_err(Stop::Broken),
            Command::BeginTopUp { top_up, open_max } => self.begin_top_up(top_up, *open_max),
            Command::SettleTopUp {
                id,
                account,
                operator,
                detail,
            } => self.settle_top_up(id, account, operator, detail),
            Command::FailTopUp { id, account, reason } => self.fail_top_up(id, account, reason),
            Command::ExportTopUp { id } => self.export_top_up(id),
            Command::Deny { denied, on } => self.deny(denied, *on).map_err(Stop::Broken),
        };
        match done {
            Ok(outcome) => Ok(Ok(outcome)),
            Err(Stop::Refused(refusal)) => Ok(Err(refusal)),
            Err(Stop::Broken(error)) => Err(error),
        }
    }

    /// The end of a commit: what moved must balance.
    pub fn check(&self) -> Result<(), LedgerError> {
        if self.moved.balance() {
            Ok(())
        } else {
            Err(LedgerError::Corrupt(format!(
                "a commit does not balance: {:?}",
                self.moved
            )))
        }
    }

    /// Writes an entry of an account, whose row is written by the caller.
    pub(super) fn post(
        &mut self,
        account: &mut AccountView,
        mut entry: Entry,
    ) -> Result<EntryId, LedgerError> {
        account.entries += 1;
        entry.number = Some(account.entries);
        self.append(entry)
    }

    /// A memo account grows; nothing else moves.
    pub(super) fn memo(
        &mut self,
        kind: Kind,
        row: &LeaseView,
        lease: LeaseId,
        msat: Msat,
    ) -> Result<(), LedgerError> {
        if msat.is_zero() {
            return Ok(());
        }
        let entry = Entry {
            lease: Some(lease),
            session: Some(row.session),
            ..Entry::new(kind, &row.account, msat)
        };
        self.append(entry).map(drop)
    }

    /// What an issuer has outstanding, this commit included.
    pub(super) fn outstanding(&mut self, iss: &str) -> Result<Msat, LedgerError> {
        let before = self.rows.tally(iss)?;
        let change = self.tallies.get(iss).copied().unwrap_or_default();
        Ok(before.plus(&change).outstanding())
    }

    /// Whether the sum of all vouchers can grow so much.
    pub(super) fn has_room_for(&self, msat: Msat) -> bool {
        let issued = self.rows.issued().saturating_add(self.moved.issued);
        i64::try_from(msat.get())
            .ok()
            .and_then(|msat| issued.checked_add(msat))
            .is_some_and(|issued| issued <= ISSUED_MAX)
    }

    pub(super) fn append(&mut self, mut entry: Entry) -> Result<EntryId, LedgerError> {
        entry.at = self.now;
        entry.kind.move_sums(&mut self.moved, entry.msat)?;
        self.rows.post(entry)
    }

    fn deny(&mut self, denied: &Denied, on: bool) -> Result<Outcome, LedgerError> {
        let was = self.rows.is_denied(denied)?;
        if was != on {
            self.rows.put_denied(denied, on)?;
        }
        Ok(Outcome::Denied { changed: was != on })
    }
}

/// The most that one node's books ever issue: 500 times all the satoshi there can be, so that sums over nodes do not
/// overflow either.
const ISSUED_MAX: i64 = 1 << 60;
