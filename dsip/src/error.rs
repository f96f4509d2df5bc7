//! DSIP's error model (section 21.A): `dsip.error` with a code and a machine-readable reason, to which this relay adds
//! a sentence, `detail`, that says what to do.

use serde_json::{Map, Value, json};

use crate::envelope::EnvelopeError;
use crate::freshness::FreshnessError;
use crate::message::MessageError;

/// The `type` of an error envelope.
pub const KIND: &str = "dsip.error";

/// What a `dsip.error` says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code} {reason}: {detail}")]
pub struct DsipError {
    /// 401, 402, 403, 404, 408, 409, 413, 429, 503 or another status with HTTP's meaning.
    pub code: u16,
    /// `area:slug`, such as `payment:balance-exhausted`; `replay` stands alone.
    pub reason: String,
    /// One sentence for people.
    pub detail: String,
}

impl DsipError {
    /// From a status and slug as the HTTP side has them, so that both sides say the same.
    pub fn from_slug(status: u16, slug: &str, detail: impl Into<String>) -> DsipError {
        let area = match status {
            401 => "auth",
            402 => "payment",
            403 | 409 => "policy",
            429 | 503 => "capacity",
            _ => "request",
        };
        DsipError {
            code: status,
            reason: format!("{area}:{slug}"),
            detail: detail.into(),
        }
    }

    /// The members of the error envelope.
    pub fn body(&self) -> Map<String, Value> {
        match json!({"code": self.code, "reason": self.reason, "detail": self.detail}) {
            Value::Object(body) => body,
            _ => unreachable!("json! of braces is an object"),
        }
    }
}

impl From<EnvelopeError> for DsipError {
    fn from(error: EnvelopeError) -> DsipError {
        let (code, slug) = match error {
            EnvelopeError::TooLong => (413, "too-large"),
            EnvelopeError::Json(_) | EnvelopeError::Member(..) | EnvelopeError::Did(..) => {
                (400, "bad-envelope")
            }
            EnvelopeError::Jws(_) | EnvelopeError::Header | EnvelopeError::Key => (401, "bad-signature"),
        };
        DsipError::from_slug(code, slug, format!("{error}."))
    }
}

impl From<FreshnessError> for DsipError {
    fn from(error: FreshnessError) -> DsipError {
        let detail = format!("{error}.");
        match error {
            FreshnessError::Stale => DsipError::from_slug(408, "stale", detail),
            FreshnessError::Replay => DsipError {
                code: 409,
                reason: "replay".into(),
                detail,
            },
            FreshnessError::Full => DsipError::from_slug(429, "rate-limited", detail),
        }
    }
}

impl From<MessageError> for DsipError {
    fn from(error: MessageError) -> DsipError {
        DsipError::from_slug(400, "bad-message", format!("{error}."))
    }
}
