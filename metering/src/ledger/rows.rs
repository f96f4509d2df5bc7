//! The tables, and the rows in them. A row is JSON: the books must be readable without this program.

use super::{
    Cap, LedgerError,
    journal::{Entry, Kind},
};
use crate::{AccountId, LeaseId, Msat, Rates, Service, SessionId, meter, receipt, report::Usage};
use redb::{
    AccessGuard, ReadTransaction, ReadableTable, Table, TableDefinition, TableError, WriteTransaction,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;

pub(super) type Json = &'static [u8];

pub(super) const ACCOUNTS: TableDefinition<&str, Json> = TableDefinition::new("accounts");
pub(super) const VOUCHERS: TableDefinition<(&str, &str), Json> = TableDefinition::new("vouchers");
pub(super) const LEASES: TableDefinition<u64, Json> = TableDefinition::new("leases");
pub(super) const OPEN_LEASES: TableDefinition<u64, ()> = TableDefinition::new("open_leases");
pub(super) const SESSIONS: TableDefinition<u64, Json> = TableDefinition::new("sessions");
pub(super) const SEGMENTS: TableDefinition<(u64, u32), Json> = TableDefinition::new("segments");
pub(super) const CAPS: TableDefinition<&str, u64> = TableDefinition::new("payer_grants");
pub(super) const JOURNAL: TableDefinition<u64, Json> = TableDefinition::new("journal");
pub(super) const TOTALS: TableDefinition<&str, Json> = TableDefinition::new("totals");

const TOTALS_KEY: &str = "totals";

/// What sessions owed beyond what their lease held.
pub(super) const MEMO_UNCOLLECTED: &str = "uncollected";
/// What was reported after the ledger had taken a lease back.
pub(super) const MEMO_OLD_EPOCH: &str = "old-epoch";

/// The sums over all accounts, and the memo accounts beside them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Credited by vouchers.
    pub issued: Msat,
    /// Free to spend.
    pub available: Msat,
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
        [self.available, self.reserved, self.earned, self.refunded]
            .into_iter()
            .try_fold(Msat::ZERO, Msat::checked_add)
            == Some(self.issued)
    }

    /// Every memo account by name, those with nothing in them included.
    pub fn memo_accounts(&self) -> BTreeMap<String, Msat> {
        let mut memo = self.memo.clone();
        for name in [MEMO_UNCOLLECTED, MEMO_OLD_EPOCH] {
            memo.entry(name.to_owned()).or_default();
        }
        memo
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
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SessionRow {
    pub(super) account: AccountId,
    pub(super) terms: Vec<receipt::Terms>,
    pub(super) segments: u32,
    pub(super) open_leases: u32,
    pub(super) started: u64,
    pub(super) ended: Option<u64>,
    pub(super) reason: Option<String>,
    pub(super) recovered: bool,
}

/// All tables, open for one commit.
pub(super) struct Books<'t> {
    pub(super) accounts: Table<'t, &'static str, Json>,
    pub(super) vouchers: Table<'t, (&'static str, &'static str), Json>,
    pub(super) leases: Table<'t, u64, Json>,
    pub(super) open_leases: Table<'t, u64, ()>,
    pub(super) sessions: Table<'t, u64, Json>,
    pub(super) segments: Table<'t, (u64, u32), Json>,
    pub(super) caps: Table<'t, &'static str, u64>,
    journal: Table<'t, u64, Json>,
    totals_table: Table<'t, &'static str, Json>,
    pub(super) totals: Totals,
    totals_before: Totals,
    next_entry: u64,
    pub(super) now: u64,
}

impl<'t> Books<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction, now: u64) -> Result<Self, LedgerError> {
        let totals_table = transaction.open_table(TOTALS)?;
        let totals: Totals = load(totals_table.get(TOTALS_KEY)?)?.unwrap_or_default();
        let journal = transaction.open_table(JOURNAL)?;
        let next_entry = journal.last()?.map_or(0, |(key, _)| key.value() + 1);
        Ok(Self {
            accounts: transaction.open_table(ACCOUNTS)?,
            vouchers: transaction.open_table(VOUCHERS)?,
            leases: transaction.open_table(LEASES)?,
            open_leases: transaction.open_table(OPEN_LEASES)?,
            sessions: transaction.open_table(SESSIONS)?,
            segments: transaction.open_table(SEGMENTS)?,
            caps: transaction.open_table(CAPS)?,
            journal,
            totals_table,
            totals_before: totals.clone(),
            totals,
            next_entry,
            now,
        })
    }

    /// Checks the sum and writes the totals, where anything moved.
    pub(super) fn close(mut self) -> Result<(), LedgerError> {
        if !self.totals.balance() {
            return Err(LedgerError::Corrupt(format!(
                "the sums do not balance: {:?}",
                self.totals
            )));
        }
        if self.totals != self.totals_before {
            self.totals.commits += 1;
            self.totals_table
                .insert(TOTALS_KEY, store(&self.totals).as_slice())?;
        }
        Ok(())
    }

    /// Writes one entry and moves its amount between the totals.
    pub(super) fn post(&mut self, mut entry: Entry) -> Result<(), LedgerError> {
        entry.commit = self.totals.commits;
        entry.at = self.now;
        entry.kind.move_totals(&mut self.totals, entry.msat)?;
        self.journal.insert(self.next_entry, store(&entry).as_slice())?;
        self.next_entry += 1;
        Ok(())
    }

    pub(super) fn lease(&self, lease: LeaseId) -> Result<Option<LeaseView>, LedgerError> {
        load(self.leases.get(lease.get())?)
    }

    pub(super) fn put_lease(&mut self, lease: LeaseId, row: &LeaseView) -> Result<(), LedgerError> {
        self.leases.insert(lease.get(), store(row).as_slice())?;
        Ok(())
    }

    pub(super) fn session(&self, session: SessionId) -> Result<Option<SessionRow>, LedgerError> {
        load(self.sessions.get(session.get())?)
    }

    pub(super) fn put_session(&mut self, session: SessionId, row: &SessionRow) -> Result<(), LedgerError> {
        self.sessions.insert(session.get(), store(row).as_slice())?;
        Ok(())
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
        self.post(Entry {
            lease: Some(lease),
            session: Some(row.session),
            ..Entry::new(kind, &row.account, msat)
        })
    }
}

/// Reads a row, if it is there.
pub(super) fn load<T: DeserializeOwned>(
    row: Option<AccessGuard<'_, Json>>,
) -> Result<Option<T>, LedgerError> {
    row.map(|row| parse(row.value())).transpose()
}

pub(super) fn parse<T: DeserializeOwned>(row: &[u8]) -> Result<T, LedgerError> {
    serde_json::from_slice(row).map_err(|error| LedgerError::Corrupt(format!("a row does not read: {error}")))
}

/// Writes a row.
pub(super) fn store<T: Serialize>(row: &T) -> Vec<u8> {
    serde_json::to_vec(row).expect("rows have string keys and no fallible fields")
}

/// A table for reading; none in books that no command has touched yet.
pub(super) fn table<K: redb::Key + 'static, V: redb::Value + 'static>(
    transaction: &ReadTransaction,
    definition: TableDefinition<K, V>,
) -> Result<Option<redb::ReadOnlyTable<K, V>>, LedgerError> {
    match transaction.open_table(definition) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn read_open_leases(transaction: &ReadTransaction) -> Result<Vec<LeaseId>, LedgerError> {
    let Some(table) = table(transaction, OPEN_LEASES)? else {
        return Ok(Vec::new());
    };
    let ids = table
        .iter()?
        .map(|row| row.map(|(id, _)| LeaseId::new(id.value())));
    Ok(ids.collect::<Result<_, _>>()?)
}

pub(super) fn read_totals(transaction: &ReadTransaction) -> Result<Totals, LedgerError> {
    let Some(table) = table(transaction, TOTALS)? else {
        return Ok(Totals::default());
    };
    Ok(load(table.get(TOTALS_KEY)?)?.unwrap_or_default())
}

pub(super) fn read_lease(
    transaction: &ReadTransaction,
    lease: LeaseId,
) -> Result<Option<LeaseView>, LedgerError> {
    let Some(table) = table(transaction, LEASES)? else {
        return Ok(None);
    };
    load(table.get(lease.get())?)
}
