//! `milliway dev`: a whole relay in one process, for trying out. Its operator is its own did:key, it issues tokens to
//! whoever asks its faucet, and it relays between addresses of this machine.

use crate::cli::DevArguments;
use crate::config::Config;
use crate::data::Data;
use crate::{process, start};

/// Runs until a signal ends it.
pub(crate) fn run(arguments: &DevArguments) -> Result<(), String> {
    process::log_to_standard_error();
    let mut config = configuration(arguments)?;
    let data = Data::at(&config.relay.data);
    data.prepare()?;
    let (key, issuer) = (data.relay_key_alone()?, data.key("issuer.jwk")?);
    config.auth.issuers.push(issuer.did().clone());
    tracing::warn!("dev: the faucet gives tokens to everybody");
    if config.turn.allow_loopback_peers {
        tracing::warn!("dev: TURN reaches peers on this machine's loopback");
    }

    process::run(config, &data, key, Some(issuer))
}

/// File and environment, then flags.
fn configuration(arguments: &DevArguments) -> Result<Config, String> {
    let mut config = Config::for_dev()
        .with(arguments.config.as_deref(), std::env::vars())
        .map_err(|mistakes| start::said(&mistakes))?;
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
