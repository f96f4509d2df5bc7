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
mod world;

use world::{World, admission, voucher};

const ANNA: &str = "did:key:z6MkAnna";
const SHARDS: usize = 2;

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
    let answer = world.ask(Admission {
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
        ..admission(1)
    });
    let admitted = answer.unwrap();
    world.begin(1, &admitted);
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
    world.round(vec![Message::MakeFree(SessionId::new(3))]);
    let answer = world.ask(Admission {
        conditions: Conditions {
            free_instead_of: Tariff::sfu(u64::MAX).rates().ok(),
            ..Conditions::default()
        },
        ..admission(2)
    });
    let admitted = answer.unwrap();
    assert_eq!(
        (admitted.tariff_id.as_str(), admitted.step, admitted.granted),
        ("emergency", Step::Full, Msat::ZERO)
    );
    world.begin(2, &admitted);
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
    let answer = world.ask(Admission {
        voucher: Some(voucher("capped", 1_000_000)),
        shard: 0,
        max_msat_per_second: Some(12),
        ..admission(1)
    });
    assert!(answer.unwrap().granted <= Msat::new(120));
}

#[test]
fn a_grant_that_is_used_up_ends_its_session_and_not_those_of_the_payer() {
    let mut world = World::new();
    world.admit(1, 1_000_000);
    let answer = world.ask(Admission {
        cap: Some(Cap {
            grant: "did:key:z6MkAnna friend".into(),
            max: Msat::new(200),
        }),
        ..admission(2)
    });
    let admitted = answer.unwrap();
    world.begin(2, &admitted);
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
    let answer = world.ask(admission(2));
    let admitted = answer.unwrap();
    while world.step() != Step::Held {
        world.run(50, 400_000);
    }
    world.top_up("more", 1_000_000).unwrap();
    world.begin(2, &admitted);
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
