//! The front door over HTTP: one file a route family, and here the server around them: connections that are
//! counted and timed, a rate limit for each source, and the headers that every response carries.

pub(crate) mod account;
pub(crate) mod auth;
pub(crate) mod did_document;
pub(crate) mod dsip_socket;
pub(crate) mod faucet;
pub(crate) mod health;
pub(crate) mod keys;
pub(crate) mod metrics;
pub(crate) mod pages;
pub(crate) mod problem;
pub(crate) mod receipts;
pub(crate) mod sdp_exchange;
pub(crate) mod source_limit;
pub(crate) mod tariff;
pub(crate) mod topup;
pub(crate) mod topups;
pub(crate) mod turn_credentials;
pub(crate) mod whep;
pub(crate) mod whip;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;

use crate::clock;
use crate::relay::Relay;
use crate::top_ups::l402;
use problem::Problem;

/// Request heads past this are answered 431 by hyper. A token with everything in it is under 8 KiB, twice that
/// in a proof and its token together.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Header fields of one request.
const HEADERS_MAX: usize = 64;

/// An answer may lie unread for so many request timeouts: by default for 30 s, when a call's media has ended as well.
const ANSWER_UNREAD_TIMEOUTS: u64 = 3;

/// Every route of the relay.
pub(crate) fn router(relay: &Arc<Relay>) -> Router {
    let mut routes = Router::new()
        .route("/v1/turn/credentials", post(turn_credentials::create))
        .route("/v1/tariff", get(tariff::show))
        .route("/v1/account", get(account::show))
        .route("/v1/topup", post(topup::credit))
        .route("/v1/topups", get(topups::list).post(topups::begin))
        .route("/v1/topups/{id}", get(topups::show))
        .route("/v1/receipts/{session}", get(receipts::show))
        .route("/v1/dsip", any(dsip_socket::upgrade));
    if relay.issuer.is_some() {
        routes = routes.route("/v1/dev/faucet", post(faucet::give));
    }
    let sdp = whip::routes()
        .merge(whep::routes())
        .route_layer(from_fn_with_state(relay.clone(), l402::offer))
        .route_layer(from_fn_with_state(relay.clone(), limited))
        .route_layer(map_response(sdp_exchange::with_cors));
    let mut routes = routes
        .route_layer(from_fn_with_state(relay.clone(), l402::offer))
        .route_layer(from_fn_with_state(relay.clone(), limited))
        .merge(sdp)
        .route(did_document::PATH, get(did_document::show));
    // A did:web with a path has its document there.
    if let Some(path) = did_document::path_of(relay.key.did()) {
        routes = routes.route(&path, get(did_document::show));
    }
    routes
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::render))
        .route("/", get(pages::index))
        .route("/room/{room}", get(pages::room))
        .route("/static/{*path}", get(pages::file))
        .route("/favicon.ico", get(pages::icon))
        .route("/problems/{slug}", get(pages::problem))
        .fallback(async || Problem::new("not-found", "No such resource; the call page is at /room/NAME."))
        .method_not_allowed_fallback(async || {
            Problem::new(
                "method-not-allowed",
                "Use a method that this resource has; see the Allow header.",
            )
        })
        .layer(map_response(with_security_headers))
        .with_state(relay.clone())
}

/// Refuses callers that ask too often.
async fn limited(State(relay): State<Arc<Relay>>, request: Request, next: Next) -> Response {
    let source = request
        .extensions()
        .get::<ConnectInfo<SocketAddr>>()
        .map(|info| info.0.ip());
    if source.is_some_and(|source| !relay.sources.call(source, clock::now())) {
        return Problem::new(
            "rate-limited",
            "Wait a second before the next call from this address.",
        )
        .into_response();
    }
    let mut response = next.run(request).await;
    // A fresh nonce with every answer spares most clients a 401 (RFC 9449 section 8.2).
    if !response.headers().contains_key(&auth::DPOP_NONCE)
        && let Ok(nonce) = HeaderValue::from_str(&relay.proofs.nonce(clock::unix()))
    {
        response.headers_mut().insert(auth::DPOP_NONCE, nonce);
    }
    // Balances and passwords are nothing to keep, and neither is a nonce.
    let no_store = HeaderValue::from_static("no-store");
    response
        .headers_mut()
        .entry(header::CACHE_CONTROL)
        .or_insert(no_store);
    response
}

async fn with_security_headers(mut response: Response) -> Response {
    for (name, value) in pages::SECURITY_HEADERS {
        response
            .headers_mut()
            .entry(HeaderName::from_static(name))
            .or_insert(HeaderValue::from_static(value));
    }
    response
}

/// A connection's place among those that may be open. It is shared by the connection and what it is upgraded to, and
/// given back when both have ended.
pub(crate) struct Place {
    relay: Arc<Relay>,
    source: IpAddr,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// A place for a new connection of this source, if both the relay and the source's share have room.
    pub(crate) fn take(relay: &Arc<Relay>, source: IpAddr) -> Option<Arc<Place>> {
        let permit = relay.connections.clone().try_acquire_owned().ok()?;
        Place::of(relay, source, permit)
    }

    fn of(relay: &Arc<Relay>, source: IpAddr, permit: OwnedSemaphorePermit) -> Option<Arc<Place>> {
        relay.sources.connect(source, clock::now()).then(|| {
            Arc::new(Place {
                relay: relay.clone(),
                source,
                _permit: permit,
            })
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.relay.sources.disconnect(self.source, clock::now());
    }
}

/// Accepts connections until the relay closes its door, and lets the open ones finish what they are at.
pub(crate) async fn serve(relay: Arc<Relay>, listener: TcpListener) {
    let service = TowerToHyperService::new(router(&relay));
    loop {
        let Ok(permit) = relay.connections.clone().acquire_owned().await else {
            return;
        };
        let (stream, source) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: waiting is all that helps.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = relay.door_closed() => return,
        };
        let Some(place) = Place::of(&relay, source.ip(), permit) else {
            continue;
        };
        tokio::spawn(connection(relay.clone(), service.clone(), stream, source, place));
    }
}

async fn connection(
    relay: Arc<Relay>,
    routes: TowerToHyperService<Router>,
    stream: TcpStream,
    source: SocketAddr,
    place: Arc<Place>,
) {
    let _ = stream.set_nodelay(true);
    // Who takes nothing of its answers does not keep its place for ever. In a conversation that is a lost network.
    let patience = ANSWER_UNREAD_TIMEOUTS * relay.config.http.request_timeout_seconds * 1_000;
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, u32::try_from(patience).unwrap_or(u32::MAX));
    let Some(keys) = &relay.front_keys else {
        return requests(&relay, routes, stream, source, place).await;
    };
    let handshake = Duration::from_secs(relay.config.http.request_timeout_seconds);
    match tokio::time::timeout(handshake, keys.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => requests(&relay, routes, stream, source, place).await,
        Ok(Err(error)) => tracing::debug!(%error, "no TLS"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

/// The requests of one connection, whatever it is made of.
async fn requests(
    relay: &Relay,
    routes: TowerToHyperService<Router>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    source: SocketAddr,
    place: Arc<Place>,
) {
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ConnectInfo(source));
        request.extensions_mut().insert(place.clone());
        routes.call(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(relay.config.http.request_timeout_seconds))
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(served);
    let result = tokio::select! {
        result = served.as_mut() => result,
        () = relay.door_closed() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended early");
    }
}
