//! One node: a desk, shards whose meters relay, clients' requests, and its troubles.

use std::collections::VecDeque;

use metering::ledger::{Command, Fault, LeaseState, Proof};

use super::super::*;
use super::storage::Storage;
use super::{Luck, account, numbered, on_credit};

/// Whoever was reported and committed in order: what a meter relayed this long ago is in the books of a node that is well.
const REPORTED_AFTER: Duration = Duration::from_millis(1_300);

/// A node is well this long after its last trouble.
const CONVALESCENCE: Duration = Duration::from_secs(3);

/// Trouble of this length may cost a node its leases.
const LONG: Duration = Duration::from_secs(25);

/// What a client sends.
#[derive(Clone, Debug)]
pub(super) enum Letter {
    Join {
        account: u64,
        session: u64,
        voucher: Option<u64>,
    },
    Allocate {
        account: u64,
        session: u64,
    },
    TopUp {
        voucher: u64,
    },
    Leave {
        which: usize,
    },
}

/// The reference's page about one lease.
#[derive(Debug)]
pub(super) struct Relayed {
    pub(super) out: u64,
    pub(super) in_: u64,
    pub(super) rates: Rates,
    /// The most that the ledger had set aside for it.
    pub(super) granted: Msat,
    /// Its meter closed and the node went on: the bill has to be exact.
    pub(super) in_order: bool,
    closed: bool,
    /// What must have been billed whatever happens.
    pub(super) floor: (u64, u64),
    recent: VecDeque<(Instant, u64, u64)>,
    /// What it had relayed when the ledger was first seen to have taken it back.
    dead: Option<(u64, u64)>,
}

/// Who waits for an answer.
enum Waiting {
    Join(
        SessionId,
        usize,
        Option<u64>,
        oneshot::Receiver<Result<Admitted, Refused>>,
    ),
    TopUp(u64, oneshot::Receiver<Result<Credited, Refused>>),
}

pub(super) struct Node {
    place: usize,
    storage: Storage,
    key: Arc<SigningKey>,
    desk: Option<Desk>,
    orders: Arc<Mutex<Vec<(usize, Order)>>>,
    jammed: Arc<AtomicBool>,
    meters: BTreeMap<LeaseId, (usize, Allowance)>,
    pub(super) relayed: BTreeMap<LeaseId, Relayed>,
    inbox: Vec<Message>,
    waiting: Vec<Waiting>,
    /// Vouchers whose credit was acknowledged to a client.
    pub(super) acknowledged: Vec<u64>,
    /// Wall clock, from that of the world.
    clock: i64,
    began: Instant,
    down_until: Instant,
    still_until: Instant,
    slow_until: Instant,
    jammed_until: Instant,
    cut_until: Option<Instant>,
    well_since: Instant,
}

impl Node {
    pub(super) fn start(place: usize, storage: Storage, key: Arc<SigningKey>, now: Instant) -> Self {
        Self {
            place,
            storage,
            key,
            desk: None,
            orders: Arc::default(),
            jammed: Arc::default(),
            meters: BTreeMap::new(),
            relayed: BTreeMap::new(),
            inbox: Vec::new(),
            waiting: Vec::new(),
            acknowledged: Vec::new(),
            clock: 0,
            began: now,
            down_until: now,
            still_until: now,
            slow_until: now,
            jammed_until: now,
            cut_until: None,
            well_since: now,
        }
    }

    fn unix_ns(&self, now: Instant) -> u64 {
        let wall = 1_700_000_000_000_000_000i64 + now.duration_since(self.began).as_nanos() as i64;
        (wall + self.clock) as u64
    }

    fn open(&mut self, now: Instant) {
        let (ledger, reopen, _) = self.storage.open(self.unix_ns(now));
        let config = CashierConfig {
            ledger: Place::File("unused".into()),
            issuer_limit: None,
            ladder: LadderConfig::default(),
            tariffs: vec![Tariff::sfu(u64::MAX), Tariff::turn(u64::MAX)],
            key: self.key.clone(),
        };
        let shards = (0..SHARDS)
            .map(|shard| -> desk::Shard {
                let (orders, jammed) = (self.orders.clone(), self.jammed.clone());
                Box::new(move |order| {
                    let room = !jammed.load(Ordering::Relaxed);
                    if room {
                        orders.lock().unwrap().push((shard, order));
                    }
                    room
                })
            })
            .collect();
        // What was closed and did not get into the books with the old life is no longer in order.
        for (id, page) in &mut self.relayed {
            let state = ledger.lease(*id).unwrap().map(|lease| lease.state);
            page.in_order &= state == Some(LeaseState::Closed);
        }
        self.desk = Some(Desk::new(config, ledger, reopen, shards));
    }

    /// The books, for who carries their journal out, while the node is well enough.
    pub(super) fn outbox(&mut self, now: Instant) -> Option<&mut (dyn Ledger + 'static)> {
        let well = self.down_until <= now && self.still_until <= now && self.cut_until.is_none();
        let desk = self.desk.as_mut().filter(|_| well)?;
        desk.ledger.as_deref_mut().map(|ledger| ledger as _)
    }

    pub(super) fn books(&self) -> &dyn Ledger {
        self.desk.as_ref().unwrap().ledger.as_deref().unwrap()
    }

    pub(super) fn verify(&self) -> Option<Result<Proof, Fault>> {
        let shared = matches!(self.storage, Storage::Database { .. });
        let ledger = self.desk.as_ref()?.ledger.as_ref()?;
        (!shared || self.place == 0).then(|| ledger.verify())
    }

    pub(super) fn hears(&self, now: Instant) -> bool {
        self.down_until <= now
    }

    /// A letter arrives. `gone`: its writer does not wait for the answer.
    pub(super) fn deliver(&mut self, letter: Letter, gone: bool, now: Instant) {
        if !self.hears(now) {
            return;
        }
        match letter {
            Letter::Join {
                account: who,
                session,
                voucher,
            } => {
                let (reply, answer) = oneshot::channel();
                let (session, shard) = (SessionId::new(session), session as usize % SHARDS);
                let admission = Admission {
                    account: account(who),
                    voucher: voucher.map(numbered),
                    session,
                    service: Service::Sfu,
                    shard,
                    max_msat_per_second: None,
                    cap: None,
                    conditions: on_credit(session),
                };
                self.inbox.push(Message::Admit(Box::new(admission), reply));
                if !gone {
                    self.waiting.push(Waiting::Join(session, shard, voucher, answer));
                }
            }
            Letter::Allocate {
                account: who,
                session,
            } => self.inbox.push(Message::TurnAdmit(TurnAdmission {
                shard: session as usize % SHARDS,
                allocation: session,
                session: SessionId::new(session),
                account: account(who),
                cap: None,
            })),
            Letter::TopUp { voucher } => {
                let (reply, answer) = oneshot::channel();
                self.inbox.push(Message::Credit(
                    Box::new(numbered(voucher)),
                    Bounds::default(),
                    reply,
                ));
                if !gone {
                    self.waiting.push(Waiting::TopUp(voucher, answer));
                }
            }
            Letter::Leave { which } => {
                let count = self.meters.len();
                if self.still_until <= now
                    && count > 0
                    && let Some(id) = self.meters.keys().nth(which % count).copied()
                {
                    self.close(id, now);
                }
            }
        }
    }

    fn close(&mut self, id: LeaseId, now: Instant) {
        if let Some((shard, mut meter)) = self.meters.remove(&id) {
            self.inbox.push(Message::Report(shard, meter.close(now)));
            let page = self.relayed.get_mut(&id).unwrap();
            page.closed = true;
        }
    }

    /// The kernel's and the desk's work of a tick.
    pub(super) fn tick(&mut self, now: Instant, bytes_per_second: u64, luck: &mut Luck) {
        if self.down_until > now {
            return;
        }
        if self.desk.is_none() {
            self.open(now);
        }
        if self.still_until > now {
            return;
        }
        if self.cut_until.is_some_and(|until| until <= now) {
            self.storage.heal();
            self.cut_until = None;
            self.well_since = now;
        }
        let (slow, jammed) = (self.slow_until > now, self.jammed_until > now);
        self.jammed.store(jammed, Ordering::Relaxed);
        if slow || jammed || self.cut_until.is_some() {
            self.well_since = now;
        }
        self.relay(now, bytes_per_second, slow, luck);
        if slow {
            return;
        }
        self.rounds(now);
        if self.desk.as_ref().is_some_and(|desk| !desk.is_up()) {
            self.well_since = now;
        }
        let well = now.duration_since(self.well_since) >= CONVALESCENCE;
        for (id, page) in &mut self.relayed {
            if !self.meters.contains_key(id) {
                page.recent.clear();
                continue;
            }
            page.recent.push_back((now, page.out, page.in_));
            while page
                .recent
                .front()
                .is_some_and(|(then, ..)| now.duration_since(*then) > REPORTED_AFTER)
            {
                let (_, out, in_) = page.recent.pop_front().unwrap();
                if well {
                    page.floor = (out, in_);
                }
            }
        }
    }

    fn relay(&mut self, now: Instant, bytes_per_second: u64, slow: bool, luck: &mut Luck) {
        for (id, (shard, meter)) in &mut self.meters {
            let page = self.relayed.get_mut(id).unwrap();
            for _ in 0..3 {
                let bytes = luck.below(bytes_per_second / 15 + 1);
                // What is refused is not relayed.
                if bytes > 0 && meter.charge(Direction::ToClient, bytes, now).is_ok() {
                    page.out += bytes;
                }
                if bytes > 0
                    && meter.charges_ingress()
                    && meter.charge(Direction::FromClient, bytes / 3, now).is_ok()
                {
                    page.in_ += bytes / 3;
                }
            }
            while let Some(report) = meter.poll_report(now) {
                // A queue that is full loses running reports, and nothing else.
                if report.closed || !slow || !luck.percent(20) {
                    self.inbox.push(Message::Report(*shard, report));
                }
            }
        }
    }

    /// Rounds, and what the shards and the clients answer to them, until nobody has anything to say.
    fn rounds(&mut self, now: Instant) {
        let unix_ns = self.unix_ns(now);
        loop {
            let Some(desk) = &mut self.desk else { return };
            desk.round(self.inbox.drain(..), now, unix_ns);
            let orders: Vec<_> = std::mem::take(&mut *self.orders.lock().unwrap());
            for (shard, order) in orders {
                self.carry_out(shard, order, now);
            }
            self.hear_answers(now);
            if self.inbox.is_empty() {
                return;
            }
        }
    }

    fn hear_answers(&mut self, now: Instant) {
        for waiting in std::mem::take(&mut self.waiting) {
            match waiting {
                Waiting::Join(session, shard, voucher, mut answer) => match answer.try_recv() {
                    Ok(Ok(admitted)) => {
                        self.acknowledged.extend(voucher);
                        self.begin(
                            shard,
                            session,
                            admitted.lease,
                            admitted.rates,
                            admitted.granted,
                            now,
                        );
                    }
                    Ok(Err(_)) | Err(oneshot::error::TryRecvError::Closed) => {}
                    Err(oneshot::error::TryRecvError::Empty) => {
                        self.waiting.push(Waiting::Join(session, shard, voucher, answer));
                    }
                },
                Waiting::TopUp(voucher, mut answer) => match answer.try_recv() {
                    Ok(Ok(_)) => self.acknowledged.push(voucher),
                    Ok(Err(_)) | Err(oneshot::error::TryRecvError::Closed) => {}
                    Err(oneshot::error::TryRecvError::Empty) => {
                        self.waiting.push(Waiting::TopUp(voucher, answer))
                    }
                },
            }
        }
    }

    fn begin(
        &mut self,
        shard: usize,
        session: SessionId,
        lease: LeaseId,
        rates: Rates,
        granted: Msat,
        now: Instant,
    ) {
        let mut meter = Allowance::new(lease, session, rates, granted);
        if let Some(report) = meter.poll_report(now) {
            self.inbox.push(Message::Report(shard, report));
        }
        if meter.charges_ingress() {
            meter.start(now);
        }
        self.meters.insert(lease, (shard, meter));
        let page = Relayed {
            out: 0,
            in_: 0,
            rates,
            granted,
            in_order: true,
            closed: false,
            floor: (0, 0),
            recent: VecDeque::new(),
            dead: None,
        };
        self.relayed.insert(lease, page);
        self.check_grant(lease, granted);
    }

    /// No shard is told of money that the ledger did not set aside.
    fn check_grant(&mut self, id: LeaseId, told: Msat) {
        let Some(page) = self.relayed.get_mut(&id) else {
            return;
        };
        page.granted = page.granted.max(told);
        let ledger = self.desk.as_ref().and_then(|desk| desk.ledger.as_ref());
        if let Some(Ok(Some(lease))) = ledger.map(|ledger| ledger.lease(id))
            && lease.state == LeaseState::Open
        {
            assert!(
                told <= lease.granted,
                "{id} was told of {told}, the ledger of {}",
                lease.granted
            );
        }
    }

    fn carry_out(&mut self, shard: usize, order: Order, now: Instant) {
        match order {
            Order::Grant {
                lease, granted_total, ..
            } => {
                self.check_grant(lease, granted_total);
                if let Some((_, meter)) = self.meters.get_mut(&lease) {
                    meter.grant(granted_total);
                }
            }
            Order::SetStep { session, step } => {
                let meters = self.meters.values_mut();
                for (_, meter) in
                    meters.filter(|(place, meter)| *place == shard && meter.session() == session)
                {
                    if step >= Step::Held {
                        let held = meter.pause(now);
                        self.inbox
                            .extend(held.map(|report| Message::Report(shard, report)));
                    } else {
                        meter.resume();
                    }
                }
            }
            Order::End { session, .. } => {
                let meters = self.meters.iter();
                let ended: Vec<LeaseId> = meters
                    .filter(|(_, (place, meter))| *place == shard && meter.session() == session)
                    .map(|(id, _)| *id)
                    .collect();
                ended.into_iter().for_each(|id| self.close(id, now));
            }
            Order::TurnAdmitted {
                session,
                lease,
                granted,
                rates,
                ..
            } => {
                self.begin(shard, session, lease, rates, granted, now);
            }
            Order::TurnRefused { .. } => {}
        }
    }

    /// -9, and started again later.
    pub(super) fn kill(&mut self, until: Instant, luck: u64) {
        self.desk = None;
        self.storage.crash(luck);
        self.meters.clear();
        self.inbox.clear();
        self.waiting.clear();
        self.orders.lock().unwrap().clear();
        self.cut_until = None;
        self.down_until = self.down_until.max(until);
        self.well_since = self.down_until;
        for page in self.relayed.values_mut().filter(|page| !page.closed) {
            page.in_order = false;
        }
    }

    /// The disk is full, the database out of reach, or only its answers are.
    pub(super) fn cut_off(&mut self, until: Instant, operations: usize, losing_answers: bool) {
        if self.desk.is_none() {
            return;
        }
        self.storage.break_after(operations, losing_answers);
        let now = self.cut_until.map_or(until, |cut| cut.max(until));
        self.cut_until = Some(now);
        self.well_since = now;
        if matches!(self.storage, Storage::Database { .. }) {
            self.expect_loss();
        }
    }

    /// Commits take long.
    pub(super) fn slow_down(&mut self, until: Instant) {
        self.slow_until = self.slow_until.max(until);
        self.well_since = self.well_since.max(until);
    }

    /// Nothing of it runs: SIGSTOP, or a machine that is suspended.
    pub(super) fn stand_still(&mut self, until: Instant) {
        if until.saturating_duration_since(self.still_until) >= LONG {
            self.expect_loss();
        }
        self.still_until = self.still_until.max(until);
        self.well_since = self.well_since.max(until);
    }

    /// Leases may be taken back, and what was not yet reported is lost.
    fn expect_loss(&mut self) {
        for page in self
            .relayed
            .values_mut()
            .filter(|page| !page.closed || page.recent.len() > 1)
        {
            page.in_order = false;
        }
    }

    pub(super) fn jam(&mut self, until: Instant) {
        self.jammed_until = self.jammed_until.max(until);
        self.well_since = self.well_since.max(until);
    }

    pub(super) fn jump_clock(&mut self, seconds: i64) {
        self.clock += seconds * 1_000_000_000;
    }

    /// An operator's command. Where the ledger does not answer it is not done.
    pub(super) fn operate(&mut self, command: Command, now: Instant) {
        if self.hears(now) {
            self.inbox.push(Message::Ledger(Box::new(move |ledger, unix_ns| {
                if let Some(ledger) = ledger {
                    let _ = ledger.apply(&[command], unix_ns);
                }
            })));
        }
    }

    /// Nobody spends from a lease that the ledger took back.
    pub(super) fn check_dead_leases(&mut self, seed: u64) {
        let Some(ledger) = self.desk.as_ref().and_then(|desk| desk.ledger.as_ref()) else {
            return;
        };
        for id in self.meters.keys() {
            let Ok(Some(lease)) = ledger.lease(*id) else {
                continue;
            };
            let page = self.relayed.get_mut(id).unwrap();
            if lease.state != LeaseState::Open {
                let then = *page.dead.get_or_insert((page.out, page.in_));
                assert_eq!(
                    then,
                    (page.out, page.in_),
                    "seed {seed}: {id} is spent from after its end"
                );
            }
        }
    }

    pub(super) fn recover(&mut self, now: Instant) {
        self.storage.heal();
        self.cut_until = None;
        for until in [
            &mut self.down_until,
            &mut self.still_until,
            &mut self.slow_until,
            &mut self.jammed_until,
        ] {
            *until = now;
        }
        for number in 0..super::ACCOUNTS {
            self.operate(
                Command::Freeze {
                    account: account(number),
                    frozen: false,
                },
                now,
            );
        }
    }

    pub(super) fn hang_up(&mut self, now: Instant) {
        let live: Vec<LeaseId> = self.meters.keys().copied().collect();
        live.into_iter().for_each(|id| self.close(id, now));
    }

    /// Shows a voucher once more, and waits for the answer.
    pub(super) fn show(&mut self, voucher: u64, now: Instant) -> Result<Credited, Refused> {
        let (reply, mut answer) = oneshot::channel();
        self.inbox.push(Message::Credit(
            Box::new(numbered(voucher)),
            Bounds::default(),
            reply,
        ));
        self.rounds(now);
        answer.try_recv().unwrap()
    }
}
