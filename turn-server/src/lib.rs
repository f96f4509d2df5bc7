//! The TURN core (RFC 8656), sans-IO: one file a noun, and the same stage names as the SFU.
//!
//! `classify -> admit -> forward -> charge -> egress`. A datagram goes in and at most one comes out, borrowed from
//! the one that came in or from a buffer of the core's own; what else there is to do (open a relayed port, ask for
//! money, report usage) is polled as an [`Event`]. Nothing in this crate owns a socket, reads a clock or draws
//! randomness of its own: instants and a seed are arguments.
//!
//! The RFCs: 8489 and 8656, TCP allocations (6062), mobility (8016), NAT behaviour discovery (5780) and access tokens
//! (7635). `docs/turn.md` has a test for each of their sections.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod access_token;
mod address_policy;
mod admit;
mod allocate;
mod allocation;
mod answer;
mod binding;
mod bucket;
mod census;
mod challenge;
mod channel;
mod channel_bind;
mod charge;
mod classify;
mod client;
mod config;
mod connect;
mod connection_bind;
mod create_permission;
mod credential;
mod data_connection;
mod discard;
mod egress;
mod event;
mod forward;
mod mobility;
mod nonce;
mod permission;
mod refresh;
mod relayed_port;
mod reservation;
mod server;

pub use access_token::AccessTokens;
pub use address_policy::{AddressPolicy, Denied, PeerKind, Prefix};
pub use allocation::{AllocationKey, Family, Protocol};
pub use binding::Discovery;
pub use census::Census;
pub use client::{Client, ConnectionId, Transport};
pub use config::{Config, RELAYED_PORTS};
pub use credential::{Credential, REALM};
pub use data_connection::{DATA_CHUNK, DataConnection, Spend};
pub use discard::{AuthFailure, Counters, Discard};
pub use egress::{Charged, HEADROOM, Transmit, Via};
pub use event::{CloseReason, Event, Refusal};
pub use server::TurnServer;
