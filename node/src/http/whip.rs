//! WHIP (RFC 9725): `POST /whip/{room}/{name}` publishes under that name.

use std::sync::Arc;

use axum::Router;

use super::sdp_exchange;
use crate::relay::Relay;
use crate::session::Mode;

/// The endpoint and its sessions.
pub(crate) fn routes() -> Router<Arc<Relay>> {
    sdp_exchange::routes("whip", Mode::Publish)
}
