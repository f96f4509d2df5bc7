//! The proof: the journal is replayed from its first entry, and must balance at every commit and end where the
//! books are.

use super::{
    LedgerError,
    account::{self, AccountView},
    journal::{Entry, Kind},
    open_existing,
    rows::{self, LeaseState, LeaseView, Totals},
};
use crate::{AccountId, Msat};
use redb::{ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata};
use std::{collections::BTreeMap, fmt, path::Path};

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
            available.get(),
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

/// Proves the books at `path` without opening them for business. The relay must not be running.
pub fn verify(path: &Path) -> Result<Proof, Fault> {
    prove(&open_existing(path)?.begin_read().map_err(LedgerError::from)?)
}

/// What the journal says of one account.
#[derive(Default)]
struct Replayed {
    credited: Msat,
    available: Msat,
    reserved: Msat,
    spent: Msat,
    refunded: Msat,
    frozen: bool,
}

pub(super) fn prove(transaction: &ReadTransaction) -> Result<Proof, Fault> {
    let written = rows::read_totals(transaction)?;
    let (mut totals, mut accounts) = (Totals::default(), BTreeMap::new());
    let (mut entries, mut commits, mut credits, mut commit) = (0, 0, 0, None);
    if let Some(journal) = rows::table(transaction, rows::JOURNAL)? {
        for row in journal.iter().map_err(LedgerError::from)? {
            let (key, value) = row.map_err(LedgerError::from)?;
            ensure(key.value() == entries, || {
                format!("entry {entries} is missing from the journal")
            })?;
            let entry: Entry = rows::parse(value.value())?;
            if commit != Some(entry.commit) {
                ensure(commit < Some(entry.commit), || {
                    format!("entry {entries} is out of order")
                })?;
                ensure(totals.balance(), || {
                    format!("after commit {commit:?}: {totals:?}")
                })?;
                commit = Some(entry.commit);
                commits += 1;
            }
            entry.kind.move_totals(&mut totals, entry.msat)?;
            replay(accounts.entry(entry.account.clone()).or_default(), &entry)?;
            credits += u64::from(entry.kind == Kind::Credit);
            entries += 1;
        }
    }
    ensure(totals.balance(), || format!("at the end: {totals:?}"))?;
    // The counters are not money; the journal does not carry them.
    (totals.commits, totals.next_lease) = (written.commits, written.next_lease);
    ensure(totals == written, || {
        format!("the journal says {totals:?}, the books {written:?}")
    })?;
    prove_accounts(transaction, &accounts)?;
    let open_leases = prove_leases(transaction, &accounts)?;
    let vouchers = match rows::table(transaction, rows::VOUCHERS)? {
        Some(table) => table.len().map_err(LedgerError::from)?,
        None => 0,
    };
    ensure(vouchers == credits, || {
        format!("{credits} credits in the journal, {vouchers} vouchers")
    })?;
    Ok(Proof {
        totals,
        accounts: accounts.len(),
        entries,
        commits,
        vouchers,
        open_leases,
    })
}

fn replay(account: &mut Replayed, entry: &Entry) -> Result<(), Fault> {
    let move_ = |from: &mut Msat, to: &mut Msat| {
        *from = from.checked_sub(entry.msat).ok_or_else(|| below_zero(entry))?;
        *to = to.checked_add(entry.msat).ok_or_else(|| below_zero(entry))?;
        Ok::<(), Fault>(())
    };
    match entry.kind {
        Kind::Credit => {
            account.credited = account
                .credited
                .checked_add(entry.msat)
                .ok_or_else(|| below_zero(entry))?;
            account.available = account
                .available
                .checked_add(entry.msat)
                .ok_or_else(|| below_zero(entry))?;
            Ok(())
        }
        Kind::Reserve => move_(&mut account.available, &mut account.reserved),
        Kind::Release => move_(&mut account.reserved, &mut account.available),
        Kind::Settle => move_(&mut account.reserved, &mut account.spent),
        Kind::Refund => move_(&mut account.available, &mut account.refunded),
        Kind::Uncollected | Kind::OldEpoch => Ok(()),
        Kind::Freeze | Kind::Unfreeze => {
            account.frozen = entry.kind == Kind::Freeze;
            Ok(())
        }
    }
}

fn below_zero(entry: &Entry) -> Fault {
    Fault::Broken(format!(
        "{:?} of {} takes an account below zero or past the limit",
        entry.kind, entry.msat
    ))
}

fn prove_accounts(
    transaction: &ReadTransaction,
    replayed: &BTreeMap<AccountId, Replayed>,
) -> Result<(), Fault> {
    let written = account::read_all(transaction)?;
    ensure(written.len() == replayed.len(), || {
        format!(
            "{} accounts in the journal, {} in the books",
            replayed.len(),
            written.len()
        )
    })?;
    for AccountView {
        account,
        available,
        reserved,
        spent,
        refunded,
        lots,
        frozen,
        ..
    } in &written
    {
        let Some(says) = replayed.get(account) else {
            return Err(Fault::Broken(format!("{account:?} is not in the journal")));
        };
        let held = (
            says.available,
            says.reserved,
            says.spent,
            says.refunded,
            says.frozen,
        );
        ensure(
            held == (*available, *reserved, *spent, *refunded, *frozen),
            || format!("{account:?} differs from what the journal says"),
        )?;
        let left = lots
            .iter()
            .try_fold(Msat::ZERO, |sum, lot| sum.checked_add(lot.left));
        ensure(left == available.checked_add(*reserved), || {
            format!("the lots of {account:?} do not add up")
        })?;
    }
    Ok(())
}

fn prove_leases(
    transaction: &ReadTransaction,
    accounts: &BTreeMap<AccountId, Replayed>,
) -> Result<usize, Fault> {
    let mut reserved: BTreeMap<AccountId, Msat> = BTreeMap::new();
    let mut open = 0;
    if let (Some(leases), Some(index)) = (
        rows::table(transaction, rows::LEASES)?,
        rows::table(transaction, rows::OPEN_LEASES)?,
    ) {
        for row in leases.iter().map_err(LedgerError::from)? {
            let (id, value) = row.map_err(LedgerError::from)?;
            let lease: LeaseView = rows::parse(value.value())?;
            let listed = index.get(id.value()).map_err(LedgerError::from)?.is_some();
            ensure(listed == (lease.state == LeaseState::Open), || {
                format!(
                    "lease {:x} is {:?} and its listing says otherwise",
                    id.value(),
                    lease.state
                )
            })?;
            open += usize::from(listed);
            let held = lease.granted.checked_sub(lease.settled);
            let sum = reserved.entry(lease.account).or_default();
            *sum = held.and_then(|held| sum.checked_add(held)).ok_or_else(|| {
                Fault::Broken(format!("lease {:x} settled more than it was granted", id.value()))
            })?;
        }
    }
    for (account, replayed) in accounts {
        let held = reserved.get(account).copied().unwrap_or_default();
        ensure(held == replayed.reserved, || {
            format!(
                "{account:?} has {} reserved and its leases hold {held}",
                replayed.reserved
            )
        })?;
    }
    Ok(open)
}

fn ensure(holds: bool, fault: impl FnOnce() -> String) -> Result<(), Fault> {
    if holds {
        Ok(())
    } else {
        Err(Fault::Broken(fault()))
    }
}
