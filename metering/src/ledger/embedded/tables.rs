//! The tables of the file, and the rows of one commit over them.

use super::super::{
    AccountView, Ceiling, Denied, DumpRow, EntryId, LeaseState, LeaseView, LedgerError, SignedReceipt, Tally,
    TopUp, TopUpState, Totals, VoucherName, VoucherRow,
    books::{Rows, SessionRow, Sums},
    journal::Entry,
};
use crate::{AccountId, LeaseId, Msat, SessionId, receipt::Segment};
use redb::{
    AccessGuard, ReadTransaction, ReadableTable, ReadableTableMetadata, Table, TableDefinition, TableError,
    WriteTransaction,
};
use serde::{Serialize, de::DeserializeOwned};

pub(crate) type Json = &'static [u8];

pub(crate) const ACCOUNTS: TableDefinition<&str, Json> = TableDefinition::new("accounts");
pub(crate) const VOUCHERS: TableDefinition<(&str, &str), Json> = TableDefinition::new("vouchers");
pub(crate) const LEASES: TableDefinition<u64, Json> = TableDefinition::new("leases");
pub(crate) const OPEN_LEASES: TableDefinition<u64, ()> = TableDefinition::new("open_leases");
pub(crate) const SESSIONS: TableDefinition<u64, Json> = TableDefinition::new("sessions");
pub(crate) const SEGMENTS: TableDefinition<(u64, u32), Json> = TableDefinition::new("segments");
pub(crate) const CAPS: TableDefinition<&str, u64> = TableDefinition::new("payer_grants");
pub(crate) const JOURNAL: TableDefinition<u64, Json> = TableDefinition::new("journal");
pub(crate) const TOTALS: TableDefinition<&str, Json> = TableDefinition::new("totals");
pub(crate) const ISSUERS: TableDefinition<&str, Json> = TableDefinition::new("issuers");
pub(crate) const RECEIPTS: TableDefinition<(u64, u32), Json> = TableDefinition::new("receipts");
pub(crate) const DENIED: TableDefinition<(&str, &str), ()> = TableDefinition::new("denied");
pub(crate) const TOP_UPS: TableDefinition<&str, Json> = TableDefinition::new("top_ups");
/// Those that are open.
pub(crate) const OPEN_TOP_UPS: TableDefinition<&str, ()> = TableDefinition::new("open_top_ups");
/// Those that are forgotten first come first.
pub(crate) const CEILINGS: TableDefinition<(u64, &str), u64> = TableDefinition::new("ceilings");
pub(crate) const COUNTERS: TableDefinition<&str, u64> = TableDefinition::new("counters");
pub(crate) const SINKS: TableDefinition<&str, Json> = TableDefinition::new("sinks");

pub(crate) const TOTALS_KEY: &str = "totals";
/// Counts changes of the deny list.
pub(crate) const DENY_VERSION: &str = "deny";
/// Counts freezes and releases.
pub(crate) const FREEZE_VERSION: &str = "freeze";
/// Unix seconds of the backup that these books were restored from.
pub(crate) const RESTORED: &str = "restored";

/// All tables, open for one commit.
pub(crate) struct Tables<'t> {
    accounts: Table<'t, &'static str, Json>,
    vouchers: Table<'t, (&'static str, &'static str), Json>,
    leases: Table<'t, u64, Json>,
    open_leases: Table<'t, u64, ()>,
    sessions: Table<'t, u64, Json>,
    segments: Table<'t, (u64, u32), Json>,
    caps: Table<'t, &'static str, u64>,
    journal: Table<'t, u64, Json>,
    totals_table: Table<'t, &'static str, Json>,
    pub(crate) issuers: Table<'t, &'static str, Json>,
    receipts: Table<'t, (u64, u32), Json>,
    denied: Table<'t, (&'static str, &'static str), ()>,
    top_ups: Table<'t, &'static str, Json>,
    open_top_ups: Table<'t, &'static str, ()>,
    ceilings: Table<'t, (u64, &'static str), u64>,
    pub(crate) counters: Table<'t, &'static str, u64>,
    pub(crate) sinks: Table<'t, &'static str, Json>,
    pub(crate) totals: Totals,
    totals_before: Totals,
    pub(crate) next_entry: u64,
}

impl<'t> Tables<'t> {
    pub(crate) fn open(transaction: &'t WriteTransaction) -> Result<Self, LedgerError> {
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
            issuers: transaction.open_table(ISSUERS)?,
            receipts: transaction.open_table(RECEIPTS)?,
            denied: transaction.open_table(DENIED)?,
            top_ups: transaction.open_table(TOP_UPS)?,
            open_top_ups: transaction.open_table(OPEN_TOP_UPS)?,
            ceilings: transaction.open_table(CEILINGS)?,
            counters: transaction.open_table(COUNTERS)?,
            sinks: transaction.open_table(SINKS)?,
            totals_before: totals.clone(),
            totals,
            next_entry,
        })
    }

    /// Writes the totals, where anything moved.
    pub(crate) fn close(mut self, moved: &Sums) -> Result<(), LedgerError> {
        let sums = self.totals.sums()?.plus(moved);
        let sums = sums.ok_or_else(|| LedgerError::Corrupt("a sum overflows".to_owned()))?;
        self.totals = sums.totals(self.totals.commits, self.totals.next_lease)?;
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

    pub(crate) fn count_up(&mut self, counter: &str) -> Result<(), LedgerError> {
        let next = self.counters.get(counter)?.map_or(1, |row| row.value() + 1);
        self.counters.insert(counter, next)?;
        Ok(())
    }

    pub(crate) fn open_leases(&self) -> Result<Vec<LeaseId>, LedgerError> {
        let ids = self
            .open_leases
            .iter()?
            .map(|row| row.map(|(id, _)| LeaseId::new(id.value())));
        Ok(ids.collect::<Result<_, _>>()?)
    }

    /// A row of other books.
    pub(crate) fn put_row(&mut self, row: DumpRow) -> Result<(), LedgerError> {
        match row {
            DumpRow::Entry(id, entry) => {
                self.journal.insert(id.number, store(&entry).as_slice())?;
            }
            DumpRow::Account(account) => self.put_account(&account)?,
            DumpRow::Voucher(row) => {
                let name = VoucherName {
                    iss: row.voucher.iss.clone(),
                    jti: row.voucher.jti.clone(),
                };
                self.put_voucher(&name, &row)?;
            }
            DumpRow::Lease(id, lease) => {
                self.put_lease(id, &lease)?;
                self.list_lease(id, lease.state == LeaseState::Open)?;
            }
            DumpRow::Session(id, session) => self.put_session(id, &session)?,
            DumpRow::Segment(session, number, segment) => self.put_segment(session, number, &segment)?,
            DumpRow::PayerGrant(grant, used) => self.put_grant_used(&grant, used)?,
            DumpRow::Ceiling(name, until, used) => {
                self.ceilings.insert((until, name.as_str()), used.get())?;
            }
            DumpRow::Issuer(iss, tally) => {
                self.issuers.insert(iss.as_str(), store(&tally).as_slice())?;
            }
            DumpRow::Receipt(session, receipt) => {
                self.put_receipt(session, &receipt)?;
            }
            DumpRow::TopUp(row) => self.put_top_up(&row)?,
            DumpRow::Denied(denied) => self.put_denied(&denied, true)?,
            DumpRow::Sink(sink, cursor) => {
                self.sinks.insert(sink.as_str(), store(&cursor).as_slice())?;
            }
        }
        Ok(())
    }

    pub(crate) fn has_tallies(&self) -> Result<bool, LedgerError> {
        Ok(!self.issuers.is_empty()?)
    }

    pub(crate) fn all_vouchers(&self) -> Result<Vec<VoucherRow>, LedgerError> {
        self.vouchers.iter()?.map(|row| parse(row?.1.value())).collect()
    }

    pub(crate) fn all_entries(&self) -> Result<Vec<Entry>, LedgerError> {
        self.journal.iter()?.map(|row| parse(row?.1.value())).collect()
    }
}

impl Rows for Tables<'_> {
    fn account(&mut self, account: &AccountId) -> Result<Option<AccountView>, LedgerError> {
        load(self.accounts.get(account.as_str())?)
    }

    fn put_account(&mut self, row: &AccountView) -> Result<(), LedgerError> {
        self.accounts
            .insert(row.account.as_str(), store(row).as_slice())?;
        Ok(())
    }

    fn voucher(&mut self, name: &VoucherName) -> Result<Option<VoucherRow>, LedgerError> {
        load(self.vouchers.get((name.iss.as_str(), name.jti.as_str()))?)
    }

    fn put_voucher(&mut self, name: &VoucherName, row: &VoucherRow) -> Result<(), LedgerError> {
        self.vouchers
            .insert((name.iss.as_str(), name.jti.as_str()), store(row).as_slice())?;
        Ok(())
    }

    fn top_up(&mut self, id: &str) -> Result<Option<TopUp>, LedgerError> {
        load(self.top_ups.get(id)?)
    }

    fn put_top_up(&mut self, row: &TopUp) -> Result<(), LedgerError> {
        self.top_ups.insert(row.id.as_str(), store(row).as_slice())?;
        if row.state == TopUpState::Open {
            self.open_top_ups.insert(row.id.as_str(), ())?;
        } else {
            self.open_top_ups.remove(row.id.as_str())?;
        }
        Ok(())
    }

    fn lease(&mut self, lease: LeaseId) -> Result<Option<LeaseView>, LedgerError> {
        load(self.leases.get(lease.get())?)
    }

    fn put_lease(&mut self, lease: LeaseId, row: &LeaseView) -> Result<(), LedgerError> {
        self.leases.insert(lease.get(), store(row).as_slice())?;
        Ok(())
    }

    fn new_lease(&mut self) -> Result<LeaseId, LedgerError> {
        self.totals.next_lease += 1;
        Ok(LeaseId::new(self.totals.next_lease))
    }

    fn list_lease(&mut self, lease: LeaseId, open: bool) -> Result<(), LedgerError> {
        if open {
            self.open_leases.insert(lease.get(), ())?;
        } else {
            self.open_leases.remove(lease.get())?;
        }
        Ok(())
    }

    fn open_leases_of(&mut self, account: &AccountId) -> Result<Vec<LeaseId>, LedgerError> {
        let mut of = Vec::new();
        for id in self.open_leases()? {
            if self.lease(id)?.is_some_and(|lease| lease.account == *account) {
                of.push(id);
            }
        }
        Ok(of)
    }

    fn session(&mut self, session: SessionId) -> Result<Option<SessionRow>, LedgerError> {
        load(self.sessions.get(session.get())?)
    }

    fn put_session(&mut self, session: SessionId, row: &SessionRow) -> Result<(), LedgerError> {
        self.sessions.insert(session.get(), store(row).as_slice())?;
        Ok(())
    }

    fn put_segment(&mut self, session: SessionId, number: u32, row: &Segment) -> Result<(), LedgerError> {
        self.segments
            .insert((session.get(), number), store(row).as_slice())?;
        Ok(())
    }

    fn grant_used(&mut self, grant: &str) -> Result<Msat, LedgerError> {
        Ok(Msat::new(self.caps.get(grant)?.map_or(0, |used| used.value())))
    }

    fn put_grant_used(&mut self, grant: &str, used: Msat) -> Result<(), LedgerError> {
        self.caps.insert(grant, used.get())?;
        Ok(())
    }

    fn post(&mut self, mut entry: Entry) -> Result<EntryId, LedgerError> {
        entry.commit = self.totals.commits;
        let number = self.next_entry;
        self.journal.insert(number, store(&entry).as_slice())?;
        self.next_entry += 1;
        Ok(EntryId { shard: 0, number })
    }

    fn tally(&mut self, iss: &str) -> Result<Tally, LedgerError> {
        Ok(load(self.issuers.get(iss)?)?.unwrap_or_default())
    }

    fn ceiling(&mut self, ceiling: &Ceiling) -> Result<Msat, LedgerError> {
        let row = self.ceilings.get((ceiling.until, ceiling.name.as_str()))?;
        Ok(Msat::new(row.map_or(0, |used| used.value())))
    }

    fn put_ceiling(&mut self, ceiling: &Ceiling, used: Msat, unix_seconds: u64) -> Result<(), LedgerError> {
        let key = (ceiling.until, ceiling.name.as_str());
        if self.ceilings.insert(key, used.get())?.is_none() {
            self.ceilings.retain_in(..(unix_seconds, ""), |_, _| false)?;
        }
        Ok(())
    }

    fn put_receipt(&mut self, session: SessionId, row: &SignedReceipt) -> Result<bool, LedgerError> {
        let key = (session.get(), row.number);
        if self.receipts.get(key)?.is_some() {
            return Ok(false);
        }
        self.receipts.insert(key, store(row).as_slice())?;
        Ok(true)
    }

    fn is_denied(&mut self, denied: &Denied) -> Result<bool, LedgerError> {
        Ok(self
            .denied
            .get((denied.kind.as_str(), denied.value.as_str()))?
            .is_some())
    }

    fn put_denied(&mut self, denied: &Denied, on: bool) -> Result<(), LedgerError> {
        let key = (denied.kind.as_str(), denied.value.as_str());
        if on {
            self.denied.insert(key, ())?;
        } else {
            self.denied.remove(key)?;
        }
        self.count_up(DENY_VERSION)
    }

    fn note_freeze(&mut self) -> Result<(), LedgerError> {
        self.count_up(FREEZE_VERSION)
    }

    fn issued(&self) -> i64 {
        i64::try_from(self.totals.issued.get()).unwrap_or(i64::MAX)
    }
}

/// Reads a row, if it is there.
pub(crate) fn load<T: DeserializeOwned>(
    row: Option<AccessGuard<'_, Json>>,
) -> Result<Option<T>, LedgerError> {
    row.map(|row| parse(row.value())).transpose()
}

pub(crate) fn parse<T: DeserializeOwned>(row: &[u8]) -> Result<T, LedgerError> {
    serde_json::from_slice(row).map_err(|error| LedgerError::Corrupt(format!("a row does not read: {error}")))
}

/// Writes a row.
pub(crate) fn store<T: Serialize>(row: &T) -> Vec<u8> {
    serde_json::to_vec(row).expect("rows have string keys and no fallible fields")
}

/// A table for reading; none in books that no command has touched yet.
pub(crate) fn table<K: redb::Key + 'static, V: redb::Value + 'static>(
    transaction: &ReadTransaction,
    definition: TableDefinition<K, V>,
) -> Result<Option<redb::ReadOnlyTable<K, V>>, LedgerError> {
    match transaction.open_table(definition) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn all<K: redb::Key + 'static, T: DeserializeOwned>(
    table: Option<redb::ReadOnlyTable<K, Json>>,
) -> Result<Vec<T>, LedgerError> {
    match table {
        Some(table) => table.iter()?.map(|row| parse(row?.1.value())).collect(),
        None => Ok(Vec::new()),
    }
}

pub(crate) fn read_totals(transaction: &ReadTransaction) -> Result<Totals, LedgerError> {
    let Some(table) = table(transaction, TOTALS)? else {
        return Ok(Totals::default());
    };
    Ok(load(table.get(TOTALS_KEY)?)?.unwrap_or_default())
}
