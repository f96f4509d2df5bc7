//! Simulated clients on real sockets, with a stamp in every packet that says when it left.
//!
//! Two kinds: light clients ([`peer`]), of which one core can be more than a thousand, for the load scenarios; and whole
//! str0m sessions ([`client`]), independent of everything else here, for the interoperability tests. Nothing is told how
//! a server works inside: it is started as its users start it, and called at its doors.

pub mod admission;
pub mod alarm;
pub mod bill;
pub mod client;
pub mod dtls;
pub mod engine;
pub mod histogram;
pub mod holder;
pub mod http;
pub mod ice;
pub mod janus;
pub mod loss;
pub mod media;
pub mod namespace;
pub mod notices;
pub mod pace;
pub mod page;
pub mod peer;
pub mod plot;
pub mod process;
pub mod publisher;
pub mod receiver;
pub mod reception;
pub mod relay;
pub mod report;
pub mod scenario;
pub mod sdp;
pub mod signalling;
pub mod stage;
pub mod swarm;
pub mod target;
pub mod turn;

/// What stopped a run.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
