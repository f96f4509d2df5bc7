//! `POST /v1/topups`: money from outside for the caller's account. `GET /v1/topups/{id}`: how that stands. `GET
//! /v1/topups`: the ways to pay.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use metering::ledger::TopUpState;
use serde::Deserialize;
use serde_json::Value;

use super::auth::Owning;
use super::problem::Problem;
use crate::cashier::ToppedUp;
use crate::relay::Relay;
use crate::top_ups::{TopUps, shown, ways};

#[derive(Deserialize)]
struct Wish {
    method: String,
    amount_msat: Option<u64>,
    token: Option<String>,
}

/// The ways to pay.
pub(crate) async fn list(State(relay): State<Arc<Relay>>) -> Json<Value> {
    Json(ways(&relay.top_ups))
}

/// Begins a top-up.
pub(crate) async fn begin(State(relay): State<Arc<Relay>>, caller: Owning) -> Result<Response, Problem> {
    let bad = || {
        Problem::new(
            "bad-request",
            "Send {\"method\": \"lightning\", \"amount_msat\": N} or {\"method\": \"cashu\", \"token\": \"cashuB...\"}.",
        )
    };
    let wish: Wish = serde_json::from_slice(&caller.body).map_err(|_| bad())?;
    let account = caller.owner.charged();
    let done = match (wish.method.as_str(), wish.amount_msat, wish.token) {
        (TopUps::LIGHTNING, Some(msat), None) => relay.begin_lightning(account, msat).await?,
        (TopUps::CASHU, msat, Some(token)) => relay.begin_cashu(account, &token, msat).await?,
        _ => return Err(bad()),
    };
    let status = match (done.repeated, done.top_up.state) {
        (true, _) => StatusCode::OK,
        (false, TopUpState::Failed) => {
            let reason = done.top_up.reason.as_deref().unwrap_or_default();
            return Err(Problem::new("topup-token", failed(reason)).with("reason", reason));
        }
        (false, _) => StatusCode::CREATED,
    };
    let location = format!("/v1/topups/{}", done.top_up.id);
    Ok((status, [(header::LOCATION, location)], Json(shown(&done))).into_response())
}

/// How a top-up of the caller's stands.
pub(crate) async fn show(
    State(relay): State<Arc<Relay>>,
    Path(id): Path<String>,
    caller: Owning,
) -> Result<Json<Value>, Problem> {
    let found = relay.find_top_up(&id).await?;
    // Whose it is, is nobody else's business.
    let row = found.filter(|row| caller.owner.may_see(row.account.as_str()));
    let top_up = row.ok_or_else(|| Problem::new("not-found", "You have no such top-up."))?;
    Ok(Json(shown(&ToppedUp {
        top_up,
        credited: None,
        repeated: false,
    })))
}

fn failed(reason: &str) -> &'static str {
    match reason {
        "token-spent" => "These coins were spent before; nothing was credited.",
        _ => "The mint refused these coins; they are as they were, and nothing was credited.",
    }
}
