//! The books: who has how much, what is set aside, what was earned; durable, double-entry, replayable.
//!
//! At every commit `issued = available + reserved + earned + refunded`. What cannot be collected, and what an old
//! epoch of a lease reports, are memo accounts outside that sum. The caller queues commands and applies them in
//! batches: one batch is one durable two-phase commit, so either all of it happened or none.
//!
//! Deliberately not here: threads, queues and time. One writer owns the [`Ledger`] and says when.

mod account;
mod journal;
mod recovery;
mod rows;
mod settle;
mod verify;

// Named after what they hold, next to the crate's own modules of those names.
#[path = "ledger/lease.rs"]
mod leases;
#[path = "ledger/voucher.rs"]
mod vouchers;

pub use account::{AccountView, Lot};
pub use journal::{Entry, Kind, VoucherName};
pub use recovery::Recovery;
pub use rows::{LeaseState, LeaseView, Totals};
pub use verify::{Fault, Proof, verify};
pub use vouchers::Credited;

use crate::{AccountId, LeaseId, Msat, Rates, Service, SessionId, Voucher, receipt::Receipt, report::Report};
use redb::{Database, ReadableDatabase, StorageBackend};
use rows::Books;
use std::path::{Path, PathBuf};

/// One thing to do to the books.
#[derive(Clone, Debug)]
pub enum Command {
    /// Credit a voucher, once.
    Credit(Voucher),
    /// Admit a session, or a further meter of one: credit the voucher if there is one, then open a lease.
    Open(Box<Open>),
    /// Set more aside for a lease, so that `want` of it is unspent (RFC 8506 section 5.2: update).
    Renew {
        /// The lease.
        lease: LeaseId,
        /// How much of it should be unspent.
        want: Msat,
        /// The least that is of use.
        minimum: Msat,
    },
    /// Running usage: touches the lease's row and nothing else.
    Report(Report),
    /// A closed segment, or the end of a lease: bills it.
    Settle {
        /// What the shard reported; `closed`.
        report: Report,
        /// Why, where it ends the lease.
        reason: String,
    },
    /// A hold: what the lease has not spent goes back to the account; the lease stays open.
    Release {
        /// The lease.
        lease: LeaseId,
    },
    /// No report for too long: settle what was reported, take the rest back, and begin a new epoch.
    Reclaim {
        /// The lease.
        lease: LeaseId,
        /// Why.
        reason: String,
    },
    /// Stop, or allow again, all spending of an account.
    Freeze {
        /// The account.
        account: AccountId,
        /// Whether it is frozen.
        frozen: bool,
    },
    /// Pay the refundable part of what is available back to its owner.
    Refund {
        /// The account.
        account: AccountId,
    },
}

/// What a new lease is for.
#[derive(Clone, Debug)]
pub struct Open {
    /// The session.
    pub session: SessionId,
    /// Who pays.
    pub account: AccountId,
    /// A voucher to credit in the same commit.
    pub voucher: Option<Voucher>,
    /// Which relay.
    pub service: Service,
    /// Id of the tariff.
    pub tariff: String,
    /// Its rates, which hold for the lease's whole life.
    pub rates: Rates,
    /// How much it asks for.
    pub want: Msat,
    /// What the account must have available to be admitted.
    pub minimum: Msat,
    /// A ceiling that the payer signed, over everything that is spent under it.
    pub cap: Option<Cap>,
}

/// A payer's signed ceiling (`payer_grant`).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Cap {
    /// Names the grant for ever: payer and `jti`.
    pub grant: String,
    /// The most that is ever spent under it.
    pub max: Msat,
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Of `Credit`.
    Credited(Credited),
    /// Of `Open`.
    Opened {
        /// The new lease.
        lease: LeaseId,
        /// What it was granted.
        granted: Msat,
        /// What the account has left.
        available: Msat,
        /// What the voucher did, if there was one.
        credited: Option<Credited>,
    },
    /// Of `Renew`: the total over the lease's life, perhaps unchanged.
    Renewed {
        /// The cumulative grant.
        granted: Msat,
        /// What the account has left.
        available: Msat,
    },
    /// Of `Report`.
    Reported,
    /// Of `Settle` and `Reclaim`.
    Settled {
        /// What was earned.
        earned: Msat,
        /// What was owed beyond the lease, for the memo account.
        uncollected: Msat,
    },
    /// Of `Release` and `Refund`: what moved.
    Released(Msat),
    /// Of `Freeze`.
    Frozen(bool),
    /// A report or settlement that was already in the books, or of an old epoch: nothing moved.
    Ignored,
}

/// Why a command did nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The account has less than an admission needs.
    #[error("the balance is exhausted")]
    BalanceExhausted {
        /// What it has.
        available: Msat,
    },
    /// The voucher was credited before, with other claims.
    #[error("this voucher's id was credited before with other claims")]
    VoucherConflict,
    /// The balance would pass [`Msat::MAX_BALANCE`].
    #[error("the balance would be larger than 2^53 - 1 msat")]
    BalanceTooLarge,
    /// Too many vouchers with something left in them.
    #[error("the account holds too many vouchers; spend some first")]
    TooManyLots,
    /// The account is frozen.
    #[error("the account is frozen")]
    Frozen,
    /// The payer's ceiling is reached.
    #[error("the payer's grant is used up")]
    GrantUsedUp,
    /// The session belongs to another account.
    #[error("the session belongs to another account")]
    OtherAccount,
    /// The session's receipt is as long as one may be.
    #[error("the session has been through too many leases; open another one")]
    ReceiptFull,
    /// No such lease, or it has ended.
    #[error("there is no such open lease")]
    NoSuchLease,
}

/// The books cannot be read or written, or contradict themselves.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file: unreachable, full, or locked by a running relay.
    #[error("the ledger's file cannot be used: {0}")]
    Storage(#[source] Box<redb::Error>),
    /// A row that does not read, or a sum that does not hold. Nothing was committed.
    #[error("the ledger contradicts itself: {0}")]
    Corrupt(String),
}

/// How a single command ends early.
#[derive(Debug)]
enum Stop {
    Refused(Refusal),
    Broken(LedgerError),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<LedgerError> for Stop {
    fn from(error: LedgerError) -> Self {
        Self::Broken(error)
    }
}

macro_rules! storage_errors {
    ($($error:ty),*) => {$(
        impl From<$error> for LedgerError {
            fn from(error: $error) -> Self {
                Self::Storage(Box::new(error.into()))
            }
        }
        impl From<$error> for Stop {
            fn from(error: $error) -> Self {
                Self::Broken(error.into())
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

/// The open books. One writer.
#[derive(Debug)]
pub struct Ledger {
    database: Database,
    path: Option<PathBuf>,
}

impl Ledger {
    /// Opens the books at `path`, or begins new ones. Leases that a killed node left open are settled with what they
    /// had reported, and the rest of them is released.
    pub fn open(path: &Path, now: u64) -> Result<(Self, Recovery), LedgerError> {
        let mut ledger = Self {
            database: builder().create(path)?,
            path: Some(path.to_owned()),
        };
        let recovery = ledger.recover(now)?;
        Ok((ledger, recovery))
    }

    /// Opens the books again after their file failed under a running node: its leases go on, nothing is recovered.
    pub fn reopen(path: &Path) -> Result<Self, LedgerError> {
        Ok(Self {
            database: builder().create(path)?,
            path: Some(path.to_owned()),
        })
    }

    /// As `open`, on storage of the caller's: memory, or a disk that fails on purpose.
    pub fn open_on(backend: impl StorageBackend, now: u64) -> Result<(Self, Recovery), LedgerError> {
        let mut ledger = Self {
            database: builder().create_with_backend(backend)?,
            path: None,
        };
        let recovery = ledger.recover(now)?;
        Ok((ledger, recovery))
    }

    /// Where the file is, if it is one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Applies a batch in order, in one durable commit. A refused command changes nothing and the others go on; an
    /// error means that nothing of the batch happened, as far as can be known: apply it again after `reopen`, every
    /// command but `Open` and `Renew` is idempotent, and of `open_leases` those that nobody heard of are to be reclaimed.
    pub fn apply(
        &mut self,
        batch: &[Command],
        now: u64,
    ) -> Result<Vec<Result<Outcome, Refusal>>, LedgerError> {
        let mut transaction = self.database.begin_write()?;
        // One checksum on its own would trust a torn page that an attacker shaped; two phases do not.
        transaction.set_two_phase_commit(true);
        let mut results = Vec::with_capacity(batch.len());
        {
            let mut books = Books::open(&transaction, now)?;
            for command in batch {
                match books.execute(command) {
                    Ok(outcome) => results.push(Ok(outcome)),
                    Err(Stop::Refused(refusal)) => results.push(Err(refusal)),
                    Err(Stop::Broken(error)) => return Err(error),
                }
            }
            books.close()?;
        }
        transaction.commit()?;
        Ok(results)
    }

    /// An account, if it was ever credited.
    pub fn account(&self, account: &AccountId) -> Result<Option<AccountView>, LedgerError> {
        account::read(&self.database.begin_read()?, account)
    }

    /// Every account, in the order of their names.
    pub fn accounts(&self) -> Result<Vec<AccountView>, LedgerError> {
        account::read_all(&self.database.begin_read()?)
    }

    /// A lease, open or not.
    pub fn lease(&self, lease: LeaseId) -> Result<Option<LeaseView>, LedgerError> {
        rows::read_lease(&self.database.begin_read()?, lease)
    }

    /// The leases that are open.
    pub fn open_leases(&self) -> Result<Vec<LeaseId>, LedgerError> {
        rows::read_open_leases(&self.database.begin_read()?)
    }

    /// What a session has cost so far.
    pub fn receipt(&self, session: SessionId) -> Result<Option<Receipt>, LedgerError> {
        settle::read_receipt(&self.database.begin_read()?, session)
    }

    /// The sums over all accounts.
    pub fn totals(&self) -> Result<Totals, LedgerError> {
        rows::read_totals(&self.database.begin_read()?)
    }

    /// The usage journal from `sequence` on, at most `most` entries.
    pub fn journal(&self, sequence: u64, most: usize) -> Result<Vec<Entry>, LedgerError> {
        journal::read(&self.database.begin_read()?, sequence, most)
    }

    /// Replays the journal and proves that the books balance, at every commit and now.
    pub fn verify(&self) -> Result<Proof, Fault> {
        verify::prove(&self.database.begin_read().map_err(LedgerError::from)?)
    }
}

impl Books<'_> {
    fn execute(&mut self, command: &Command) -> Result<Outcome, Stop> {
        match command {
            Command::Credit(voucher) => self.credit(voucher).map(Outcome::Credited),
            Command::Open(open) => self.open_lease(open),
            Command::Renew { lease, want, minimum } => self.renew(*lease, *want, *minimum),
            Command::Report(report) => self.report(report),
            Command::Settle { report, reason } => self.settle(report, reason),
            Command::Release { lease } => self.release(*lease),
            Command::Reclaim { lease, reason } => self.reclaim(*lease, reason),
            Command::Freeze { account, frozen } => self.freeze(account, *frozen),
            Command::Refund { account } => self.refund(account),
        }
    }
}

/// The books are small rows; redb's own default would let its cache grow to a gigabyte.
const CACHE_BYTES: usize = 64 << 20;

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Opens a file for reading and writing only if it is there: proving a ledger must not begin one.
fn open_existing(path: &Path) -> Result<Database, LedgerError> {
    Ok(Database::open(path)?)
}
