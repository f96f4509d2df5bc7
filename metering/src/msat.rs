//! Money: whole millisatoshi, never a fraction, never below zero, never past what a JSON number can carry.

use serde::{Deserialize, Serialize};
use std::fmt;

/// An amount in millisatoshi. Arithmetic is checked or says that it saturates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Msat(u64);

impl Msat {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The largest balance an account can have: 2^53 - 1, the largest integer that every JSON reader keeps exact.
    pub const MAX_BALANCE: Self = Self((1 << 53) - 1);
    /// One millisatoshi, the most that rounding can cost a segment.
    pub const ONE: Self = Self(1);

    /// `msat` millisatoshi.
    pub const fn new(msat: u64) -> Self {
        Self(msat)
    }

    /// The number of millisatoshi.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// True for nothing.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The sum, unless it overflows.
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The difference, unless it is below zero.
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(difference) => Some(Self(difference)),
            None => None,
        }
    }

    /// The sum, or the largest amount there is.
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, or nothing.
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Msat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} msat", self.0)
    }
}

impl From<u64> for Msat {
    fn from(msat: u64) -> Self {
        Self(msat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_never_wraps() {
        assert_eq!(Msat::new(1).checked_sub(Msat::new(2)), None);
        assert_eq!(Msat::new(u64::MAX).checked_add(Msat::ONE), None);
        assert_eq!(Msat::new(u64::MAX).saturating_add(Msat::ONE), Msat::new(u64::MAX));
    }

    #[test]
    fn the_largest_balance_is_the_largest_exact_json_integer() {
        assert_eq!(Msat::MAX_BALANCE.get(), 9_007_199_254_740_991);
    }
}
