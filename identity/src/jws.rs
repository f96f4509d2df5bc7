//! Compact JWS (RFC 7515) and its detached, unencoded form (RFC 7797), for the algorithms of this relay.
//!
//! Deliberately small: the header is an allow-list given by the caller, the algorithm comes from the key and the
//! header only has to agree, and there is no way to say `none`, HS* or "fetch the key there".

use serde_json::{Map, Value};

use crate::base64url;
use crate::json;
use crate::key::PublicKey;
use crate::signing_key::SigningKey;

/// Longest JWS accepted anywhere. Receipts and tokens with credentials stay far below.
pub const JWS_LENGTH_MAX: usize = 64 * 1024;
/// Longest header, decoded: a DPoP header with a P-256 JWK has about 250 bytes, a kid up to 1100.
pub const HEADER_LENGTH_MAX: usize = 4096;

/// A signature algorithm, always taken from the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Ed25519 (RFC 8037); "Ed25519" (RFC 9864) names the same.
    EdDsa,
    /// ECDSA with P-256 and SHA-256 (RFC 7518 section 3.4).
    Es256,
    /// ECDSA with secp256k1 and SHA-256 (RFC 8812 section 3.2).
    #[cfg(feature = "es256k")]
    Es256k,
}

/// Every `alg` that is taken, as challenges name them.
#[cfg(feature = "es256k")]
pub const ALGORITHMS: &str = "EdDSA ES256 ES256K";
/// Every `alg` that is taken, as challenges name them.
#[cfg(not(feature = "es256k"))]
pub const ALGORITHMS: &str = "EdDSA ES256";

impl Algorithm {
    /// The `alg` value that this relay writes.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::EdDsa => "EdDSA",
            Algorithm::Es256 => "ES256",
            #[cfg(feature = "es256k")]
            Algorithm::Es256k => "ES256K",
        }
    }

    /// Does this `alg` value mean this algorithm?
    pub fn is_named(self, alg: &str) -> bool {
        alg == self.name() || (self == Algorithm::EdDsa && alg == "Ed25519")
    }
}

/// Why a JWS is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    /// Longer than the limit.
    #[error("it is too long")]
    TooLong,
    /// Not three base64url parts with a JSON header.
    #[error("it is not a compact JWS: three base64url parts without padding, a JSON object as header")]
    Malformed,
    /// A header member that has no place here.
    #[error(
        "its header may contain only {0}; leave everything else out, `jwk`, `jku`, `x5u` and `crit` above all"
    )]
    HeaderMember(&'static str),
    /// `alg` is not that of the key.
    #[error("its `alg` must be that of the key: EdDSA for Ed25519, ES256 for P-256, ES256K for secp256k1")]
    Algorithm,
    /// The signature does not verify.
    #[error("its signature does not verify under the named key")]
    Signature,
}

/// A parsed, not yet verified compact JWS.
pub struct Jws<'a> {
    header: Map<String, Value>,
    payload: Vec<u8>,
    signing_input: &'a str,
    signature: Vec<u8>,
}

impl<'a> Jws<'a> {
    /// Parses. `members` lists the header members allowed, in one text for the error message.
    pub fn parse(text: &'a str, members: &'static str) -> Result<Jws<'a>, JwsError> {
        if text.len() > JWS_LENGTH_MAX {
            return Err(JwsError::TooLong);
        }
        let (signing_input, signature) = text.rsplit_once('.').ok_or(JwsError::Malformed)?;
        let (header, payload) = signing_input.split_once('.').ok_or(JwsError::Malformed)?;
        if payload.contains('.') {
            return Err(JwsError::Malformed);
        }
        let header = parse_header(header, members)?;
        let payload = base64url::decode(payload).ok_or(JwsError::Malformed)?;
        let signature = base64url::decode(signature).ok_or(JwsError::Malformed)?;
        Ok(Jws {
            header,
            payload,
            signing_input,
            signature,
        })
    }

    /// A header member that is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.header.get(name).and_then(Value::as_str)
    }

    /// Any header member.
    pub fn header_value(&self, name: &str) -> Option<&Value> {
        self.header.get(name)
    }

    /// The payload as a strict JSON object.
    pub fn claims(&self) -> Result<Map<String, Value>, JwsError> {
        let text = str::from_utf8(&self.payload).map_err(|_| JwsError::Malformed)?;
        json::parse_object(text).map_err(|_| JwsError::Malformed)
    }

    /// The payload as text, where the caller reports JSON errors itself.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Checks `alg` against the key, then the signature.
    pub fn verify(&self, key: &PublicKey) -> Result<(), JwsError> {
        verify(&self.header, key, self.signing_input.as_bytes(), &self.signature)
    }
}

fn verify(
    header: &Map<String, Value>,
    key: &PublicKey,
    signing_input: &[u8],
    signature: &[u8],
) -> Result<(), JwsError> {
    match header.get("alg") {
        Some(Value::String(alg)) if key.algorithm().is_named(alg) => {}
        _ => return Err(JwsError::Algorithm),
    }
    if key.verify(signing_input, signature) {
        Ok(())
    } else {
        Err(JwsError::Signature)
    }
}

fn parse_header(encoded: &str, members: &'static str) -> Result<Map<String, Value>, JwsError> {
    if encoded.len() > HEADER_LENGTH_MAX * 4 / 3 {
        return Err(JwsError::TooLong);
    }
    let bytes = base64url::decode(encoded).ok_or(JwsError::Malformed)?;
    let text = String::from_utf8(bytes).map_err(|_| JwsError::Malformed)?;
    let header = json::parse_object(&text).map_err(|_| JwsError::Malformed)?;
    if header
        .keys()
        .any(|name| !members.split(", ").any(|allowed| allowed == name))
    {
        return Err(JwsError::HeaderMember(members));
    }
    Ok(header)
}

/// Signs `payload` under a header given as JSON text.
pub(crate) fn sign(key: &SigningKey, header: &str, payload: &[u8]) -> String {
    let mut text = base64url::encode(header);
    text.push('.');
    text.push_str(&base64url::encode(payload));
    let signature = key.sign(text.as_bytes());
    text.push('.');
    text.push_str(&base64url::encode(signature));
    text
}

/// JSON text of a string.
pub(crate) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// The `typ` of detached signatures over DSIP envelopes.
pub const DSIP_TYP: &str = "dsip+jws";

/// A detached JWS with an unencoded payload (RFC 7797) as DSIP envelopes carry it. The protected header is exactly
/// {`alg`, `kid`, `typ`: "dsip+jws", `b64`: false, `crit`: ["b64"]}.
pub struct DetachedJws<'a> {
    header: Map<String, Value>,
    encoded_header: &'a str,
    signature: Vec<u8>,
}

impl<'a> DetachedJws<'a> {
    /// Parses `header..signature`.
    pub fn parse(text: &'a str) -> Result<DetachedJws<'a>, JwsError> {
        const MEMBERS: &str = "alg, kid, typ, b64, crit";
        let (encoded_header, signature) = text.split_once("..").ok_or(JwsError::Malformed)?;
        let header = parse_header(encoded_header, MEMBERS)?;
        let signature = base64url::decode(signature).ok_or(JwsError::Malformed)?;
        let exact = header.len() == 5
            && header.get("typ").is_some_and(|typ| typ == DSIP_TYP)
            && header.get("b64") == Some(&Value::Bool(false))
            && header.get("crit") == Some(&Value::Array(vec![Value::from("b64")]))
            && header.get("kid").is_some_and(Value::is_string);
        if !exact {
            return Err(JwsError::HeaderMember(MEMBERS));
        }
        Ok(DetachedJws {
            header,
            encoded_header,
            signature,
        })
    }

    /// The DID URL of the key.
    pub fn kid(&self) -> &str {
        self.header
            .get("kid")
            .and_then(Value::as_str)
            .expect("checked when parsed")
    }

    /// The algorithm named in the header.
    pub fn alg(&self) -> Option<&str> {
        self.header.get("alg").and_then(Value::as_str)
    }

    /// Checks the signature over the unencoded payload.
    pub fn verify(&self, key: &PublicKey, payload: &[u8]) -> Result<(), JwsError> {
        verify(
            &self.header,
            key,
            &detached_input(self.encoded_header, payload),
            &self.signature,
        )
    }
}

/// Signs `payload` detached and unencoded, as [`DetachedJws`] reads it.
pub fn sign_detached(key: &SigningKey, payload: &[u8]) -> String {
    let header = format!(
        r#"{{"alg":"{}","b64":false,"crit":["b64"],"kid":{},"typ":"{DSIP_TYP}"}}"#,
        key.public_key().algorithm().name(),
        quoted(key.kid())
    );
    let header = base64url::encode(header);
    let signature = key.sign(&detached_input(&header, payload));
    format!("{header}..{}", base64url::encode(signature))
}

fn detached_input(encoded_header: &str, payload: &[u8]) -> Vec<u8> {
    [encoded_header.as_bytes(), b".", payload].concat()
}
