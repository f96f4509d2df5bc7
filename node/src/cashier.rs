//! The cashier: the one thread that owns the ledger, and everything that others may ask of it.
//!
//! Requests and reports queue here; each round takes what is queued, commits it in one go and answers. Between the
//! requests it keeps a ladder for every account, renews leases, takes back those that went silent, and tells shards
//! and clients what follows. What a round does stands in `desk`; this file is the counter in front of it.

mod admission;
mod answers;
pub(crate) mod backup;
mod desk;
pub(crate) mod errand;
mod live;
mod losses;
mod notice;
pub(crate) mod overview;
pub(crate) mod place;
mod renewal;
mod rounds;
mod steps;
mod telling;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use identity::VoucherClaims;
use identity::{Permit, SigningKey};
use metering::ledger::{self, Bounds, Cap, Conditions, CreditLine, Credited, Denied, LedgerError, TopUp};
use metering::{
    AccountId, LadderConfig, LeaseId, Ledger, Msat, Rates, Report, Service, SessionId, Step, Tariff, Voucher,
};
use serde::Serialize;
use tokio::sync::watch as latest;
use tokio::sync::{mpsc, oneshot};

pub(crate) use notice::{Notice, NoticeReason};

use crate::clock;
use crate::shard::{Command, EndReason, Lobby, ShardHandle};
use desk::{Desk, Reopen};
use place::Place;

/// Messages that may wait. Past this requests are refused and running reports dropped, for the next one says the
/// same; what closes a segment always gets in, and there is at most one of those for each lease.
const QUEUE_MAX: usize = 65_536;

/// Messages in one commit: a round must not keep the first of them waiting for long.
const ROUND_MAX: usize = 1_024;

/// The longest that the thread sleeps: what is due by time is due within this.
const TICK: Duration = Duration::from_millis(100);

/// How long reports that can wait are gathered: little next to the time after which they are committed, and what an
/// admission that comes meanwhile waits at most.
const GATHER: Duration = Duration::from_millis(3);

/// What the cashier needs to know.
pub(crate) struct CashierConfig {
    /// Where the books are.
    pub(crate) ledger: Place,
    /// What each issuer may have outstanding.
    pub(crate) issuer_limit: Option<Msat>,
    /// When sessions are slowed down.
    pub(crate) ladder: LadderConfig,
    /// The prices; the first of a service is the one that is charged.
    pub(crate) tariffs: Vec<Tariff>,
    /// The relay's key, which signs receipts.
    pub(crate) key: Arc<SigningKey>,
}

/// Somebody asks to be let in.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    /// Who pays.
    pub(crate) account: AccountId,
    /// The token's voucher, credited in the same commit if it is new.
    pub(crate) voucher: Option<Voucher>,
    /// The session that is to be opened.
    pub(crate) session: SessionId,
    /// On which relay.
    pub(crate) service: Service,
    /// On which shard; the lobby's place where that is not known yet.
    pub(crate) shard: usize,
    /// The client's own limit.
    pub(crate) max_msat_per_second: Option<u64>,
    /// The payer's limit.
    pub(crate) cap: Option<Cap>,
    /// Within what its voucher is credited, its credit line, and whether it costs anything.
    pub(crate) conditions: Conditions,
}

/// Somebody was let in.
#[derive(Clone, Debug)]
pub(crate) struct Admitted {
    /// The lease to spend from.
    pub(crate) lease: LeaseId,
    /// How much of it there is.
    pub(crate) granted: Msat,
    /// At these prices.
    pub(crate) rates: Rates,
    /// Which are called this.
    pub(crate) tariff_id: String,
    /// How the session is served; tell the shard if it is not `Full`.
    pub(crate) step: Step,
    /// What the account has.
    pub(crate) account: AccountStatus,
}

/// A TURN client asks for an allocation. The answer is a command to the shard that asked.
#[derive(Clone, Debug)]
pub(crate) struct TurnAdmission {
    /// The shard that asks.
    pub(crate) shard: usize,
    /// Its own name for the allocation.
    pub(crate) allocation: u64,
    /// The session of the credential.
    pub(crate) session: SessionId,
    /// Who pays.
    pub(crate) account: AccountId,
    /// The payer's limit.
    pub(crate) cap: Option<Cap>,
}

/// An account as its owner sees it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct AccountStatus {
    /// The operator froze it: it spends nothing.
    pub(crate) frozen: bool,
    /// Free to spend.
    pub(crate) available: Msat,
    /// By how much it is below zero.
    pub(crate) owed: Msat,
    /// What it may still draw on credit.
    pub(crate) credit_left: Msat,
    /// Set aside for live sessions.
    pub(crate) reserved: Msat,
    /// What its sessions can still use: available, on credit,
    /// and reserved but not used. The runway is reckoned with it.
    pub(crate) spendable: Msat,
    /// Spent over the account's life, settled sessions only.
    pub(crate) spent: Msat,
    /// How long it lasts at full quality; none while nothing is spent.
    pub(crate) runway_seconds: Option<f64>,
    /// What its sessions burn at full quality.
    pub(crate) burn_msat_per_second: u64,
    /// How its sessions are served.
    pub(crate) step: Step,
    /// Those that hold a lease.
    pub(crate) sessions: Vec<SessionStatus>,
}

impl AccountStatus {
    /// What it has: below zero where it owes.
    pub(crate) fn balance(&self) -> i64 {
        let signed = |msat: Msat| i64::try_from(msat.get()).unwrap_or(i64::MAX);
        signed(self.available).saturating_sub(signed(self.owed))
    }

    /// Is this an account that never had money?
    pub(crate) fn is_blank(&self) -> bool {
        self.available.is_zero() && self.owed.is_zero() && self.reserved.is_zero() && self.spent.is_zero()
    }
}

/// A live session as its owner sees it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct SessionStatus {
    /// Its id.
    pub(crate) session: SessionId,
    /// On which relay.
    pub(crate) service: Service,
    /// Used so far, running segments rounded down.
    pub(crate) used_msat: Msat,
}

/// What a step of a top-up did.
#[derive(Clone, Debug)]
pub(crate) struct ToppedUp {
    /// The top-up as it stands.
    pub(crate) top_up: TopUp,
    /// What its settlement did.
    pub(crate) credited: Option<Credited>,
    /// It had been done before.
    pub(crate) repeated: bool,
}

/// Why the cashier said no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// There is too little in the account.
    #[error(
        "The balance of this account is exhausted ({available} available); top it up with another token."
    )]
    BalanceExhausted {
        /// What there is.
        available: Msat,
    },
    /// The token's voucher was credited with other claims.
    #[error("A token with this `jti` was credited before with other claims; ask the issuer for a new one.")]
    VoucherConflict,
    /// The operator froze the account.
    #[error("The operator has frozen this account.")]
    Frozen,
    /// What the payer signed for is spent.
    #[error("What the payer granted is used up; ask the payer for a new grant.")]
    GrantUsedUp,
    /// The issuer's vouchers are more than the operator lets it have outstanding.
    #[error(
        "The issuer of this token has reached its limit with this relay; it has to settle with the operator first."
    )]
    IssuerLimit,
    /// A sum of the policy's would pass its ceiling.
    #[error("This token's voucher is above what its issuer may give today; it was not credited.")]
    CeilingReached,
    /// The voucher does not fit.
    #[error("The account cannot hold this voucher as well; spend some of the balance first.")]
    BalanceTooLarge,
    /// It waits for as many payments as one account may.
    #[error("This account has too many top-ups open; pay one, or wait until it expires.")]
    TooManyTopUps,
    /// The ledger does not answer.
    #[error(
        "The relay's ledger cannot be reached at the moment; nothing was charged, try again in some seconds."
    )]
    LedgerUnavailable,
    /// Too many are asking, or the relay is going away.
    #[error("The relay has no capacity for this at the moment; try again later or at another relay.")]
    Capacity,
}

impl Refused {
    /// The stable word of the problem.
    pub(crate) fn slug(&self) -> &'static str {
        match self {
            Self::BalanceExhausted { .. } | Self::GrantUsedUp => "balance-exhausted",
            Self::VoucherConflict => "voucher-conflict",
            Self::BalanceTooLarge => "balance-too-large",
            Self::IssuerLimit | Self::CeilingReached => "issuer-limit",
            Self::TooManyTopUps => "rate-limited",
            Self::Frozen => "account-frozen",
            Self::LedgerUnavailable | Self::Capacity => "capacity",
        }
    }
}

/// What can be queued.
enum Message {
    Admit(Box<Admission>, Reply<Admitted>),
    TurnAdmit(TurnAdmission),
    Credit(Box<Voucher>, Bounds, Reply<Credited>),
    /// A step of a top-up with money from outside.
    TopUp(AccountId, Box<metering::ledger::Command>, Reply<ToppedUp>),
    Account(AccountId, Reply<AccountStatus>),
    Receipt(SessionId, Reply<Option<(AccountId, String)>>),
    Live(Reply<Vec<overview::LiveSession>>),
    Report(usize, Report),
    Release(LeaseId),
    MakeFree(SessionId),
    Subscribe(SessionId, mpsc::Sender<Notice>),
    /// Whatever an operator wants of the books.
    Ledger(LedgerWork),
    /// What carries the journal out of the house, which moves no account.
    Outbox(LedgerWork),
    Drain(oneshot::Sender<()>),
}

impl Message {
    /// A report of a meter that runs and asks for nothing, which is committed later anyway.
    fn can_wait(&self) -> bool {
        matches!(self, Message::Report(_, report) if !(report.renew || report.exhausted || report.held || report.closed))
    }
}

/// What an operator does to the books: it gets them, if they are open, and the time.
type LedgerWork = Box<dyn FnOnce(Option<&mut dyn Ledger>, u64) + Send>;

fn work<T: Send + 'static>(
    errand: impl FnOnce(&mut dyn Ledger, u64) -> T + Send + 'static,
    reply: Reply<T>,
) -> LedgerWork {
    Box::new(move |ledger, unix_ns| {
        let done = ledger.map(|ledger| errand(ledger, unix_ns));
        // Whoever does not wait any more does not need the answer.
        let _ = reply.send(done.ok_or(Refused::LedgerUnavailable));
    })
}

type Reply<T> = oneshot::Sender<Result<T, Refused>>;

/// The way to the cashier. Cheap to clone.
#[derive(Clone)]
pub(crate) struct CashierHandle {
    queue: Sender<Message>,
    queued: Arc<AtomicUsize>,
    up: Arc<AtomicBool>,
    restored_at: u64,
    denied: latest::Receiver<Vec<Denied>>,
}

impl CashierHandle {
    /// The ledger's deny list, as it changes, on whatever node.
    pub(crate) fn denied(&self) -> latest::Receiver<Vec<Denied>> {
        self.denied.clone()
    }

    /// Unix seconds of the backup's restoration, if the books are from one: what was credited since is not in them.
    pub(crate) fn restored_at(&self) -> u64 {
        self.restored_at
    }

    /// Credits the voucher and opens the first lease, in one commit.
    pub(crate) async fn admit(&self, admission: Admission) -> Result<Admitted, Refused> {
        self.ask(|reply| Message::Admit(Box::new(admission), reply)).await
    }

    /// Sets an account's credit line.
    pub(crate) async fn grant_line(&self, account: AccountId, line: CreditLine) -> Result<(), Refused> {
        let granted = self.errand(move |ledger, unix_ns| {
            let command = ledger::Command::GrantLine { account, line };
            ledger.apply(&[command], unix_ns).map(drop)
        });
        granted.await?.map_err(|_| Refused::LedgerUnavailable)
    }

    /// Credits a voucher, once, within bounds. Its sessions are served accordingly before this returns.
    pub(crate) async fn credit(&self, voucher: Voucher, bounds: Bounds) -> Result<Credited, Refused> {
        self.ask(|reply| Message::Credit(Box::new(voucher), bounds, reply))
            .await
    }

    /// A step of a top-up with money from outside; once it credits, its sessions are served accordingly before this
    /// returns.
    pub(crate) async fn top_up(
        &self,
        account: AccountId,
        command: metering::ledger::Command,
    ) -> Result<ToppedUp, Refused> {
        self.ask(|reply| Message::TopUp(account, Box::new(command), reply))
            .await
    }

    /// How an account stands. One that never had money is an empty one.
    pub(crate) async fn account(&self, account: AccountId) -> Result<AccountStatus, Refused> {
        self.ask(|reply| Message::Account(account, reply)).await
    }

    /// A session's receipt, as it stands, and who paid.
    pub(crate) async fn receipt(&self, session: SessionId) -> Result<Option<(AccountId, String)>, Refused> {
        self.ask(|reply| Message::Receipt(session, reply)).await
    }

    /// Everything that is live.
    pub(crate) async fn live(&self) -> Result<Vec<overview::LiveSession>, Refused> {
        self.ask(Message::Live).await
    }

    /// A shard's report. Never blocks.
    pub(crate) fn try_report(&self, shard: usize, report: Report) {
        if report.closed || self.has_room() {
            self.enqueue(Message::Report(shard, report));
        }
    }

    /// A shard's question about an allocation. Never blocks; false means that there will be no answer.
    pub(crate) fn try_turn_admit(&self, admission: TurnAdmission) -> bool {
        self.has_room() && self.enqueue(Message::TurnAdmit(admission))
    }

    /// Allocations of this TURN session cost nothing.
    pub(crate) fn make_free(&self, session: SessionId) {
        self.enqueue(Message::MakeFree(session));
    }

    /// Gives back a lease whose session never came to be.
    pub(crate) fn release(&self, lease: LeaseId) {
        self.enqueue(Message::Release(lease));
    }

    /// What a session is told from now on. Dropping the receiver ends it.
    pub(crate) fn subscribe(&self, session: SessionId) -> mpsc::Receiver<Notice> {
        let (sender, receiver) = mpsc::channel(notice::NOTICES_MAX);
        self.enqueue(Message::Subscribe(session, sender));
        receiver
    }

    /// Does an operator's errand at the books, between two rounds. Live sessions feel it at once.
    pub(crate) async fn errand<T: Send + 'static>(
        &self,
        errand: impl FnOnce(&mut dyn Ledger, u64) -> T + Send + 'static,
    ) -> Result<T, Refused> {
        self.ask(|reply| Message::Ledger(work(errand, reply))).await
    }

    /// Reads the journal for a sink of usage records, or moves the sink's cursor.
    pub(crate) async fn outbox<T: Send + 'static>(
        &self,
        errand: impl FnOnce(&mut dyn Ledger, u64) -> T + Send + 'static,
    ) -> Result<T, Refused> {
        self.ask(|reply| Message::Outbox(work(errand, reply))).await
    }

    /// Whether the ledger answers.
    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Settles everything and ends the thread. To be called once the shards have ended: their last reports are
    /// queued before this is.
    pub(crate) async fn drain(&self) {
        let (reply, drained) = oneshot::channel();
        if self.enqueue(Message::Drain(reply)) {
            // An error means that the thread is gone, and then everything is settled too.
            let _ = drained.await;
        }
    }

    async fn ask<T>(&self, message: impl FnOnce(Reply<T>) -> Message) -> Result<T, Refused> {
        let (reply, answer) = oneshot::channel();
        if !self.has_room() || !self.enqueue(message(reply)) {
            return Err(Refused::Capacity);
        }
        answer.await.unwrap_or(Err(Refused::LedgerUnavailable))
    }

    fn has_room(&self) -> bool {
        self.queued.load(Ordering::Relaxed) < QUEUE_MAX
    }

    fn enqueue(&self, message: Message) -> bool {
        self.queued.fetch_add(1, Ordering::Relaxed);
        self.queue.send(message).is_ok()
    }
}

/// The cashier before its thread runs.
pub(crate) struct Cashier {
    config: CashierConfig,
    ledger: Box<dyn Ledger>,
    reopen: Reopen,
    denials: latest::Sender<Vec<Denied>>,
    queue: Receiver<Message>,
    queued: Arc<AtomicUsize>,
    up: Arc<AtomicBool>,
}

/// Opens the ledger, puts right what a kill left, and makes the way to the cashier. `Cashier::start` opens the
/// counter. Blocks; not for async code.
pub(crate) fn open(config: CashierConfig, unix_ns: u64) -> Result<(CashierHandle, Cashier), LedgerError> {
    let (ledger, reopen, recovery) = config.ledger.open(config.issuer_limit, unix_ns)?;
    if recovery.leases > 0 {
        tracing::warn!(
            leases = recovery.leases,
            earned_msat = recovery.earned.get(),
            released_msat = recovery.released.get(),
            at_risk_msat = recovery.at_risk.get(),
            "the relay had been killed: settled what was reported, released the rest; at most about at_risk_msat was \
             used and never reported"
        );
    }
    losses::count_recovered(recovery.leases, recovery.at_risk);
    let (denials, denied) = latest::channel(ledger.denied()?);
    let (sender, queue) = channel();
    let (queued, up) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(true)));
    let handle = CashierHandle {
        queue: sender,
        queued: queued.clone(),
        up: up.clone(),
        restored_at: ledger.restored_at()?,
        denied,
    };
    Ok((
        handle,
        Cashier {
            config,
            ledger,
            reopen,
            denials,
            queue,
            queued,
            up,
        },
    ))
}

impl Cashier {
    /// Starts the thread. It ends after `drain`, or when every handle is gone.
    pub(crate) fn start(
        self,
        shards: Vec<ShardHandle>,
        lobby: Arc<Lobby>,
    ) -> std::io::Result<std::thread::JoinHandle<()>> {
        let mut orders: Vec<desk::Shard> = shards
            .into_iter()
            .map(|shard| -> desk::Shard { Box::new(move |order: Order| shard.send(order.into()).is_ok()) })
            .collect();
        // Behind the shards, at the place that the lobby says it has.
        orders.push(Box::new(move |order| match order.session() {
            Some(session) => lobby.send(session, order.into()).is_ok(),
            None => true,
        }));
        std::thread::Builder::new()
            .name("cashier".to_owned())
            .spawn(move || self.run(orders))
    }

    fn run(self, shards: Vec<desk::Shard>) {
        let mut desk = Desk::new(self.config, self.ledger, self.reopen, shards);
        desk.denials = Some(self.denials);
        let mut round = Vec::with_capacity(ROUND_MAX);
        loop {
            let patience = desk
                .next_due()
                .map_or(TICK, |due| due.saturating_duration_since(clock::now()).min(TICK));
            match self.queue.recv_timeout(patience) {
                Ok(message) => round.push(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    desk.settle_everything(clock::now(), clock::unix_ns());
                    return;
                }
            }
            if round.iter().all(Message::can_wait) && !round.is_empty() {
                // Thousands of meters report every second, each at its own moment: one waking for many of them.
                std::thread::sleep(GATHER);
            }
            while round.len() < ROUND_MAX
                && let Ok(message) = self.queue.try_recv()
            {
                round.push(message);
            }
            self.queued.fetch_sub(round.len(), Ordering::Relaxed);
            desk.round(round.drain(..), clock::now(), clock::unix_ns());
            self.up.store(desk.is_up(), Ordering::Relaxed);
            if let Some(drained) = desk.take_drained() {
                for reply in drained {
                    // Nobody listens any more if the caller gave up waiting.
                    let _ = reply.send(());
                }
                return;
            }
        }
    }
}

/// What the cashier tells a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Grant {
        session: SessionId,
        lease: LeaseId,
        granted_total: Msat,
    },
    SetStep {
        session: SessionId,
        step: Step,
    },
    TurnAdmitted {
        allocation: u64,
        session: SessionId,
        lease: LeaseId,
        granted: Msat,
        rates: Rates,
        step: Step,
    },
    TurnRefused {
        allocation: u64,
        reason: TurnRefusal,
    },
    End {
        session: SessionId,
        reason: EndReason,
    },
}

impl Order {
    /// Whose session it is about.
    fn session(&self) -> Option<SessionId> {
        match self {
            Order::Grant { session, .. }
            | Order::SetStep { session, .. }
            | Order::TurnAdmitted { session, .. }
            | Order::End { session, .. } => Some(*session),
            Order::TurnRefused { .. } => None,
        }
    }
}

/// Why an allocation gets no money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TurnRefusal {
    BalanceExhausted,
    Frozen,
    Capacity,
    Unavailable,
}

impl From<&Refused> for TurnRefusal {
    fn from(refused: &Refused) -> Self {
        match refused {
            Refused::BalanceExhausted { .. } | Refused::GrantUsedUp => Self::BalanceExhausted,
            Refused::Frozen => Self::Frozen,
            Refused::LedgerUnavailable => Self::Unavailable,
            Refused::Capacity
            | Refused::VoucherConflict
            | Refused::BalanceTooLarge
            | Refused::TooManyTopUps
            | Refused::IssuerLimit
            | Refused::CeilingReached => Self::Capacity,
        }
    }
}

impl From<Order> for Command {
    fn from(order: Order) -> Self {
        match order {
            Order::Grant {
                session,
                lease,
                granted_total,
            } => Self::Grant {
                session,
                lease,
                granted_total,
            },
            Order::SetStep { session, step } => Self::SetStep { session, step },
            Order::TurnAdmitted {
                allocation,
                session,
                lease,
                granted,
                rates,
                step,
            } => Self::TurnAdmitted {
                allocation,
                session,
                lease,
                granted,
                rates,
                step,
            },
            Order::TurnRefused { allocation, reason } => Self::TurnRefused {
                allocation,
                reason: match reason {
                    TurnRefusal::BalanceExhausted => turn_server::Refusal::BalanceExhausted,
                    TurnRefusal::Frozen => turn_server::Refusal::Frozen,
                    TurnRefusal::Capacity => turn_server::Refusal::Capacity,
                    TurnRefusal::Unavailable => turn_server::Refusal::Unavailable,
                },
            },
            Order::End { session, reason } => Self::End { session, reason },
        }
    }
}

/// A token's voucher as the ledger takes it. What an issuer gives for nothing it does not sign differently, so every
/// voucher counts as paid for.
pub(crate) fn voucher(claims: &VoucherClaims) -> Voucher {
    Voucher {
        iss: claims.issuer.as_str().to_owned(),
        jti: claims.id.clone(),
        sub: claims.subject.as_str().to_owned(),
        payer: claims.payer.as_ref().map(|payer| payer.as_str().to_owned()),
        aud: claims.audience.as_str().to_owned(),
        balance: Msat::new(claims.balance_msat),
        account: AccountId::new(claims.account.as_str()),
        refundable: true,
    }
}

/// The payer's ceiling that a permit comes with, named by payer and grant.
pub(crate) fn cap(permit: &Permit) -> Option<Cap> {
    let grant = permit.payer_grant()?;
    Some(Cap {
        grant: format!("{} {}", permit.account(), grant.id),
        max: Msat::new(grant.max_msat),
    })
}

#[cfg(test)]
mod tests;
