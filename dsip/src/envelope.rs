//! The envelope (DSIP 6.1): strict JSON in, its canonical form and signature checked, and the way out.

use aws_lc_rs::rand;
use identity::json::{self, JsonError};
use identity::jws::{DetachedJws, JwsError, sign_detached};
use identity::{Did, PublicKey, SigningKey, resolve};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::fault::Fault;
use crate::jcs::canonicalise;

/// Longest envelope: 64 KiB, as on every transport of DSIP.
pub const ENVELOPE_LENGTH_MAX: usize = 64 * 1024;
/// Longest `id`; a UUID has 36 characters.
const ID_LENGTH_MAX: usize = 64;

/// An envelope whose signature verifies under the key named in `sig.kid`. Whether that key may speak for `from` is
/// the receiver's question ([`Envelope::is_signed_by_sender`], or a token's `cnf`).
pub struct Envelope {
    kind: String,
    id: String,
    ts: u64,
    from: Did,
    to: Option<Did>,
    kid: String,
    jws: String,
    key: PublicKey,
    canonical: String,
    members: Map<String, Value>,
}

impl Envelope {
    /// Parses and verifies. Time and replay are checked by [`crate::Receiver`].
    pub fn open(text: &str) -> Result<Envelope, Fault> {
        if text.len() > ENVELOPE_LENGTH_MAX {
            return Err(Fault::new(
                413,
                "too-large",
                "an envelope has at most 64 KiB; send a smaller one",
            ));
        }
        let mut members = json::parse_object(text).map_err(|error| match error {
            JsonError::Syntax { .. } => {
                Fault::malformed("send one JSON object per message, without lone surrogates")
            }
            JsonError::RepeatedKey { .. } => Fault::malformed("a member name appears twice; send each once"),
            JsonError::IntegerTooLarge => Fault::malformed("a number is beyond 2^53-1; send a smaller one"),
        })?;
        let text_of = |members: &Map<String, Value>, name: &str| {
            members.get(name).and_then(Value::as_str).map(str::to_owned)
        };
        let id = text_of(&members, "id")
            .filter(|id| {
                (1..=ID_LENGTH_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
            })
            .ok_or(Fault::malformed("`id` must be a UUID, new for every envelope"))?;
        Self::open_identified(&mut members, &id, text_of).map_err(|fault| fault.about(&id))
    }

    fn open_identified(
        members: &mut Map<String, Value>,
        id: &str,
        text_of: impl Fn(&Map<String, Value>, &str) -> Option<String>,
    ) -> Result<Envelope, Fault> {
        let sig = members.remove("sig");
        let sig = sig
            .as_ref()
            .and_then(Value::as_object)
            .filter(|sig| sig.len() == 3);
        let sig = sig.ok_or(unsigned(
            "`sig` must be an object with exactly `alg`, `kid` and `jws`",
        ))?;
        let sig_text = |name: &str| sig.get(name).and_then(Value::as_str);
        let (Some(alg), Some(kid), Some(jws_text)) = (sig_text("alg"), sig_text("kid"), sig_text("jws"))
        else {
            return Err(unsigned(
                "`sig` must be an object with `alg`, `kid` and `jws`, all strings",
            ));
        };
        let kind = text_of(members, "type").ok_or(Fault::malformed("`type` must be a string"))?;
        let ts = members.get("ts").and_then(Value::as_u64);
        let ts = ts.ok_or(Fault::malformed(
            "`ts` must be the time in whole seconds since 1970",
        ))?;
        let did = |name: &str| match members.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Did::parse(text).map(Some).map_err(|_| ()),
            Some(_) => Err(()),
        };
        let from = did("from")
            .ok()
            .flatten()
            .ok_or(Fault::malformed("`from` must be the sender's DID"))?;
        let to = did("to").map_err(|()| Fault::malformed("`to` must be the receiver's DID"))?;

        let jws = DetachedJws::parse(jws_text).map_err(|error| match error {
            JwsError::HeaderMember(_) => unsigned(
                "the protected header must be exactly `alg`, `kid`, `typ`: \"dsip+jws\", `b64`: false, \
                 `crit`: [\"b64\"]",
            ),
            _ => unsigned("`sig.jws` must be a detached JWS (RFC 7797): header, two dots, signature"),
        })?;
        if jws.kid() != kid || jws.alg() != Some(alg) {
            return Err(unsigned(
                "`alg` and `kid` of `sig` must equal those in the JWS header",
            ));
        }
        let key = kid
            .split_once('#')
            .and_then(|(did, _)| Did::parse(did).ok())
            .and_then(|did| resolve(&did).ok())
            .and_then(|document| document.key(kid).cloned())
            .ok_or(unsigned(
                "`kid` must be the DID URL of an Ed25519 or P-256 key of a did:key or did:jwk",
            ))?;
        let members = std::mem::take(members);
        let whole = Value::Object(members);
        let canonical = canonicalise(&whole);
        jws.verify(&key, canonical.as_bytes()).map_err(|error| match error {
            JwsError::Algorithm => unsigned("`alg` must be that of the key: EdDSA for Ed25519, ES256 for P-256"),
            _ => unsigned(
                "the signature does not verify; sign the JCS form (RFC 8785) of the envelope without `sig`, unencoded",
            ),
        })?;
        let Value::Object(members) = whole else {
            unreachable!("made from an object above")
        };
        let (id, kid, jws) = (id.to_owned(), kid.to_owned(), jws_text.to_owned());
        Ok(Envelope {
            kind,
            id,
            ts,
            from,
            to,
            kid,
            jws,
            key,
            canonical,
            members,
        })
    }

    /// `type`.
    pub fn kind(&self) -> &str {
        &self.kind
    }
    /// `id`.
    pub fn id(&self) -> &str {
        &self.id
    }
    /// `ts`, unix seconds.
    pub fn ts(&self) -> u64 {
        self.ts
    }
    /// `from`, as claimed.
    pub fn from(&self) -> &Did {
        &self.from
    }
    /// `to`.
    pub fn to(&self) -> Option<&Did> {
        self.to.as_ref()
    }
    /// The DID URL of the key that signed.
    pub fn kid(&self) -> &str {
        &self.kid
    }
    /// The key that signed.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }
    /// The detached JWS.
    pub(crate) fn jws(&self) -> &str {
        &self.jws
    }
    /// The canonical form that is signed.
    pub fn canonical(&self) -> &str {
        &self.canonical
    }
    /// Is the signing key one of `from`'s own?
    pub fn is_signed_by_sender(&self) -> bool {
        self.kid
            .split_once('#')
            .is_some_and(|(did, _)| did == self.from.as_str())
    }

    /// The body as a typed message; `shape` tells the sender what was expected.
    pub(crate) fn body<T: DeserializeOwned>(&self, shape: &'static str) -> Result<T, Fault> {
        serde_json::from_value(Value::Object(self.members.clone()))
            .map_err(|_| Fault::malformed(shape).about(&self.id))
    }
}

fn unsigned(detail: &'static str) -> Fault {
    Fault::new(401, "signature", detail)
}

/// Writes an envelope with a random UUID: `type`, `id`, `ts`, `from`, `to`, the members of `body`, `sig`.
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
    members.insert("from".into(), key.did().as_str().into());
    if let Some(to) = to {
        members.insert("to".into(), to.as_str().into());
    }
    let mut envelope = Value::Object(members);
    let jws = sign_detached(key, canonicalise(&envelope).as_bytes());
    let alg = key.public_key().algorithm().name();
    envelope["sig"] = serde_json::json!({"alg": alg, "kid": key.kid(), "jws": jws});
    canonicalise(&envelope)
}

/// A random UUID (RFC 9562 section 5.4).
fn random_uuid() -> String {
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

impl std::fmt::Debug for Envelope {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Envelope({} from {:?})", self.kind, self.from)
    }
}
