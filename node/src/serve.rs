//! `milliway serve`: a relay in production. Its operator is a did:web, this node signs with a key of its own that the operator's
//! document lists as `#node-ID`, and tokens come from issuers that the operator names. There is no faucet.

use std::path::Path;

use identity::Did;
use identity::document::{Endpoints, relay_document};
use serde_json::Value;

use crate::addresses::advertised;
use crate::config::Config;
use crate::data::Data;
use crate::{own_document, process, start};

/// Longest ID of a node: it stands in every signature.
const NODE_LENGTH_MAX: usize = 64;

/// Runs until a signal ends it.
pub(crate) fn run(file: &Path) -> Result<(), String> {
    process::log_to_standard_error();
    let config = Config::load(Some(file), std::env::vars()).map_err(|mistakes| start::said(&mistakes))?;
    let wrong = mistakes(&config);
    if !wrong.is_empty() {
        return Err(wrong.join("\nmilliway: "));
    }
    if config.turn.allow_loopback_peers {
        tracing::warn!("turn.allow_loopback_peers: clients reach the services of this machine through TURN");
    }
    let operator = operator(&config)?;
    let data = Data::at(&config.relay.data);
    data.prepare()?;
    let key = data.relay_key_as(&operator, &config.relay.node)?;
    process::run(config, &data, key, None)
}

/// What production needs and trying out does not.
pub(crate) fn mistakes(config: &Config) -> Vec<String> {
    let mut wrong = Vec::new();
    if let Err(what) = operator(config) {
        wrong.push(what);
    }
    let node = &config.relay.node;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if !(1..=NODE_LENGTH_MAX).contains(&node.len()) || !node.bytes().all(fits) {
        wrong.push("relay.node must be 1 to 64 letters, digits, `-`, `.` or `_`".to_owned());
    }
    if !config.http.public_url.starts_with("https://") {
        wrong
            .push("http.public_url must be the https:// address that clients reach this relay at".to_owned());
    }
    if config.auth.issuers.is_empty() && config.policy.file.is_empty() {
        wrong.push(
            "auth.issuers must name whose relay tokens are accepted, or policy.file a policy that does"
                .to_owned(),
        );
    }
    wrong
}

/// The operator's DID.
fn operator(config: &Config) -> Result<Did, String> {
    let named = Did::parse(&config.relay.operator).ok();
    let web = named.filter(|did| did.method() == "web");
    web.ok_or_else(|| {
        "relay.operator must be the operator's did:web, like \"did:web:relay.example\"".to_owned()
    })
}

/// The operator's document with this node in it, beside what `with` has already: what is published where several nodes share it.
pub(crate) fn document(config: &Config, with: Option<Value>) -> Result<Value, String> {
    let operator = operator(config)?;
    let data = Data::at(&config.relay.data);
    data.prepare()?;
    let key = data.relay_key_as(&operator, &config.relay.node)?;
    let url = &config.http.public_url;
    let urls = |scheme: &str, listen, wished: &[std::net::IpAddr], more: &str| -> Vec<String> {
        let addresses = advertised(listen, wished).into_iter();
        addresses.map(|at| format!("{scheme}{at}{more}")).collect()
    };
    let turn = &config.turn;
    let mut turn_urls = urls("turn:", turn.listen, &turn.advertise, "?transport=udp");
    if turn.tcp {
        turn_urls.extend(urls("turn:", turn.listen, &turn.advertise, "?transport=tcp"));
    }
    let endpoints = Endpoints {
        http: vec![url.clone()],
        ws: vec![format!("{url}/v1/dsip").replacen("http", "ws", 1)],
        quic: urls("quic://", config.quic.listen, &[], ""),
        turn: turn_urls,
        sfu: urls("", config.sfu.listen, &config.sfu.advertise, ""),
    };
    let own = relay_document(
        key.did(),
        &[(key.kid().to_owned(), key.public_key().clone())],
        &endpoints,
    );
    match with {
        Some(with) => own_document::merged(with, &own),
        None => Ok(own),
    }
}
