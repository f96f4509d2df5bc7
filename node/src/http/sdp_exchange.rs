//! One SDP offer over HTTP and the session it opens: what WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep) have in
//! common, which is everything but the direction of the media.
//!
//! `POST` to the endpoint answers the offer and creates the session resource; `PATCH` there trickles candidates or
//! restarts ICE, `DELETE` ends it. The entity tag of the resource names its ICE session (RFC 9725 section 4.3.1).

use std::sync::Arc;

use axum::Router;
use axum::extract::{OriginalUri, Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::options;
use metering::SessionId;
use sfu::sdp::Fragment;

use super::auth::{Authorized, Owning};
use super::problem::Problem;
use crate::relay::Relay;
use crate::session::{EndReason, Join, Mode};
use crate::turn_access::TurnServers;

const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
const ENDPOINT_METHODS: &str = "OPTIONS, POST";
const SESSION_METHODS: &str = "DELETE, OPTIONS, PATCH";

const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
/// The relay's signature over offer and answer.
const MILLIWAY_RELAY: HeaderName = HeaderName::from_static("milliway-relay");
/// What kind of call it is: `emergency` (DSIP section 19), or nothing.
const PRIORITY: HeaderName = HeaderName::from_static("milliway-priority");
/// What the answer could not serve, one header a sentence.
const MILLIWAY_NOTE: HeaderName = HeaderName::from_static("milliway-note");

/// What scripts of other origins may send and read: everything that the protocol uses.
const CORS: [(HeaderName, &str); 4] = [
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    (
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        "Authorization, Content-Type, DPoP, If-Match, Milliway-Priority",
    ),
    (
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        "Accept-Patch, Accept-Post, DPoP-Nonce, ETag, Link, Location, Milliway-Note, Milliway-Relay, Retry-After, \
         WWW-Authenticate",
    ),
    (header::ACCESS_CONTROL_MAX_AGE, "7200"),
];

/// The routes of one direction under `/{family}`.
pub(crate) fn routes(family: &str, mode: Mode) -> Router<Arc<Relay>> {
    let create = move |relay, path, uri, headers, caller| create(mode, relay, path, uri, headers, caller);
    let endpoint = options(endpoint_options)
        .post(create)
        .fallback(async || not_allowed(ENDPOINT_METHODS));
    let session = options(session_options)
        .patch(patch)
        .delete(delete)
        .fallback(async || not_allowed(SESSION_METHODS));
    Router::new()
        .route(&format!("/{family}/{{room}}/{{name}}"), endpoint)
        .route(&format!("/{family}/{{room}}/{{name}}/{{session}}"), session)
}

/// Every answer of these routes may be read by any page, refusals included.
pub(crate) async fn with_cors(mut response: Response) -> Response {
    for (name, value) in CORS {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn endpoint_options() -> impl IntoResponse {
    [
        (header::ALLOW, ENDPOINT_METHODS),
        (header::ACCESS_CONTROL_ALLOW_METHODS, ENDPOINT_METHODS),
        (ACCEPT_POST, SDP),
    ]
}

async fn session_options() -> impl IntoResponse {
    [
        (header::ALLOW, SESSION_METHODS),
        (header::ACCESS_CONTROL_ALLOW_METHODS, SESSION_METHODS),
        (ACCEPT_PATCH, FRAGMENT),
    ]
}

fn not_allowed(methods: &'static str) -> Problem {
    Problem::new("method-not-allowed", format!("This resource takes {methods}."))
        .header(header::ALLOW, methods)
}

/// Answers an offer and opens its session (RFC 9725 section 4.2).
async fn create(
    mode: Mode,
    State(relay): State<Arc<Relay>>,
    Path((room, name)): Path<(String, String)>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    caller: Authorized,
) -> Result<Response, Problem> {
    if !is(&headers, SDP) {
        let problem = Problem::new(
            "unsupported-media-type",
            format!("Send the offer as Content-Type: {SDP}."),
        );
        return Err(problem.header(ACCEPT_POST, SDP));
    }
    let offer = text(&caller.body)?;
    let join = Join {
        permit: caller.permit.clone(),
        room,
        name: name.clone(),
        mode,
        offer,
        max_msat_per_second: None,
        emergency: headers
            .get(PRIORITY)
            .is_some_and(|priority| priority == "emergency"),
        source: caller.source.ip(),
        outbox: None,
    };
    let mut joined = relay.join(join).await?;
    if mode == Mode::Subscribe {
        joined.notes.extend(relay.lacks(joined.session, &name));
    }

    let mut headers = HeaderMap::new();
    let mut add = |name: HeaderName, value: &str| {
        // Nothing of the client's is among these values, so each of them fits a header.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.append(name, value);
        }
    };
    add(header::CONTENT_TYPE, SDP);
    add(
        header::LOCATION,
        &format!("{}/{}", uri.path().trim_end_matches('/'), joined.session),
    );
    add(header::ETAG, &joined.etag);
    add(header::CACHE_CONTROL, "no-store");
    add(ACCEPT_PATCH, FRAGMENT);
    add(
        MILLIWAY_RELAY,
        &relay.signed_digest(&caller.body, joined.answer.as_bytes()),
    );
    for note in &joined.notes {
        add(MILLIWAY_NOTE, note);
    }
    // TURN is an offer: who may not use it, or has all the usernames one may have, connects directly.
    if let Ok(servers) = relay.ice_servers(&caller.permit).await {
        for url in &servers.urls {
            add(header::LINK, &ice_server(url, &servers));
        }
    }
    Ok((StatusCode::CREATED, headers, joined.answer).into_response())
}

/// An ICE server as a link (RFC 9725 section 4.6).
fn ice_server(url: &str, servers: &TurnServers) -> String {
    let TurnServers {
        username, credential, ..
    } = servers;
    format!(
        "<{url}>; rel=\"ice-server\"; username=\"{username}\"; credential=\"{credential}\"; credential-type=\"password\""
    )
}

/// Trickles candidates, which an ICE-lite relay has no need of, or restarts ICE (RFC 9725 sections 4.3.2 and 4.3.3).
async fn patch(
    State(relay): State<Arc<Relay>>,
    Path((_, _, session)): Path<(String, String, String)>,
    headers: HeaderMap,
    caller: Owning,
) -> Result<Response, Problem> {
    let (session, tag) = own(&relay, &session, &caller)?;
    if !is(&headers, FRAGMENT) {
        let detail = format!("Send candidates or new credentials as Content-Type: {FRAGMENT}.");
        return Err(Problem::new("unsupported-media-type", detail).header(ACCEPT_PATCH, FRAGMENT));
    }
    let wanted = headers
        .get(header::IF_MATCH)
        .and_then(|value| value.to_str().ok());
    let Some(wanted) = wanted else {
        let detail = "Name the ICE session in If-Match: its ETag to trickle candidates, * to restart ICE.";
        return Err(Problem::new("precondition-required", detail));
    };
    if !matches(wanted, &tag) {
        let detail = "ICE was restarted since; take the ETag of the latest answer, or If-Match: * to restart it again.";
        return Err(Problem::new("etag-mismatch", detail).header(header::ETAG, &tag));
    }
    let fragment = Fragment::parse(&text(&caller.body)?)?;
    let Some(restarted) = relay.patch_ice(session, fragment.ice.as_ref())? else {
        return Ok((StatusCode::NO_CONTENT, [(header::ETAG, tag)]).into_response());
    };
    let headers = [
        (header::CONTENT_TYPE, FRAGMENT.to_owned()),
        (header::ETAG, restarted.etag),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok((headers, restarted.fragment).into_response())
}

/// Ends the session (RFC 9725 section 4.2).
async fn delete(
    State(relay): State<Arc<Relay>>,
    Path((_, _, session)): Path<(String, String, String)>,
    caller: Owning,
) -> Result<StatusCode, Problem> {
    let (session, _) = own(&relay, &session, &caller)?;
    relay.leave(session, EndReason::Hangup);
    Ok(StatusCode::OK)
}

/// A session of the caller with its tag. Somebody else's looks as if it were not there.
fn own(relay: &Relay, session: &str, caller: &Owning) -> Result<(SessionId, String), Problem> {
    let found = session.parse::<SessionId>().ok().and_then(|session| {
        let owner = relay.owner(session)?;
        (owner.subject() == caller.owner.own()).then_some((session, relay.etag(session)?))
    });
    found.ok_or_else(|| Problem::new("not-found", "This session is over or not yours; start a new one."))
}

/// Whether the body is said to be of that media type, parameters aside.
fn is(headers: &HeaderMap, media_type: &str) -> bool {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next()).map(str::trim);
    essence.is_some_and(|essence| essence.eq_ignore_ascii_case(media_type))
}

/// `If-Match` (RFC 9110 section 13.1.1): strong comparison with one of a list, or `*`.
fn matches(wanted: &str, tag: &str) -> bool {
    wanted.trim() == "*" || wanted.split(',').any(|one| one.trim() == tag)
}

fn text(body: &[u8]) -> Result<String, Problem> {
    let text = std::str::from_utf8(body);
    text.map(str::to_owned)
        .map_err(|_| Problem::new("bad-sdp", "The body is not UTF-8; send SDP as text."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_match_compares_strongly() {
        assert!(matches("*", "\"a\""));
        assert!(matches("\"x\", \"a\"", "\"a\""));
        assert!(!matches("W/\"a\"", "\"a\""));
        assert!(!matches("a", "\"a\""));
        assert!(!matches("", "\"a\""));
    }

    #[test]
    fn media_types_match_in_any_case_and_with_parameters() {
        let headers = |value: &'static str| {
            HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(value))])
        };
        assert!(is(&headers("Application/SDP; charset=utf-8"), SDP));
        assert!(!is(&headers("application/sdpx"), SDP));
        assert!(!is(&HeaderMap::new(), SDP));
    }

    #[test]
    fn an_ice_server_is_a_link_as_the_rfc_has_it() {
        let servers = TurnServers {
            urls: vec!["turn:192.0.2.1:3478?transport=udp".into()],
            username: "u".into(),
            credential: "c".into(),
            ttl: 600,
            session: SessionId::new(1),
        };
        assert_eq!(
            ice_server(&servers.urls[0], &servers),
            "<turn:192.0.2.1:3478?transport=udp>; rel=\"ice-server\"; username=\"u\"; credential=\"c\"; \
             credential-type=\"password\""
        );
    }
}
