//! `GET /healthz` and `GET /readyz`: is the process alive, and may a load balancer send it clients.

use std::sync::Arc;

use axum::extract::State;

use super::problem::Problem;
use crate::relay::Relay;

/// Liveness: it answers, so it lives.
pub(crate) async fn live() -> &'static str {
    "ok\n"
}

/// Readiness: 503 while draining or without a ledger.
pub(crate) async fn ready(State(relay): State<Arc<Relay>>) -> Result<&'static str, Problem> {
    if relay.is_draining() {
        return Err(Problem::new(
            "draining",
            "This relay is shutting down; use another one.",
        ));
    }
    if !relay.cashier.is_up() {
        return Err(Problem::new(
            "ledger-unavailable",
            "The ledger cannot be written; try again in a moment.",
        ));
    }
    Ok("ready\n")
}
