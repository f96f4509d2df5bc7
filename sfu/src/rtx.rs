//! Retransmission to a subscriber (RFC 4588): what it asked for by NACK goes out again under the RTX SSRC with
//! its own sequence numbers, within a budget.
//!
//! Without RTX a lost packet is not sent again: the same index would have to be sealed twice, and the restamped
//! header extensions would make the two differ under one nonce.

use std::time::{Duration, Instant};

use crate::budget::Budget;
use crate::rewrite::Segment;
use crate::stream::SessionKey;

/// What a subscriber may have sent again: 1 Mbit/s.
const BYTES_PER_SECOND: u64 = 125_000;
/// In one burst: a lost key frame or two.
const BURST_BYTES: u64 = 256_000;
/// Retransmissions waiting for the next poll, of all subscribers together.
pub(crate) const QUEUE_MAX: usize = 1024;
/// Sequence numbers one NACK datagram may name before the rest is ignored.
pub(crate) const NACKED_MAX: usize = 512;
/// A packet that was sent again is on its way for about a round trip.
const REPEAT_MIN: Duration = Duration::from_millis(30);
/// A client that claims an absurd round trip still gets help.
const REPEAT_MAX: Duration = Duration::from_millis(300);
/// Recent retransmissions remembered a track.
const RECENT: usize = 64;

/// The budget of one subscriber, in bytes.
pub(crate) fn budget(now: Instant) -> Budget {
    Budget::new(BYTES_PER_SECOND, BURST_BYTES, now)
}

/// A packet to send again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retransmission {
    pub(crate) session: SessionKey,
    pub(crate) track: usize,
    /// The publisher's index.
    pub(crate) index_in: u64,
    /// The subscriber's index.
    pub(crate) index_out: u64,
    pub(crate) segment: Segment,
}

/// A track's RTX stream.
#[derive(Debug)]
pub(crate) struct Retransmitter {
    next: u64,
    recent: [(u64, Option<Instant>); RECENT],
}

impl Retransmitter {
    pub(crate) fn new(first_sequence: u16) -> Retransmitter {
        Retransmitter {
            next: u64::from(first_sequence >> 1),
            recent: [(0, None); RECENT],
        }
    }

    /// Whether the packet was not sent again within the round trip; if so, it now was.
    pub(crate) fn may_repeat(&mut self, index_out: u64, now: Instant, round_trip: Option<Duration>) -> bool {
        let pause = round_trip.map_or(REPEAT_MIN, |time| time.clamp(REPEAT_MIN, REPEAT_MAX));
        let recent = &mut self.recent[index_out as usize % RECENT];
        let repeated = recent.0 == index_out
            && recent
                .1
                .is_some_and(|at| now.saturating_duration_since(at) < pause);
        if !repeated {
            *recent = (index_out, Some(now));
        }
        !repeated
    }

    /// The index of the next retransmission; each is used once.
    pub(crate) fn next_index(&mut self) -> u64 {
        let index = self.next;
        self.next += 1;
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_not_sent_again_twice_in_a_moment() {
        let start = Instant::now();
        let mut retransmitter = Retransmitter::new(9);
        assert!(retransmitter.may_repeat(7, start, None));
        assert!(!retransmitter.may_repeat(7, start + REPEAT_MIN / 2, None));
        assert!(retransmitter.may_repeat(8, start, None));
        assert!(retransmitter.may_repeat(7, start + REPEAT_MIN, None));
    }

    #[test]
    fn a_storm_of_nacks_is_answered_within_the_budget() {
        let start = Instant::now();
        let mut budget = budget(start);
        let mut answered = 0u64;
        for ms in 0..10_000u64 {
            for _ in 0..10 {
                if budget.take_if_any(1_200, start + Duration::from_millis(ms)) {
                    answered += 1_200;
                }
            }
        }
        assert!(answered <= BURST_BYTES + 10 * BYTES_PER_SECOND + 1_200);
    }
}
