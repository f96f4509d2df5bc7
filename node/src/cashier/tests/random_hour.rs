//! A random hour of sessions, top-ups, outages and jammed shards: whatever happens, the bill is exact and nothing is lost.

use super::*;

/// What a random hour brings, in steps of some seconds.
#[derive(Clone, Debug)]
enum Turn {
    Run { seconds: u64, bytes_per_second: u64 },
    Admit { msat: u64 },
    Allocate,
    TopUp { msat: u64 },
    LeaveOne,
    Unplug,
    PlugIn,
    Jam { full: bool },
}

fn turn() -> impl proptest::strategy::Strategy<Value = Turn> {
    use proptest::prelude::*;
    prop_oneof![
        8 => (1u64..30, 0u64..2_000_000).prop_map(|(seconds, bytes_per_second)| Turn::Run { seconds, bytes_per_second }),
        3 => (0u64..8_000).prop_map(|msat| Turn::Admit { msat }),
        2 => Just(Turn::Allocate),
        2 => (1u64..8_000).prop_map(|msat| Turn::TopUp { msat }),
        1 => Just(Turn::LeaveOne),
        1 => Just(Turn::Unplug),
        2 => Just(Turn::PlugIn),
        1 => any::<bool>().prop_map(|full| Turn::Jam { full }),
    ]
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 12, ..Default::default() })]

    /// Sessions and allocations come and go, money runs out and is topped up, the ledger fails, shards jam: at the end
    /// the books balance, nothing is a memo, and the receipts add up to what is gone from the account.
    #[test]
    fn whatever_happens_the_bill_is_exact(turns in proptest::collection::vec(turn(), 1..40)) {
        let mut world = World::new();
        let (mut issued, mut sessions) = (0, 0);
        for (number, turn) in turns.into_iter().enumerate() {
            match turn {
                Turn::Run { seconds, bytes_per_second } => world.run(seconds * 1_000, bytes_per_second),
                Turn::Admit { msat } => {
                    sessions += 1;
                    let result = world.try_admit(sessions, Some(voucher(&format!("admit-{number}"), msat)));
                    if !matches!(result, Err(Refused::LedgerUnavailable)) {
                        issued += msat;
                    }
                }
                Turn::Allocate => {
                    sessions += 1;
                    world.admit_turn(sessions);
                }
                Turn::TopUp { msat } => {
                    if world.top_up(&format!("top-up-{number}"), msat).is_ok() {
                        issued += msat;
                    }
                }
                Turn::LeaveOne => {
                    if let Some((_, (shard, mut meter))) = world.meters.pop_first() {
                        let report = meter.close(world.now);
                        world.round(vec![Message::Report(shard, report)]);
                    }
                }
                Turn::Unplug => {
                    world.plugged_in.store(false, Ordering::Relaxed);
                    world.desk.lose_ledger(&LedgerError::Corrupt("unplugged".into()), world.now);
                }
                Turn::PlugIn => world.plugged_in.store(true, Ordering::Relaxed),
                Turn::Jam { full } => world.shards_full.store(full, Ordering::Relaxed),
            }
        }
        world.plugged_in.store(true, Ordering::Relaxed);
        world.shards_full.store(false, Ordering::Relaxed);
        world.run(2_000, 0);
        world.hang_up();
        world.run(45_000, 0);
        world.audit();
        let totals = world.desk.ledger.as_ref().unwrap().totals().unwrap();
        proptest::prop_assert_eq!(totals.issued.get(), issued);
        proptest::prop_assert_eq!(totals.reserved, Msat::ZERO);
        let mut billed = 0;
        for session in 1..=sessions {
            let (reply, mut answer) = oneshot::channel();
            world.round(vec![Message::Receipt(SessionId::new(session), reply)]);
            if answer.try_recv().unwrap().unwrap().is_some() {
                billed += world.audit_receipt(session).get();
            }
        }
        proptest::prop_assert_eq!(billed, totals.earned.get());
    }
}

#[test]
fn what_a_hold_gave_back_during_an_outage_is_never_granted_again() {
    let mut world = World::new();
    let lease = world.admit(1, 1_000_000).lease;
    world.run(20_000, 200_000);
    world.plugged_in.store(false, Ordering::Relaxed);
    world
        .desk
        .lose_ledger(&LedgerError::Corrupt("unplugged".into()), world.now);
    world.run(42_000, 200_000);
    assert!(world.meters.values().all(|(_, meter)| meter.is_paused()));
    world.log.clear();
    world.plugged_in.store(true, Ordering::Relaxed);
    while !world.desk.is_up() {
        world.run(50, 200_000);
    }
    let granted = world
        .desk
        .ledger
        .as_ref()
        .unwrap()
        .lease(lease)
        .unwrap()
        .unwrap()
        .granted;
    for (_, order) in &world.log {
        if let Order::Grant { granted_total, .. } = order {
            assert!(*granted_total <= granted, "{granted_total} of {granted}");
        }
    }
}

#[test]
fn a_top_up_while_a_shard_is_jammed_grants_only_what_the_ledger_reserved() {
    let mut world = World::new();
    world.run(3_000, 0);
    world.try_admit(1, Some(voucher("a", 2_556))).unwrap();
    world.shards_full.store(true, Ordering::Relaxed);
    world.run(21_000, 270_300);
    world.try_admit(2, Some(voucher("b", 2_515))).unwrap();
    world.run(10_000, 0);
    world.shards_full.store(false, Ordering::Relaxed);
    world.run(2_000, 0);
    world.hang_up();
    world.audit();
}
