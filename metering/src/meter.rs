//! Rating: what a count of bytes and nanoseconds costs (DESIGN 4.1).
//!
//! Counts are cumulative and are rated exactly, in units of 10^-9 msat, so that how usage was sliced into reports
//! never changes the bill. Only the two roundings at the end know whole msat: down while a segment runs, up when it
//! closes, so that many tiny sessions do not relay for nothing.

use crate::{Msat, Rates};

/// How many of the exact units are one msat.
pub const UNITS_PER_MSAT: u128 = 1_000_000_000;

/// What one byte costs in 10^-9 msat for each msat a megabyte.
pub(crate) const UNITS_PER_BYTE: u128 = 1_000;

const _: () = assert!(
    UNITS_PER_BYTE * 1_000_000 == UNITS_PER_MSAT,
    "a megabyte is 1,000,000 bytes"
);

/// What is owed, exactly, in 10^-9 msat: `1000 * (out * rate_out + in * rate_in) + ns * rate_second`.
pub fn owed(rates: &Rates, bytes_out: u64, bytes_in: u64, nanoseconds: u64) -> u128 {
    let rates = rates.capped();
    let bytes = u128::from(bytes_out) * u128::from(rates.out) + u128::from(bytes_in) * u128::from(rates.in_);
    UNITS_PER_BYTE * bytes + u128::from(nanoseconds) * u128::from(rates.second)
}

/// The debit of a segment that still runs: whole msat, rounded down.
pub fn running(owed: u128) -> Msat {
    Msat::new(u64::try_from(owed / UNITS_PER_MSAT).unwrap_or(u64::MAX))
}

/// The debit of a segment that closed: whole msat, rounded up.
pub fn closing(owed: u128) -> Msat {
    Msat::new(u64::try_from(owed.div_ceil(UNITS_PER_MSAT)).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tariff::RATE_MAX;
    use proptest::prelude::*;

    #[test]
    fn a_megabyte_costs_its_rate() {
        let rates = Rates {
            out: 50,
            in_: 7,
            second: 8,
        };
        assert_eq!(closing(owed(&rates, 1_000_000, 0, 0)), Msat::new(50));
        assert_eq!(closing(owed(&rates, 0, 1_000_000, 0)), Msat::new(7));
        assert_eq!(closing(owed(&rates, 0, 0, 1_000_000_000)), Msat::new(8));
    }

    #[test]
    fn one_byte_is_free_while_it_runs_and_an_msat_when_it_closes() {
        let owed = owed(
            &Rates {
                out: 50,
                in_: 0,
                second: 8,
            },
            1,
            0,
            0,
        );
        assert_eq!(running(owed), Msat::ZERO);
        assert_eq!(closing(owed), Msat::ONE);
    }

    #[test]
    fn the_largest_counts_at_the_largest_rates_do_not_overflow() {
        let rates = Rates {
            out: RATE_MAX,
            in_: RATE_MAX,
            second: RATE_MAX,
        };
        let most = owed(&rates, u64::MAX, u64::MAX, u64::MAX);
        assert!(most < 1 << 116);
        assert_eq!(closing(most), Msat::new(u64::MAX));
        // Rates that never passed a constructor are capped rather than wrapped.
        let wild = Rates {
            out: u64::MAX,
            in_: u64::MAX,
            second: u64::MAX,
        };
        assert_eq!(owed(&wild, u64::MAX, u64::MAX, u64::MAX), most);
    }

    proptest! {
        #[test]
        fn slicing_never_changes_what_is_owed(
            slices in proptest::collection::vec((0u64..1 << 32, 0u64..1 << 32, 0u64..1 << 40), 0..32),
            out in 0..=RATE_MAX, in_ in 0..=RATE_MAX, second in 0..=RATE_MAX,
        ) {
            let rates = Rates { out, in_, second };
            let total = slices.iter().fold((0, 0, 0), |sum, slice| (sum.0 + slice.0, sum.1 + slice.1, sum.2 + slice.2));
            let whole = owed(&rates, total.0, total.1, total.2);
            let sliced: u128 = slices.iter().map(|slice| owed(&rates, slice.0, slice.1, slice.2)).sum();
            prop_assert_eq!(whole, sliced);
            let mut debited = Msat::ZERO;
            let mut so_far = (0, 0, 0);
            for slice in &slices {
                so_far = (so_far.0 + slice.0, so_far.1 + slice.1, so_far.2 + slice.2);
                let debit = running(owed(&rates, so_far.0, so_far.1, so_far.2));
                prop_assert!(debit >= debited, "a running debit never goes down");
                debited = debit;
            }
            prop_assert!(closing(whole) >= debited && closing(whole).get() - debited.get() <= 1);
        }
    }
}
