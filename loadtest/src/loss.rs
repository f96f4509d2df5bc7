//! Packets that are lost on purpose: a fixed sequence of pseudo-random draws, so that a failure happens again.

/// Loses a share of what passes.
#[derive(Clone, Debug)]
pub struct Loss {
    /// Draws below it are losses.
    threshold: u64,
    state: u64,
    lost: u64,
}

impl Loss {
    /// Loses this many of a hundred; another `seed` loses others.
    #[must_use]
    pub fn new(percent: f64, seed: u64) -> Loss {
        Loss {
            threshold: (percent.clamp(0.0, 100.0) / 100.0 * u64::MAX as f64) as u64,
            // Never zero, where xorshift stays.
            state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            lost: 0,
        }
    }

    /// Whether the next packet is lost.
    pub fn takes(&mut self) -> bool {
        // Marsaglia's xorshift64*.
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let lost = self.state.wrapping_mul(0x2545_F491_4F6C_DD1D) < self.threshold;
        self.lost += u64::from(lost);
        lost
    }

    /// How many were lost until now.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_the_share_that_was_asked_for_is_lost_and_the_same_ones_again() {
        let draws = |seed| {
            let mut loss = Loss::new(1.0, seed);
            (0..100_000).map(|_| loss.takes()).collect::<Vec<_>>()
        };
        let lost = draws(1).iter().filter(|lost| **lost).count();
        assert!((900..1_100).contains(&lost), "{lost} of 100,000");
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
        let mut none = Loss::new(0.0, 7);
        assert!(!(0..1_000).any(|_| none.takes()) && none.lost() == 0);
    }
}
