//! `POST /v1/turn/credentials`: a permit for a username and password of the TURN server, in the shape that
//! `RTCPeerConnection` takes.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::auth::Authorized;
use super::problem::Problem;
use crate::relay::Relay;

/// A new username. Its session's receipt is at `/v1/receipts/{session}`.
pub(crate) async fn create(
    State(relay): State<Arc<Relay>>,
    caller: Authorized,
) -> Result<Json<Value>, Problem> {
    let turn = relay.ice_servers(&caller.permit).await?;
    Ok(Json(json!({
        "iceServers": [{ "urls": turn.urls, "username": turn.username, "credential": turn.credential }],
        "ttl": turn.ttl,
        "session": turn.session,
    })))
}
