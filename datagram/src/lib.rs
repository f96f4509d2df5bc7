//! Sockets to batches to sockets: UDP with receive and send offload, ECN and the local address, in groups that share
//! one port.
//!
//! Batches are what pays (one trip through the kernel's UDP stack for many datagrams), so a receive fills a few
//! 64 KiB buffers with coalesced datagrams ([`Inbox`]) and a send carries several equal ones to one destination
//! ([`Transmit`]). All the `unsafe` of that is quinn-udp's; there is none here.
//!
//! Nothing here knows a protocol, a session or a clock.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod group;
mod inbox;
mod network_error;
mod outbox;
mod segmentation;
mod socket;

pub use group::{Group, bind_group};
pub use inbox::{BUFFERS, Datagrams, HEADROOM, Inbox, Meta};
pub use network_error::NetworkError;
pub use outbox::Outbox;
pub use quinn_udp::EcnCodepoint as Ecn;
pub use socket::{Fragmentation, Refused, Socket, Transmit};
