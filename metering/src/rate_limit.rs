//! A client's own ceiling on what it spends, so that no publisher can drain it.

use crate::{allowance::Exhausted, meter::UNITS_PER_MSAT};
use std::time::Instant;

/// A token bucket of one second, in exact units. What the clock costs comes off the refill.
#[derive(Clone, Debug)]
pub(crate) struct RateLimit {
    capacity: u128,
    refill_per_nanosecond: u128,
    level: u128,
    filled_at: Option<Instant>,
}

impl RateLimit {
    pub(crate) fn new(max_msat_per_second: u64, msat_per_second: u64) -> Self {
        let refill = max_msat_per_second.saturating_sub(msat_per_second);
        let capacity = u128::from(refill) * UNITS_PER_MSAT;
        Self {
            capacity,
            refill_per_nanosecond: u128::from(refill),
            level: capacity,
            filled_at: None,
        }
    }

    pub(crate) fn take(&mut self, units: u128, now: Instant) -> Result<(), Exhausted> {
        let filled_at = *self.filled_at.get_or_insert(now);
        let passed = now
            .saturating_duration_since(filled_at)
            .as_nanos()
            .min(u128::from(u64::MAX));
        self.level = self
            .capacity
            .min(self.level + passed * self.refill_per_nanosecond);
        self.filled_at = Some(filled_at.max(now));
        self.level = self.level.checked_sub(units).ok_or(Exhausted::RateLimited)?;
        Ok(())
    }

    pub(crate) fn give_back(&mut self, units: u128) {
        self.level = self.capacity.min(self.level + units);
    }
}
