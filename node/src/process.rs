//! A relay as a process, `dev` and `serve` alike: the ready line on standard output and nothing else there, logs on standard
//! error, and the signals that reload, drain and end it.

use std::io::Write;
use std::sync::Arc;

use identity::SigningKey;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::Config;
use crate::data::Data;
use crate::relay::Relay;
use crate::start::{self, Running};

/// Runs until a signal ends it. `issuer`: the faucet's key, which only `dev` has.
pub(crate) fn run(
    config: Config,
    data: &Data,
    key: SigningKey,
    issuer: Option<SigningKey>,
) -> Result<(), String> {
    let admin_token_file = data.admin_token_file()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("milliway-door")
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        // Before anything listens, so that an early signal is not lost.
        let mut signals = Signals::new().map_err(|error| error.to_string())?;
        let issuer_key = issuer.is_some().then(|| data.path("issuer.jwk"));
        let running = start::start(config, data, key, issuer).await?;
        let mut ready = json!({
            "ready": true,
            "http": running.http_url(),
            "sfu": running.sfu.to_string(),
            "turn": running.turn.to_string(),
            "turn_tls": running.relay.turn_tls_addresses,
            "quic": running.quic.to_string(),
            "did": running.relay.key.did().as_str(),
            "admin_token_file": admin_token_file,
            "pid": std::process::id(),
        });
        match issuer_key {
            Some(path) => ready["issuer_key"] = json!(path),
            None => ready["kid"] = Value::from(running.relay.key.kid()),
        }
        let mut out = std::io::stdout();
        // A closed standard output is no reason not to relay.
        let _ = writeln!(out, "{ready}").and_then(|()| out.flush());
        tracing::info!(http = %running.http, "open the call page at {}", running.relay.url_of("/"));
        signals.first_end(&running.relay).await;
        end(running, signals).await;
        Ok(())
    })
}

/// Logs at `info`, or as `MILLIWAY_LOG` says, in the syntax of `tracing_subscriber::EnvFilter`.
pub(crate) fn log_to_standard_error() {
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

    /// Waits for the first SIGTERM or SIGINT; a SIGHUP until then reloads the policy.
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
                    if let Some(Err(error)) = relay.front_keys.as_ref().map(|keys| keys.reload()) {
                        tracing::error!(%error, "the front door's TLS keys were not read again; the old ones stay");
                    }
                    relay.reload_policy();
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
