//! Signed DSIP envelopes and the session messages built on them.
//!
//! An envelope is an object with `type`, `id`, `ts`, `from`, `to` and a body, and `sig`: a signature over the canonical
//! form (JCS, RFC 8785) of everything else, in JSON as a detached JWS (RFC 7797), in CBOR as a detached COSE_Sign1
//! (RFC 9052). [`Receiver`] is the relay's side of one connection: strict parsing, signature, time window, replay, one
//! speaker. [`seal()`] and [`seal_cbor`] write envelopes. What the messages mean for a call is not decided here.

mod cbor;
mod client;
pub mod credentials;
mod envelope;
mod fault;
mod jcs;
mod memory;
pub mod message;
pub mod receipt;
mod receiver;
mod seal;
mod signature;

pub use client::{Client, ClientError, Terms};
pub use envelope::{ENVELOPE_LENGTH_MAX, Envelope, signer_named, signer_named_cbor};
pub use fault::Fault;
pub use jcs::canonicalise;
pub use memory::{IDS_MAX, Memory};
pub use message::{ClientMessage, RelayMessage};
pub use receiver::{Received, Receiver, TS_WINDOW};
pub use seal::{Encoding, seal, seal_cbor, seal_cbor_with_id, seal_with_id};

/// The WebSocket subprotocol.
pub const SUBPROTOCOL: &str = "dsip.v0.3";
