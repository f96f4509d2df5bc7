//! `POST /v1/topup`: a further token's voucher for the caller's account.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Owning;
use super::problem::Problem;
use crate::money;
use crate::relay::Relay;

#[derive(Deserialize)]
struct TopUp {
    token: String,
}

/// Credits the voucher once; again, it gets the first answer again.
pub(crate) async fn credit(State(relay): State<Arc<Relay>>, caller: Owning) -> Result<Json<Value>, Problem> {
    let Ok(TopUp { token }) = serde_json::from_slice(&caller.body) else {
        return Err(Problem::new(
            "bad-request",
            "Send {\"token\": JWT} with the token that carries the voucher.",
        ));
    };
    let mut credited = money::top_up(&relay, &token, caller.owner.charged()).await?;
    // The token that the caller shows is credited as well, whatever the call; second, so that one that is both is not
    // called repeated the first time.
    let shown = relay.credit_shown(&caller.owner).await?;
    if let Some(shown) = shown.filter(|shown| !shown.repeated) {
        credited.available_msat = money::signed(shown.available);
    }
    let mut answer = json!({
        "credited_msat": credited.credited_msat,
        "available_msat": credited.available_msat,
    });
    if credited.repeated {
        answer["repeated"] = true.into();
    }
    Ok(Json(answer))
}
