//! The books: who has how much, what is set aside, what was earned; durable, double-entry, replayable.
//!
//! At every commit `issued = available + reserved + earned + refunded`, where what accounts owe on credit counts as
//! available below zero. What cannot be collected, and what an old
//! epoch of a lease reports, are memo accounts outside that sum. The caller queues commands and applies them in
//! batches: one batch is one durable commit, so either all of it happened or none.
//!
//! A [`Ledger`] is either [`Embedded`], the file of one relay, or the shared one on PostgreSQL, which lives in a crate of
//! its own. The rules are the same code over both: `books`.
//!
//! Deliberately not here: threads, queues and time. Each [`Ledger`] has one writer, who says when.

mod account;
mod books;
mod credit;
mod dump;
mod embedded;
mod journal;
mod outbox;
mod recovery;
mod replay;
mod settle;
mod top_up;
mod verify;

// Named after what they hold, next to the crate's own modules of those names.
#[path = "ledger/lease.rs"]
mod leases;
#[path = "ledger/voucher.rs"]
mod vouchers;

pub use account::{AccountView, Lot};
pub use books::{
    Books, Denied, IssuerLimits, LeaseState, LeaseView, Rows, SessionRow, SignedReceipt, Sums, Tally, Totals,
};
pub use credit::{Bounds, Ceiling, Conditions, CreditLine};
pub use dump::{DumpRow, Renumbering};
pub use embedded::{Embedded, verify};
pub use journal::{Entry, EntryId, Kind, VoucherName};
pub use outbox::{Cursor, Leaving, SinkView, Unsent, in_account_order};
pub use recovery::{REASON as RECOVERY_REASON, Recovery};
pub use replay::Record;
pub use settle::receipt;
pub use top_up::{TopUp, TopUpState};
pub use verify::{Fault, Proof, Prover};
pub use vouchers::{Credited, VoucherRow};

use crate::{AccountId, LeaseId, Msat, Rates, Service, SessionId, Voucher, receipt::Receipt, report::Report};
use std::time::Instant;

/// The open books. Each has one writer; a shared ledger has one for each node.
pub trait Ledger: Send {
    /// Applies a batch in order, in one durable commit. A refused command changes nothing and the others go on; an
    /// error means that nothing of the batch happened, as far as can be known: apply it again on a ledger that was
    /// opened anew, every command but `Open`, `Renew` and `Refund` is idempotent, and of `open_leases` those that nobody
    /// heard of are to be reclaimed.
    fn apply(&mut self, batch: &[Command], now: u64) -> Result<Vec<Result<Outcome, Refusal>>, LedgerError>;

    /// What others did: how these accounts stand, whether the deny list or a freeze changed. A shared ledger also
    /// hears here that this node lives, and takes the leases of one that has not been heard of back.
    fn watch(&mut self, accounts: &[AccountId], now: Instant, unix_ns: u64) -> Result<News, LedgerError>;

    /// An account, if it was ever credited.
    fn account(&self, account: &AccountId) -> Result<Option<AccountView>, LedgerError>;

    /// Several accounts at once; those that were never credited are left out.
    fn accounts_of(&self, accounts: &[AccountId]) -> Result<Vec<AccountView>, LedgerError> {
        let views = accounts.iter().map(|account| self.account(account));
        Ok(views
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .flatten()
            .collect())
    }

    /// Every account, in the order of their names.
    fn accounts(&self) -> Result<Vec<AccountView>, LedgerError>;

    /// A lease, open or not.
    fn lease(&self, lease: LeaseId) -> Result<Option<LeaseView>, LedgerError>;

    /// This node's leases that are open.
    fn open_leases(&self) -> Result<Vec<LeaseId>, LedgerError>;

    /// What a session has cost so far.
    fn receipt(&self, session: SessionId) -> Result<Option<Receipt>, LedgerError>;

    /// The latest receipt of a session that was signed and kept.
    fn signed_receipt(&self, session: SessionId) -> Result<Option<SignedReceipt>, LedgerError>;

    /// The sums over all accounts.
    fn totals(&self) -> Result<Totals, LedgerError>;

    /// What each issuer's vouchers came to.
    fn issuers(&self) -> Result<Vec<(String, Tally)>, LedgerError>;

    /// A top-up with money from outside.
    fn top_up(&self, id: &str) -> Result<Option<TopUp>, LedgerError>;

    /// Top-ups that are open.
    fn open_top_ups(&self) -> Result<Vec<TopUp>, LedgerError>;

    /// Top-ups of whatever state after one of this name, or from the first, in the order of their names.
    fn top_ups(&self, after: Option<&str>, most: usize) -> Result<Vec<TopUp>, LedgerError>;

    /// The deny list.
    fn denied(&self) -> Result<Vec<Denied>, LedgerError>;

    /// Unix seconds of the backup that these books were restored from; 0 if they never were.
    fn restored_at(&self) -> Result<u64, LedgerError>;

    /// The usage journal after an entry, or from its beginning, at most `most` entries; one node's after another's.
    fn journal(&self, after: Option<EntryId>, most: usize) -> Result<Vec<(EntryId, Entry)>, LedgerError>;

    /// What a sink of usage records has not acknowledged, at most `most` entries of each journal; a sink that is new
    /// begins at the journal's beginning. None: another node delivers to it.
    fn unsent(&mut self, sink: &str, most: usize) -> Result<Option<Unsent>, LedgerError>;

    /// A sink has acknowledged everything before this. False: another node delivers to it now.
    fn sent(&mut self, sink: &str, cursor: &Cursor) -> Result<bool, LedgerError>;

    /// Every sink there ever was, and how far it is.
    fn sinks(&self) -> Result<Vec<SinkView>, LedgerError>;

    /// Replays the journal and proves that the books balance, at every commit and now.
    fn verify(&self) -> Result<Proof, Fault>;

    /// Every row, as of one moment.
    fn dump(&self, to: &mut dyn FnMut(DumpRow) -> Result<(), LedgerError>) -> Result<(), LedgerError>;

    /// Fills empty books with another's rows, in one commit, and settles what those had left open. `restored`: Unix
    /// seconds, where the rows are a backup: what was credited since is not in them.
    fn load(
        &mut self,
        rows: &mut dyn Iterator<Item = Result<DumpRow, LedgerError>>,
        restored: Option<u64>,
        now: u64,
    ) -> Result<(), LedgerError>;
}

/// What others did to the books.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// The accounts that were asked for, as they stand.
    pub accounts: Vec<AccountView>,
    /// Counts the changes of the deny list.
    pub deny_version: u64,
    /// Counts freezes and releases, of whatever account.
    pub freeze_version: u64,
    /// Leases of other nodes that were taken back just now.
    pub taken_over: usize,
    /// Revenue that may be lost with them, as in [`Recovery::at_risk`].
    pub at_risk: Msat,
}

/// One thing to do to the books.
#[derive(Clone, Debug)]
pub enum Command {
    /// Credit a voucher, once.
    Credit(Voucher),
    /// Credit a voucher, once, within bounds.
    CreditWithin {
        /// The voucher.
        voucher: Voucher,
        /// Which.
        bounds: Bounds,
    },
    /// An account's credit line from now on.
    GrantLine {
        /// The account.
        account: AccountId,
        /// Its line.
        line: CreditLine,
    },
    /// Credit a voucher of the operator's own, once.
    Gift {
        /// The voucher.
        voucher: Voucher,
        /// Why, in the operator's words.
        reason: String,
    },
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
        /// Why, in the operator's words.
        reason: String,
    },
    /// Settle every open lease of an account with what it reported, on whatever node, and take the rest back.
    CloseAccount {
        /// The account.
        account: AccountId,
        /// Why.
        reason: String,
    },
    /// Do again what a record says was done after the backup that these books were filled from.
    Replay(Box<Record>),
    /// Keep a signed receipt.
    KeepReceipt {
        /// The session.
        session: SessionId,
        /// The receipt.
        receipt: SignedReceipt,
    },
    /// Put something on the deny list, or take it off.
    Deny {
        /// What.
        denied: Denied,
        /// Whether it is to be on the list.
        on: bool,
    },
    /// Begin a top-up, before anything is asked of whoever brings the money.
    BeginTopUp {
        /// The top-up.
        top_up: Box<TopUp>,
        /// Top-ups that the account may have open, this one included.
        open_max: u32,
    },
    /// Its money has arrived: credit it.
    SettleTopUp {
        /// The payment's name.
        id: String,
        /// Whose it is.
        account: AccountId,
        /// DID of the operator.
        operator: String,
        /// What is to be kept of it.
        detail: serde_json::Value,
    },
    /// Its money will not arrive.
    FailTopUp {
        /// The payment's name.
        id: String,
        /// Whose it is.
        account: AccountId,
        /// Why.
        reason: String,
    },
    /// The operator has taken its coins out.
    ExportTopUp {
        /// The payment's name.
        id: String,
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
    /// Bounds, credit, and whether it costs anything.
    pub conditions: Conditions,
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
        /// What the account can still spend, on credit too.
        available: Msat,
    },
    /// Of `Report`.
    Reported,
    /// Of `Settle`, `Reclaim` and `CloseAccount`.
    Settled {
        /// What was earned.
        earned: Msat,
        /// What was owed beyond the lease, for the memo account.
        uncollected: Msat,
    },
    /// Of `Release` and `Refund`: what moved.
    Released(Msat),
    /// Of `GrantLine`: the line that the account has now.
    LineGranted(Msat),
    /// Of `Freeze`.
    Frozen(bool),
    /// Of `KeepReceipt`: false where there is one of that number.
    Kept(bool),
    /// Of `Replay`.
    Replayed,
    /// Of `Deny`.
    Denied {
        /// Whether the list changed.
        changed: bool,
    },
    /// Of `BeginTopUp`, `SettleTopUp`, `FailTopUp` and `ExportTopUp`.
    ToppedUp {
        /// The top-up as it stands.
        top_up: Box<TopUp>,
        /// What its settlement did.
        credited: Option<Credited>,
        /// It had been done before, and nothing happened.
        repeated: bool,
    },
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
    /// A sum that the voucher counts against would pass its ceiling.
    #[error("the voucher would pass a limit of the operator's policy")]
    CeilingReached,
    /// The issuer has as much outstanding as the operator lets it.
    #[error("the issuer has reached its prefunding limit")]
    IssuerLimit,
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
    /// A record that says too little, or what cannot be.
    #[error("it cannot be replayed: {0}")]
    CannotReplay(&'static str),
    /// The payment was claimed before, for another account.
    #[error("this payment was claimed for another account")]
    TopUpTaken,
    /// The account waits for as many payments as it may.
    #[error("the account has too many top-ups open; pay one, or wait until it expires")]
    TooManyTopUps,
    /// No such top-up of this account.
    #[error("there is no such top-up")]
    NoSuchTopUp,
    /// No such lease, or it has ended.
    #[error("there is no such open lease")]
    NoSuchLease,
}

/// The books cannot be read or written, or contradict themselves.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file or the database: unreachable, full, or locked by a running relay.
    #[error("the ledger cannot be used: {0}")]
    Storage(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// This node was presumed dead, or another process took its name: its leases are no longer its own.
    #[error("another process has taken over this node's part of the ledger")]
    Fenced,
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
