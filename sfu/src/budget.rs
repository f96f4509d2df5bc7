//! A token bucket on the shard's clock. It may be overdrawn by one decision, so that a whole frame or packet
//! passes or does not; the overdraft delays the next one, and the average holds.

use std::time::{Duration, Instant};

/// Tokens that refill at a constant rate up to a cap. The unit is the caller's (bits, bytes).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    level: i64,
    per_second: u64,
    cap: i64,
    refilled: Instant,
}

impl Budget {
    /// A full bucket.
    pub(crate) fn new(per_second: u64, cap: u64, now: Instant) -> Budget {
        let cap = i64::try_from(cap).unwrap_or(i64::MAX);
        Budget {
            level: cap,
            per_second,
            cap,
            refilled: now,
        }
    }

    /// What is left at `now`; negative when overdrawn.
    pub(crate) fn level(&mut self, now: Instant) -> i64 {
        let elapsed = now.saturating_duration_since(self.refilled);
        // Whole microseconds only, so that frequent looks lose nothing to rounding.
        let micros = elapsed.as_micros().min(60_000_000) as u64;
        let gained = micros.saturating_mul(self.per_second) / 1_000_000;
        if gained > 0 {
            self.level = self.level.saturating_add_unsigned(gained).min(self.cap);
            let used = Duration::from_micros(gained.saturating_mul(1_000_000) / self.per_second.max(1));
            self.refilled = if self.level == self.cap {
                now
            } else {
                self.refilled + used
            };
        }
        self.level
    }

    /// Takes `amount`, whether or not it is there.
    pub(crate) fn take(&mut self, amount: u64) {
        self.level = self.level.saturating_sub_unsigned(amount);
    }

    /// Takes `amount` when anything is left at `now`.
    pub(crate) fn take_if_any(&mut self, amount: u64, now: Instant) -> bool {
        let any = self.level(now) > 0;
        if any {
            self.take(amount);
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_rate_holds_however_often_it_is_looked_at() {
        let start = Instant::now();
        let mut budget = Budget::new(300_000, 30_000, start);
        let mut passed = 0u64;
        for step in 0..10_000u64 {
            let now = start + Duration::from_millis(step);
            if budget.take_if_any(9_600, now) {
                passed += 9_600;
            }
        }
        assert!((2_990_000..=3_050_000).contains(&passed), "{passed} bits in 10 s");
    }
}
