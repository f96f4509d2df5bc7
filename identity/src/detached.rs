//! The signature of an envelope, in either of its two forms: a detached JWS or a detached COSE_Sign1 over the same bytes.

use crate::cose::{CoseError, DetachedCose};
use crate::jws::{DetachedJws, JwsError};
use crate::key::PublicKey;

/// A parsed, not yet verified signature.
pub enum Detached<'a> {
    /// RFC 7797.
    Jws(DetachedJws<'a>),
    /// RFC 9052.
    Cose(Box<DetachedCose>),
}

/// Why it does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DetachedError {
    /// The algorithm named in the header is not that of the key.
    #[error("its `alg` must be that of the key")]
    Algorithm,
    /// The signature does not verify.
    #[error("it does not verify under the named key")]
    Signature,
}

impl<'a> Detached<'a> {
    /// Parses a detached JWS.
    pub fn jws(text: &'a str) -> Result<Detached<'a>, JwsError> {
        DetachedJws::parse(text).map(Detached::Jws)
    }

    /// Parses a COSE_Sign1.
    pub fn cose(bytes: &[u8]) -> Result<Detached<'static>, CoseError> {
        DetachedCose::parse(bytes).map(|cose| Detached::Cose(Box::new(cose)))
    }

    /// The DID URL of the key that is said to have signed.
    pub fn kid(&self) -> &str {
        match self {
            Detached::Jws(jws) => jws.kid(),
            Detached::Cose(cose) => cose.kid(),
        }
    }

    /// Checks the algorithm against the key, then the signature over `payload`.
    pub fn verify(&self, key: &PublicKey, payload: &[u8]) -> Result<(), DetachedError> {
        match self {
            Detached::Jws(jws) => jws.verify(key, payload).map_err(|error| match error {
                JwsError::Algorithm => DetachedError::Algorithm,
                _ => DetachedError::Signature,
            }),
            Detached::Cose(cose) => cose.verify(key, payload).map_err(|error| match error {
                CoseError::Algorithm => DetachedError::Algorithm,
                _ => DetachedError::Signature,
            }),
        }
    }
}
