//! The proof: the journal is replayed from its first entry, and must balance at every commit and end where the
//! books are. Both ledgers feed their rows to the same [`Prover`].

use super::{
    LedgerError,
    account::AccountView,
    books::{LeaseState, LeaseView, Sums, Totals},
    credit::Ceiling,
    journal::{Entry, EntryId, Kind},
};
use crate::{AccountId, LeaseId, Msat};
use std::{collections::BTreeMap, fmt};

/// What was proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The sums, which balance.
    pub totals: Totals,
    /// Accounts that were replayed.
    pub accounts: usize,
    /// Entries in the journal.
    pub entries: u64,
    /// Commits at which the sums were checked.
    pub commits: u64,
    /// Vouchers credited.
    pub vouchers: u64,
    /// Leases that are open.
    pub open_leases: usize,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals {
            issued,
            available,
            reserved,
            earned,
            refunded,
            ..
        } = &self.totals;
        writeln!(f, "issued = available + reserved + earned + refunded")?;
        writeln!(
            f,
            "{} = {} + {} + {} + {} (msat)",
            issued.get(),
            available,
            reserved.get(),
            earned.get(),
            refunded.get()
        )?;
        writeln!(f, "memo accounts, outside the sum:")?;
        for (name, msat) in self.totals.memo_accounts() {
            writeln!(f, "  {name}: {msat}")?;
        }
        write!(
            f,
            "replayed {} journal entries; balanced at each of {} commits; {} accounts, {} vouchers, {} open leases",
            self.entries, self.commits, self.accounts, self.vouchers, self.open_leases
        )
    }
}

/// Why the books do not hold.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// They cannot be read.
    #[error(transparent)]
    Unreadable(#[from] LedgerError),
    /// They do not balance, or differ from what the journal adds up to.
    #[error("the books do not balance: {0}")]
    Broken(String),
}

/// What the journal says of one account.
#[derive(Debug, Default)]
struct Replayed {
    /// Below zero by what is owed.
    available: i64,
    line: Msat,
    reserved: Msat,
    spent: Msat,
    refunded: Msat,
    frozen: bool,
    number: u64,
    settlement: u64,
    seen: bool,
}

/// Replays a journal and compares. Entries come first, each journal in its order and each account's in theirs; then
/// accounts and leases.
#[derive(Debug, Default)]
pub struct Prover {
    sums: Sums,
    accounts: BTreeMap<AccountId, Replayed>,
    /// Of each journal: the next entry, and the commit that runs.
    journals: BTreeMap<u32, (u64, Option<u64>)>,
    entries: u64,
    commits: u64,
    credits: u64,
    written: usize,
    reserved: BTreeMap<AccountId, Msat>,
    /// On each word: what accounts owe, and what is counted.
    owed: BTreeMap<String, (Msat, Msat)>,
    open: usize,
}

impl Prover {
    /// The next entry of a journal.
    pub fn entry(&mut self, id: EntryId, entry: &Entry) -> Result<(), Fault> {
        let (next, commit) = self.journals.entry(id.shard).or_default();
        ensure(*next == id.number, || {
            format!("entry {}-{next} is missing from the journal", id.shard)
        })?;
        *next += 1;
        if *commit != Some(entry.commit) {
            ensure(*commit < Some(entry.commit), || {
                format!("entry {id} is out of order")
            })?;
            *commit = Some(entry.commit);
            self.commits += 1;
            ensure(self.sums.balance(), || {
                format!("before entry {id}: {:?}", self.sums)
            })?;
        }
        entry.kind.move_sums(&mut self.sums, entry.msat)?;
        self.credits += u64::from(entry.kind == Kind::Credit);
        self.entries += 1;
        replay(self.accounts.entry(entry.account.clone()).or_default(), entry)
    }

    /// An account as the books have it.
    pub fn account(&mut self, account: &AccountView) -> Result<(), Fault> {
        let name = &account.account;
        let Some(says) = self.accounts.get_mut(name) else {
            // One that waits for its first money has none, and nothing to hide.
            let blank = AccountView {
                open_top_ups: account.open_top_ups,
                ..AccountView::empty(name)
            };
            return ensure(*account == blank, || format!("{name:?} is not in the journal"));
        };
        self.written += 1;
        ensure(!std::mem::replace(&mut says.seen, true), || {
            format!("{name:?} is in the books twice")
        })?;
        let held = (
            says.available,
            says.reserved,
            says.spent,
            says.refunded,
            says.frozen,
        );
        ensure(
            held == (
                account.balance(),
                account.reserved,
                account.spent,
                account.refunded,
                account.frozen,
            ),
            || format!("{name:?} differs from what the journal says"),
        )?;
        ensure(
            (says.number, says.settlement) == (account.entries, account.settlements),
            || format!("{name:?} has entries that are not in the journal"),
        )?;
        let line = account.credit.as_ref();
        ensure(line.map_or(Msat::ZERO, |line| line.msat) == says.line, || {
            format!("the credit line of {name:?} is not the journal's")
        })?;
        if let Some(line) = line {
            let sum = &mut self.owed.entry(line.within.name.clone()).or_default().0;
            *sum = sum.saturating_add(account.owed);
        }
        ensure(account.adds_up(), || {
            format!("the lots of {name:?} do not add up")
        })
    }

    /// A sum with a ceiling. Those that last are what accounts owe.
    pub fn ceiling(&mut self, name: &str, until: u64, used: Msat) {
        if until == Ceiling::LASTING {
            self.owed.entry(name.to_owned()).or_default().1 = used;
        }
    }

    /// A lease as the books have it, and whether it is listed as open.
    pub fn lease(&mut self, id: LeaseId, lease: &LeaseView, listed: bool) -> Result<(), Fault> {
        ensure(listed == (lease.state == LeaseState::Open), || {
            format!("lease {id} is {:?} and its listing says otherwise", lease.state)
        })?;
        self.open += usize::from(listed);
        let held = lease.granted.checked_sub(lease.settled);
        let sum = self.reserved.entry(lease.account.clone()).or_default();
        *sum = held
            .and_then(|held| sum.checked_add(held))
            .ok_or_else(|| Fault::Broken(format!("lease {id} settled more than it was granted")))?;
        Ok(())
    }

    /// The end: the sums, the accounts that are missing, what leases hold, vouchers.
    pub fn finish(self, written: &Totals, vouchers: u64) -> Result<Proof, Fault> {
        ensure(self.sums.balance(), || format!("at the end: {:?}", self.sums))?;
        // The counters are not money; the journal does not carry them.
        let totals = self.sums.totals(written.commits, written.next_lease)?;
        ensure(totals == *written, || {
            format!("the journal says {totals:?}, the books {written:?}")
        })?;
        ensure(self.written == self.accounts.len(), || {
            format!(
                "{} accounts in the journal, {} in the books",
                self.accounts.len(),
                self.written
            )
        })?;
        for (account, replayed) in &self.accounts {
            let held = self.reserved.get(account).copied().unwrap_or_default();
            ensure(held == replayed.reserved, || {
                format!(
                    "{account:?} has {} reserved and its leases hold {held}",
                    replayed.reserved
                )
            })?;
        }
        for (name, (owed, counted)) in &self.owed {
            ensure(owed == counted, || {
                format!("{owed} is owed on {name:?}, and {counted} is counted")
            })?;
        }
        ensure(vouchers == self.credits, || {
            format!("{} credits in the journal, {vouchers} vouchers", self.credits)
        })?;
        Ok(Proof {
            totals,
            accounts: self.accounts.len(),
            entries: self.entries,
            commits: self.commits,
            vouchers,
            open_leases: self.open,
        })
    }
}

fn replay(account: &mut Replayed, entry: &Entry) -> Result<(), Fault> {
    // Entries that are older than the numbers have none; once they are numbered, no number is missing.
    match entry.number {
        Some(number) => {
            ensure(number == account.number + 1, || {
                format!("{:?} lacks an entry before its {number}", entry.account)
            })?;
            account.number = number;
        }
        None => ensure(account.number == 0 || !entry.kind.is_of_account(), || {
            format!("an entry of {:?} has no number", entry.account)
        })?,
    }
    if let Some(settlement) = entry.settlement {
        ensure(settlement == account.settlement + 1, || {
            format!("{:?} lacks a settlement before its {settlement}", entry.account)
        })?;
        account.settlement = settlement;
    }
    let signed = i64::try_from(entry.msat.get()).map_err(|_| below_zero(entry))?;
    let to_available = |available: &mut i64| {
        *available = available.checked_add(signed).ok_or_else(|| below_zero(entry))?;
        Ok::<(), Fault>(())
    };
    let from_available = |account: &mut Replayed, line: Msat| {
        let least = -i64::try_from(line.get()).map_err(|_| below_zero(entry))?;
        account.available = account
            .available
            .checked_sub(signed)
            .filter(|available| signed == 0 || *available >= least)
            .ok_or_else(|| below_zero(entry))?;
        Ok::<(), Fault>(())
    };
    let add = |to: &mut Msat| {
        *to = to.checked_add(entry.msat).ok_or_else(|| below_zero(entry))?;
        Ok::<(), Fault>(())
    };
    let move_ = |from: &mut Msat, to: &mut Msat| {
        *from = from.checked_sub(entry.msat).ok_or_else(|| below_zero(entry))?;
        *to = to.checked_add(entry.msat).ok_or_else(|| below_zero(entry))?;
        Ok::<(), Fault>(())
    };
    match entry.kind {
        Kind::Credit => to_available(&mut account.available),
        Kind::Reserve => {
            from_available(account, account.line)?;
            add(&mut account.reserved)
        }
        Kind::Release => {
            account.reserved = account
                .reserved
                .checked_sub(entry.msat)
                .ok_or_else(|| below_zero(entry))?;
            to_available(&mut account.available)
        }
        Kind::Settle => move_(&mut account.reserved, &mut account.spent),
        Kind::Refund => {
            // Credit is not paid out.
            from_available(account, Msat::ZERO)?;
            add(&mut account.refunded)
        }
        Kind::Line => {
            account.line = entry.msat;
            Ok(())
        }
        Kind::Uncollected | Kind::OldEpoch | Kind::Emergency | Kind::Allowance => Ok(()),
        Kind::Freeze | Kind::Unfreeze => {
            account.frozen = entry.kind == Kind::Freeze;
            Ok(())
        }
    }
}

fn below_zero(entry: &Entry) -> Fault {
    Fault::Broken(format!(
        "{:?} of {} takes an account below its line or past the limit",
        entry.kind, entry.msat
    ))
}

fn ensure(holds: bool, fault: impl FnOnce() -> String) -> Result<(), Fault> {
    if holds {
        Ok(())
    } else {
        Err(Fault::Broken(fault()))
    }
}
