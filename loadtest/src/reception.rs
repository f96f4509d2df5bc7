//! What a str0m subscriber received: each stamp once.

use std::ops::Range;

pub use crate::histogram::{Percentiles, percentiles};
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

    /// A packet that arrived.
    pub fn receive(&mut self, stamp: Stamp) {
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::Content;

    #[test]
    fn a_packet_counts_once_and_only_inside_the_window() {
        let mut reception = Reception::default();
        reception.measure(1_000..2_000);
        for (number, nanoseconds) in [(4, 999), (6, 1_500), (5, 1_000), (6, 1_500), (7, 2_000)] {
            reception.receive(Stamp {
                content: Content::Delta,
                publisher: 0,
                number,
                nanoseconds,
            });
        }
        assert_eq!(
            (reception.packets, reception.duplicates, reception.packets_ever),
            (2, 1, 5)
        );
    }
}
