//! What it cost: msat, tariff, meter, allowance, lease, ledger, receipt.
//!
//! The shard spends an [`Allowance`] before every egress and reports what it spent; the [`ledger`] granted that
//! allowance out of an account as a lease, and settles it when a segment closes. The shape is Diameter credit
//! control (RFC 8506): reserve, spend, report cumulatively, settle.
//!
//! Nothing here knows a packet, opens a socket, reads a clock or draws a random number: `now` and the amounts are
//! arguments. The only file is the ledger's own.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod allowance;
pub mod identifier;
pub mod ladder;
pub mod lease;
pub mod ledger;
pub mod meter;
pub mod msat;
mod rate_limit;
pub mod receipt;
pub mod report;
pub mod tariff;
pub mod voucher;

pub use allowance::{Allowance, Direction, Exhausted};
pub use identifier::{AccountId, LeaseId, SessionId};
pub use ladder::{Ladder, LadderConfig, Step};
pub use ledger::{Embedded, Ledger};
pub use msat::Msat;
pub use report::{Report, Usage};
pub use tariff::{Rates, Service, Tariff};
pub use voucher::Voucher;
