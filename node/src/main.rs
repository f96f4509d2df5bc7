//! The milliway program.
fn main() {}
