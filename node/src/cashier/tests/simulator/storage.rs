//! Where a node's books are, and what can go wrong on the way there.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ledger_postgres::{Options, Postgres};
use metering::ledger::{
    AccountView, Command, Cursor, Denied, DumpRow, Entry, EntryId, Fault, LeaseView, News, Outcome, Proof,
    Recovery, Refusal, SignedReceipt, SinkView, Tally, TopUp, Totals, Unsent,
};
use metering::receipt::Receipt;

use super::super::disk::Disk;
use super::super::*;
use crate::cashier::desk::Reopen;

pub(super) enum Storage {
    /// A file of the node's own.
    Disk(Disk),
    /// A database that it shares.
    Database {
        url: String,
        name: String,
        cable: Arc<Cable>,
    },
}

/// What is between a node and its database.
#[derive(Default)]
pub(super) struct Cable {
    cut: AtomicBool,
    /// Commits get through, and their answers do not, once so many did.
    loses_answers_after: AtomicUsize,
    loses_answers: AtomicBool,
}

fn cut() -> LedgerError {
    LedgerError::Storage("the cable is cut".into())
}

impl Storage {
    pub(super) fn disk() -> Self {
        Self::Disk(Disk::default())
    }

    pub(super) fn database(url: &str, place: usize) -> Self {
        Self::Database {
            url: url.to_owned(),
            name: format!("node-{place}"),
            cable: Arc::default(),
        }
    }

    /// Opens the books as a node does that starts.
    pub(super) fn open(&self, unix_ns: u64) -> (Box<dyn Ledger>, Reopen, Recovery) {
        match self {
            Self::Disk(disk) => {
                let (books, recovery) = Embedded::open_on(disk.clone(), unix_ns).unwrap();
                let disk = disk.clone();
                let reopen: Reopen = Box::new(move || Ok(Box::new(Embedded::reopen_on(disk.clone())?)));
                (Box::new(books), reopen, recovery)
            }
            Self::Database { url, name, cable } => {
                let options = Options::new(name.clone());
                let (books, recovery) = Postgres::open(url, options.clone(), unix_ns).unwrap();
                let (url, seat, cable) = (url.clone(), books.seat(), cable.clone());
                let again = cable.clone();
                let reopen: Reopen = Box::new(move || {
                    again.pass()?;
                    let books = Postgres::reopen(&url, options.clone(), &seat)?;
                    Ok(Box::new(Cabled {
                        books,
                        cable: again.clone(),
                    }))
                });
                (Box::new(Cabled { books, cable }), reopen, recovery)
            }
        }
    }

    /// The power fails: what was not synced may be lost or torn.
    pub(super) fn crash(&mut self, luck: u64) {
        if let Self::Disk(disk) = self {
            *disk = disk.after_the_crash(luck);
        }
        self.heal();
    }

    /// After so many more operations nothing gets through; of a database perhaps only the answers do not.
    pub(super) fn break_after(&self, operations: usize, losing_answers: bool) {
        match self {
            Self::Disk(disk) => disk.fail_after(operations),
            Self::Database { cable, .. } if losing_answers => {
                cable.loses_answers_after.store(operations / 8, Ordering::Relaxed);
                cable.loses_answers.store(true, Ordering::Relaxed);
            }
            Self::Database { cable, .. } => cable.cut.store(true, Ordering::Relaxed),
        }
    }

    pub(super) fn heal(&self) {
        match self {
            Self::Disk(disk) => disk.heal(),
            Self::Database { cable, .. } => {
                cable.cut.store(false, Ordering::Relaxed);
                cable.loses_answers.store(false, Ordering::Relaxed);
            }
        }
    }
}

impl Cable {
    fn pass(&self) -> Result<(), LedgerError> {
        match self.cut.load(Ordering::Relaxed) {
            true => Err(cut()),
            false => Ok(()),
        }
    }

    /// Whether the answer to a commit that was just made arrives. The connection ends with the one that does not.
    fn answer(&self) -> Result<(), LedgerError> {
        if !self.loses_answers.load(Ordering::Relaxed) {
            return Ok(());
        }
        match self.loses_answers_after.load(Ordering::Relaxed) {
            0 => {
                self.cut.store(true, Ordering::Relaxed);
                Err(cut())
            }
            left => {
                self.loses_answers_after.store(left - 1, Ordering::Relaxed);
                Ok(())
            }
        }
    }
}

/// A database at the other end of a cable.
struct Cabled {
    books: Postgres,
    cable: Arc<Cable>,
}

impl Ledger for Cabled {
    fn apply(&mut self, batch: &[Command], now: u64) -> Result<Vec<Result<Outcome, Refusal>>, LedgerError> {
        self.cable.pass()?;
        let results = self.books.apply(batch, now)?;
        self.cable.answer()?;
        Ok(results)
    }

    fn watch(&mut self, accounts: &[AccountId], now: Instant, unix_ns: u64) -> Result<News, LedgerError> {
        self.cable.pass()?;
        self.books.watch(accounts, now, unix_ns)
    }

    fn account(&self, account: &AccountId) -> Result<Option<AccountView>, LedgerError> {
        self.cable.pass()?;
        self.books.account(account)
    }

    fn accounts(&self) -> Result<Vec<AccountView>, LedgerError> {
        self.cable.pass()?;
        self.books.accounts()
    }

    fn lease(&self, lease: LeaseId) -> Result<Option<LeaseView>, LedgerError> {
        self.cable.pass()?;
        self.books.lease(lease)
    }

    fn open_leases(&self) -> Result<Vec<LeaseId>, LedgerError> {
        self.cable.pass()?;
        self.books.open_leases()
    }

    fn receipt(&self, session: SessionId) -> Result<Option<Receipt>, LedgerError> {
        self.cable.pass()?;
        self.books.receipt(session)
    }

    fn signed_receipt(&self, session: SessionId) -> Result<Option<SignedReceipt>, LedgerError> {
        self.cable.pass()?;
        self.books.signed_receipt(session)
    }

    fn totals(&self) -> Result<Totals, LedgerError> {
        self.cable.pass()?;
        self.books.totals()
    }

    fn issuers(&self) -> Result<Vec<(String, Tally)>, LedgerError> {
        self.cable.pass()?;
        self.books.issuers()
    }

    fn top_up(&self, id: &str) -> Result<Option<TopUp>, LedgerError> {
        self.cable.pass()?;
        self.books.top_up(id)
    }

    fn open_top_ups(&self) -> Result<Vec<TopUp>, LedgerError> {
        self.cable.pass()?;
        self.books.open_top_ups()
    }

    fn top_ups(&self, after: Option<&str>, most: usize) -> Result<Vec<TopUp>, LedgerError> {
        self.cable.pass()?;
        self.books.top_ups(after, most)
    }

    fn denied(&self) -> Result<Vec<Denied>, LedgerError> {
        self.cable.pass()?;
        self.books.denied()
    }

    fn restored_at(&self) -> Result<u64, LedgerError> {
        self.books.restored_at()
    }

    fn journal(&self, after: Option<EntryId>, most: usize) -> Result<Vec<(EntryId, Entry)>, LedgerError> {
        self.cable.pass()?;
        self.books.journal(after, most)
    }

    fn unsent(&mut self, sink: &str, most: usize) -> Result<Option<Unsent>, LedgerError> {
        self.cable.pass()?;
        self.books.unsent(sink, most)
    }

    fn sent(&mut self, sink: &str, cursor: &Cursor) -> Result<bool, LedgerError> {
        self.cable.pass()?;
        let sent = self.books.sent(sink, cursor)?;
        self.cable.answer()?;
        Ok(sent)
    }

    fn sinks(&self) -> Result<Vec<SinkView>, LedgerError> {
        self.books.sinks()
    }

    fn verify(&self) -> Result<Proof, Fault> {
        self.books.verify()
    }

    fn dump(&self, to: &mut dyn FnMut(DumpRow) -> Result<(), LedgerError>) -> Result<(), LedgerError> {
        self.books.dump(to)
    }

    fn load(
        &mut self,
        rows: &mut dyn Iterator<Item = Result<DumpRow, LedgerError>>,
        restored: Option<u64>,
        now: u64,
    ) -> Result<(), LedgerError> {
        self.books.load(rows, restored, now)
    }
}
