//! Credentials in a call: what the relay asks for, what the client presents, what came of it.
//!
//! `request` names what a service asks for and whose word counts, with a nonce. `present` answers with VC-JWTs and that
//! nonce; the envelope's signature binds them to the nonce and, by `to`, to this relay. `verify` says of each what came
//! of it, and of each service whether it is open now. Verifying is the crate `identity`'s.

use identity::Did;
use identity::credential::{CredentialFault, glance};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Most credentials in one presentation: each costs the relay a signature check.
pub const CREDENTIALS_MAX: usize = identity::token::CREDENTIALS_MAX;
/// Most names of one kind in a request: an envelope has to hold it.
pub const LISTED_MAX: usize = 64;

/// In an invite (DSIP 6.1, `identity`): credentials besides those in the token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// VC-JWTs. What is no text, such as a credential with an embedded proof, is passed over.
    #[serde(default)]
    pub credentials: Vec<Value>,
}

impl Introduction {
    /// Of VC-JWTs.
    pub fn of(credentials: &[String]) -> Introduction {
        Introduction {
            credentials: credentials.iter().map(|text| text.as_str().into()).collect(),
        }
    }

    /// The VC-JWTs.
    pub fn texts(&self) -> Vec<String> {
        let texts = self.credentials.iter().filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    }
}

/// Client: a service that it wants to use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// "sfu" or "turn".
    pub service: String,
}

/// Relay: credentials are asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// To be repeated in the presentation, once, on this connection.
    pub nonce: String,
    /// Until when the nonce serves, unix seconds.
    pub expires: u64,
    /// Why: "reputation-too-low", "credential-expired" or "policy-changed".
    pub reason: String,
    /// The session ends then without them.
    pub ends: bool,
    /// What would do.
    pub wanted: Wanted,
}

/// Credentials that would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// What each service that is not open asks for.
    pub services: Vec<WantedBy>,
    /// Whose word counts, for what.
    pub issuers: Vec<Scorer>,
}

/// What a service asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedBy {
    /// "sfu" or "turn".
    pub service: String,
    /// A ReputationScore of at least this much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score_min: Option<i64>,
    /// A Role, one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// An Organization, one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub organizations: Vec<String>,
}

/// An issuer of credentials that the operator lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scorer {
    /// Who.
    pub did: Did,
    /// What its word counts for: "ReputationScore", "Role", "Organization".
    pub types: Vec<String>,
}

impl Wanted {
    /// Of a holder's credentials those that fit, in their order and no more than a presentation has: by a listed issuer, of
    /// a type that its word counts for, and not expired at `now`. What else they say is the relay's to judge.
    pub fn fitting(&self, held: &[String], now: u64) -> Vec<String> {
        let fits = |text: &&String| {
            glance(text).is_some_and(|seen| {
                seen.expires.is_none_or(|expires| expires > now)
                    && self.issuers.iter().any(|issuer| {
                        issuer.did == seen.issuer && seen.types.iter().any(|kind| issuer.types.contains(kind))
                    })
            })
        };
        held.iter().filter(fits).take(CREDENTIALS_MAX).cloned().collect()
    }
}

/// Client: what it presents.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Present {
    /// The request's.
    pub nonce: String,
    /// VC-JWTs about the holder of the session's token.
    pub credentials: Vec<String>,
}

/// Credentials name people.
impl std::fmt::Debug for Present {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Present({} credentials)", self.credentials.len())
    }
}

/// Relay: what came of a presentation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Of each credential, in order.
    pub credentials: Vec<Outcome>,
    /// Of each service that the token opens.
    pub services: Vec<Standing>,
}

/// What came of one credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// It counts.
    pub accepted: bool,
    /// Why not: as the reasons of `dsip.error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Outcome {
    /// It verifies.
    pub fn accepted() -> Outcome {
        Outcome {
            accepted: true,
            reason: None,
            detail: None,
        }
    }

    /// It does not.
    pub fn refused(fault: &CredentialFault) -> Outcome {
        Outcome {
            accepted: false,
            reason: Some(format!("policy:{}", fault.slug())),
            detail: Some(fault.to_string()),
        }
    }
}

/// Whether a service may be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// "sfu" or "turn".
    pub service: String,
    /// It may.
    pub open: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
