//! The cashier with real meters on made-up shards: what they spend, are told and are billed, second by second.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use identity::jws::Jws;
use metering::ledger::{
    Bounds, Ceiling, Command as LedgerCommand, Conditions, CreditLine, LedgerError, TopUp,
};
use metering::{Allowance, Direction, Embedded, meter};

use super::*;

#[path = "../../../metering/tests/disk/mod.rs"]
mod disk;
mod random_hour;
#[path = "../../../ledger-postgres/tests/server/mod.rs"]
mod server;
mod simulator;

const ANNA: &str = "did:key:z6MkAnna";
const SHARDS: usize = 2;

/// A relay without packets: a desk, shards that carry out orders on meters, and a clock.
struct World {
    desk: Desk,
    now: Instant,
    unix_ns: u64,
    orders: Arc<Mutex<Vec<(usize, Order)>>>,
    /// What the shards were ordered, for tests to look at.
    log: Vec<(usize, Order)>,
    meters: BTreeMap<LeaseId, (usize, Allowance)>,
    refused: Vec<TurnRefusal>,
    notices: BTreeMap<SessionId, mpsc::Receiver<Notice>>,
    plugged_in: Arc<AtomicBool>,
    shards_full: Arc<AtomicBool>,
    key: Arc<SigningKey>,
    _folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
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
    fn round(&mut self, mut messages: Vec<Message>) {
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

    fn carry_out(&mut self, shard: usize, order: Order, messages: &mut Vec<Message>) {
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
    fn run(&mut self, milliseconds: u64, bytes_per_second: u64) {
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

    fn try_admit(&mut self, session: u64, voucher: Option<Voucher>) -> Result<Admitted, Refused> {
        let (reply, mut answer) = oneshot::channel();
        let session = SessionId::new(session);
        let admission = Admission {
            account: ANNA.into(),
            voucher,
            session,
            service: Service::Sfu,
            shard: 1,
            max_msat_per_second: None,
            cap: None,
            conditions: Conditions::default(),
        };
        self.round(vec![Message::Admit(Box::new(admission), reply)]);
        let admitted = answer.try_recv().unwrap()?;
        let mut meter = Allowance::new(admitted.lease, session, admitted.rates, admitted.granted);
        meter.poll_report(self.now);
        self.meters.insert(admitted.lease, (1, meter));
        Ok(admitted)
    }

    /// Admits a session with a new voucher and listens to what it is told.
    fn admit(&mut self, session: u64, msat: u64) -> Admitted {
        let admitted = self
            .try_admit(session, Some(voucher(&format!("jti-{session}"), msat)))
            .unwrap();
        let (sender, receiver) = mpsc::channel(1_000);
        self.notices.insert(SessionId::new(session), receiver);
        self.round(vec![Message::Subscribe(SessionId::new(session), sender)]);
        admitted
    }

    fn admit_turn(&mut self, session: u64) {
        let admission = TurnAdmission {
            shard: 0,
            allocation: 7,
            session: SessionId::new(session),
            account: ANNA.into(),
            cap: None,
        };
        self.round(vec![Message::TurnAdmit(admission)]);
    }

    fn top_up(&mut self, jti: &str, msat: u64) -> Result<Credited, Refused> {
        let (reply, mut answer) = oneshot::channel();
        self.round(vec![Message::Credit(
            Box::new(voucher(jti, msat)),
            Bounds::default(),
            reply,
        )]);
        answer.try_recv().unwrap()
    }

    /// A step of a top-up with money from outside.
    fn pay(&mut self, command: LedgerCommand) -> Result<ToppedUp, Refused> {
        let (reply, mut answer) = oneshot::channel();
        self.round(vec![Message::TopUp(ANNA.into(), Box::new(command), reply)]);
        answer.try_recv().unwrap()
    }

    fn status(&mut self) -> AccountStatus {
        let (reply, mut answer) = oneshot::channel();
        self.round(vec![Message::Account(ANNA.into(), reply)]);
        answer.try_recv().unwrap().unwrap()
    }

    fn step(&mut self) -> Step {
        self.status().step
    }

    fn hang_up(&mut self) {
        let now = self.now;
        let messages = std::mem::take(&mut self.meters)
            .into_values()
            .map(|(shard, mut meter)| Message::Report(shard, meter.close(now)))
            .collect();
        self.round(messages);
    }

    fn notices(&mut self, session: u64) -> Vec<Notice> {
        let receiver = self.notices.get_mut(&SessionId::new(session)).unwrap();
        std::iter::from_fn(|| receiver.try_recv().ok()).collect()
    }

    fn steps_told(&mut self, session: u64) -> Vec<Step> {
        let told = self.notices(session);
        told.iter()
            .filter(|notice| notice.reason == NoticeReason::Step)
            .map(|notice| notice.step)
            .collect()
    }

    fn receipt(&mut self, session: u64) -> metering::receipt::Receipt {
        let (reply, mut answer) = oneshot::channel();
        self.round(vec![Message::Receipt(SessionId::new(session), reply)]);
        let (account, jws) = answer.try_recv().unwrap().unwrap().unwrap();
        assert_eq!(account, ANNA.into());
        let jws = Jws::parse(&jws, "alg, kid, typ").unwrap();
        jws.verify(self.key.public_key()).unwrap();
        serde_json::from_slice(jws.payload()).unwrap()
    }

    /// The books balance, and every segment costs what its own figures say.
    fn audit(&mut self) {
        let proof = self.desk.ledger.as_ref().unwrap().verify().unwrap();
        for (name, msat) in proof.totals.memo_accounts() {
            assert!(msat.is_zero(), "{name}: {msat}");
        }
    }

    fn audit_receipt(&mut self, session: u64) -> Msat {
        let receipt = self.receipt(session);
        let mut sum = Msat::ZERO;
        for segment in &receipt.segments {
            let terms = receipt
                .terms
                .iter()
                .find(|terms| terms.tariff == segment.tariff)
                .unwrap();
            let rates = Rates {
                out: terms.msat_per_megabyte_out,
                in_: terms.msat_per_megabyte_in,
                second: terms.msat_per_second,
            };
            let owed = meter::owed(&rates, segment.bytes_out, segment.bytes_in, segment.nanoseconds);
            assert_eq!(segment.msat, meter::closing(owed));
            sum = sum.saturating_add(segment.msat);
        }
        assert_eq!(receipt.msat, sum);
        sum
    }
}

fn voucher(jti: &str, msat: u64) -> Voucher {
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

#[test]
fn an_admission_credits_the_voucher_and_opens_a_lease_at_once() {
    let mut world = World::new();
    let admitted = world.admit(1, 100_000);
    assert_eq!(
        (admitted.step, admitted.tariff_id.as_str()),
        (Step::Full, "sfu-default")
    );
    assert_eq!(admitted.account.available.get() + admitted.granted.get(), 100_000);
    assert_eq!(admitted.account.sessions.len(), 1);
    let again = world.try_admit(2, Some(voucher("jti-1", 100_000))).unwrap();
    assert!(
        again.account.available < admitted.account.available,
        "the same token credits nothing again"
    );
    world.audit();
}

#[test]
fn a_call_costs_what_its_receipt_says_to_the_msat() {
    let mut world = World::new();
    world.admit(1, 100_000);
    world.run(65_000, 180_000);
    world.hang_up();
    let cost = world.audit_receipt(1);
    let status = world.status();
    assert_eq!(
        (status.available.get() + cost.get(), status.reserved),
        (100_000, Msat::ZERO)
    );
    // 65 s of 180 kB at 50 msat a MB and 8 msat a second, from the first byte on.
    assert_eq!(cost, Msat::new(585 + 520));
    assert!(world.receipt(1).ended.is_some());
    world.audit();
}

#[test]
fn a_fast_start_is_not_starved_by_a_small_first_lease() {
    let mut world = World::new();
    world.admit(1, 10_000_000);
    world.run(20_000, 20_000_000);
    world.hang_up();
    let receipt = world.receipt(1);
    assert_eq!(
        receipt.bytes_out, 400_000_000,
        "20 MB/s came through from the first second to the last"
    );
    world.audit();
}

#[test]
fn a_falling_balance_is_told_step_by_step_and_never_overspent() {
    let mut world = World::new();
    world.admit(1, 3_000);
    world.run(250_000, 200_000);
    assert_eq!(
        world.steps_told(1),
        [
            Step::Warned,
            Step::Reduced,
            Step::AudioOnly,
            Step::Held,
            Step::Ended
        ],
        "at 18 msat a second 3000 msat are 166 s"
    );
    assert!(world.meters.is_empty(), "the shard was told to end it");
    let cost = world.audit_receipt(1);
    let status = world.status();
    assert_eq!(status.available.get() + cost.get(), 3_000);
    assert!(
        status.available < Msat::new(25),
        "all but the second that is reserved ahead was spent: {status:?}"
    );
    assert_eq!(world.receipt(1).reason.as_deref(), Some("balance-exhausted"));
    world.audit();
}

#[test]
fn a_step_is_told_in_the_round_of_the_report_that_causes_it() {
    let mut world = World::new();
    world.admit(1, 3_000);
    world.run(10_000, 200_000);
    world.notices(1);
    world.log.clear();
    while world.steps_told(1).is_empty() {
        world.run(50, 200_000);
    }
    assert!(
        world.log.iter().any(|(shard, order)| *shard == 1
            && matches!(
                order,
                Order::SetStep {
                    step: Step::Warned,
                    ..
                }
            )),
        "and the shard in the same one"
    );
}

#[test]
fn a_held_session_costs_nothing_and_a_top_up_resumes_it_at_once() {
    let mut world = World::new();
    world.admit(1, 600);
    while world.step() != Step::Held {
        world.run(50, 200_000);
    }
    let held = world.status();
    assert_eq!(held.reserved, Msat::ZERO, "what the leases had not spent is back");
    world.run(30_000, 200_000);
    assert_eq!(world.status(), held);
    world.notices(1);
    world.log.clear();
    world.top_up("more", 100_000).unwrap();
    assert_eq!(world.step(), Step::Full);
    let orders: Vec<_> = world.log.iter().map(|(_, order)| *order).collect();
    assert!(
        orders
            .iter()
            .any(|order| matches!(order, Order::SetStep { step: Step::Full, .. }))
    );
    assert!(
        orders.iter().any(|order| matches!(order, Order::Grant { .. })),
        "without waiting for a report"
    );
    assert_eq!(world.steps_told(1), [Step::Full]);
    world.run(10_000, 200_000);
    world.hang_up();
    let receipt = world.receipt(1);
    assert_eq!(receipt.segments.len(), 2);
    assert_eq!(
        receipt.segments[1].bytes_out, 2_000_000,
        "every packet of the ten seconds was let through"
    );
    assert_eq!(
        world.audit_receipt(1).get() + world.status().available.get(),
        100_600
    );
    world.audit();
}

#[test]
fn a_payment_from_outside_resumes_a_held_session_in_the_round_that_settles_it() {
    let mut world = World::new();
    world.admit(1, 600);
    while world.step() != Step::Held {
        world.run(50, 200_000);
    }
    let top_up = TopUp::new(
        "aa",
        "lightning",
        &ANNA.into(),
        Msat::new(100_000),
        serde_json::Value::Null,
    );
    let begun = world.pay(LedgerCommand::BeginTopUp {
        top_up: Box::new(top_up),
        open_max: 1,
    });
    assert_eq!(begun.unwrap().credited, None);
    assert_eq!(world.step(), Step::Held, "an invoice is not money yet");
    world.log.clear();
    let settle = || LedgerCommand::SettleTopUp {
        id: "aa".into(),
        account: ANNA.into(),
        operator: "did:key:z6MkRelay".into(),
        detail: serde_json::Value::Null,
    };
    let settled = world.pay(settle()).unwrap();
    assert_eq!(settled.credited.unwrap().credited, Msat::new(100_000));
    assert_eq!(world.step(), Step::Full);
    let granted = world
        .log
        .iter()
        .any(|(_, order)| matches!(order, Order::Grant { .. }));
    assert!(granted, "without waiting for a report");
    assert!(world.pay(settle()).unwrap().repeated);
    world.hang_up();
    world.audit();
}

#[test]
fn a_second_hold_within_ten_minutes_is_the_end() {
    let mut world = World::new();
    world.admit(1, 600);
    while world.step() != Step::Held {
        world.run(50, 200_000);
    }
    world.top_up("more", 200).unwrap();
    world.run(60_000, 200_000);
    assert!(world.meters.is_empty());
    assert_eq!(world.steps_told(1).last(), Some(&Step::Ended));
    assert!(matches!(
        world.try_admit(2, None),
        Err(Refused::BalanceExhausted { .. })
    ));
    world.audit();
}

#[test]
fn a_held_account_admits_nobody_unless_their_voucher_resumes_it() {
    let mut world = World::new();
    world.admit(1, 600);
    while world.step() != Step::Held {
        world.run(50, 200_000);
    }
    assert!(matches!(
        world.try_admit(2, None),
        Err(Refused::BalanceExhausted { .. })
    ));
    assert!(matches!(
        world.try_admit(2, Some(voucher("jti-1", 600))),
        Err(Refused::BalanceExhausted { .. })
    ));
    world.admit_turn(3);
    assert_eq!(world.refused, [TurnRefusal::BalanceExhausted]);
    let admitted = world.try_admit(2, Some(voucher("new", 50_000))).unwrap();
    assert_eq!(admitted.step, Step::Full);
    world.run(2_000, 200_000);
    assert_eq!(world.status().sessions.len(), 2);
    world.audit();
}

#[test]
fn two_services_have_one_balance_one_ladder_and_a_receipt_each() {
    let mut world = World::new();
    world.admit(1, 4_000);
    world.admit_turn(9);
    assert_eq!(world.meters.len(), 2);
    world.run(20_000, 200_000);
    let status = world.status();
    assert_eq!(status.sessions.len(), 2);
    assert!(
        (29..=31).contains(&status.burn_msat_per_second),
        "18 for the SFU and 12 for TURN: {status:?}"
    );
    world.log.clear();
    while world.step() != Step::Reduced {
        world.run(50, 200_000);
    }
    for shard in 0..SHARDS {
        let told = Order::SetStep {
            session: SessionId::new(9),
            step: Step::Reduced,
        };
        assert!(
            world.log.contains(&(shard, told)),
            "a TURN session's allocations may be on any shard"
        );
    }
    while world.step() != Step::Held {
        world.run(50, 200_000);
    }
    world.run(61_000, 200_000);
    let spent = world.audit_receipt(1).get() + world.audit_receipt(9).get();
    assert_eq!(spent + world.status().available.get(), 4_000);
    world.audit();
}

#[test]
fn a_lease_whose_shard_went_silent_is_taken_back() {
    let mut world = World::new();
    world.admit(1, 10_000);
    world.run(10_500, 200_000);
    let mut lost = std::mem::take(&mut world.meters);
    world.run(39_000, 0);
    assert_eq!(world.status().sessions.len(), 1);
    world.log.clear();
    world.run(3_000, 0);
    assert!(
        world
            .log
            .iter()
            .any(|(_, order)| matches!(order, Order::End { reason, .. } if *reason == EndReason::LeaseLost)),
        "which is no denial: the client may come again"
    );
    let status = world.status();
    assert_eq!((status.sessions.len(), status.reserved), (0, Msat::ZERO));
    let receipt = world.receipt(1);
    assert!(
        receipt.recovered && receipt.msat <= Msat::new(189),
        "only what was reported: {receipt:?}"
    );
    // Back from the dead, it reports what it had spent by then: a memo, and no money.
    let (_, (shard, mut meter)) = lost.pop_first().unwrap();
    let report = meter.close(world.now);
    world.round(vec![Message::Report(shard, report)]);
    assert_eq!(world.status().spent, receipt.msat);
    let proof = world.desk.ledger.as_ref().unwrap().verify().unwrap();
    assert!(!proof.totals.memo_accounts()["old-epoch"].is_zero());
}

#[test]
fn without_a_ledger_sessions_run_inside_their_lease_and_are_then_held() {
    let mut world = World::new();
    world.admit(1, 1_000_000);
    world.run(20_000, 200_000);
    world.notices(1);
    world.plugged_in.store(false, Ordering::Relaxed);
    world
        .desk
        .lose_ledger(&LedgerError::Corrupt("unplugged".into()), world.now);
    assert!(!world.desk.is_up());
    assert!(matches!(
        world.try_admit(2, None),
        Err(Refused::LedgerUnavailable)
    ));
    assert!(matches!(world.top_up("now", 5), Err(Refused::LedgerUnavailable)));
    let before = world.meters.values().next().unwrap().1.usage(world.now).bytes_out;
    world.run(2_000, 200_000);
    let after = world.meters.values().next().unwrap().1.usage(world.now).bytes_out;
    assert_eq!(after - before, 400_000, "two seconds are within the lease");
    world.run(40_000, 200_000);
    let told = world.notices(1);
    assert!(
        told.iter()
            .any(|notice| (notice.step, notice.reason) == (Step::Held, NoticeReason::LedgerUnavailable))
    );
    assert!(world.meters.values().all(|(_, meter)| meter.is_paused()));
    world.plugged_in.store(true, Ordering::Relaxed);
    world.run(3_000, 200_000);
    assert!(world.desk.is_up());
    assert_eq!(world.step(), Step::Full);
    assert!(world.meters.values().all(|(_, meter)| !meter.is_paused()));
    world.run(10_000, 200_000);
    world.hang_up();
    let cost = world.audit_receipt(1);
    assert_eq!(world.status().available.get() + cost.get(), 1_000_000);
    world.audit();
}

#[test]
fn a_lease_of_a_commit_that_failed_and_was_there_all_the_same_is_taken_back() {
    let mut world = World::new();
    world.admit(1, 100_000);
    let admitted = world.status();
    let rates = Tariff::sfu(u64::MAX).rates().unwrap();
    let open = metering::ledger::Open {
        session: SessionId::new(2),
        account: ANNA.into(),
        voucher: None,
        service: Service::Sfu,
        tariff: "sfu-default".to_owned(),
        rates,
        want: Msat::new(500),
        minimum: rates.admission_minimum(),
        cap: None,
        conditions: Conditions::default(),
    };
    let ledger = world.desk.ledger.as_mut().unwrap();
    ledger
        .apply(&[metering::ledger::Command::Open(Box::new(open))], 2)
        .unwrap();
    world
        .desk
        .lose_ledger(&LedgerError::Corrupt("unplugged".into()), world.now);
    world.run(3_000, 0);
    assert!(world.desk.is_up());
    let status = world.status();
    assert_eq!(
        (status.available, status.reserved),
        (admitted.available, admitted.reserved)
    );
    world.audit();
}

#[test]
fn a_credit_line_counts_as_runway_and_the_ladder_holds_where_it_ends() {
    let mut world = World::new();
    let (reply, mut answer) = oneshot::channel();
    let session = SessionId::new(1);
    let admission = Admission {
        account: ANNA.into(),
        voucher: None,
        session,
        service: Service::Sfu,
        shard: 1,
        max_msat_per_second: None,
        cap: None,
        conditions: Conditions {
            credit: Some(CreditLine {
                msat: Msat::new(1_000),
                within: Ceiling {
                    name: "credit scorer".into(),
                    max: Msat::new(5_000),
                    until: Ceiling::LASTING,
                },
                until: u64::MAX >> 1,
            }),
            ..Conditions::default()
        },
    };
    world.round(vec![Message::Admit(Box::new(admission), reply)]);
    let admitted = answer.try_recv().unwrap().unwrap();
    let mut meter = Allowance::new(admitted.lease, session, admitted.rates, admitted.granted);
    meter.poll_report(world.now);
    world.meters.insert(admitted.lease, (1, meter));
    world.run(5_000, 1_000_000);
    let status = world.status();
    assert!(!status.owed.is_zero() && status.available.is_zero());
    let runway = status.runway_seconds.unwrap();
    assert!(
        runway > 5.0,
        "what may still be drawn is runway: {runway} s of {status:?}"
    );
    world.run(60_000, 1_000_000);
    assert_eq!(world.step(), Step::Held);
    assert!(world.status().owed <= Msat::new(1_000), "and no further");
    world.top_up("filled", 50_000).unwrap();
    let status = world.status();
    assert!(status.owed.is_zero(), "a top-up fills what is owed first");
    assert!(status.available < Msat::new(49_100) && world.step() < Step::Held);
    world.audit();
}

#[test]
fn an_emergency_costs_nothing_and_is_not_slowed_down_beside_a_session_that_is_held() {
    let mut world = World::new();
    world.admit(1, 600);
    let (reply, mut answer) = oneshot::channel();
    let session = SessionId::new(2);
    let admission = Admission {
        account: ANNA.into(),
        voucher: None,
        session,
        service: Service::Sfu,
        shard: 1,
        max_msat_per_second: None,
        cap: None,
        conditions: Conditions {
            free_instead_of: Tariff::sfu(u64::MAX).rates().ok(),
            ..Conditions::default()
        },
    };
    world.round(vec![Message::MakeFree(SessionId::new(3))]);
    world.round(vec![Message::Admit(Box::new(admission), reply)]);
    let admitted = answer.try_recv().unwrap().unwrap();
    assert_eq!(
        (admitted.tariff_id.as_str(), admitted.step, admitted.granted),
        ("emergency", Step::Full, Msat::ZERO)
    );
    let mut meter = Allowance::new(admitted.lease, session, admitted.rates, admitted.granted);
    meter.poll_report(world.now);
    world.meters.insert(admitted.lease, (1, meter));
    world.run(40_000, 200_000);
    assert_eq!(world.step(), Step::Held, "what is billed has run out");
    world.admit_turn(3);
    world.run(40_000, 200_000);
    let (_, meter) = &mut world.meters.get_mut(&admitted.lease).unwrap();
    assert_eq!(
        meter.charge(Direction::ToClient, 1_200, world.now),
        Ok(()),
        "it goes on for as long as it likes"
    );
    world.hang_up();
    let receipt = world.receipt(2);
    assert_eq!(receipt.msat, Msat::ZERO);
    assert!(receipt.nanoseconds > 79_000_000_000 && receipt.bytes_out > 10_000_000);
    let turn = world.receipt(3);
    assert_eq!(
        (turn.msat, turn.terms[0].tariff.as_str()),
        (Msat::ZERO, "emergency")
    );
    let mut memo = 0;
    for (receipt, tariff) in [(&receipt, Tariff::sfu(u64::MAX)), (&turn, Tariff::turn(u64::MAX))] {
        let rates = tariff.rates().unwrap();
        for part in &receipt.segments {
            let owed = meter::owed(&rates, part.bytes_out, part.bytes_in, part.nanoseconds);
            memo += meter::closing(owed).get();
        }
    }
    let proof = world.desk.ledger.as_ref().unwrap().verify().unwrap();
    assert_eq!(
        proof.totals.memo_accounts()["emergency"],
        Msat::new(memo),
        "what it would have cost"
    );
    assert!(proof.totals.earned <= Msat::new(600));
}

#[test]
fn orders_wait_for_a_full_shard_and_arrive_in_order() {
    let mut world = World::new();
    world.admit(1, 600);
    world.run(2_000, 200_000);
    world.shards_full.store(true, Ordering::Relaxed);
    world.run(60_000, 200_000);
    assert_eq!(world.step(), Step::Held);
    world.log.clear();
    world.shards_full.store(false, Ordering::Relaxed);
    world.run(100, 200_000);
    let steps: Vec<Step> = world
        .log
        .iter()
        .filter_map(|(_, order)| match order {
            Order::SetStep { step, .. } => Some(*step),
            _ => None,
        })
        .collect();
    assert!(
        steps.is_sorted() && steps.last() == Some(&Step::Held),
        "{steps:?}"
    );
    assert!(world.meters.values().all(|(_, meter)| meter.is_paused()));
    world.audit();
}

#[test]
fn a_frozen_account_is_refused_and_its_live_sessions_end() {
    let mut world = World::new();
    world.admit(1, 100_000);
    world.run(5_000, 200_000);
    let freeze = metering::ledger::Command::Freeze {
        account: ANNA.into(),
        frozen: true,
    };
    world.desk.ledger.as_mut().unwrap().apply(&[freeze], 5).unwrap();
    assert_eq!(world.try_admit(2, None).unwrap_err(), Refused::Frozen);
    world.run(1_000, 200_000);
    assert!(
        world.meters.is_empty(),
        "nobody has to wait until a lease is spent"
    );
    assert!(world.log.iter().any(|(_, order)| matches!(
        order,
        Order::End {
            reason: EndReason::Denied,
            ..
        }
    )));
    world.audit();
}

#[test]
fn a_drain_settles_what_was_reported_and_leaves_nothing_reserved() {
    let mut world = World::new();
    world.admit(1, 100_000);
    world.run(5_500, 200_000);
    let (reply, _drained) = oneshot::channel();
    world.round(vec![Message::Drain(reply)]);
    assert!(world.desk.take_drained().is_some());
    let account = world
        .desk
        .ledger
        .as_ref()
        .unwrap()
        .account(&ANNA.into())
        .unwrap()
        .unwrap();
    assert_eq!(account.reserved, Msat::ZERO);
    assert!(
        (81..=99).contains(&account.spent.get()),
        "what was reported of 5.5 s at 18 msat: {account:?}"
    );
    world.audit();
}

#[test]
fn a_cap_of_the_client_bounds_its_lease() {
    let mut world = World::new();
    let (reply, mut answer) = oneshot::channel();
    let admission = Admission {
        account: ANNA.into(),
        voucher: Some(voucher("capped", 1_000_000)),
        session: SessionId::new(1),
        service: Service::Sfu,
        shard: 0,
        max_msat_per_second: Some(12),
        cap: None,
        conditions: metering::ledger::Conditions::default(),
    };
    world.round(vec![Message::Admit(Box::new(admission), reply)]);
    assert!(answer.try_recv().unwrap().unwrap().granted <= Msat::new(120));
}

#[test]
fn a_grant_that_is_used_up_ends_its_session_and_not_those_of_the_payer() {
    let mut world = World::new();
    world.admit(1, 1_000_000);
    let (reply, mut answer) = oneshot::channel();
    let session = SessionId::new(2);
    let admission = Admission {
        account: ANNA.into(),
        voucher: None,
        session,
        service: Service::Sfu,
        shard: 1,
        max_msat_per_second: None,
        cap: Some(Cap {
            grant: "did:key:z6MkAnna friend".into(),
            max: Msat::new(200),
        }),
        conditions: Conditions::default(),
    };
    world.round(vec![Message::Admit(Box::new(admission), reply)]);
    let admitted = answer.try_recv().unwrap().unwrap();
    let mut meter = Allowance::new(admitted.lease, session, admitted.rates, admitted.granted);
    meter.poll_report(world.now);
    world.meters.insert(admitted.lease, (1, meter));
    world.run(60_000, 200_000);
    assert_eq!(
        world.step(),
        Step::Full,
        "the payer's balance is as good as untouched"
    );
    assert!(world.steps_told(1).is_empty());
    let live: Vec<_> = world.status().sessions.iter().map(|live| live.session).collect();
    assert_eq!(live, [SessionId::new(1)], "the friend's session is over");
    let friends = world.audit_receipt(2);
    assert!((150..=200).contains(&friends.get()), "{friends}");
    world.audit();
}

#[test]
fn a_session_that_misses_a_whole_hold_on_its_way_to_its_shard_goes_on_being_paid() {
    let mut world = World::new();
    world.admit(1, 700);
    let (reply, mut answer) = oneshot::channel();
    let session = SessionId::new(2);
    let admission = Admission {
        account: ANNA.into(),
        voucher: None,
        session,
        service: Service::Sfu,
        shard: 1,
        max_msat_per_second: None,
        cap: None,
        conditions: metering::ledger::Conditions::default(),
    };
    world.round(vec![Message::Admit(Box::new(admission), reply)]);
    let admitted = answer.try_recv().unwrap().unwrap();
    while world.step() != Step::Held {
        world.run(50, 400_000);
    }
    world.top_up("more", 1_000_000).unwrap();
    let mut meter = Allowance::new(admitted.lease, session, admitted.rates, admitted.granted);
    meter.poll_report(world.now);
    world.meters.insert(admitted.lease, (1, meter));
    world.run(60_000, 200_000);
    world.hang_up();
    let receipt = world.receipt(2);
    assert_eq!(
        receipt.bytes_out, 12_000_000,
        "every packet of the minute was let through"
    );
    world.audit();
}

#[test]
fn the_counter_serves_many_askers_and_credits_a_raced_voucher_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.redb");
    let config = CashierConfig {
        ledger: Place::File(path.clone()),
        issuer_limit: None,
        ladder: LadderConfig::default(),
        tariffs: vec![Tariff::sfu(u64::MAX)],
        key: Arc::new(SigningKey::generate()),
    };
    let (handle, cashier) = open(config, 1).unwrap();
    let lobby = crate::shard::Lobby::new(Vec::new(), 0, Duration::ZERO, |_| {});
    let thread = cashier.start(Vec::new(), Arc::new(lobby)).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .build()
        .unwrap();
    let credited = runtime.block_on(async {
        let tasks: Vec<_> = (0..64)
            .map(|_| {
                let handle = handle.clone();
                tokio::spawn(async move {
                    handle
                        .credit(voucher("raced", 1_000), Bounds::default())
                        .await
                        .unwrap()
                })
            })
            .collect();
        let mut answers = Vec::new();
        for task in tasks {
            answers.push(task.await.unwrap());
        }
        handle.drain().await;
        answers
    });
    thread.join().unwrap();
    assert_eq!(credited.iter().filter(|answer| !answer.repeated).count(), 1);
    assert!(credited.iter().all(|answer| answer.credited == Msat::new(1_000)));
    let proof = metering::ledger::verify(&path).unwrap();
    assert_eq!(proof.totals.issued, Msat::new(1_000));
    assert!(
        runtime
            .block_on(handle.credit(voucher("late", 1), Bounds::default()))
            .is_err(),
        "the counter is closed"
    );
}

/// The claims of a compact JWS, whoever signed it.
fn claims(jws: &str) -> serde_json::Value {
    let payload = jws.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

#[test]
fn a_receipt_is_issued_every_ten_minutes_and_names_the_one_before() {
    let mut world = World::new();
    world.admit(1, 1_000_000);
    let signed = |world: &mut World| {
        let (reply, mut answer) = oneshot::channel();
        world.round(vec![Message::Receipt(SessionId::new(1), reply)]);
        answer.try_recv().unwrap().unwrap().unwrap().1
    };
    world.run(601_000, 1_000);
    let kept = world
        .desk
        .ledger
        .as_ref()
        .unwrap()
        .signed_receipt(SessionId::new(1))
        .unwrap();
    let first = kept.expect("issued without being asked for").jws;
    assert_eq!(
        signed(&mut world),
        first,
        "and the same again as long as nothing new is settled"
    );
    world.hang_up();
    let last = signed(&mut world);
    let (before, after) = (claims(&first), claims(&last));
    assert_eq!(
        (before["number"].as_u64(), after["number"].as_u64()),
        (Some(0), Some(1))
    );
    assert!(before.get("prev").is_none() && after["ended"].is_u64());
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, first.as_bytes());
    assert_eq!(after["prev"], URL_SAFE_NO_PAD.encode(hash));
    let settlements: Vec<u64> = after["segments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|segment| segment["settlement"].as_u64().unwrap())
        .collect();
    assert_eq!(settlements, [1, 2]);
}

#[test]
fn a_top_up_and_a_freeze_by_somebody_else_reach_live_sessions_in_the_next_look() {
    let mut world = World::new();
    // Low enough to be watched: two minutes of the smallest burn.
    world.admit(1, 600);
    world.run(5_000, 1_000);
    let step = |world: &World| world.desk.live.accounts[&AccountId::new(ANNA)].step();
    assert!(step(&world) >= Step::Warned);
    let (reply, _answer) = oneshot::channel::<()>();
    let work: LedgerWork = Box::new(move |ledger, now| {
        let _reply = reply;
        let credit = metering::ledger::Command::Credit(voucher("elsewhere", 1_000_000));
        ledger.unwrap().apply(&[credit], now).unwrap();
    });
    world.round(vec![Message::Ledger(work)]);
    assert_eq!(step(&world), Step::Full);
    let work: LedgerWork = Box::new(move |ledger, now| {
        let freeze = metering::ledger::Command::Freeze {
            account: ANNA.into(),
            frozen: true,
        };
        ledger.unwrap().apply(&[freeze], now).unwrap();
    });
    world.round(vec![Message::Ledger(work)]);
    world.run(1_000, 0);
    assert!(world.meters.is_empty(), "its session was ended");
    world.audit();
}
