//! WHEP (draft-ietf-wish-whep): `POST /whep/{room}/{name}` receives what that name publishes, at once or as soon as
//! somebody does.

use std::sync::Arc;

use axum::Router;

use super::sdp_exchange;
use crate::relay::Relay;
use crate::session::Mode;

/// The endpoint and its sessions.
pub(crate) fn routes() -> Router<Arc<Relay>> {
    sdp_exchange::routes("whep", Mode::Subscribe)
}
