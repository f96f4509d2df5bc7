//! `POST /v1/dev/faucet`: tokens for trying out. The route exists only in `milliway dev`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use identity::{Did, token};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth;
use super::problem::Problem;
use crate::clock;
use crate::relay::Relay;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    sub: String,
    #[serde(default)]
    balance_msat: Option<u64>,
    #[serde(default)]
    bearer: bool,
}

/// What a wish without `balance_msat` gets: about twenty minutes of a call.
const BALANCE_DEFAULT_MSAT: u64 = 100_000;

/// A token for `sub`, signed by the `dev` issuer.
pub(crate) async fn give(State(relay): State<Arc<Relay>>, request: Request) -> Result<Json<Value>, Problem> {
    let Some(issuer) = &relay.issuer else {
        return Err(Problem::new(
            "not-found",
            "This relay has no faucet; only `milliway dev` does.",
        ));
    };
    require_same_origin(&relay, request.headers())?;
    let (_, body) = auth::whole(request, &relay).await?;
    let usage = "Send {\"sub\": DID, \"balance_msat\": N, \"bearer\": bool}; the last two may be left out.";
    let wish: Wish = serde_json::from_slice(&body).map_err(|_| Problem::new("bad-request", usage))?;
    let subject = Did::parse(&wish.sub).map_err(|_| {
        Problem::new(
            "bad-request",
            "`sub` must be a did:key or did:jwk with an Ed25519 or P-256 key.",
        )
    })?;
    if let Err(error) = identity::resolve(&subject) {
        return Err(Problem::new(
            "bad-request",
            format!("`sub` has no usable key: {error}."),
        ));
    }
    let most = relay.config.dev.faucet_balance_max_msat;
    let balance = wish.balance_msat.unwrap_or(BALANCE_DEFAULT_MSAT.min(most));
    if balance > most {
        return Err(Problem::new(
            "bad-request",
            format!("`balance_msat` can be {most} at most."),
        ));
    }
    let lifetime = relay.config.dev.faucet_ttl_seconds;
    let mut wanted = token::Issue::new(subject, relay.key.did().clone(), balance, clock::unix());
    wanted.lifetime = lifetime;
    wanted.bearer = wish.bearer;
    Ok(Json(
        json!({ "token": token::issue(issuer, &wanted), "balance_msat": balance, "expires_in": lifetime }),
    ))
}

/// Another site's page may not fill itself tokens in its visitor's name: cheap to refuse, and good manners.
fn require_same_origin(relay: &Relay, headers: &HeaderMap) -> Result<(), Problem> {
    let cross = headers
        .get("sec-fetch-site")
        .is_some_and(|site| site == "cross-site");
    if cross {
        let detail = format!(
            "Only pages of this relay ({}) may call the faucet.",
            relay.public_url
        );
        return Err(Problem::new("bad-request", detail));
    }
    Ok(())
}
