//! Errors as clients get them: `application/problem+json` (RFC 9457) with a stable slug at the end of `type` and
//! a sentence that says what to do.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// Every slug with its status and title. Slugs are interface: add, never rename.
const SLUGS: &[(&str, u16, &str)] = &[
    ("account-frozen", 403, "The account is frozen"),
    ("bad-name", 400, "The name cannot be used"),
    ("bad-request", 400, "The request cannot be understood"),
    ("bad-sdp", 400, "The session description cannot be used"),
    ("balance-exhausted", 402, "The balance does not cover this"),
    ("balance-too-large", 409, "The account cannot hold this much"),
    ("bearer-not-allowed", 401, "Bearer tokens are not allowed here"),
    ("capacity", 503, "This relay is full"),
    ("delegation", 401, "The holder did not let this key act"),
    ("denied", 403, "The operator does not serve this"),
    ("draining", 503, "This relay is shutting down"),
    ("etag-mismatch", 412, "The session has changed"),
    ("internal", 500, "The relay failed"),
    ("issuer-limit", 403, "The issuer may not give this much"),
    ("ledger-unavailable", 503, "The ledger cannot be reached"),
    ("method-not-allowed", 405, "This resource does not do that"),
    ("name-taken", 409, "Somebody else has that name"),
    ("not-found", 404, "There is nothing here"),
    ("payer-grant", 401, "The payer did not consent"),
    (
        "precondition-required",
        428,
        "The request must name the state it is about",
    ),
    ("proof-expired", 401, "The proof is not of this time"),
    ("proof-key", 401, "The proof is by another key"),
    ("proof-malformed", 401, "The proof of possession cannot be read"),
    ("proof-mismatch", 401, "The proof is for something else"),
    ("proof-missing", 401, "A proof of possession is needed"),
    ("proof-replayed", 401, "The proof was used before"),
    ("proof-signature", 401, "The proof's signature is wrong"),
    ("rate-limited", 429, "Too many requests"),
    ("reputation-too-low", 403, "The reputation is too low"),
    ("request-timeout", 408, "The request took too long"),
    ("room-forbidden", 403, "The token does not open this room"),
    ("service-forbidden", 403, "The token does not open this service"),
    (
        "tariff-unavailable",
        403,
        "The tariff of the token is no longer offered",
    ),
    ("token-audience", 401, "The token is for another relay"),
    ("token-expired", 401, "The token has expired"),
    ("token-holder", 401, "The holder of the token has no usable key"),
    ("token-issuer", 401, "The issuer of the token cannot be resolved"),
    ("token-lifetime", 401, "The token lives too long"),
    ("token-malformed", 401, "The token cannot be read"),
    ("token-missing", 401, "A relay token is needed"),
    ("token-not-yet-valid", 401, "The token is not valid yet"),
    ("token-signature", 401, "The token's signature is wrong"),
    ("token-subject", 403, "The token credits another account"),
    (
        "token-untrusted-issuer",
        401,
        "The issuer of the token is not trusted here",
    ),
    ("too-large", 413, "The request is too large"),
    ("topup-amount", 400, "The amount of the top-up cannot be taken"),
    ("topup-token", 400, "The token of the top-up cannot be taken"),
    ("topup-unavailable", 404, "This relay does not take that money"),
    ("unsupported-media-type", 415, "This media type is not understood"),
    ("use_dpop_nonce", 401, "The proof needs the relay's nonce"),
    ("voucher-conflict", 409, "The voucher was used with other content"),
];

/// The crates below write their errors to stand inside a sentence; here they stand alone.
pub(crate) fn sentence(text: &str) -> String {
    let mut rest = text.chars();
    let first = rest
        .next()
        .map(|first| first.to_uppercase().to_string())
        .unwrap_or_default();
    let stop = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{}{stop}", rest.as_str())
}

/// What a 401 asks for.
fn sign_in() -> String {
    format!("DPoP algs=\"{}\", Bearer", identity::jws::ALGORITHMS)
}

/// One error, ready to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Problem(Box<Details>);

/// Boxed, so that the results that may be one stay small.
#[derive(Debug, Clone)]
struct Details {
    status: StatusCode,
    slug: &'static str,
    detail: String,
    more: Map<String, Value>,
    headers: HeaderMap,
}

impl Problem {
    /// The problem `slug`, with a sentence that says what the caller can do.
    pub(crate) fn new(slug: &'static str, detail: impl AsRef<str>) -> Problem {
        let known = SLUGS.iter().find(|(known, _, _)| *known == slug);
        let status = known.map_or(401, |(_, status, _)| *status);
        let mut problem = Problem(Box::new(Details {
            status: StatusCode::from_u16(status).expect("the table holds valid status codes"),
            slug,
            detail: sentence(detail.as_ref()),
            more: Map::new(),
            headers: HeaderMap::new(),
        }));
        match status {
            401 => problem = problem.header(header::WWW_AUTHENTICATE, &sign_in()),
            429 | 503 => problem = problem.header(header::RETRY_AFTER, "1"),
            _ => {}
        }
        problem
    }

    /// A failure of ours. The cause goes to the log, not to the client.
    pub(crate) fn internal(cause: &dyn std::fmt::Display) -> Problem {
        tracing::error!(%cause, "request failed");
        Problem::new(
            "internal",
            "The relay could not finish this; try again, and tell its operator if it stays.",
        )
    }

    /// Adds a member to the problem's object.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Problem {
        self.0.more.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a header to the response. A value that no header can carry is left out.
    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Problem {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.0.headers.insert(name, value);
        }
        self
    }

    /// The stable slug.
    pub(crate) fn slug(&self) -> &'static str {
        self.0.slug
    }

    /// The HTTP status, which DSIP uses as its `code` too.
    pub(crate) fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The sentence.
    pub(crate) fn detail(&self) -> &str {
        &self.0.detail
    }

    fn title(slug: &str) -> &'static str {
        SLUGS
            .iter()
            .find(|(known, _, _)| *known == slug)
            .map_or("The token or proof is not accepted", |row| row.2)
    }

    /// What `GET /problems/{slug}` says, or `None` for no slug of ours.
    pub(crate) fn explain(slug: &str) -> Option<String> {
        let (slug, status, title) = SLUGS.iter().find(|(known, _, _)| *known == slug)?;
        Some(format!("{slug} (HTTP {status}): {title}.\n"))
    }
}

impl From<&identity::Refusal> for Problem {
    fn from(refusal: &identity::Refusal) -> Problem {
        let mut problem = Problem::new(refusal.slug(), refusal.to_string());
        problem.0.status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::UNAUTHORIZED);
        problem.0.headers.remove(header::WWW_AUTHENTICATE);
        match refusal.www_authenticate() {
            Some(challenge) => problem.header(header::WWW_AUTHENTICATE, &challenge),
            None => problem,
        }
    }
}

impl From<identity::Refusal> for Problem {
    fn from(refusal: identity::Refusal) -> Problem {
        Problem::from(&refusal)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Details {
            status,
            slug,
            detail,
            more: mut body,
            mut headers,
        } = *self.0;
        body.insert("type".into(), format!("/problems/{}", slug).into());
        body.insert("title".into(), Problem::title(slug).into());
        body.insert("status".into(), status.as_u16().into());
        body.insert("detail".into(), detail.into());
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        (status, headers, json!(body).to_string()).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_sorted_and_unique() {
        assert!(SLUGS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn every_refusal_of_a_token_or_proof_is_explained() {
        for slug in identity::Refusal::SLUGS {
            assert!(Problem::explain(slug).is_some(), "{slug}");
        }
    }

    #[test]
    fn a_402_says_how_to_top_up_and_a_401_how_to_sign_in() {
        let problem = Problem::new("balance-exhausted", "Top up.").with("topup", "/v1/topup");
        let response = problem.into_response();
        assert_eq!(response.status(), 402);
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "application/problem+json"
        );
        let response = Problem::new("token-signature", "Ask the issuer.").into_response();
        assert_eq!(response.status(), 401);
        assert!(response.headers().contains_key(header::WWW_AUTHENTICATE));
    }
}
