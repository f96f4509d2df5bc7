//! `GET /v1/receipts/{session}`: the relay's signed word on what a session used and cost.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use metering::SessionId;

use super::auth::Owning;
use super::problem::Problem;
use crate::relay::Relay;

/// The receipt as a compact JWS. Somebody else's session is answered like one that never was.
pub(crate) async fn show(
    State(relay): State<Arc<Relay>>,
    Path(session): Path<String>,
    caller: Owning,
) -> Result<Response, Problem> {
    let absent = || Problem::new("not-found", "No session of yours has that id.");
    let session: SessionId = session.parse().map_err(|_| absent())?;
    match relay.cashier.receipt(session).await? {
        Some((account, receipt)) if caller.owner.may_see(account.as_str()) => Ok((
            [
                (header::CONTENT_TYPE, "application/jose"),
                (header::CACHE_CONTROL, "no-store"),
            ],
            receipt,
        )
            .into_response()),
        _ => Err(absent()),
    }
}
