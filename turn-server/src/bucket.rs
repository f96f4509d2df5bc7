//! A token bucket, as the generic cell rate algorithm: one instant instead of a level, so that nothing drifts.

use std::time::{Duration, Instant};

/// A rate and a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) bits_per_second: u64,
    pub(crate) burst_bytes: u64,
}

impl Rate {
    fn time_for(&self, bytes: u64) -> Duration {
        let nanoseconds = u128::from(bytes) * 8_000_000_000 / u128::from(self.bits_per_second.max(1));
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

/// When the bucket will be full again; none if it is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket {
    full_at: Option<Instant>,
}

impl Bucket {
    /// Takes `bytes`, or refuses and changes nothing: for datagrams.
    pub(crate) fn take(&mut self, rate: Rate, bytes: u64, now: Instant) -> bool {
        let after = self.missing(now).saturating_add(rate.time_for(bytes));
        if after > rate.time_for(rate.burst_bytes) {
            return false;
        }
        self.full_at = Some(now + after);
        true
    }

    /// When `bytes` of a stream may pass, if that is not now. What is larger than the burst passes once the bucket is
    /// full, and is owed for: a stream must not lose bytes.
    pub(crate) fn wait(&self, rate: Rate, bytes: u64, now: Instant) -> Option<Instant> {
        let room = rate
            .time_for(rate.burst_bytes)
            .saturating_sub(rate.time_for(bytes));
        let longer = self.missing(now).saturating_sub(room);
        (longer > Duration::ZERO).then(|| now + longer)
    }

    /// Takes `bytes` that [`Bucket::wait`] let pass.
    pub(crate) fn owe(&mut self, rate: Rate, bytes: u64, now: Instant) {
        self.full_at = Some(now + self.missing(now).saturating_add(rate.time_for(bytes)));
    }

    fn missing(&self, now: Instant) -> Duration {
        self.full_at
            .map_or(Duration::ZERO, |full_at| full_at.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let rate = Rate {
            bits_per_second: 128_000,
            burst_bytes: 16_000,
        };
        let start = Instant::now();
        let mut bucket = Bucket::default();
        let burst = (0..1000).take_while(|_| bucket.take(rate, 1000, start)).count();
        assert_eq!(burst, 16);
        let mut passed = 0;
        for millisecond in 1..=10_000 {
            passed += u64::from(bucket.take(rate, 1000, start + Duration::from_millis(millisecond)));
        }
        assert_eq!(passed, 160, "128 kbit/s are 16 kB a second");
    }

    #[test]
    fn what_is_larger_than_the_burst_never_passes_and_takes_nothing() {
        let rate = Rate {
            bits_per_second: 8_000,
            burst_bytes: 100,
        };
        let mut bucket = Bucket::default();
        assert!(!bucket.take(rate, 101, Instant::now()));
        assert!(bucket.take(rate, 100, Instant::now()));
    }

    #[test]
    fn a_stream_waits_for_the_rate_and_loses_nothing() {
        let rate = Rate {
            bits_per_second: 128_000,
            burst_bytes: 16_000,
        };
        let start = Instant::now();
        let (mut bucket, mut now, mut passed) = (Bucket::default(), start, 0);
        while now < start + Duration::from_secs(10) {
            match bucket.wait(rate, 16_384, now) {
                Some(until) => {
                    assert!(until > now, "time goes on");
                    now = until;
                }
                None => {
                    bucket.owe(rate, 16_384, now);
                    passed += 16_384;
                }
            }
        }
        assert!((160_000..=160_000 + 2 * 16_384).contains(&passed), "{passed}");
    }
}
