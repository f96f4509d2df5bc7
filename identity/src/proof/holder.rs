//! The holder's signature over a fresh challenge: how a DSIP client proves its key. The challenge serves once, on
//! its connection, for 60 s; the type system sees to "once", because checking consumes it.

use std::fmt;

use serde_json::{Map, Value};

use crate::detached::Detached;
use crate::did::Did;
use crate::documents::Documents;
use crate::key::{Thumbprint, sha256};
use crate::refusal::Refusal;
use crate::token::RelayToken;
use crate::{base64url, json, random};

/// How long a challenge may be answered, seconds.
pub const CHALLENGE_LIFETIME: u64 = 60;

/// A nonce given to one connection. Not `Clone`: it is used up by [`HolderProof::verify`].
pub struct Challenge {
    nonce: String,
    issued: u64,
}

impl Challenge {
    /// A new random nonce at `now` (unix seconds).
    pub fn new(now: u64) -> Challenge {
        Challenge {
            nonce: base64url::encode(random::bytes::<16>()),
            issued: now,
        }
    }

    /// What the client has to sign.
    pub fn nonce(&self) -> &str {
        &self.nonce
    }

    /// Uses the challenge up: does `nonce` answer it, in time? That the envelope with the nonce is signed, and by whom, is
    /// the caller's to check.
    pub fn is_answered_by(self, nonce: &str, now: u64) -> bool {
        now.checked_sub(self.issued)
            .is_some_and(|age| age < CHALLENGE_LIFETIME)
            && nonce == self.nonce
    }
}

/// A key signed an envelope that answers our challenge and carries a token. Becomes a [`crate::Permit`] with that
/// token and no other.
pub struct HolderProof {
    from: Did,
    to: Did,
    thumbprint: Thumbprint,
    token_hash: [u8; 32],
}

impl HolderProof {
    /// Verifies a detached signature over `payload`, the canonical JSON of an envelope with `from`, `to`, `nonce` and
    /// `token`. The signing key may be one of `from`'s or one that the token's `cnf` names.
    pub fn verify(
        challenge: Challenge,
        payload: &[u8],
        signature: &Detached<'_>,
        documents: &Documents,
        now: u64,
    ) -> Result<HolderProof, Refusal> {
        let malformed = |field, fix| Refusal::ProofMalformed { field, fix };
        let key = documents.key(signature.kid()).ok_or(malformed(
            "kid",
            "it must be the DID URL of a key of a DID that resolves here",
        ))?;
        signature
            .verify(&key, payload)
            .map_err(|_| Refusal::ProofSignature)?;
        let envelope: Option<Map<String, Value>> = str::from_utf8(payload)
            .ok()
            .and_then(|text| json::parse_object(text).ok());
        let envelope = envelope.ok_or(malformed("payload", "send one JSON object with each member once"))?;
        let text = |name: &str| envelope.get(name).and_then(Value::as_str);
        if !text("nonce").is_some_and(|nonce| challenge.is_answered_by(nonce, now)) {
            return Err(Refusal::NonceRequired);
        }
        let did = |name: &'static str| {
            let did = text(name).and_then(|text| Did::parse(text).ok());
            did.ok_or(malformed(name, "it must be a DID"))
        };
        let token = text("token").ok_or(Refusal::TokenMissing)?;
        Ok(HolderProof {
            from: did("from")?,
            to: did("to")?,
            thumbprint: key.thumbprint(),
            token_hash: sha256(token.as_bytes()),
        })
    }

    pub(crate) fn check(&self, token: &RelayToken) -> Result<(), Refusal> {
        let mismatch = |field, fix| Err(Refusal::ProofMismatch { field, fix });
        if self.token_hash != *token.hash() {
            return mismatch("token", "sign the token that you use");
        }
        if self.to != *token.audience() {
            return mismatch("to", "it must be this relay's DID, the token's `aud`");
        }
        if self.from != *token.subject() {
            return mismatch("from", "it must be the token's `sub`");
        }
        if token.is_held_by(&self.thumbprint) {
            Ok(())
        } else {
            Err(Refusal::ProofKey)
        }
    }
}

impl fmt::Debug for Challenge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Challenge(…)")
    }
}

impl fmt::Debug for HolderProof {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "HolderProof({:?})", self.from)
    }
}
