//! The `milliway` program: a media relay that gets paid.
//!
//! Everything here is the control plane, on tokio: command line, configuration, the front door (HTTP, WHIP, WHEP,
//! DSIP over WebSocket), the cashier in front of the ledger, and the shards that carry the packets, which are plain
//! threads that run the sans-IO cores.

mod addresses;
mod admin_socket;
mod cashier;
mod cli;
mod clock;
mod config;
mod data;
mod descriptors;
mod dev;
mod http;
mod join;
mod money;
mod names;
mod own_document;
mod policy;
mod process;
mod quic;
mod records;
mod registry;
mod relay;
mod renegotiation;
mod resolver;
mod rooms;
mod serve;
mod session;
mod shard;
mod start;
mod top_ups;
mod turn_access;
mod turn_keys;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::run()
}
