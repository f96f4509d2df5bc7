//! `GET /v1/tariff`: what relaying costs here.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::relay::Relay;

/// The tariffs in force, open to anybody.
pub(crate) async fn show(State(relay): State<Arc<Relay>>) -> Json<Value> {
    Json(json!({ "tariffs": relay.tariffs() }))
}
