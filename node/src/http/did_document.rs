//! `GET /.well-known/did.json`: the relay's own DID document with its `DSIPService` entry (DSIP section 4.2).

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use identity::Did;
use identity::did_web::Location;

use crate::relay::Relay;

/// Where every relay has it.
pub(crate) const PATH: &str = "/.well-known/did.json";

/// Where else, for a did:web with a path.
pub(crate) fn path_of(did: &Did) -> Option<String> {
    let path = Location::of(did).ok().filter(|_| did.method() == "web")?.path;
    // What a router would take for more than itself is no path of ours.
    (path != PATH && !path.contains(['{', '}', '*'])).then_some(path)
}

/// The document, readable from any page: a client checks who the relay is before it signs anything for it.
pub(crate) async fn show(State(relay): State<Arc<Relay>>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/did+json"),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::CACHE_CONTROL, "max-age=60"),
    ];
    (headers, relay.did_document.clone()).into_response()
}
