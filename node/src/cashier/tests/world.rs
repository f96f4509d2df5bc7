//! A relay without packets, for tests: what they do to it, and what they look at.

use super::*;

/// A relay without packets: a desk, shards that carry out orders on meters, and a clock.
pub(super) struct World {
    pub(super) desk: Desk,
    pub(super) now: Instant,
    pub(super) unix_ns: u64,
    pub(super) orders: Arc<Mutex<Vec<(usize, Order)>>>,
    /// What the shards were ordered, for tests to look at.
    pub(super) log: Vec<(usize, Order)>,
    pub(super) meters: BTreeMap<LeaseId, (usize, Allowance)>,
    pub(super) refused: Vec<TurnRefusal>,
    pub(super) notices: BTreeMap<SessionId, mpsc::Receiver<Notice>>,
    pub(super) plugged_in: Arc<AtomicBool>,
    pub(super) shards_full: Arc<AtomicBool>,
    pub(super) key: Arc<SigningKey>,
    _folder: tempfile::TempDir,
}

impl World {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.redb");
        let key = Arc::new(SigningKey::generate());
        let ledger = Box::new(Embedded::open(&path, 1).unwrap().0);
        let config = CashierConfig {
            ledger: Place::File(path.clone()),
            issuer_limit: None,
            ladder: LadderConfig::default(),
            tariffs: vec![Tariff::sfu(u64::MAX), Tariff::turn(u64::MAX)],
            key: key.clone(),
        };
        let orders: Arc<Mutex<Vec<(usize, Order)>>> = Arc::default();
        let shards_full = Arc::new(AtomicBool::new(false));
        let shards = (0..SHARDS)
            .map(|shard| -> desk::Shard {
                let (orders, full) = (orders.clone(), shards_full.clone());
                Box::new(move |order| {
                    let room = !full.load(Ordering::Relaxed);
                    if room {
                        orders.lock().unwrap().push((shard, order));
                    }
                    room
                })
            })
            .collect();
        let plugged_in = Arc::new(AtomicBool::new(true));
        let plug = plugged_in.clone();
        let reopen = Box::new(move || match plug.load(Ordering::Relaxed) {
            true => Ok(Box::new(Embedded::reopen(&path)?) as Box<dyn Ledger>),
            false => Err(LedgerError::Corrupt("unplugged".into())),
        });
        Self {
            desk: Desk::new(config, ledger, reopen, shards),
            now: Instant::now(),
            unix_ns: 1_700_000_000_000_000_000,
            orders,
            log: Vec::new(),
            meters: BTreeMap::new(),
            refused: Vec::new(),
            notices: BTreeMap::new(),
            plugged_in,
            shards_full,
            key,
            _folder: folder,
        }
    }

    /// One round, and what the shards answer to it, until nobody has anything to say.
    pub(super) fn round(&mut self, mut messages: Vec<Message>) {
        loop {
            self.desk.round(messages.drain(..), self.now, self.unix_ns);
            let orders: Vec<_> = std::mem::take(&mut *self.orders.lock().unwrap());
            for (shard, order) in orders {
                self.log.push((shard, order));
                self.carry_out(shard, order, &mut messages);
            }
            if messages.is_empty() {
                return;
            }
        }
    }

    pub(super) fn carry_out(&mut self, shard: usize, order: Order, messages: &mut Vec<Message>) {
        match order {
            Order::Grant {
                lease, granted_total, ..
            } => {
                if let Some((_, meter)) = self.meters.get_mut(&lease) {
                    meter.grant(granted_total);
                }
            }
            Order::SetStep { session, step } => {
                for (place, meter) in self.meters.values_mut() {
                    if *place == shard && meter.session() == session {
                        if step >= Step::Held {
                            messages
                                .extend(meter.pause(self.now).map(|report| Message::Report(shard, report)));
                        } else {
                            meter.resume();
                        }
                    }
                }
            }
            Order::End { session, .. } => {
                let now = self.now;
                self.meters.retain(|_, (place, meter)| {
                    let ends = *place == shard && meter.session() == session;
                    if ends {
                        messages.push(Message::Report(shard, meter.close(now)));
                    }
                    !ends
                });
            }
            Order::TurnAdmitted {
                session,
                lease,
                granted,
                rates,
                ..
            } => {
                let mut meter = Allowance::new(lease, session, rates, granted);
                meter.start(self.now);
                self.meters.insert(lease, (shard, meter));
            }
            Order::TurnRefused { reason, .. } => self.refused.push(reason),
        }
    }

    /// Lets `milliseconds` pass in steps of 50, with every running meter relaying `bytes_per_second`, and reports
    /// when they are due.
    pub(super) fn run(&mut self, milliseconds: u64, bytes_per_second: u64) {
        for _ in 0..milliseconds / 50 {
            self.now += Duration::from_millis(50);
            self.unix_ns += 50_000_000;
            let mut messages = Vec::new();
            for (shard, meter) in self.meters.values_mut() {
                for _ in 0..5 {
                    // What is refused is not relayed.
                    let _ = meter.charge(Direction::ToClient, bytes_per_second / 100, self.now);
                }
                while let Some(report) = meter.poll_report(self.now) {
                    messages.push(Message::Report(*shard, report));
                }
            }
            self.round(messages);
        }
    }

    /// Asks to be let in, and is not yet on its shard.
    pub(super) fn ask(&mut self, admission: Admission) -> Result<Admitted, Refused> {
        let (reply, mut answer) = oneshot::channel();
        self.round(vec![Message::Admit(Box::new(admission), reply)]);
        answer.try_recv().unwrap()
    }

    /// A session that was let in is on its shard.
    pub(super) fn begin(&mut self, session: u64, admitted: &Admitted) {
        let session = SessionId::new(session);
        let mut meter = Allowance::new(admitted.lease, session, admitted.rates, admitted.granted);
        meter.poll_report(self.now);
        self.meters.insert(admitted.lease, (1, meter));
    }

    pub(super) fn try_admit(&mut self, session: u64, voucher: Option<Voucher>) -> Result<Admitted, Refused> {
        let admitted = self.ask(Admission {
            voucher,
            ..admission(session)
        })?;
        self.begin(session, &admitted);
        Ok(admitted)
    }

    /// Admits a session with a new voucher and listens to what it is told.
    pub(super) fn admit(&mut self, session: u64, msat: u64) -> Admitted {
        let admitted = self
            .try_admit(session, Some(voucher(&format!("jti-{session}"), msat)))
            .unwrap();
        let (sender, receiver) = mpsc::channel(1_000);
        self.notices.insert(SessionId::new(session), receiver);
        self.round(vec![Message::Subscribe(SessionId::new(session), sender)]);
        admitted
    }

    pub(super) fn admit_turn(&mut self, session: u64) {
        let admission = TurnAdmission {
            shard: 0,
            allocation: 7,
            session: SessionId::new(session),
            account: ANNA.into(),
            cap: None,
        };
        self.round(vec![Message::TurnAdmit(admission)]);
    }

    pub(super) fn top_up(&mut self, jti: &str, msat: u64) -> Result<Credited, Refused> {
        let (reply, mut answer) = oneshot::channel();
        self.round(vec![Message::Credit(
            Box::new(voucher(jti, msat)),
            Bounds::default(),
            reply,
        )]);
        answer.try_recv().unwrap()
    }

    /// A step of a top-up with money from outside.
    pub(super) fn pay(&mut self, command: LedgerCommand) -> Result<ToppedUp, Refused> {
        let (reply, mut answer) = oneshot::channel();
        self.round(vec![Message::TopUp(ANNA.into(), Box::new(command), reply)]);
        answer.try_recv().unwrap()
    }

    pub(super) fn status(&mut self) -> AccountStatus {
        let (reply, mut answer) = oneshot::channel();
        self.round(vec![Message::Account(ANNA.into(), reply)]);
        answer.try_recv().unwrap().unwrap()
    }

    pub(super) fn step(&mut self) -> Step {
        self.status().step
    }

    pub(super) fn hang_up(&mut self) {
        let now = self.now;
        let messages = std::mem::take(&mut self.meters)
            .into_values()
            .map(|(shard, mut meter)| Message::Report(shard, meter.close(now)))
            .collect();
        self.round(messages);
    }

    pub(super) fn notices(&mut self, session: u64) -> Vec<Notice> {
        let receiver = self.notices.get_mut(&SessionId::new(session)).unwrap();
        std::iter::from_fn(|| receiver.try_recv().ok()).collect()
    }

    pub(super) fn steps_told(&mut self, session: u64) -> Vec<Step> {
        let told = self.notices(session);
        told.iter()
            .filter(|notice| notice.reason == NoticeReason::Step)
            .map(|notice| notice.step)
            .collect()
    }

    pub(super) fn receipt(&mut self, session: u64) -> metering::receipt::Receipt {
        let (reply, mut answer) = oneshot::channel();
        self.round(vec![Message::Receipt(SessionId::new(session), reply)]);
        let (account, jws) = answer.try_recv().unwrap().unwrap().unwrap();
        assert_eq!(account, ANNA.into());
        let jws = Jws::parse(&jws, "alg, kid, typ").unwrap();
        jws.verify(self.key.public_key()).unwrap();
        serde_json::from_slice(jws.payload()).unwrap()
    }

    /// The books balance, and every segment costs what its own figures say.
    pub(super) fn audit(&mut self) {
        let proof = self.desk.ledger.as_ref().unwrap().verify().unwrap();
        for (name, msat) in proof.totals.memo_accounts() {
            assert!(msat.is_zero(), "{name}: {msat}");
        }
    }

    pub(super) fn audit_receipt(&mut self, session: u64) -> Msat {
        let receipt = self.receipt(session);
        let mut sum = Msat::ZERO;
        for segment in &receipt.segments {
            let terms = receipt
                .terms
                .iter()
                .find(|terms| terms.tariff == segment.tariff)
                .unwrap();
            let rates = terms.rates();
            let owed = meter::owed(&rates, segment.bytes_out, segment.bytes_in, segment.nanoseconds);
            assert_eq!(segment.msat, meter::closing(owed));
            sum = sum.saturating_add(segment.msat);
        }
        assert_eq!(receipt.msat, sum);
        sum
    }
}

pub(super) fn voucher(jti: &str, msat: u64) -> Voucher {
    Voucher {
        iss: "did:key:z6MkIssuer".into(),
        jti: jti.into(),
        sub: ANNA.into(),
        payer: None,
        aud: "did:key:z6MkRelay".into(),
        balance: Msat::new(msat),
        account: ANNA.into(),
        refundable: true,
    }
}

/// Anna asks for a session of the SFU, with what is in her account.
pub(super) fn admission(session: u64) -> Admission {
    Admission {
        account: ANNA.into(),
        voucher: None,
        session: SessionId::new(session),
        service: Service::Sfu,
        shard: 1,
        max_msat_per_second: None,
        cap: None,
        conditions: Conditions::default(),
    }
}
