//! Signed DSIP envelopes and the session messages built on them.
//!
//! An envelope is a JSON object with `type`, `id`, `ts`, `from`, `to` and a body, and `sig`: a detached JWS
//! (RFC 7797) over the canonical form (JCS, RFC 8785) of everything else. [`Receiver`] is the relay's side of one
//! connection: strict JSON, signature, time window, replay, one speaker. [`seal`] writes envelopes. What the messages
//! mean for a call is not decided here.

mod envelope;
mod fault;
mod jcs;
mod memory;
pub mod message;
mod receiver;

pub use envelope::{ENVELOPE_LENGTH_MAX, Envelope, seal, seal_with_id};
pub use fault::Fault;
pub use jcs::canonicalise;
pub use memory::{IDS_MAX, Memory};
pub use message::{ClientMessage, RelayMessage};
pub use receiver::{Received, Receiver, TS_WINDOW};

/// The WebSocket subprotocol.
pub const SUBPROTOCOL: &str = "dsip.v0.3";
