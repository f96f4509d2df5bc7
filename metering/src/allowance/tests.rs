//! What a shard may and may not spend.

use super::*;
use proptest::prelude::*;

const RATES: Rates = Rates {
    out: 50,
    in_: 50,
    second: 8,
};

fn allowance(granted: u64) -> (Allowance, Instant) {
    let now = Instant::now();
    (
        Allowance::new(LeaseId::new(1), SessionId::new(2), RATES, Msat::new(granted)),
        now,
    )
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[test]
fn the_clock_starts_at_the_first_charged_byte() {
    let (mut allowance, now) = allowance(1_000);
    assert_eq!(allowance.poll_report(now), None);
    allowance.charge(Direction::ToClient, 100, now + ms(500)).unwrap();
    assert_eq!(allowance.usage(now + ms(1_500)).nanoseconds, 1_000_000_000);
}

#[test]
fn the_clock_of_an_allocation_starts_without_a_byte() {
    let (mut allowance, now) = allowance(1_000);
    allowance.start(now);
    assert_eq!(allowance.usage(now + ms(2_000)).debit, Msat::new(16));
}

#[test]
fn a_refused_charge_changes_nothing() {
    let (mut allowance, now) = allowance(58);
    allowance.charge(Direction::ToClient, 1_000_000, now).unwrap();
    assert_eq!(
        allowance.charge(Direction::ToClient, 1, now),
        Err(Exhausted::Spent)
    );
    let report = allowance.close(now);
    assert_eq!(
        report.usage,
        Usage {
            bytes_out: 1_000_000,
            bytes_in: 0,
            nanoseconds: 0,
            debit: Msat::new(50)
        }
    );
}

#[test]
fn time_alone_never_overshoots_the_grant() {
    let (mut allowance, now) = allowance(20);
    allowance.charge(Direction::ToClient, 100, now).unwrap();
    // Nobody polls for a minute, which is also longer than the lifetime of the grant.
    let report = allowance.close(now + ms(60_000));
    assert!(report.usage.debit <= Msat::new(20));
    assert_eq!(report.usage.debit, meter::closing(report.usage.owed(&RATES)));
}

#[test]
fn exhaustion_by_time_is_reported_a_second_ahead() {
    let (mut allowance, now) = allowance(17);
    allowance.charge(Direction::ToClient, 1, now).unwrap();
    assert!(!allowance.poll_report(now + ms(1_000)).unwrap().exhausted);
    let report = allowance.poll_report(now + ms(2_000)).unwrap();
    assert!(report.exhausted && report.usage.debit == Msat::new(16));
}

#[test]
fn time_between_the_end_of_a_grant_and_the_next_is_free() {
    let (mut allowance, now) = allowance(8);
    allowance.start(now);
    for second in 1..=5 {
        allowance.poll_report(now + ms(1_000 * second));
    }
    allowance.grant(Msat::new(80));
    let report = allowance.close(now + ms(6_000));
    assert_eq!(
        report.usage.nanoseconds, 2_000_000_000,
        "one paid second before, one after"
    );
}

#[test]
fn reports_come_every_second_and_at_once_when_half_is_used() {
    let (mut allowance, now) = allowance(1_000);
    allowance.charge(Direction::ToClient, 1_000_000, now).unwrap();
    assert_eq!(allowance.poll_report(now + ms(900)), None);
    assert_eq!(allowance.next_report(), Some(now + ms(1_000)));
    assert!(!allowance.poll_report(now + ms(1_000)).unwrap().renew);
    allowance
        .charge(Direction::ToClient, 9_000_000, now + ms(1_100))
        .unwrap();
    assert!(allowance.next_report().unwrap() <= now + ms(1_100));
    let report = allowance.poll_report(now + ms(1_100)).unwrap();
    assert!(report.renew && report.sequence == 2);
    assert_eq!(
        allowance.poll_report(now + ms(1_101)),
        None,
        "said once, then with every report"
    );
    assert!(allowance.poll_report(now + ms(2_100)).unwrap().renew);
    allowance.grant(Msat::new(2_000));
    assert!(!allowance.poll_report(now + ms(3_100)).unwrap().renew);
}

#[test]
fn an_idle_meter_still_reports_that_it_exists() {
    let (mut allowance, now) = allowance(1_000);
    assert_eq!(allowance.poll_report(now), None);
    let report = allowance.poll_report(now + IDLE_REPORT_INTERVAL).unwrap();
    assert!(report.usage.is_empty() && !report.closed);
}

#[test]
fn spending_stops_thirty_seconds_after_the_last_answered_report() {
    let (mut allowance, now) = allowance(1_000_000);
    allowance.charge(Direction::ToClient, 100, now).unwrap();
    allowance.poll_report(now + ms(1_000)).unwrap();
    allowance.grant(Msat::new(1_000_000));
    for second in 2..40 {
        allowance.poll_report(now + ms(second * 1_000));
    }
    assert_eq!(
        allowance.charge(Direction::ToClient, 100, now + ms(31_000)),
        Err(Exhausted::Stale)
    );
    assert_eq!(
        allowance.usage(now + ms(60_000)).nanoseconds,
        31_000_000_000,
        "no time is billed past it"
    );
    // The oldest report that the answer can belong to is of second 2.
    allowance.grant(Msat::new(1_000_000));
    assert_eq!(
        allowance.charge(Direction::ToClient, 100, now + ms(32_000)),
        Err(Exhausted::Stale)
    );
    allowance.poll_report(now + ms(41_000)).unwrap();
    allowance.grant(Msat::new(1_000_000));
    allowance
        .charge(Direction::ToClient, 100, now + ms(41_001))
        .unwrap();
}

#[test]
fn a_hold_closes_the_segment_and_returns_the_rest() {
    let (mut allowance, now) = allowance(1_000);
    allowance.charge(Direction::ToClient, 1_000_001, now).unwrap();
    let report = allowance.pause(now + ms(1_000)).unwrap();
    assert!(report.closed && !report.last);
    assert_eq!(report.usage.debit, Msat::new(59));
    assert_eq!(allowance.pause(now + ms(1_000)), None);
    assert_eq!(
        allowance.charge(Direction::ToClient, 1, now + ms(1_000)),
        Err(Exhausted::Held)
    );
    allowance.resume();
    assert_eq!(
        allowance.charge(Direction::ToClient, 1, now + ms(2_000)),
        Err(Exhausted::Spent),
        "the rest of the old grant was given back"
    );
    allowance.grant(Msat::new(159));
    allowance.charge(Direction::ToClient, 1, now + ms(5_000)).unwrap();
    let report = allowance.close(now + ms(6_000));
    assert_eq!((report.segment, report.usage.nanoseconds), (1, 1_000_000_000));
}

#[test]
fn a_segment_ends_after_ten_minutes_and_the_next_follows_without_a_gap() {
    let (mut allowance, now) = allowance(1_000_000);
    allowance.start(now);
    for second in 1..600 {
        assert!(!allowance.poll_report(now + ms(second * 1_000)).unwrap().closed);
        allowance.grant(Msat::new(1_000_000));
    }
    let first = allowance.poll_report(now + ms(600_250)).unwrap();
    assert!(first.closed && !first.last && first.segment == 0);
    assert_eq!(first.usage.nanoseconds, 600_250_000_000);
    assert_eq!(allowance.close(now + ms(601_000)).usage.nanoseconds, 750_000_000);
}

#[test]
fn a_close_bills_only_to_the_last_sign_of_life() {
    let (mut allowance, now) = allowance(1_000);
    allowance.start(now);
    for second in 1..=10 {
        allowance.poll_report(now + ms(second * 1_000));
    }
    let report = allowance.close(now + ms(4_000));
    assert!(report.last && report.usage.nanoseconds == 4_000_000_000);
    assert_eq!(allowance.poll_report(now + ms(60_000)), None);
}

#[test]
fn bytes_that_the_kernel_refused_are_given_back() {
    let (mut allowance, now) = allowance(1_000);
    allowance.charge(Direction::ToClient, 2_000_000, now).unwrap();
    allowance.give_back(Direction::ToClient, 1_000_000);
    assert_eq!(allowance.close(now).usage.debit, Msat::new(50));
}

#[test]
fn a_client_can_cap_what_it_spends_in_a_second() {
    let (mut allowance, now) = allowance(1_000_000);
    allowance.set_rate_limit(Some(58)); // 8 for the clock, 50 for a megabyte
    allowance.charge(Direction::ToClient, 1_000_000, now).unwrap();
    assert_eq!(
        allowance.charge(Direction::ToClient, 1_000, now),
        Err(Exhausted::RateLimited)
    );
    allowance
        .charge(Direction::ToClient, 500_000, now + ms(500))
        .unwrap();
    assert_eq!(
        allowance.charge(Direction::ToClient, 1_000, now + ms(500)),
        Err(Exhausted::RateLimited)
    );
    assert!(
        !allowance.poll_report(now + ms(1_000)).unwrap().exhausted,
        "its own limit is not a lack of money"
    );
}

proptest! {
    /// However packets, pauses of the loop and reports interleave, the bill is the formula over the counts, and it
    /// stays within the grant.
    #[test]
    fn a_bill_is_the_formula_and_never_more_than_the_grant(
        granted in 0u64..5_000,
        steps in proptest::collection::vec((0u64..200_000, 0u64..3_000, any::<bool>(), 0u64..500), 0..60),
    ) {
        let (mut allowance, mut now) = allowance(granted);
        let mut total = granted;
        let mut bytes = 0;
        for (size, wait, to_client, more) in steps {
            let direction = if to_client { Direction::ToClient } else { Direction::FromClient };
            if allowance.charge(direction, size, now).is_ok() {
                bytes += size;
            }
            now += ms(wait);
            if let Some(report) = allowance.poll_report(now) {
                prop_assert!(report.usage.debit <= report.granted);
                total += more;
                allowance.grant(Msat::new(total));
            }
        }
        let report = allowance.close(now);
        prop_assert_eq!(report.usage.bytes_out + report.usage.bytes_in, bytes);
        prop_assert_eq!(report.usage.debit, meter::closing(report.usage.owed(&RATES)));
        prop_assert!(report.usage.debit <= Msat::new(total));
    }
}

#[test]
fn a_hold_is_told_apart_from_the_end_of_a_segment() {
    let (mut allowance, now) = allowance(1_000_000);
    allowance.start(now);
    allowance.poll_report(now + ms(1_000)).unwrap();
    allowance.grant(Msat::new(1_000_000));
    let ended = allowance.poll_report(now + SEGMENT_DURATION).unwrap();
    assert!(ended.closed && !ended.held);
    let held = allowance.pause(now + SEGMENT_DURATION + ms(1)).unwrap();
    assert!(held.closed && held.held);
}

proptest! {
    #[test]
    fn what_is_covered_can_be_charged_at_once_for_the_same_msat(
        granted in 0u64..200, before in 0u64..3_000_000, sizes in proptest::collection::vec(0u64..1_500, 1..64), later in 0u64..3_000,
    ) {
        let (mut at_once, now) = allowance(granted);
        let _ = at_once.charge(Direction::ToClient, before, now);
        let mut one_by_one = at_once.clone();
        let now = now + ms(later);
        let total = sizes.iter().sum();
        if at_once.covers(Direction::ToClient, 96_000, now) {
            prop_assert_eq!(at_once.charge(Direction::ToClient, total, now), Ok(()));
            for size in sizes {
                prop_assert_eq!(one_by_one.charge(Direction::ToClient, size, now), Ok(()));
            }
            prop_assert_eq!(at_once.close(now).usage, one_by_one.close(now).usage);
        }
    }
}

#[test]
fn a_free_meter_costs_nothing_and_its_bytes_may_have_a_ceiling_of_their_own() {
    let free = Rates {
        out: 0,
        in_: 0,
        second: 0,
    };
    let now = Instant::now();
    let mut meter = Allowance::new(LeaseId::new(1), SessionId::new(1), free, Msat::ZERO);
    assert_eq!(meter.charge(Direction::ToClient, 1_000_000, now), Ok(()));
    meter.set_byte_limit(Some(512_000));
    let second = now + Duration::from_secs(1);
    let passed = (0..100).filter(|_| meter.charge(Direction::ToClient, 1_000, second).is_ok());
    assert_eq!(passed.count(), 64, "64,000 bytes in a second");
    assert!(!meter.covers(Direction::ToClient, 1, second), "packet by packet");
    meter.give_back(Direction::ToClient, 1_000);
    assert_eq!(meter.charge(Direction::ToClient, 1_000, second), Ok(()));
    meter.set_byte_limit(None);
    assert_eq!(meter.charge(Direction::ToClient, 1_000_000, second), Ok(()));
    assert_eq!(meter.close(second).usage.debit, Msat::ZERO);
}
