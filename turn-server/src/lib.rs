//! The TURN core (RFC 8656), sans-IO: one file a noun, and the same stage names as the SFU.
//!
//! `classify -> admit -> forward -> charge -> egress`. A datagram goes in and at most one comes out, borrowed from
//! the one that came in or from a buffer of the core's own; what else there is to do (open a relayed port, ask for
//! money, report usage) is polled as an [`Event`]. Nothing in this crate owns a socket, reads a clock or draws
//! randomness of its own: instants and a seed are arguments.
//!
//! What it does not do: TCP allocations (RFC 6062), mobility (RFC 8016), port reservations (EVEN-PORT's R flag),
//! DONT-FRAGMENT, and a second address family in one allocation. Each is refused as its RFC says.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod address_policy;
mod admit;
mod allocate;
mod allocation;
mod answer;
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
mod nonce;
mod permission;
mod refresh;
mod server;

pub use address_policy::{AddressPolicy, Denied, PeerKind, Prefix};
pub use allocation::{AllocationKey, Family, Protocol};
pub use census::Census;
pub use client::{Client, ConnectionId, Transport};
pub use config::{Config, RELAYED_PORTS};
pub use credential::{Credential, REALM};
pub use data_connection::{DATA_CHUNK, DataConnection, Spend};
pub use discard::{AuthFailure, Counters, Discard};
pub use egress::{Charged, HEADROOM, Transmit, Via};
pub use event::{CloseReason, Event, Refusal};
pub use server::TurnServer;
