//! Simulated clients on real sockets: str0m publishers and subscribers that speak WHIP and WHEP to a relay, as its
//! users do, with a stamp in every packet that says when it left.
//!
//! The program runs scenarios and reports numbers; the integration tests use the same clients. Nothing here is
//! told how the relay works inside: it starts the released program, reads its ready line and calls its doors.

pub mod broadcast;
pub mod client;
pub mod http;
pub mod media;
pub mod process;
pub mod reception;
pub mod relay;
pub mod swarm;

/// What stopped a run.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
