//! What a subscriber received: each stamp once, how late it was, and how many bytes it cost.

use std::ops::Range;

use crate::media::Stamp;

/// One stream as a subscriber saw it, of packets stamped inside a window.
#[derive(Clone, Debug, Default)]
pub struct Reception {
    window: Range<u64>,
    /// One bit a packet, from the first number of the window on.
    seen: Vec<u64>,
    first: Option<u64>,
    /// Packets, each counted once.
    pub packets: u64,
    /// Packets that came again.
    pub duplicates: u64,
    /// Packets in all, in the window or not.
    pub packets_ever: u64,
    /// One-way latency of each packet in microseconds.
    pub latencies: Vec<u32>,
}

/// Numbers further than this from the first one seen are not ours: 2^22 packets are six hours of video.
const NUMBERS_MAX: u64 = 1 << 22;

impl Reception {
    /// Counts from here on only what is stamped inside this range of nanoseconds.
    pub fn measure(&mut self, window: Range<u64>) {
        *self = Reception {
            window,
            packets_ever: self.packets_ever,
            ..Reception::default()
        };
    }

    /// A packet that arrived at `nanoseconds` of the stamps' clock.
    pub fn receive(&mut self, stamp: Stamp, nanoseconds: u64) {
        self.packets_ever += 1;
        if !self.window.contains(&stamp.nanoseconds) {
            return;
        }
        // Reordering may put a few before the first one seen.
        let first = *self.first.get_or_insert(stamp.number.saturating_sub(1_024));
        let Some(at) = stamp.number.checked_sub(first).filter(|at| *at < NUMBERS_MAX) else {
            return;
        };
        let (word, bit) = ((at / 64) as usize, 1 << (at % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit != 0 {
            self.duplicates += 1;
            return;
        }
        self.seen[word] |= bit;
        self.packets += 1;
        let latency = nanoseconds.saturating_sub(stamp.nanoseconds) / 1_000;
        self.latencies.push(u32::try_from(latency).unwrap_or(u32::MAX));
    }
}

/// Some latencies in order, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
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
    fn a_packet_counts_once_and_only_inside_the_window() {
        let mut reception = Reception::default();
        reception.measure(1_000..2_000);
        for (number, nanoseconds) in [(4, 999), (6, 1_500), (5, 1_000), (6, 1_500), (7, 2_000)] {
            reception.receive(Stamp { number, nanoseconds }, 5_000);
        }
        assert_eq!(
            (reception.packets, reception.duplicates, reception.packets_ever),
            (2, 1, 5)
        );
        assert_eq!(reception.latencies, [3, 4]);
    }

    #[test]
    fn percentiles_are_of_the_sorted_latencies() {
        let mut latencies: Vec<u32> = (1..=100).rev().collect();
        assert_eq!(
            percentiles(&mut latencies),
            Percentiles {
                p50: 50,
                p95: 95,
                p99: 99,
                max: 100
            }
        );
        assert_eq!(percentiles(&mut []), Percentiles::default());
        assert_eq!(
            percentiles(&mut [7]),
            Percentiles {
                p50: 7,
                p95: 7,
                p99: 7,
                max: 7
            }
        );
    }
}
