//! Latencies counted in buckets: no memory per packet, and a percentile to within 1/64 of its value.
//!
//! Up to 64 us each microsecond has a bucket; above, every power of two has 64.

use serde::Serialize;

/// Buckets of one power of two, and the values below it that are exact.
const SUB_BUCKETS: u32 = 64;
const SUB_BITS: u32 = SUB_BUCKETS.ilog2();
/// Above 2^27 us, which are two minutes, everything is the same.
const EXPONENT_MAX: u32 = 27;
const BUCKETS: usize = ((EXPONENT_MAX - SUB_BITS + 1) * SUB_BUCKETS) as usize;

/// Some latencies.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Box<[u64; BUCKETS]>,
    count: u64,
    max: u32,
}

/// Some latencies in order, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// Half were below.
    pub p50: u32,
    /// 19 of 20 were below.
    pub p95: u32,
    /// 99 of 100 were below.
    pub p99: u32,
    /// The worst.
    pub max: u32,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            counts: Box::new([0; BUCKETS]),
            count: 0,
            max: 0,
        }
    }
}

fn bucket(microseconds: u32) -> usize {
    if microseconds < SUB_BUCKETS {
        return microseconds as usize;
    }
    let exponent = microseconds.ilog2();
    if exponent >= EXPONENT_MAX {
        return BUCKETS - 1;
    }
    let sub = (microseconds >> (exponent - SUB_BITS)) - SUB_BUCKETS;
    ((exponent - SUB_BITS + 1) * SUB_BUCKETS + sub) as usize
}

/// The largest value of a bucket.
fn upper(bucket: usize) -> u32 {
    let bucket = bucket as u32;
    if bucket < SUB_BUCKETS {
        return bucket;
    }
    let (exponent, sub) = (bucket / SUB_BUCKETS - 1, bucket % SUB_BUCKETS);
    ((SUB_BUCKETS + sub + 1) << exponent) - 1
}

impl Histogram {
    /// Counts one latency.
    pub fn record(&mut self, microseconds: u32) {
        self.counts[bucket(microseconds)] += 1;
        self.count += 1;
        self.max = self.max.max(microseconds);
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Takes in what another one counted.
    pub fn add(&mut self, other: &Histogram) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts.iter()) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// The value that this share of all is not above.
    #[must_use]
    pub fn at(&self, share: f64) -> u32 {
        let rank = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut below = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            below += count;
            if below >= rank {
                return upper(bucket).min(self.max);
            }
        }
        0
    }

    /// The usual ones.
    #[must_use]
    pub fn percentiles(&self) -> Percentiles {
        Percentiles {
            p50: self.at(0.50),
            p95: self.at(0.95),
            p99: self.at(0.99),
            max: self.max,
        }
    }

    /// The distribution as points (share of all, microseconds), for a plot that stretches the tail.
    #[must_use]
    pub fn curve(&self) -> Vec<(f64, u32)> {
        const SHARES: [f64; 16] = [
            0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999,
        ];
        if self.count == 0 {
            return Vec::new();
        }
        SHARES.iter().map(|share| (*share, self.at(*share))).collect()
    }
}

/// Of any number of latencies, which are sorted here.
pub fn percentiles(latencies: &mut [u32]) -> Percentiles {
    latencies.sort_unstable();
    let at = |share: f64| {
        let rank = (latencies.len() as f64 * share).ceil() as usize;
        latencies.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    };
    Percentiles {
        p50: at(0.50),
        p95: at(0.95),
        p99: at(0.99),
        max: at(1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_the_percentiles_of_its_sorted_values() {
        let mut latencies: Vec<u32> = (1..=100).rev().collect();
        let Percentiles { p50, p95, p99, max } = percentiles(&mut latencies);
        assert_eq!((p50, p95, p99, max), (50, 95, 99, 100));
        assert_eq!(percentiles(&mut []), Percentiles::default());
    }

    #[test]
    fn percentiles_are_within_a_sixty_fourth() {
        let mut histogram = Histogram::default();
        (1..=100_000).for_each(|value| histogram.record(value));
        let Percentiles { p50, p95, p99, max } = histogram.percentiles();
        assert_eq!(max, 100_000);
        for (got, exact) in [(p50, 50_000), (p95, 95_000), (p99, 99_000)] {
            assert!((exact..=exact + exact / 64).contains(&got), "{got} for {exact}");
        }
    }

    #[test]
    fn small_values_are_exact_and_nothing_is_nothing() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentiles(), Percentiles::default());
        assert!(histogram.curve().is_empty());
        histogram.record(7);
        let seven = Percentiles {
            p50: 7,
            p95: 7,
            p99: 7,
            max: 7,
        };
        assert_eq!(histogram.percentiles(), seven);
    }

    #[test]
    fn every_value_lies_in_its_bucket() {
        let mut last = 0;
        for exponent in 0..27 {
            for value in [1_u32 << exponent, (1 << exponent) + 1, (2 << exponent) - 1] {
                let at = bucket(value);
                assert!(
                    upper(at) >= value && (at == 0 || upper(at - 1) < value),
                    "{value}"
                );
                assert!(at >= last || value <= 2, "{value}");
                last = at;
            }
        }
        assert_eq!(bucket(u32::MAX), BUCKETS - 1);
    }

    #[test]
    fn two_histograms_add_up() {
        let (mut one, mut other) = (Histogram::default(), Histogram::default());
        one.record(1);
        other.record(1_000);
        one.add(&other);
        assert_eq!((one.count(), one.percentiles().max), (2, 1_000));
    }
}
