//! The arithmetic of leases (DESIGN 4.5): how much of an account is set aside for one meter, and for how long.
//!
//! A lease is small, so that a lost node or a second session of the same account leaves most of the balance free,
//! and large enough that renewing it is rare: ten seconds of burn, renewed when half is used.

use crate::{Msat, Rates, allowance::SPENDING_LIFETIME, meter};
use std::time::Duration;

/// A lease holds this many seconds of the current burn.
pub const LEASE_SECONDS: u64 = 10;

/// The ledger takes a lease back this long after the last commit that touched it.
pub const RECLAIM_AFTER: Duration = Duration::from_secs(40);

const _: () = assert!(
    RECLAIM_AFTER.as_secs() >= SPENDING_LIFETIME.as_secs() + 10,
    "the node stops spending well before the ledger gives the money to somebody else"
);

/// Bytes a second that a new session is expected to cost, until it has reported: four video streams.
const STARTING_BYTES_PER_SECOND: u64 = 500_000;

/// What a new lease asks for, before anything is known about its burn.
pub fn starting_want(rates: &Rates) -> Msat {
    let bytes = STARTING_BYTES_PER_SECOND * LEASE_SECONDS;
    meter::closing(meter::owed(rates, bytes, 0, LEASE_SECONDS * 1_000_000_000))
}

/// What a lease that burns `burn` (10^-9 msat a second) asks for.
pub fn renewal_want(burn: u128) -> Msat {
    meter::closing(burn.saturating_mul(u128::from(LEASE_SECONDS)))
}

/// The least that is worth granting at `burn`: the second that is reserved ahead, one second of burn, and the msat
/// of rounding.
pub fn minimum(rates: &Rates, burn: u128) -> Msat {
    let ahead = meter::owed(rates, 0, 0, 1_000_000_000);
    meter::closing(ahead.saturating_add(burn)).saturating_add(Msat::ONE)
}

/// How much more to set aside: up to `want` in all, at most the session's share of what is available
/// (`live_sessions` counts the one that asks), but the minimum where there is that much.
pub fn grant(available: Msat, live_sessions: u32, unspent: Msat, want: Msat, minimum: Msat) -> Msat {
    let share = Msat::new(available.get() / (u64::from(live_sessions) + 1));
    let wanted = want.saturating_sub(unspent).min(share);
    let least = minimum.saturating_sub(unspent);
    wanted.max(least).min(available)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATES: Rates = Rates {
        out: 50,
        in_: 0,
        second: 8,
    };

    #[test]
    fn a_rich_account_grants_ten_seconds_of_burn() {
        let want = renewal_want(17_500_000_000);
        assert_eq!(want, Msat::new(175));
        assert_eq!(
            grant(Msat::new(1_000_000), 1, Msat::ZERO, want, Msat::new(26)),
            want
        );
    }

    #[test]
    fn one_session_never_takes_what_the_next_needs() {
        assert_eq!(
            grant(Msat::new(90), 1, Msat::ZERO, Msat::new(175), Msat::new(26)),
            Msat::new(45)
        );
        assert_eq!(
            grant(Msat::new(90), 2, Msat::ZERO, Msat::new(175), Msat::new(26)),
            Msat::new(30)
        );
    }

    #[test]
    fn the_last_msat_are_granted_whole() {
        assert_eq!(
            grant(Msat::new(30), 1, Msat::ZERO, Msat::new(175), Msat::new(26)),
            Msat::new(26)
        );
        assert_eq!(
            grant(Msat::new(4), 1, Msat::new(3), Msat::new(175), Msat::new(26)),
            Msat::new(4)
        );
    }

    #[test]
    fn the_minimum_pays_for_a_second_beyond_the_one_reserved_ahead() {
        assert_eq!(minimum(&RATES, 17_500_000_000), Msat::new(27));
    }

    proptest! {
        #[test]
        fn a_grant_is_never_more_than_is_available(
            available: u64, live in 0u32..10_000, unspent: u64, want: u64, least: u64,
        ) {
            let msat = Msat::new;
            prop_assert!(grant(msat(available), live, msat(unspent), msat(want), msat(least)) <= msat(available));
        }
    }
}
