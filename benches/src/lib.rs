//! Criterion benches of each layer, one file a subject: `cargo bench -p benches --bench wire`; the floor under all
//! of it ([`floor`]); and the table that sets a relay beside that floor ([`comparison`]).
//!
//! Numbers that somebody relies on are committed under `runs/DATE-MACHINE/` with machine, kernel and command; a
//! change for speed adds a run before and a run after.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod books;
pub mod call;
pub mod comparison;
pub mod floor;
pub mod keys;
pub mod relayed;
pub mod turn_floor;

/// What the programs here may fail with.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
