//! What a publisher is asked to send again (RFC 4585 section 6.2.1): gaps in a stream's sequence, asked for
//! after a moment in which reordered packets may still come, a few times, and then given up.

use std::time::{Duration, Instant};

/// Gaps remembered a stream. A larger burst is beyond repair and a key frame is cheaper.
pub(crate) const MISSING_MAX: usize = 256;
/// Reordered packets are a few milliseconds late, not lost.
const REORDERING: Duration = Duration::from_millis(10);
/// A round trip over a long path; asking again sooner asks for what is on its way.
const REPEAT: Duration = Duration::from_millis(100);
/// After five round trips the packet is too late for a call.
const ATTEMPTS_MAX: u8 = 5;

#[derive(Debug, Clone, Copy)]
struct Missing {
    index: u64,
    due: Instant,
    attempts: u8,
}

/// The gaps of one stream, in ascending order.
#[derive(Debug)]
pub(crate) struct Gaps {
    missing: Vec<Missing>,
}

impl Gaps {
    pub(crate) fn new() -> Gaps {
        Gaps {
            missing: Vec::with_capacity(MISSING_MAX),
        }
    }

    /// A packet arrived: `previous` was the highest index before it.
    pub(crate) fn arrived(&mut self, index: u64, previous: Option<u64>, now: Instant) {
        let Some(previous) = previous else {
            return;
        };
        if index <= previous {
            if let Ok(at) = self.missing.binary_search_by_key(&index, |missing| missing.index) {
                self.missing.remove(at);
            }
            return;
        }
        let gap = index - previous - 1;
        if gap as usize > MISSING_MAX {
            self.missing.clear();
            return;
        }
        let excess = (self.missing.len() + gap as usize).saturating_sub(MISSING_MAX);
        self.missing.drain(..excess);
        let due = now + REORDERING;
        self.missing.extend((previous + 1..index).map(|index| Missing {
            index,
            due,
            attempts: 0,
        }));
    }

    /// When something is to be asked for.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.missing.iter().map(|missing| missing.due).min()
    }

    /// Fills `wanted` with the sequence numbers to ask for now, ascending, and returns how many.
    pub(crate) fn poll(&mut self, now: Instant, wanted: &mut [u16; MISSING_MAX]) -> usize {
        self.missing
            .retain(|missing| missing.due > now || missing.attempts < ATTEMPTS_MAX);
        let mut count = 0;
        for missing in self.missing.iter_mut().filter(|missing| missing.due <= now) {
            missing.attempts += 1;
            missing.due = now + REPEAT;
            wanted[count] = missing.index as u16;
            count += 1;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(gaps: &mut Gaps, now: Instant) -> Vec<u16> {
        let mut wanted = [0; MISSING_MAX];
        let count = gaps.poll(now, &mut wanted);
        wanted[..count].to_vec()
    }

    #[test]
    fn a_gap_is_asked_for_after_a_moment_repeatedly_and_then_given_up() {
        let start = Instant::now();
        let mut gaps = Gaps::new();
        gaps.arrived(65_534, None, start);
        gaps.arrived(65_538, Some(65_534), start);
        assert!(asked(&mut gaps, start).is_empty());
        let mut now = gaps.due().unwrap();
        assert_eq!(asked(&mut gaps, now), [65_535, 0, 1]);
        gaps.arrived(65_536, Some(65_538), now);
        let mut times = 1;
        while let Some(due) = gaps.due() {
            now = due;
            if !asked(&mut gaps, now).is_empty() {
                times += 1;
            }
        }
        assert_eq!(times, ATTEMPTS_MAX);
    }

    #[test]
    fn a_reordered_packet_is_not_asked_for() {
        let start = Instant::now();
        let mut gaps = Gaps::new();
        gaps.arrived(10, Some(8), start);
        gaps.arrived(9, Some(10), start + Duration::from_millis(5));
        assert_eq!(gaps.due(), None);
    }

    #[test]
    fn the_list_is_bounded() {
        let start = Instant::now();
        let mut gaps = Gaps::new();
        for index in 1..2_000u64 {
            gaps.arrived(index * 2, Some(index * 2 - 2), start);
        }
        assert!(gaps.missing.len() <= MISSING_MAX);
        gaps.arrived(1_000_000, Some(4_000), start);
        assert!(gaps.missing.is_empty());
    }
}
