//! Criterion benches, floor programs, peer comparisons.
