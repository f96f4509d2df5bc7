//! `milliway dev`: a whole relay in one process, for trying out. Its operator is its own did:key, it issues tokens to
//! whoever asks its faucet, and it relays between addresses of this machine.
//!
//! Standard output carries the ready line and nothing else.

use std::io::Write;
use std::sync::Arc;

use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::DevArguments;
use crate::config::Config;
use crate::data::Data;
use crate::relay::Relay;
use crate::start::{self, Running};

/// Runs until a signal ends it.
pub(crate) fn run(arguments: &DevArguments) -> Result<(), String> {
    log_to_standard_error();
    let mut config = configuration(arguments)?;
    let data = Data::at(&config.relay.data);
    data.prepare()?;
    let (key, issuer) = (data.key("relay.jwk")?, data.key("issuer.jwk")?);
    let admin_token_file = data.admin_token_file()?;
    config.auth.issuers.push(issuer.did().clone());
    tracing::warn!("dev: the faucet gives tokens to everybody");
    if config.turn.allow_loopback_peers {
        tracing::warn!("dev: TURN reaches peers on this machine's loopback");
    }

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("milliway-door")
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        // Before anything listens, so that an early signal is not lost.
        let mut signals = Signals::new().map_err(|error| error.to_string())?;
        let running = start::start(config, &data, key, Some(issuer)).await?;
        let ready = json!({
            "ready": true,
            "http": running.http_url(),
            "sfu": running.sfu.to_string(),
            "turn": running.turn.to_string(),
            "turn_tls": running.relay.turn_tls_addresses,
            "quic": running.quic.to_string(),
            "did": running.relay.key.did().as_str(),
            "issuer_key": data.path("issuer.jwk"),
            "admin_token_file": admin_token_file,
            "pid": std::process::id(),
        });
        let mut out = std::io::stdout();
        // A closed standard output is no reason not to relay.
        let _ = writeln!(out, "{ready}").and_then(|()| out.flush());
        tracing::info!(http = %running.http, "open the call page at {}", running.relay.url_of("/"));
        signals.first_end(&running.relay).await;
        end(running, signals).await;
        Ok(())
    })
}

/// File and environment, then flags.
fn configuration(arguments: &DevArguments) -> Result<Config, String> {
    let mut config = Config::for_dev()
        .with(arguments.config.as_deref(), std::env::vars())
        .map_err(|mistakes| {
            mistakes
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\nmilliway: ")
        })?;
    if let Some(data) = &arguments.data {
        config.relay.data.clone_from(data);
    }
    for (flag, setting) in [
        (arguments.http, &mut config.http.listen),
        (arguments.sfu, &mut config.sfu.listen),
        (arguments.turn, &mut config.turn.listen),
        (arguments.quic, &mut config.quic.listen),
    ] {
        if let Some(address) = flag {
            *setting = address;
        }
    }
    if !arguments.advertise.is_empty() {
        config.sfu.advertise.clone_from(&arguments.advertise);
        config.turn.advertise.clone_from(&arguments.advertise);
    }
    Ok(config)
}

/// Logs at `info`, or as `MILLIWAY_LOG` says, in the syntax of `tracing_subscriber::EnvFilter`.
fn log_to_standard_error() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("MILLIWAY_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let _ = log
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .try_init();
}

/// The signals that matter.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for SIGTERM or SIGINT.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Waits for the first SIGTERM or SIGINT; a SIGHUP until then is answered in the log.
    async fn first_end(&mut self, relay: &Arc<Relay>) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => {
                    match relay.turn_keys.as_ref().map_or(Ok(()), |keys| keys.reload()) {
                        Ok(()) => tracing::info!(operator = relay.key.did().redacted(), "read the TLS keys again; restart to change the configuration"),
                        Err(error) => tracing::error!(%error, "the TLS keys were not read again; the old ones stay"),
                    }
                }
            }
        }
    }
}

/// Drains: no new sessions, clients are told, and those who stay are ended when the time is up or a second signal
/// comes. Settled in every case.
async fn end(running: Running, mut signals: Signals) {
    tracing::info!("draining");
    let drained = tokio::select! {
        () = running.drain() => true,
        () = signals.end() => false,
    };
    if !drained {
        tracing::info!("a second signal: ending at once");
    }
    running.close().await;
}
