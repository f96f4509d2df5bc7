//! Which packet indices were seen (RFC 3711 section 3.3.2), and the extension of 16-bit sequence numbers to
//! 48-bit packet indices (RFC 3711 section 3.3.1, appendix A).
//!
//! The same window serves both directions: a receiver refuses what it opened before, and a sender refuses to
//! seal an index twice, because a repeated GCM nonce gives the key away.

/// Indices remembered behind the highest one. 1,024 packets are more than a second of video at 10 Mbit/s,
/// the longest that a retransmission is worth waiting for.
pub const WINDOW_PACKETS: u64 = 1024;

const WORDS: usize = (WINDOW_PACKETS / 64) as usize;

/// A sliding window over packet indices.
#[derive(Debug, Clone)]
pub struct Window {
    /// One past the highest index seen; 0 when none was.
    next: u64,
    seen: [u64; WORDS],
}

impl Window {
    /// A window that has seen nothing.
    #[must_use]
    pub fn new() -> Window {
        Window {
            next: 0,
            seen: [0; WORDS],
        }
    }

    /// The highest index seen.
    #[must_use]
    pub fn highest(&self) -> Option<u64> {
        self.next.checked_sub(1)
    }

    /// Whether `index` is new: neither seen nor too old to tell.
    #[must_use]
    pub fn is_new(&self, index: u64) -> bool {
        if index >= self.next {
            return true;
        }
        self.next - index <= WINDOW_PACKETS && !self.bit(index)
    }

    /// Whether `index` is remembered as seen.
    #[must_use]
    pub fn contains(&self, index: u64) -> bool {
        index < self.next && self.next - index <= WINDOW_PACKETS && self.bit(index)
    }

    /// Marks `index` as seen; false, and no change, when it was not new.
    pub fn insert(&mut self, index: u64) -> bool {
        if !self.is_new(index) {
            return false;
        }
        if index >= self.next {
            let step = index - self.next + 1;
            if step >= WINDOW_PACKETS {
                self.seen = [0; WORDS];
            } else {
                for skipped in self.next..=index {
                    self.clear(skipped);
                }
            }
            self.next = index + 1;
        }
        self.seen[(index / 64) as usize % WORDS] |= 1 << (index % 64);
        true
    }

    fn bit(&self, index: u64) -> bool {
        self.seen[(index / 64) as usize % WORDS] & (1 << (index % 64)) != 0
    }

    fn clear(&mut self, index: u64) {
        self.seen[(index / 64) as usize % WORDS] &= !(1 << (index % 64));
    }
}

impl Default for Window {
    fn default() -> Self {
        Window::new()
    }
}

/// The packet index (ROC and sequence number) that `sequence` most likely stands for, given the highest
/// index so far; `None` when it would lie before index 0.
#[must_use]
pub fn estimate_index(highest: Option<u64>, sequence: u16) -> Option<u64> {
    let Some(highest) = highest else {
        return Some(u64::from(sequence));
    };
    let distance = sequence.wrapping_sub(highest as u16) as i16;
    highest.checked_add_signed(i64::from(distance))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_accepted_once() {
        let mut window = Window::new();
        assert!(window.insert(5));
        assert!(!window.insert(5));
        assert!(window.insert(3));
        assert!(!window.insert(3));
        assert!(window.contains(3) && window.contains(5) && !window.contains(4));
        assert_eq!(window.highest(), Some(5));
    }

    #[test]
    fn an_index_behind_the_window_is_refused() {
        let mut window = Window::new();
        assert!(window.insert(10_000));
        assert!(window.insert(10_000 - WINDOW_PACKETS + 1));
        assert!(!window.insert(10_000 - WINDOW_PACKETS));
    }

    #[test]
    fn a_jump_ahead_forgets_what_it_passed() {
        let mut window = Window::new();
        for index in 0..WINDOW_PACKETS {
            assert!(window.insert(index));
        }
        assert!(window.insert(WINDOW_PACKETS + 500));
        assert!(!window.contains(WINDOW_PACKETS));
        assert!(window.insert(WINDOW_PACKETS + 499));
        assert!(!window.insert(WINDOW_PACKETS - 1));
        assert!(window.insert(WINDOW_PACKETS * 9));
        assert!(window.insert(WINDOW_PACKETS * 9 - 1));
    }

    #[test]
    fn window_agrees_with_a_set() {
        use std::collections::BTreeSet;

        use rand::{RngExt, SeedableRng, rngs::StdRng};
        let mut rng = StdRng::seed_from_u64(3);
        let (mut window, mut model) = (Window::new(), BTreeSet::new());
        let mut at = 0u64;
        for _ in 0..20_000 {
            at += rng.random_range(0..4u64);
            let index = at.saturating_sub(rng.random_range(0..40u64));
            assert_eq!(window.insert(index), model.insert(index), "index {index}");
        }
    }

    #[test]
    fn the_sequence_number_wraps_into_the_roc_both_ways() {
        assert_eq!(estimate_index(None, 65_535), Some(65_535));
        assert_eq!(estimate_index(Some(65_535), 0), Some(65_536));
        assert_eq!(estimate_index(Some(65_536), 65_535), Some(65_535));
        assert_eq!(estimate_index(Some(0x2_0001), 0xffff), Some(0x1_ffff));
        assert_eq!(estimate_index(Some(1), 65_535), None);
        assert_eq!(estimate_index(Some(0x1_8000), 0xffff), Some(0x1_ffff));
    }
}
