//! Money from outside: BOLT11 invoices of a Lightning node, and Cashu tokens of a mint.
//!
//! Both are conversations over HTTP, told here without any: what to ask is a [`Call`], what came back is read by the same
//! type that asked. No socket, no clock, no randomness; coins are derived from a seed that the caller keeps, and what
//! must be durable before a call is said where the call is made.
//!
//! The Cashu protocol is our own few hundred lines on `secp256k1`: the `cashu` crate brings 118 others, LDK among them.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod call;
pub mod cashu;
mod hex;
pub mod lightning;

pub use call::{Answer, Call, Fault};
