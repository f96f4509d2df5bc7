//! `sig` in its two forms: {`alg`, `kid`, `jws`} in JSON, a COSE_Sign1 in CBOR.

use identity::cose::{CoseError, DetachedCose};
use identity::detached::Detached;
use identity::jws::{DetachedJws, JwsError};
use serde_json::Value;

use crate::fault::Fault;

/// The signature as it came.
pub(crate) enum Signature {
    /// A detached JWS.
    Jws(String),
    /// The CBOR of a COSE_Sign1.
    Cose(Vec<u8>),
}

impl Signature {
    /// From the `sig` of a JSON envelope.
    pub(crate) fn from_json(sig: Option<&Value>) -> Result<Signature, Fault> {
        let sig = sig.and_then(Value::as_object).filter(|sig| sig.len() == 3);
        let sig = sig.ok_or(unsigned(
            "`sig` must be an object with exactly `alg`, `kid` and `jws`",
        ))?;
        let text = |name: &str| sig.get(name).and_then(Value::as_str);
        let (Some(alg), Some(kid), Some(jws)) = (text("alg"), text("kid"), text("jws")) else {
            return Err(unsigned(
                "`sig` must be an object with `alg`, `kid` and `jws`, all strings",
            ));
        };
        let parsed = parse_jws(jws)?;
        if parsed.kid() != kid || parsed.alg() != Some(alg) {
            return Err(unsigned(
                "`alg` and `kid` of `sig` must equal those in the JWS header",
            ));
        }
        Ok(Signature::Jws(jws.to_owned()))
    }

    /// From the `sig` of a CBOR envelope.
    pub(crate) fn from_cbor(sig: Option<Vec<u8>>) -> Result<Signature, Fault> {
        let sig = sig.ok_or(unsigned("`sig` must be a COSE_Sign1"))?;
        parse_cose(&sig)?;
        Ok(Signature::Cose(sig))
    }

    /// Parsed, to be verified.
    pub(crate) fn detached(&self) -> Result<Detached<'_>, Fault> {
        Ok(match self {
            Signature::Jws(jws) => Detached::Jws(parse_jws(jws)?),
            Signature::Cose(cose) => Detached::Cose(Box::new(parse_cose(cose)?)),
        })
    }
}

fn parse_jws(jws: &str) -> Result<DetachedJws<'_>, Fault> {
    DetachedJws::parse(jws).map_err(|error| match error {
        JwsError::HeaderMember(_) => unsigned(
            "the protected header must be exactly `alg`, `kid`, `typ`: \"dsip+jws\", `b64`: false, \
             `crit`: [\"b64\"]",
        ),
        _ => unsigned("`sig.jws` must be a detached JWS (RFC 7797): header, two dots, signature"),
    })
}

fn parse_cose(cose: &[u8]) -> Result<DetachedCose, Fault> {
    DetachedCose::parse(cose).map_err(|error| match error {
        CoseError::HeaderParameter => unsigned(
            "the protected header of `sig` must be exactly 1 (alg) and 4 (kid), and its unprotected one empty",
        ),
        _ => unsigned("`sig` must be an untagged COSE_Sign1 whose payload is nil"),
    })
}

pub(crate) fn unsigned(detail: &'static str) -> Fault {
    Fault::new(401, "signature", detail)
}
