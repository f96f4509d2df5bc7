//! `GET /v1/account`: the caller's balance and live sessions.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use metering::AccountId;
use serde_json::{Value, json};

use super::auth::Owning;
use super::problem::Problem;
use crate::relay::Relay;

/// The account of the key that signed the proof, also where a grant lets the caller spend somebody else's: what that
/// one has and does is not the caller's to know. A token that comes along and was not credited yet is credited, as with
/// every call. An account that never had money is an empty one.
pub(crate) async fn show(State(relay): State<Arc<Relay>>, caller: Owning) -> Result<Json<Value>, Problem> {
    relay.credit_shown(&caller.owner).await?;
    let mut did = caller.owner.own();
    let mut status = relay.cashier.account(AccountId::new(did)).await?;
    for other in caller.owner.others() {
        if !status.is_blank() {
            break;
        }
        let found = relay.cashier.account(AccountId::new(other)).await?;
        if !found.is_blank() {
            (did, status) = (other, found);
        }
    }
    Ok(Json(json!({
        "did": did,
        "available_msat": status.balance(),
        "credit_left_msat": status.credit_left,
        "reserved_msat": status.reserved,
        "spent_msat": status.spent,
        "runway_seconds": status.runway_seconds,
        "step": status.step,
        "frozen": status.frozen,
        "sessions": status.sessions,
    })))
}
