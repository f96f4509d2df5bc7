//! `GET /.well-known/did.json`: the relay's own DID document with its `DSIPService` entry (DSIP section 4.2).

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::relay::Relay;

/// The document, readable from any page: a client checks who the relay is before it signs anything for it.
pub(crate) async fn show(State(relay): State<Arc<Relay>>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/did+json"),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::CACHE_CONTROL, "max-age=60"),
    ];
    (headers, relay.did_document.clone()).into_response()
}
