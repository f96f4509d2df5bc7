//! Who calls: `Authorization` and `DPoP` headers (RFC 9449) and the body they vouch for become an `Arc<Permit>`, or a
//! 401 that says what to do and brings the nonce to do it with.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, FromRequest, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};
use http_body_util::BodyExt;
use identity::{Did, Documents, Owner, Permit, Refusal, proof, token};
use metering::AccountId;

use super::problem::Problem;
use crate::clock;
use crate::relay::Relay;
use crate::top_ups::l402::Payer;

/// The largest body of any call: an SDP offer of a browser with all its codecs and 40 m-lines is under 64 KiB.
pub(crate) const BODY_BYTES_MAX: usize = 64 * 1024;

/// Of a body that is too large this much is read and dropped before the answer: a client that still sends when the
/// connection closes sees a reset in place of its 413.
const BODY_BYTES_DRAINED_MAX: usize = 4 * 1024 * 1024;

const DPOP: HeaderName = HeaderName::from_static("dpop");
/// Where a fresh nonce travels (RFC 9449 section 8.2).
pub(crate) const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// A caller with a relay token, and the body it vouched for.
pub(crate) struct Authorized {
    /// What it may.
    pub(crate) permit: Arc<Permit>,
    /// The whole body.
    pub(crate) body: Bytes,
    /// Where it called from. Not for logs.
    pub(crate) source: SocketAddr,
}

/// A caller who comes for what is theirs already, and needs no unexpired token for it: an account, a receipt, a live
/// session.
pub(crate) struct Owning {
    /// Whose it is.
    pub(crate) owner: Owner,
    /// The whole body.
    pub(crate) body: Bytes,
}

impl FromRequest<Arc<Relay>> for Authorized {
    type Rejection = Problem;

    async fn from_request(request: Request, relay: &Arc<Relay>) -> Result<Authorized, Problem> {
        let (parts, body) = whole(request, relay).await?;
        let source = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let source = source.map_or(SocketAddr::from(([0, 0, 0, 0], 0)), |info| info.0);
        match permit(relay, &parts, &body).await {
            Ok(permit) => {
                if let Some(payer) = parts.extensions.get::<Payer>() {
                    payer.note(&permit);
                }
                Ok(Authorized {
                    permit: Arc::new(permit),
                    body,
                    source,
                })
            }
            Err(refusal) => Err(refused(relay, &refusal)),
        }
    }
}

impl FromRequest<Arc<Relay>> for Owning {
    type Rejection = Problem;

    async fn from_request(request: Request, relay: &Arc<Relay>) -> Result<Owning, Problem> {
        let (parts, body) = whole(request, relay).await?;
        match owner(relay, &parts, &body).await {
            Ok(owner) => Ok(Owning { owner, body }),
            Err(refusal) => Err(refused(relay, &refusal)),
        }
    }
}

/// The whole body, in time and within bounds.
pub(crate) async fn whole(request: Request, relay: &Relay) -> Result<(Parts, Bytes), Problem> {
    let (parts, body) = request.into_parts();
    let announced = parts
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > BODY_BYTES_DRAINED_MAX as u64) {
        return Err(too_large());
    }
    let patience = Duration::from_secs(relay.config.http.request_timeout_seconds);
    match tokio::time::timeout(patience, read(body)).await {
        Ok(Ok(body)) => Ok((parts, body)),
        Ok(Err(problem)) => Err(problem),
        Err(_) => Err(Problem::new(
            "request-timeout",
            "The body came too slowly; send it again, faster.",
        )),
    }
}

async fn read(mut body: Body) -> Result<Bytes, Problem> {
    let mut kept = Vec::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| {
            Problem::new(
                "bad-request",
                "The body ended early; send all that Content-Length says.",
            )
        })?;
        let Some(data) = frame.data_ref() else { continue };
        length += data.len();
        if length > BODY_BYTES_DRAINED_MAX {
            break;
        }
        if length <= BODY_BYTES_MAX {
            kept.extend_from_slice(data);
        }
    }
    if length > BODY_BYTES_MAX {
        return Err(too_large());
    }
    Ok(kept.into())
}

fn too_large() -> Problem {
    Problem::new(
        "too-large",
        format!("The body is too large; at most {BODY_BYTES_MAX} bytes are read."),
    )
}

/// The problem of a refusal, counted, with the nonce for the next try.
pub(crate) fn refused(relay: &Relay, refusal: &Refusal) -> Problem {
    relay.metrics.auth_failure(refusal.slug());
    Problem::from(refusal).header(DPOP_NONCE, &relay.proofs.nonce(clock::unix()))
}

/// Scheme and token of the `Authorization` header.
fn authorization(headers: &HeaderMap) -> Option<(&str, &str)> {
    let (scheme, token) = headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .split_once(' ')?;
    Some((scheme, token.trim()))
}

/// L402, and its older name.
fn is_l402(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("L402") || scheme.eq_ignore_ascii_case("LSAT")
}

/// The one `DPoP` header; several are as bad as none (RFC 9449 section 4.3).
fn dpop(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(DPOP).iter();
    let one = all.next()?.to_str().ok()?;
    all.next().is_none().then_some(one)
}

async fn permit(relay: &Arc<Relay>, parts: &Parts, body: &[u8]) -> Result<Permit, Refusal> {
    let (scheme, jwt) = authorization(&parts.headers).ok_or(Refusal::TokenMissing)?;
    if relay.config.topup.l402 && is_l402(scheme) {
        let (permit, opened) = relay.l402(jwt).await?;
        if let Some(payer) = parts.extensions.get::<Payer>() {
            payer.note_payment(opened);
        }
        return Ok(permit);
    }
    let rules = relay.policies.rules();
    let documents = relay.resolver.documents_for(jwt, &rules.token).await?;
    let now = clock::unix();
    let token = token::verify_with(jwt, &rules.token, &documents, now)?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Permit::from_bearer(token);
    }
    if !scheme.eq_ignore_ascii_case("dpop") {
        return Err(Refusal::TokenMissing);
    }
    let dpop = dpop(&parts.headers).ok_or(Refusal::ProofMissing)?;
    let url = relay.url_of(parts.uri.path());
    let request = proof::Request {
        method: parts.method.as_str(),
        url: &url,
        body,
    };
    let possession = relay.proofs.possession(dpop, &token, &request, now)?;
    Permit::from_possession(token, possession)
}

async fn owner(relay: &Arc<Relay>, parts: &Parts, body: &[u8]) -> Result<Owner, Refusal> {
    let rules = relay.policies.rules();
    let policy = &rules.token;
    let url = relay.url_of(parts.uri.path());
    let request = proof::Request {
        method: parts.method.as_str(),
        url: &url,
        body,
    };
    let Some((scheme, jwt)) = authorization(&parts.headers) else {
        let dpop = dpop(&parts.headers).ok_or(Refusal::ProofMissing)?;
        let documents = relay.documents_of_owner(dpop).await;
        let proof = relay.proofs.account(dpop, &request, &documents, clock::unix())?;
        return Ok(Owner::from_key(&proof));
    };
    if relay.config.topup.l402 && is_l402(scheme) {
        let (permit, _) = relay.l402(jwt).await?;
        return Ok(Owner::from_permit(&permit));
    }
    let documents = relay.resolver.documents_for(jwt, policy).await?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Owner::from_bearer(jwt, policy, &documents, clock::unix());
    }
    let dpop = dpop(&parts.headers).ok_or(Refusal::ProofMissing)?;
    if !scheme.eq_ignore_ascii_case("dpop") {
        return Err(Refusal::TokenMissing);
    }
    Owner::from_token(
        jwt,
        dpop,
        &request,
        &relay.proofs,
        policy,
        &documents,
        clock::unix(),
    )
}

impl Relay {
    /// What a proof without a token needs. Nobody vouches for a stranger's DID, so a did:web is fetched for it only if
    /// it has an account here: an issuer of ours named it once.
    async fn documents_of_owner(&self, dpop: &str) -> Documents {
        let mut documents = Documents::none();
        if let Some(did) = proof::account_named(dpop)
            && self.is_known(&did).await
        {
            self.resolver.add(&mut documents, &[did]).await;
        }
        documents
    }

    /// May this did:web be fetched without a token that names it?
    pub(crate) async fn is_known(&self, did: &Did) -> bool {
        self.resolver.knows(did)
            || match self.cashier.account(AccountId::new(did.as_str())).await {
                Ok(account) => !account.is_blank(),
                Err(_) => false,
            }
    }
}
