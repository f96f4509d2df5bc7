//! One round at the counter: what was queued is taken, committed together, answered; then every account that was
//! touched takes the step that its runway says.
//!
//! No thread, no clock: rounds get their time as arguments, and what shards are told goes through closures.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use identity::SigningKey;
use metering::allowance::SPENDING_LIFETIME;
use metering::lease::RECLAIM_AFTER;
use metering::ledger::{AccountView, Command, Denied, LedgerError};
use metering::{AccountId, LadderConfig, LeaseId, Ledger, Report, SessionId, Step, Tariff};
use tokio::sync::{mpsc, oneshot, watch};

use super::answers::Answer;
use super::live::{Account, Hold, Live};
use super::losses::Losses;
use super::rounds::Then;
use super::{CashierConfig, Message, Notice, NoticeReason, Order, Refused};
use crate::shard::EndReason;

/// How a shard is told. False where its queue is full.
pub(super) type Shard = Box<dyn FnMut(Order) -> bool + Send>;

/// How the ledger is opened again after its file failed.
pub(super) type Reopen = Box<dyn FnMut() -> Result<Box<dyn Ledger>, LedgerError> + Send>;

/// Reports without other news are committed this often.
const REPORT_COMMIT_INTERVAL: Duration = Duration::from_millis(100);

/// What time alone brings is looked at this often: an eye blink next to the seconds that it is about.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How often opening a failed ledger is tried.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);

/// The cashier's whole state.
pub(super) struct Desk {
    pub(super) ledger: Option<Box<dyn Ledger>>,
    reopen: Reopen,
    /// Since when the ledger does not answer, and when it was last tried.
    pub(super) down: Option<(Instant, Instant)>,
    pub(super) tariffs: Vec<Tariff>,
    pub(super) ladder: LadderConfig,
    pub(super) key: Arc<SigningKey>,
    pub(super) shards: Vec<(Shard, VecDeque<Order>)>,
    pub(super) live: Live,
    pub(super) subscribers: HashMap<SessionId, mpsc::Sender<Notice>>,
    /// Running reports that are not committed yet: the latest of each lease.
    pub(super) reports: BTreeMap<LeaseId, Report>,
    reports_since: Option<Instant>,
    /// What must get into the ledger before anything else, in order: it failed before.
    pub(super) owed: VecDeque<Command>,
    pub(super) batch: Vec<(Command, Then)>,
    /// After the reports: the ledger must know what is used before it grants more.
    pub(super) renewals: Vec<(Command, Then)>,
    /// Leases that want to be renewed.
    pub(super) wanting: BTreeSet<LeaseId>,
    pub(super) answers: Vec<Answer>,
    /// Accounts that changed in this round.
    pub(super) touched: BTreeSet<AccountId>,
    /// Accounts whose rows changed in this commit.
    pub(super) moved: BTreeSet<AccountId>,
    looked_at: Option<Instant>,
    /// Sessions with settled segments that no receipt covers yet.
    pub(super) receipts_due: BTreeSet<SessionId>,
    pub(super) losses: Losses,
    /// Where the deny list goes when it changes, and which version went there.
    pub(super) denials: Option<watch::Sender<Vec<Denied>>>,
    pub(super) deny_version: Option<u64>,
    /// Counts the freezes that were carried out; none before the first look.
    pub(super) freeze_version: Option<u64>,
    /// Somebody else may have changed any account.
    pub(super) look_at_all: bool,
    pub(super) draining: bool,
    drained: Option<Vec<oneshot::Sender<()>>>,
}

impl Desk {
    pub(super) fn new(
        config: CashierConfig,
        ledger: Box<dyn Ledger>,
        reopen: Reopen,
        shards: Vec<Shard>,
    ) -> Self {
        Self {
            ledger: Some(ledger),
            reopen,
            down: None,
            tariffs: config.tariffs,
            ladder: config.ladder,
            key: config.key,
            shards: shards.into_iter().map(|shard| (shard, VecDeque::new())).collect(),
            live: Live::default(),
            subscribers: HashMap::new(),
            reports: BTreeMap::new(),
            reports_since: None,
            owed: VecDeque::new(),
            batch: Vec::new(),
            renewals: Vec::new(),
            wanting: BTreeSet::new(),
            answers: Vec::new(),
            touched: BTreeSet::new(),
            moved: BTreeSet::new(),
            looked_at: None,
            receipts_due: BTreeSet::new(),
            losses: Losses::default(),
            denials: None,
            deny_version: None,
            freeze_version: None,
            look_at_all: false,
            draining: false,
            drained: None,
        }
    }

    /// Whether the ledger answers.
    pub(super) fn is_up(&self) -> bool {
        self.ledger.is_some()
    }

    /// Those who wait for a drain that is done.
    pub(super) fn take_drained(&mut self) -> Option<Vec<oneshot::Sender<()>>> {
        self.drained.take()
    }

    /// When a round is due although nothing was queued.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.reports_since.map(|since| since + REPORT_COMMIT_INTERVAL)
    }

    /// One round.
    pub(super) fn round(&mut self, messages: impl IntoIterator<Item = Message>, now: Instant, unix_ns: u64) {
        self.live.unix_seconds = unix_ns / 1_000_000_000;
        self.try_reopen(now);
        let mut drains = Vec::new();
        for message in messages {
            self.take(message, &mut drains, now, unix_ns);
        }
        let look = self
            .looked_at
            .is_none_or(|looked| now.duration_since(looked) >= LOOK_INTERVAL);
        if look {
            self.looked_at = Some(now);
            self.take_what_is_due(now);
        }
        if look || self.look_at_all {
            self.watch(now, unix_ns);
        }
        self.work_off(now, unix_ns);
        self.issue_receipts(unix_ns, now);
        if look {
            self.tell_balances(now);
            self.look_for_losses(now);
            self.publish();
        }
        self.flush_orders();
        if !drains.is_empty() {
            self.settle_everything(now, unix_ns);
            self.drained = Some(drains);
        }
    }

    /// Settles what was reported and gives back the rest, of every lease.
    pub(super) fn settle_everything(&mut self, now: Instant, unix_ns: u64) {
        self.draining = true;
        let leases: Vec<LeaseId> = self.live.leases.keys().copied().collect();
        for lease in leases {
            self.reclaim(lease, "draining");
        }
        self.work_off(now, unix_ns);
        self.issue_receipts(unix_ns, now);
    }

    /// Commits, decides, and again while deciding asked for more.
    fn work_off(&mut self, now: Instant, unix_ns: u64) {
        loop {
            self.queue_renewals(now);
            let flush = self
                .reports_since
                .is_some_and(|since| now.duration_since(since) >= REPORT_COMMIT_INTERVAL);
            let news = !self.batch.is_empty()
                || !self.renewals.is_empty()
                || (!self.owed.is_empty() && self.is_up());
            if news || flush {
                self.reports_since = None;
                self.commit(now, unix_ns);
            }
            self.decide(now);
            self.answer(now);
            if !self.is_up() || (self.batch.is_empty() && self.wanting.is_empty()) {
                return;
            }
        }
    }

    fn take(&mut self, message: Message, drains: &mut Vec<oneshot::Sender<()>>, now: Instant, unix_ns: u64) {
        match message {
            Message::Report(shard, report) => self.take_report(shard, report, now),
            Message::Admit(admission, reply) => self.queue_admission(*admission, reply),
            Message::TurnAdmit(admission) => self.queue_turn_admission(admission),
            Message::Credit(voucher, bounds, reply) => {
                let account = voucher.account.clone();
                let command = Command::CreditWithin {
                    voucher: *voucher,
                    bounds,
                };
                self.batch.push((command, Then::Credit { account, reply }));
            }
            Message::TopUp(account, command, reply) => {
                self.batch.push((*command, Then::TopUp { account, reply }));
            }
            Message::MakeFree(session) => self.live.make_free(session, now),
            Message::Release(lease) => self.reclaim(lease, "never-opened"),
            Message::Subscribe(session, subscriber) => {
                self.subscribers.insert(session, subscriber);
            }
            Message::Account(account, reply) => {
                self.answers.push(Answer::Account { account, reply });
            }
            Message::Receipt(session, reply) => self.answers.push(Answer::Receipt {
                session,
                reply,
                unix_ns,
            }),
            // Who asked may have gone away.
            Message::Live(reply) => drop(reply.send(Ok(self.overview(now)))),
            Message::Ledger(errand) => {
                let ledger = self.ledger.as_deref_mut();
                errand(ledger.map(|ledger| ledger as &mut dyn Ledger), unix_ns);
                // What failed under an operator's hands must not wait for a client's commit to be noticed.
                let usable = self.ledger.as_mut().map(|ledger| ledger.apply(&[], unix_ns));
                if let Some(Err(error)) = usable {
                    self.lose_ledger(&error, now);
                }
                self.look_at_all = true;
            }
            Message::Outbox(errand) => {
                let ledger = self.ledger.as_deref_mut();
                errand(ledger.map(|ledger| ledger as &mut dyn Ledger), unix_ns);
            }
            Message::Drain(reply) => drains.push(reply),
        }
    }

    fn take_report(&mut self, shard: usize, report: Report, now: Instant) {
        let id = report.lease;
        let Some(lease) = self.live.leases.get_mut(&id) else {
            // Of a lease that was taken back, or of a former life: the memo account's business.
            let command = if report.closed {
                settle(report, "closed")
            } else {
                Command::Report(report)
            };
            self.batch.push((command, Then::Nothing));
            return;
        };
        if !lease.note(&report) {
            return;
        }
        let first = !std::mem::replace(&mut lease.seen, true);
        // Once the shard is known it is told directly, but never ahead of an order that still waits to get there.
        let waiting = self
            .shards
            .get(lease.shard)
            .is_some_and(|(_, backlog)| !backlog.is_empty());
        if lease.shard != shard && !waiting {
            self.live.locate(id, shard);
        }
        let Some(lease) = self.live.leases.get_mut(&id) else {
            return;
        };
        let step = self.live.accounts.get(&lease.account).map(Account::step);
        if first && !report.held && lease.hold == Hold::Asked && step.is_some_and(|step| step < Step::Held) {
            // The whole hold passed while the session was on its way to its shard, which will never speak of it.
            lease.hold = Hold::No;
        }
        if lease.wants {
            self.wanting.insert(id);
        }
        let is_free = lease.free;
        let (session, used, age) = (lease.session, lease.used(), lease.segment_age());
        let account = lease.account.clone();
        if let Some(account) = self.live.accounts.get_mut(&account) {
            account.ladder.observe(id, used, age, now);
            let step = account.step();
            if first {
                // A step that was taken while the session was on its way to its shard did not find it there.
                if !is_free {
                    self.order(shard, Order::SetStep { session, step });
                }
            }
        }
        self.touched.insert(account.clone());
        if !report.closed {
            self.reports.insert(id, report);
            self.reports_since.get_or_insert(now);
            return;
        }
        self.reports.remove(&id);
        let ending = self
            .live
            .sessions
            .get(&session)
            .and_then(|session| session.ending);
        let command = settle(report, ending.unwrap_or("closed"));
        self.batch.push((
            command,
            Then::Settle {
                lease: id,
                last: report.last,
            },
        ));
        let lease = self.live.leases.get_mut(&id).expect("looked up above");
        if report.held && !report.last && lease.hold == Hold::Asked {
            lease.hold = Hold::Yes;
            self.batch
                .push((Command::Release { lease: id }, Then::Release { lease: id }));
            let step = self
                .live
                .accounts
                .get(&account)
                .map_or(Step::Ended, Account::step);
            if step < Step::Held {
                // Somebody topped up before the shard had even paused.
                self.resume(id);
            }
        }
    }

    /// What time alone brings: leases that went silent, ladders that have waited long enough.
    fn take_what_is_due(&mut self, now: Instant) {
        for (name, account) in &self.live.accounts {
            if account.ladder.next_decision().is_some_and(|due| due <= now) {
                self.touched.insert(name.clone());
            }
        }
        if let Some((since, _)) = self.down {
            // No answer reaches a shard, so its spending is about to stop by itself; say so first.
            if now.duration_since(since) >= SPENDING_LIFETIME {
                self.touched.extend(self.live.accounts.keys().cloned());
            }
            return;
        }
        let silent: Vec<LeaseId> = self
            .live
            .leases
            .iter()
            .filter(|(_, lease)| now.duration_since(lease.committed_at) >= RECLAIM_AFTER)
            .map(|(id, _)| *id)
            .collect();
        for id in silent {
            let session = self.live.leases[&id].session;
            tracing::warn!(%session, "a shard no longer reports a session; its lease is taken back");
            self.end_session(session, EndReason::LeaseLost, NoticeReason::LeaseLost, now);
            self.reclaim(id, "lease-lost");
        }
        self.live.forget_idle(now);
        self.subscribers.retain(|_, subscriber| !subscriber.is_closed());
    }

    /// The ledger's file failed: let go of it, and go on without.
    pub(super) fn lose_ledger(&mut self, error: &LedgerError, now: Instant) {
        tracing::error!(%error, "the ledger does not answer; sessions run inside the leases they hold");
        self.ledger = None;
        self.down.get_or_insert((now, now)).1 = now;
    }

    fn try_reopen(&mut self, now: Instant) {
        let Some((since, tried)) = self.down else { return };
        if now.duration_since(tried) < REOPEN_INTERVAL {
            return;
        }
        let opened = (self.reopen)().and_then(|ledger| Ok((ledger.open_leases()?, ledger)));
        match opened {
            Ok((open, ledger)) => {
                tracing::info!(
                    seconds = now.duration_since(since).as_secs(),
                    "the ledger answers again"
                );
                self.ledger = Some(ledger);
                self.down = None;
                for (id, lease) in &mut self.live.leases {
                    // Nobody could report for a while; that is not silence.
                    lease.committed_at = now;
                    if lease.wants {
                        self.wanting.insert(*id);
                    }
                }
                self.touched.extend(self.live.accounts.keys().cloned());
                // What a shared ledger took back while this node was away is gone for good.
                let lost: Vec<LeaseId> = self
                    .live
                    .leases
                    .keys()
                    .filter(|id| !open.contains(id))
                    .copied()
                    .collect();
                for id in lost {
                    if let Some(lease) = self.live.leases.get(&id) {
                        let session = lease.session;
                        self.end_session(session, EndReason::LeaseLost, NoticeReason::LeaseLost, now);
                        self.live.remove(id);
                    }
                }
                self.look_at_all = true;
                // A commit that failed may be in the books all the same: nobody was told of the leases that it opened.
                for lease in open {
                    if !self.live.leases.contains_key(&lease) {
                        self.reclaim(lease, "never-opened");
                    }
                }
            }
            Err(_) => self.down = Some((since, now)),
        }
    }

    /// An account, live or not.
    pub(super) fn view(&mut self, name: &AccountId, now: Instant) -> Result<AccountView, Refused> {
        let ledger = self.ledger.as_ref().ok_or(Refused::LedgerUnavailable)?;
        match ledger.account(name) {
            Ok(view) => Ok(view.unwrap_or_else(|| AccountView::empty(name))),
            Err(error) => {
                self.lose_ledger(&error, now);
                Err(Refused::LedgerUnavailable)
            }
        }
    }
}

fn settle(report: Report, reason: &str) -> Command {
    Command::Settle {
        report,
        reason: reason.to_owned(),
    }
}
