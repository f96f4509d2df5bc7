//! Load for TURN servers: many allocations that each send a little, bursts as video makes them, one fat flow, streams,
//! and allocations as such. Clients and peers are sockets of this program on loopback.

pub mod allocation;
pub mod link;
pub mod load;
pub mod report;
pub mod server;
