//! Criterion benches of each layer, one file a subject: `cargo bench -p benches --bench wire`.
//!
//! Numbers that somebody relies on are committed under `runs/DATE-MACHINE/` with machine, kernel and command; a
//! change for speed adds a run before and a run after.

pub mod call;
