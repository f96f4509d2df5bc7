//! The embedded ledger: redb, in one file that one process holds. A row is JSON: the books must be readable without
//! this program.

mod tables;

pub(super) use tables::Tables;
use tables::*;

use super::{
    AccountView, Command, Cursor, Denied, DumpRow, EntryId, IssuerLimits, LeaseView, Leaving, Ledger,
    LedgerError, News, Outcome, Proof, Recovery, Refusal, Renumbering, SignedReceipt, SinkView, Tally, TopUp,
    Totals, Unsent, VoucherRow,
    books::{Books, Rows, SessionRow},
    journal::Entry,
    settle,
    verify::{Fault, Prover},
};
use crate::{AccountId, LeaseId, Msat, SessionId, receipt::Receipt};
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageBackend,
};
use std::{
    ops::Bound,
    path::{Path, PathBuf},
    time::Instant,
};

/// The books are small rows; redb's own default would let its cache grow to a gigabyte.
const CACHE_BYTES: usize = 64 << 20;

macro_rules! storage_errors {
    ($($error:ty),*) => {$(
        impl From<$error> for LedgerError {
            fn from(error: $error) -> Self {
                Self::Storage(Box::new(redb::Error::from(error)))
            }
        }
    )*};
}
storage_errors!(
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError
);

/// The open books of one relay, in its own file. One writer.
#[derive(Debug)]
pub struct Embedded {
    database: Database,
    path: Option<PathBuf>,
    limits: IssuerLimits,
}

impl Embedded {
    /// Opens the books at `path`, or begins new ones. Leases that a killed node left open are settled with what they
    /// had reported, and the rest of them is released.
    pub fn open(path: &Path, now: u64) -> Result<(Self, Recovery), LedgerError> {
        let mut ledger = Self::reopen(path)?;
        let recovery = ledger.recover(now)?;
        Ok((ledger, recovery))
    }

    /// Opens the books again after their file failed under a running node: its leases go on, nothing is recovered.
    pub fn reopen(path: &Path) -> Result<Self, LedgerError> {
        Ok(Self {
            database: builder().create(path)?,
            path: Some(path.to_owned()),
            limits: IssuerLimits::default(),
        })
    }

    /// As `open`, on storage of the caller's: memory, or a disk that fails on purpose.
    pub fn open_on(backend: impl StorageBackend, now: u64) -> Result<(Self, Recovery), LedgerError> {
        let mut ledger = Self::reopen_on(backend)?;
        let recovery = ledger.recover(now)?;
        Ok((ledger, recovery))
    }

    /// As `reopen`, on storage of the caller's.
    pub fn reopen_on(backend: impl StorageBackend) -> Result<Self, LedgerError> {
        Ok(Self {
            database: builder().create_with_backend(backend)?,
            path: None,
            limits: IssuerLimits::default(),
        })
    }

    /// Books in memory, gone with this value: for trying out what would become of them.
    pub fn in_memory(now: u64) -> Result<Self, LedgerError> {
        Ok(Self::open_on(redb::backends::InMemoryBackend::new(), now)?.0)
    }

    /// The same books, with limits on what issuers may have outstanding.
    #[must_use]
    pub fn with_limits(mut self, limits: IssuerLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Where the file is, if it is one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// One durable commit.
    pub(super) fn commit<T>(
        &mut self,
        now: u64,
        work: impl FnOnce(&mut Books<Tables<'_>>) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let mut transaction = self.database.begin_write()?;
        // One checksum on its own would trust a torn page that an attacker shaped; two phases do not.
        transaction.set_two_phase_commit(true);
        let done = {
            let mut books = Books::new(Tables::open(&transaction)?, self.limits.clone(), now);
            let done = work(&mut books)?;
            books.check()?;
            let Books {
                mut rows,
                moved,
                tallies,
                ..
            } = books;
            for (iss, change) in tallies {
                let sum = rows.tally(&iss)?.plus(&change);
                rows.issuers.insert(iss.as_str(), store(&sum).as_slice())?;
            }
            rows.close(&moved)?;
            done
        };
        transaction.commit()?;
        Ok(done)
    }

    fn read(&self) -> Result<ReadTransaction, LedgerError> {
        Ok(self.database.begin_read()?)
    }

    fn counter(&self, name: &str) -> Result<u64, LedgerError> {
        Ok(match table(&self.read()?, COUNTERS)? {
            Some(table) => table.get(name)?.map_or(0, |row| row.value()),
            None => 0,
        })
    }
}

/// Proves the books at `path` without opening them for business. The relay must not be running.
pub fn verify(path: &Path) -> Result<Proof, Fault> {
    // Opens a file only if it is there: proving a ledger must not begin one.
    let database = Database::open(path).map_err(LedgerError::from)?;
    prove(&database.begin_read().map_err(LedgerError::from)?)
}

impl Ledger for Embedded {
    fn apply(&mut self, batch: &[Command], now: u64) -> Result<Vec<Result<Outcome, Refusal>>, LedgerError> {
        self.commit(now, |books| books.execute_all(batch))
    }

    fn watch(&mut self, accounts: &[AccountId], _: Instant, _: u64) -> Result<News, LedgerError> {
        Ok(News {
            accounts: self.accounts_of(accounts)?,
            deny_version: self.counter(DENY_VERSION)?,
            freeze_version: self.counter(FREEZE_VERSION)?,
            ..News::default()
        })
    }

    fn account(&self, account: &AccountId) -> Result<Option<AccountView>, LedgerError> {
        match table(&self.read()?, ACCOUNTS)? {
            Some(table) => load(table.get(account.as_str())?),
            None => Ok(None),
        }
    }

    fn accounts(&self) -> Result<Vec<AccountView>, LedgerError> {
        all(table(&self.read()?, ACCOUNTS)?)
    }

    fn lease(&self, lease: LeaseId) -> Result<Option<LeaseView>, LedgerError> {
        match table(&self.read()?, LEASES)? {
            Some(table) => load(table.get(lease.get())?),
            None => Ok(None),
        }
    }

    fn open_leases(&self) -> Result<Vec<LeaseId>, LedgerError> {
        let Some(table) = table(&self.read()?, OPEN_LEASES)? else {
            return Ok(Vec::new());
        };
        let ids = table
            .iter()?
            .map(|row| row.map(|(id, _)| LeaseId::new(id.value())));
        Ok(ids.collect::<Result<_, _>>()?)
    }

    fn receipt(&self, session: SessionId) -> Result<Option<Receipt>, LedgerError> {
        let transaction = self.read()?;
        let Some(sessions) = table(&transaction, SESSIONS)? else {
            return Ok(None);
        };
        let Some(row) = load::<SessionRow>(sessions.get(session.get())?)? else {
            return Ok(None);
        };
        let segments = match table(&transaction, SEGMENTS)? {
            Some(table) => table
                .range((session.get(), 0)..=(session.get(), u32::MAX))?
                .map(|row| parse(row?.1.value()))
                .collect::<Result<_, _>>()?,
            None => Vec::new(),
        };
        Ok(Some(settle::receipt(session, row, segments)))
    }

    fn signed_receipt(&self, session: SessionId) -> Result<Option<SignedReceipt>, LedgerError> {
        let Some(table) = table(&self.read()?, RECEIPTS)? else {
            return Ok(None);
        };
        let mut rows = table.range((session.get(), 0)..=(session.get(), u32::MAX))?;
        match rows.next_back() {
            Some(row) => parse(row?.1.value()).map(Some),
            None => Ok(None),
        }
    }

    fn totals(&self) -> Result<Totals, LedgerError> {
        read_totals(&self.read()?)
    }

    fn issuers(&self) -> Result<Vec<(String, Tally)>, LedgerError> {
        let Some(table) = table(&self.read()?, ISSUERS)? else {
            return Ok(Vec::new());
        };
        table
            .iter()?
            .map(|row| {
                let (iss, tally) = row?;
                Ok((iss.value().to_owned(), parse(tally.value())?))
            })
            .collect()
    }

    fn top_up(&self, id: &str) -> Result<Option<TopUp>, LedgerError> {
        match table(&self.read()?, TOP_UPS)? {
            Some(table) => load(table.get(id)?),
            None => Ok(None),
        }
    }

    fn open_top_ups(&self) -> Result<Vec<TopUp>, LedgerError> {
        let transaction = self.read()?;
        let (Some(rows), Some(open)) = (table(&transaction, TOP_UPS)?, table(&transaction, OPEN_TOP_UPS)?)
        else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for row in open.iter()? {
            found.extend(load(rows.get(row?.0.value())?)?);
        }
        Ok(found)
    }

    fn top_ups(&self, after: Option<&str>, most: usize) -> Result<Vec<TopUp>, LedgerError> {
        let Some(table) = table(&self.read()?, TOP_UPS)? else {
            return Ok(Vec::new());
        };
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        table
            .range::<&str>((after, Bound::Unbounded))?
            .take(most)
            .map(|row| parse(row?.1.value()))
            .collect()
    }

    fn denied(&self) -> Result<Vec<Denied>, LedgerError> {
        let Some(table) = table(&self.read()?, DENIED)? else {
            return Ok(Vec::new());
        };
        table
            .iter()?
            .map(|row| {
                let (key, _) = row?;
                let (kind, value) = key.value();
                Ok(Denied {
                    kind: kind.to_owned(),
                    value: value.to_owned(),
                })
            })
            .collect()
    }

    fn restored_at(&self) -> Result<u64, LedgerError> {
        self.counter(RESTORED)
    }

    fn journal(&self, after: Option<EntryId>, most: usize) -> Result<Vec<(EntryId, Entry)>, LedgerError> {
        let Some(table) = table(&self.read()?, JOURNAL)? else {
            return Ok(Vec::new());
        };
        table
            .range(after.map_or(0, |after| after.number + 1)..)?
            .take(most)
            .map(|row| {
                let (number, entry) = row?;
                let number = number.value();
                Ok((EntryId { shard: 0, number }, parse(entry.value())?))
            })
            .collect()
    }

    fn unsent(&mut self, sink: &str, most: usize) -> Result<Option<Unsent>, LedgerError> {
        let transaction = self.read()?;
        let cursor: Cursor = match table(&transaction, SINKS)? {
            Some(table) => load(table.get(sink)?)?.unwrap_or_default(),
            None => Cursor::default(),
        };
        let Some(journal) = table(&transaction, JOURNAL)? else {
            return Ok(Some(Unsent::default()));
        };
        let vouchers = table(&transaction, VOUCHERS)?;
        let mut entries = Vec::new();
        for row in journal.range(cursor.next(0)..)?.take(most) {
            let (number, entry) = row?;
            let number = number.value();
            let entry: Entry = parse(entry.value())?;
            let row: Option<VoucherRow> = match (&vouchers, &entry.voucher) {
                (Some(table), Some(name)) => load(table.get((name.iss.as_str(), name.jti.as_str()))?)?,
                _ => None,
            };
            entries.push(Leaving {
                id: EntryId { shard: 0, number },
                entry,
                voucher: row.map(|row| row.voucher),
            });
        }
        let end = journal.last()?.map_or(0, |(number, _)| number.value() + 1);
        Ok(Some(Unsent {
            behind: end.saturating_sub(cursor.next(0)),
            cursor,
            entries,
        }))
    }

    fn sent(&mut self, sink: &str, cursor: &Cursor) -> Result<bool, LedgerError> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_two_phase_commit(true);
        transaction
            .open_table(SINKS)?
            .insert(sink, store(cursor).as_slice())?;
        transaction.commit()?;
        Ok(true)
    }

    fn sinks(&self) -> Result<Vec<SinkView>, LedgerError> {
        let transaction = self.read()?;
        let end = match table(&transaction, JOURNAL)? {
            Some(journal) => journal.last()?.map_or(0, |(number, _)| number.value() + 1),
            None => 0,
        };
        let Some(table) = table(&transaction, SINKS)? else {
            return Ok(Vec::new());
        };
        table
            .iter()?
            .map(|row| {
                let (sink, cursor) = row?;
                let cursor: Cursor = parse(cursor.value())?;
                Ok(SinkView {
                    sink: sink.value().to_owned(),
                    behind: end.saturating_sub(cursor.next(0)),
                    cursor,
                })
            })
            .collect()
    }

    fn verify(&self) -> Result<Proof, Fault> {
        prove(&self.read()?)
    }

    fn dump(&self, to: &mut dyn FnMut(DumpRow) -> Result<(), LedgerError>) -> Result<(), LedgerError> {
        let transaction = self.read()?;
        if let Some(table) = table(&transaction, JOURNAL)? {
            for row in table.iter()? {
                let (number, entry) = row?;
                let number = number.value();
                to(DumpRow::Entry(
                    EntryId { shard: 0, number },
                    parse(entry.value())?,
                ))?;
            }
        }
        for account in all(table(&transaction, ACCOUNTS)?)? {
            to(DumpRow::Account(account))?;
        }
        for voucher in all(table(&transaction, VOUCHERS)?)? {
            to(DumpRow::Voucher(voucher))?;
        }
        if let Some(table) = table(&transaction, LEASES)? {
            for row in table.iter()? {
                let (id, lease) = row?;
                to(DumpRow::Lease(LeaseId::new(id.value()), parse(lease.value())?))?;
            }
        }
        if let Some(table) = table(&transaction, SESSIONS)? {
            for row in table.iter()? {
                let (id, session) = row?;
                to(DumpRow::Session(
                    SessionId::new(id.value()),
                    parse(session.value())?,
                ))?;
            }
        }
        if let Some(table) = table(&transaction, SEGMENTS)? {
            for row in table.iter()? {
                let (key, segment) = row?;
                let (session, number) = key.value();
                to(DumpRow::Segment(
                    SessionId::new(session),
                    number,
                    parse(segment.value())?,
                ))?;
            }
        }
        if let Some(table) = table(&transaction, CAPS)? {
            for row in table.iter()? {
                let (grant, used) = row?;
                to(DumpRow::PayerGrant(
                    grant.value().to_owned(),
                    Msat::new(used.value()),
                ))?;
            }
        }
        if let Some(table) = table(&transaction, CEILINGS)? {
            for row in table.iter()? {
                let (key, used) = row?;
                let (until, name) = key.value();
                to(DumpRow::Ceiling(name.to_owned(), until, Msat::new(used.value())))?;
            }
        }
        for (iss, tally) in self.issuers()? {
            to(DumpRow::Issuer(iss, tally))?;
        }
        if let Some(table) = table(&transaction, RECEIPTS)? {
            for row in table.iter()? {
                let (key, receipt) = row?;
                to(DumpRow::Receipt(
                    SessionId::new(key.value().0),
                    parse(receipt.value())?,
                ))?;
            }
        }
        for top_up in all(table(&transaction, TOP_UPS)?)? {
            to(DumpRow::TopUp(top_up))?;
        }
        self.denied()?
            .into_iter()
            .try_for_each(|denied| to(DumpRow::Denied(denied)))?;
        self.sinks()?
            .into_iter()
            .try_for_each(|view| to(DumpRow::Sink(view.sink, view.cursor)))
    }

    fn load(
        &mut self,
        rows: &mut dyn Iterator<Item = Result<DumpRow, LedgerError>>,
        restored: Option<u64>,
        now: u64,
    ) -> Result<(), LedgerError> {
        if !self.journal(None, 1)?.is_empty() {
            return Err(LedgerError::Corrupt("only empty books can be filled".to_owned()));
        }
        self.commit(now, |books| {
            let mut renumbering = Renumbering::new(0);
            for row in rows {
                books.rows.put_row(renumbering.take(row?)?)?;
            }
            let (sums, commits, next_entry, lease_max) = renumbering.finish();
            let tables = &mut books.rows;
            tables.totals = sums.totals(commits, lease_max)?;
            tables.next_entry = next_entry;
            if let Some(restored) = restored {
                tables.counters.insert(RESTORED, restored)?;
            }
            Ok(())
        })?;
        self.recover(now).map(drop)
    }
}

fn prove(transaction: &ReadTransaction) -> Result<Proof, Fault> {
    let mut prover = Prover::default();
    if let Some(journal) = table(transaction, JOURNAL)? {
        for row in journal.iter().map_err(LedgerError::from)? {
            let (key, value) = row.map_err(LedgerError::from)?;
            let id = EntryId {
                shard: 0,
                number: key.value(),
            };
            prover.entry(id, &parse(value.value())?)?;
        }
    }
    for account in all::<&str, AccountView>(table(transaction, ACCOUNTS)?)? {
        prover.account(&account)?;
    }
    if let (Some(leases), Some(index)) = (table(transaction, LEASES)?, table(transaction, OPEN_LEASES)?) {
        for row in leases.iter().map_err(LedgerError::from)? {
            let (id, value) = row.map_err(LedgerError::from)?;
            let listed = index.get(id.value()).map_err(LedgerError::from)?.is_some();
            prover.lease(LeaseId::new(id.value()), &parse(value.value())?, listed)?;
        }
    }
    if let Some(ceilings) = table(transaction, CEILINGS)? {
        for row in ceilings.iter().map_err(LedgerError::from)? {
            let (key, used) = row.map_err(LedgerError::from)?;
            let (until, name) = key.value();
            prover.ceiling(name, until, Msat::new(used.value()));
        }
    }
    let vouchers = match table(transaction, VOUCHERS)? {
        Some(table) => table.len().map_err(LedgerError::from)?,
        None => 0,
    };
    prover.finish(&read_totals(transaction)?, vouchers)
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}
