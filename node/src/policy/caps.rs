//! Sums of a day: what an issuer gave today, what it gave one holder, what was given away; and how often an account was
//! admitted in this minute.
//!
//! Counted by this node since it started. Several nodes, and a cap that survives a restart, need the sums in the
//! ledger, in the commit that credits: [`identity::policy::Ceiling`] is all that it has to know.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use identity::policy::Ceiling;

/// Sums and accounts remembered. Past it those of another day or minute are forgotten, and then nobody new is let in.
const COUNTED_MAX: usize = 200_000;

/// The counts.
#[derive(Default)]
pub(crate) struct Caps(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    /// Of this day.
    sums: HashMap<String, u64>,
    vouchers: HashMap<String, Counted>,
    day: u64,
    /// Of this minute.
    admissions: HashMap<String, u64>,
    minute: u64,
}

/// A voucher that was asked for today. Several may ask for one at the same time, and only one of them hears that it was
/// credited.
#[derive(Clone, Copy, Default)]
struct Counted {
    in_sums: bool,
    credited: bool,
}

impl Counts {
    fn turn_to(&mut self, now: u64) {
        if self.day != now / 86_400 {
            self.day = now / 86_400;
            self.sums.clear();
            self.vouchers.clear();
        }
    }

    fn add(&mut self, ceilings: &[Ceiling], msat: u64) {
        for ceiling in ceilings {
            let sum = self.sums.entry(ceiling.name.clone()).or_default();
            *sum = sum.saturating_add(msat);
        }
    }
}

impl Caps {
    /// Adds a voucher of `msat` to every sum, once, or to none if one of them would pass its ceiling; false then.
    pub(crate) fn take(&self, voucher: &str, ceilings: &[Ceiling], msat: u64, now: u64) -> bool {
        let mut counts = self.counts();
        counts.turn_to(now);
        if counts
            .vouchers
            .get(voucher)
            .is_some_and(|voucher| voucher.in_sums)
        {
            return true;
        }
        let sum = |name: &str| counts.sums.get(name).copied().unwrap_or_default();
        let fits = |ceiling: &Ceiling| sum(&ceiling.name).saturating_add(msat) <= ceiling.max_msat;
        let full = counts.sums.len() + ceilings.len() > COUNTED_MAX || counts.vouchers.len() >= COUNTED_MAX;
        if full || !ceilings.iter().all(fits) {
            return false;
        }
        counts.add(ceilings, msat);
        counts.vouchers.entry(voucher.to_owned()).or_default().in_sums = true;
        true
    }

    /// What became of it: credited just now, or not, because it was credited another day or refused.
    pub(crate) fn settle(&self, voucher: &str, ceilings: &[Ceiling], msat: u64, credited: bool) {
        let mut counts = self.counts();
        let Some(mut known) = counts.vouchers.get(voucher).copied() else {
            return;
        };
        known.credited |= credited;
        if known.in_sums && !known.credited {
            known.in_sums = false;
            for ceiling in ceilings {
                if let Some(sum) = counts.sums.get_mut(&ceiling.name) {
                    *sum = sum.saturating_sub(msat);
                }
            }
        } else if known.credited && !known.in_sums {
            // Another who asked for it heard "repeated", and was the first to say so.
            known.in_sums = true;
            counts.add(ceilings, msat);
        }
        counts.vouchers.insert(voucher.to_owned(), known);
    }

    /// One more admission of an account; false if it has had `most` in this minute.
    pub(crate) fn admit(&self, account: &str, most: u64, now: u64) -> bool {
        let mut counts = self.counts();
        if counts.minute != now / 60 {
            counts.minute = now / 60;
            counts.admissions.clear();
        }
        if counts.admissions.len() >= COUNTED_MAX && !counts.admissions.contains_key(account) {
            return false;
        }
        let count = counts.admissions.entry(account.to_owned()).or_default();
        *count += 1;
        *count <= most
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ceiling(name: &str, max_msat: u64) -> Ceiling {
        Ceiling {
            name: name.to_owned(),
            max_msat,
        }
    }

    #[test]
    fn a_sum_stays_within_its_ceiling_and_all_move_or_none() {
        let (caps, both) = (Caps::default(), [ceiling("issuer", 100), ceiling("holder", 60)]);
        assert!(caps.take("a", &both, 60, 0));
        assert!(!caps.take("b", &both, 1, 0), "the holder's is full");
        assert!(caps.take("c", &both[..1], 40, 0), "the refused one did not count");
        assert!(!caps.take("d", &both[..1], 1, 0));
        caps.settle("a", &both, 60, false);
        assert!(caps.take("e", &both, 60, 0));
        assert!(!caps.take("f", &both, u64::MAX, 0), "sums do not wrap");
    }

    #[test]
    fn a_voucher_counts_once_whoever_hears_first_that_it_was_credited() {
        let one = [ceiling("issuer", 100)];
        for order in [[true, false], [false, true]] {
            let caps = Caps::default();
            assert!(
                caps.take("a", &one, 100, 0) && caps.take("a", &one, 100, 0),
                "two ask for the same"
            );
            for credited in order {
                caps.settle("a", &one, 100, credited);
            }
            assert!(caps.take("a", &one, 100, 0), "again: it is in the sum already");
            caps.settle("a", &one, 100, false);
            assert!(!caps.take("b", &one, 1, 0), "{order:?}");
        }
    }

    #[test]
    fn a_new_day_and_a_new_minute_begin_at_nothing() {
        let (caps, one) = (Caps::default(), [ceiling("issuer", 100)]);
        assert!(caps.take("a", &one, 100, 86_399) && !caps.take("b", &one, 1, 86_399));
        assert!(caps.take("b", &one, 100, 86_400));
        assert!(caps.admit("a", 2, 59) && caps.admit("a", 2, 59) && !caps.admit("a", 2, 59));
        assert!(caps.admit("b", 2, 59));
        assert!(caps.admit("a", 2, 60));
    }
}
