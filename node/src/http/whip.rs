//! Routes of whip.

pub(crate) fn routes() -> axum::Router<std::sync::Arc<crate::relay::Relay>> {
    axum::Router::new()
}
