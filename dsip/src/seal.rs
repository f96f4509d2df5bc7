//! Writing envelopes: `type`, `id`, `ts`, `from`, `to`, the members of a body, `sig`.

use aws_lc_rs::rand;
use identity::cose::sign_cose;
use identity::jws::sign_detached;
use identity::{Did, SigningKey};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::cbor::write_envelope;
use crate::jcs::canonicalise;

/// How an envelope lies on the wire. What is signed is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// RFC 8259, with a detached JWS.
    Json,
    /// RFC 8949, with a COSE_Sign1.
    Cbor,
}

/// Writes an envelope in JSON with a random UUID.
pub fn seal(key: &SigningKey, to: Option<&Did>, kind: &str, body: &impl Serialize, now: u64) -> String {
    seal_with_id(key, to, kind, body, now, &random_uuid())
}

/// [`seal`] with a given `id`.
///
/// # Panics
/// If `body` is not a JSON object: a mistake of the caller.
pub fn seal_with_id(
    key: &SigningKey,
    to: Option<&Did>,
    kind: &str,
    body: &impl Serialize,
    now: u64,
    id: &str,
) -> String {
    signed(key, members(key.did(), to, kind, body, now, id))
}

/// An envelope in JSON in the name of `from`, whom the key may speak for without being one of theirs (`cnf`).
pub(crate) fn seal_for(
    key: &SigningKey,
    (from, to): (&Did, Option<&Did>),
    kind: &str,
    body: &impl Serialize,
    now: u64,
    id: &str,
) -> String {
    signed(key, members(from, to, kind, body, now, id))
}

/// [`seal_for`] in CBOR.
pub(crate) fn seal_cbor_for(
    key: &SigningKey,
    (from, to): (&Did, Option<&Did>),
    kind: &str,
    body: &impl Serialize,
    now: u64,
    id: &str,
) -> Vec<u8> {
    signed_cbor(key, members(from, to, kind, body, now, id))
}

fn signed(key: &SigningKey, members: Map<String, Value>) -> String {
    let mut envelope = Value::Object(members);
    let jws = sign_detached(key, canonicalise(&envelope).as_bytes());
    let alg = key.public_key().algorithm().name();
    envelope["sig"] = serde_json::json!({"alg": alg, "kid": key.kid(), "jws": jws});
    canonicalise(&envelope)
}

/// Writes an envelope in CBOR with a random UUID.
pub fn seal_cbor(key: &SigningKey, to: Option<&Did>, kind: &str, body: &impl Serialize, now: u64) -> Vec<u8> {
    seal_cbor_with_id(key, to, kind, body, now, &random_uuid())
}

/// [`seal_cbor`] with a given `id`.
///
/// # Panics
/// If `body` is not a JSON object: a mistake of the caller.
pub fn seal_cbor_with_id(
    key: &SigningKey,
    to: Option<&Did>,
    kind: &str,
    body: &impl Serialize,
    now: u64,
    id: &str,
) -> Vec<u8> {
    signed_cbor(key, members(key.did(), to, kind, body, now, id))
}

fn signed_cbor(key: &SigningKey, members: Map<String, Value>) -> Vec<u8> {
    let whole = Value::Object(members);
    let sig = sign_cose(key, canonicalise(&whole).as_bytes());
    let Value::Object(members) = whole else {
        unreachable!("made from an object above")
    };
    write_envelope(&members, &sig)
}

fn members(
    from: &Did,
    to: Option<&Did>,
    kind: &str,
    body: &impl Serialize,
    now: u64,
    id: &str,
) -> Map<String, Value> {
    let body = serde_json::to_value(body).expect("bodies are plain structs of JSON types");
    let Value::Object(mut members) = body else {
        panic!("a DSIP body is an object")
    };
    for name in ["to", "sig"] {
        members.remove(name); // not a body's to say
    }
    members.insert("type".into(), kind.into());
    members.insert("id".into(), id.into());
    members.insert("ts".into(), now.into());
    members.insert("from".into(), from.as_str().into());
    if let Some(to) = to {
        members.insert("to".into(), to.as_str().into());
    }
    members
}

/// A random UUID (RFC 9562 section 5.4).
pub(crate) fn random_uuid() -> String {
    let mut bytes = [0u8; 16];
    rand::fill(&mut bytes).expect("the system's random source never fails once the kernel has started");
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}
