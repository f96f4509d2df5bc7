//! `GET /v1/account`: the caller's balance and live sessions.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use metering::AccountId;
use serde_json::{Value, json};

use super::auth::AccountHolder;
use super::problem::Problem;
use crate::relay::Relay;

/// The account of the key that signed the proof. An account that never had money is an empty one.
pub(crate) async fn show(
    State(relay): State<Arc<Relay>>,
    caller: AccountHolder,
) -> Result<Json<Value>, Problem> {
    let status = relay
        .cashier
        .account(AccountId::new(caller.account.as_str()))
        .await?;
    Ok(Json(json!({
        "did": caller.account,
        "available_msat": status.available,
        "reserved_msat": status.reserved,
        "spent_msat": status.spent,
        "runway_seconds": status.runway_seconds,
        "step": status.step,
        "sessions": status.sessions,
    })))
}
