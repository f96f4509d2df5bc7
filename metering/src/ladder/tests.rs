//! The ladder, seen from an account.

use super::*;

const LEASE: LeaseId = LeaseId::new(1);

/// An account with one lease that burns `burn` msat a second, `balance` left, observed once a second.
struct World {
    ladder: Ladder,
    now: Instant,
    balance: u64,
    used: u128,
    age: Duration,
}

impl World {
    fn new(balance: u64) -> Self {
        let mut ladder = Ladder::new(LadderConfig::default());
        ladder.join(LEASE, Msat::new(10));
        Self {
            ladder,
            now: Instant::now(),
            balance,
            used: 0,
            age: Duration::ZERO,
        }
    }

    fn second(&mut self, burn: u64) -> Option<Step> {
        self.now += Duration::from_secs(1);
        self.age += Duration::from_secs(1);
        let spent = burn.min(self.balance);
        self.balance -= spent;
        self.used += u128::from(spent) * UNITS_PER_MSAT;
        self.ladder.observe(LEASE, self.used, self.age, self.now);
        self.decide(spent < burn, false)
    }

    fn decide(&mut self, exhausted: bool, topped_up: bool) -> Option<Step> {
        let spendable = Spendable {
            msat: Msat::new(self.balance),
            exhausted,
            topped_up,
        };
        self.ladder.decide(spendable, self.now)
    }

    fn top_up(&mut self, msat: u64) -> Option<Step> {
        self.balance += msat;
        self.decide(false, true)
    }

    /// Runs at `burn` until the step changes, and says after how many seconds and to what.
    fn until_change(&mut self, burn: u64, most: u64) -> Option<(u64, Step)> {
        (1..=most).find_map(|second| self.second(burn).map(|step| (second, step)))
    }

    fn runway(&self) -> u64 {
        self.ladder
            .runway(Msat::new(self.balance), self.now)
            .unwrap()
            .as_secs()
    }
}

#[test]
fn a_falling_balance_takes_every_rung_at_its_threshold() {
    let mut world = World::new(2_000);
    let mut seen = Vec::new();
    while let Some((_, step)) = world.until_change(10, 300) {
        seen.push((step, world.runway()));
        if step == Step::Held {
            break;
        }
    }
    assert_eq!(
        seen,
        [
            (Step::Warned, 119),
            (Step::Reduced, 59),
            (Step::AudioOnly, 19),
            (Step::Held, 0)
        ],
        "each is taken in the first second below its threshold"
    );
}

#[test]
fn cutting_quality_does_not_lengthen_the_runway() {
    let mut world = World::new(595);
    assert_eq!(world.until_change(10, 10).unwrap().1, Step::Reduced);
    for _ in 0..30 {
        assert_eq!(world.second(2), None, "the burn of before the cut still counts");
    }
}

#[test]
fn a_burn_that_turns_out_higher_after_the_cut_is_kept_too() {
    let mut world = World::new(500);
    world.until_change(10, 3).unwrap();
    for _ in 0..12 {
        world.second(20);
    }
    let runway = world.runway();
    for _ in 0..12 {
        world.second(0);
    }
    assert_eq!(world.runway(), runway);
}

#[test]
fn a_rung_is_left_upwards_only_well_above_it_and_after_five_seconds() {
    let mut world = World::new(1_190);
    assert_eq!(world.until_change(10, 3).unwrap().1, Step::Warned);
    world.balance = 1_790; // above 120 s, below 180 s
    assert_eq!(world.until_change(10, 20), None);
    world.balance = 2_000;
    assert_eq!(world.until_change(10, 20), Some((6, Step::Full)));
}

#[test]
fn a_top_up_lifts_at_once() {
    let mut world = World::new(150);
    assert_eq!(world.until_change(10, 3).unwrap().1, Step::AudioOnly);
    assert_eq!(world.top_up(5_000), Some(Step::Full));
}

#[test]
fn a_burst_after_the_lift_does_not_drop_again() {
    let mut world = World::new(150);
    world.until_change(10, 3).unwrap();
    for _ in 0..20 {
        world.second(1);
    }
    world.top_up(3_000);
    assert_eq!(world.ladder.step(), Step::Full);
    assert_eq!(
        world.until_change(10, 60),
        None,
        "the kept burn bridges the average of the cut"
    );
}

#[test]
fn a_hold_ends_after_a_minute() {
    let mut world = World::new(15);
    while world.ladder.step() != Step::Held {
        world.second(10);
    }
    assert_eq!(
        world.ladder.next_decision(),
        Some(world.now + Duration::from_secs(60))
    );
    world.now += Duration::from_secs(59);
    assert_eq!(world.decide(false, false), None);
    world.now += Duration::from_secs(1);
    assert_eq!(world.decide(false, false), Some(Step::Ended));
}

#[test]
fn a_top_up_resumes_a_held_account_and_the_second_hold_within_ten_minutes_is_the_end() {
    let mut world = World::new(15);
    while world.ladder.step() != Step::Held {
        world.second(10);
    }
    world.now += Duration::from_secs(30);
    assert_eq!(world.top_up(100), Some(Step::AudioOnly));
    assert_eq!(world.until_change(10, 100).unwrap().1, Step::Ended);
}

#[test]
fn ten_minutes_later_an_account_may_be_held_again() {
    let mut world = World::new(15);
    while world.ladder.step() != Step::Held {
        world.second(10);
    }
    world.top_up(10_000);
    world.now += Duration::from_secs(601);
    world.balance = 0;
    assert_eq!(world.decide(true, false), Some(Step::Held));
}

#[test]
fn leaving_and_coming_back_does_not_earn_another_hold() {
    let mut world = World::new(15);
    while world.ladder.step() != Step::Held {
        world.second(10);
    }
    world.ladder.leave(LEASE);
    assert!(!world.ladder.is_forgettable(world.now));
    world.ladder.join(LEASE, Msat::new(10));
    assert_eq!(world.ladder.step(), Step::Full);
    world.balance = 0;
    assert_eq!(world.decide(true, false), Some(Step::Ended));
}

#[test]
fn two_leases_share_one_runway() {
    let mut world = World::new(1_000_000);
    let other = LeaseId::new(2);
    world.ladder.join(other, Msat::new(10));
    for second in 1..=20u32 {
        world.second(10);
        let used = u128::from(second) * 30 * UNITS_PER_MSAT;
        world
            .ladder
            .observe(other, used, Duration::from_secs(u64::from(second)), world.now);
    }
    assert_eq!(world.ladder.full_burn(world.now), 40 * UNITS_PER_MSAT);
    world.ladder.leave(other);
    assert_eq!(world.ladder.full_burn(world.now), 10 * UNITS_PER_MSAT);
}

#[test]
fn nothing_that_burns_is_an_endless_runway() {
    let ladder = Ladder::new(LadderConfig::default());
    assert_eq!(ladder.runway(Msat::new(5), Instant::now()), None);
}
