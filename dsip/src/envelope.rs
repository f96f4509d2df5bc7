//! The envelope (DSIP 6.1) on its way in: strict JSON or CBOR, its canonical form and signature checked.

use identity::detached::{Detached, DetachedError};
use identity::json::{self, JsonError};
use identity::{Did, Documents, PublicKey, did_of};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::cbor::{self, CborError};
use crate::fault::Fault;
use crate::jcs::canonicalise;
use crate::seal::Encoding;
use crate::signature::{Signature, unsigned};

/// Longest envelope: 64 KiB, as on every transport of DSIP.
pub const ENVELOPE_LENGTH_MAX: usize = 64 * 1024;
/// Longest `id`; a UUID has 36 characters.
const ID_LENGTH_MAX: usize = 64;

/// An envelope whose signature verifies under the key named in its `kid`. Whether that key may speak for `from` is
/// the receiver's question ([`Envelope::is_signed_by_sender`], or a token's `cnf`).
pub struct Envelope {
    kind: String,
    id: String,
    ts: u64,
    from: Did,
    to: Option<Did>,
    kid: String,
    signature: Signature,
    key: PublicKey,
    canonical: String,
    members: Map<String, Value>,
}

impl Envelope {
    /// Parses and verifies an envelope in JSON. Time and replay are checked by [`crate::Receiver`].
    pub fn open(text: &str) -> Result<Envelope, Fault> {
        Envelope::open_with(text, &Documents::none())
    }

    /// As [`Envelope::open`], with the document of [`signer_named`] where its DID needs a network.
    pub fn open_with(text: &str, documents: &Documents) -> Result<Envelope, Fault> {
        within_length(text.len())?;
        let mut members = json::parse_object(text).map_err(|error| match error {
            JsonError::Syntax { .. } => {
                Fault::malformed("send one JSON object per message, without lone surrogates")
            }
            JsonError::RepeatedKey { .. } => Fault::malformed(REPEATED),
            JsonError::IntegerTooLarge => Fault::malformed(TOO_LARGE),
        })?;
        let sig = members.remove("sig");
        Self::open_members(members, || Signature::from_json(sig.as_ref()), documents)
    }

    /// Parses and verifies an envelope in CBOR.
    pub fn open_cbor(bytes: &[u8]) -> Result<Envelope, Fault> {
        Envelope::open_cbor_with(bytes, &Documents::none())
    }

    /// As [`Envelope::open_cbor`], with the document of [`signer_named_cbor`] where its DID needs a network.
    pub fn open_cbor_with(bytes: &[u8], documents: &Documents) -> Result<Envelope, Fault> {
        within_length(bytes.len())?;
        let (members, sig) = cbor::parse_envelope(bytes).map_err(|error| {
            Fault::malformed(match error {
                CborError::Syntax => "send one CBOR map per message, and nothing after it",
                CborError::RepeatedKey => REPEATED,
                CborError::IntegerTooLarge => TOO_LARGE,
                CborError::NotJson => {
                    "an envelope in CBOR has the types of JSON only: no tags, no byte strings outside of `sig`, \
                     text as names"
                }
            })
        })?;
        Self::open_members(members, || Signature::from_cbor(sig), documents)
    }

    fn open_members(
        members: Map<String, Value>,
        signature: impl FnOnce() -> Result<Signature, Fault>,
        documents: &Documents,
    ) -> Result<Envelope, Fault> {
        let id = text_of(&members, "id")
            .filter(|id| {
                (1..=ID_LENGTH_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
            })
            .ok_or(Fault::malformed("`id` must be a UUID, new for every envelope"))?;
        signature()
            .and_then(|signature| Self::verified(members, &id, signature, documents))
            .map_err(|fault| fault.about(&id))
    }

    fn verified(
        members: Map<String, Value>,
        id: &str,
        signature: Signature,
        documents: &Documents,
    ) -> Result<Envelope, Fault> {
        let kind = text_of(&members, "type").ok_or(Fault::malformed("`type` must be a string"))?;
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

        let detached = signature.detached()?;
        let kid = detached.kid().to_owned();
        let key = documents.key(&kid).ok_or(unsigned(
            "`kid` must be the DID URL of a key (Ed25519, P-256, secp256k1) of a DID that resolves here",
        ))?;
        let whole = Value::Object(members);
        let canonical = canonicalise(&whole);
        detached.verify(&key, canonical.as_bytes()).map_err(|error| match error {
            DetachedError::Algorithm => {
                unsigned("`alg` must be that of the key: EdDSA for Ed25519, ES256 for P-256, ES256K for secp256k1")
            }
            DetachedError::Signature => unsigned(
                "the signature does not verify; sign the JCS form (RFC 8785) of the envelope without `sig`, unencoded",
            ),
        })?;
        drop(detached);
        let Value::Object(members) = whole else {
            unreachable!("made from an object above")
        };
        let id = id.to_owned();
        Ok(Envelope {
            kind,
            id,
            ts,
            from,
            to,
            kid,
            signature,
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
    /// Its signature, to be checked as an answer to a challenge.
    pub(crate) fn detached(&self) -> Result<Detached<'_>, Fault> {
        self.signature.detached()
    }
    /// How it came.
    pub fn encoding(&self) -> Encoding {
        match self.signature {
            Signature::Jws(_) => Encoding::Json,
            Signature::Cose(_) => Encoding::Cbor,
        }
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

/// Whose document is needed to check an envelope in JSON, where that needs a network, and the token that comes with it.
/// Nothing is checked yet: whether a stranger's word is reason enough to fetch it is for the caller to say.
pub fn signer_named(text: &str) -> Option<(Did, Option<String>)> {
    within_length(text.len()).ok()?;
    let members = json::parse_object(text).ok()?;
    named(members.get("sig")?.get("kid")?.as_str()?, &members)
}

/// As [`signer_named`], of an envelope in CBOR.
pub fn signer_named_cbor(bytes: &[u8]) -> Option<(Did, Option<String>)> {
    within_length(bytes.len()).ok()?;
    let (members, sig) = cbor::parse_envelope(bytes).ok()?;
    named(Detached::cose(&sig?).ok()?.kid(), &members)
}

fn named(kid: &str, members: &Map<String, Value>) -> Option<(Did, Option<String>)> {
    let signer = did_of(kid).filter(Did::needs_network)?;
    Some((signer, text_of(members, "token")))
}

const REPEATED: &str = "a member name appears twice; send each once";
const TOO_LARGE: &str = "a number is beyond 2^53-1; send a smaller one";

fn text_of(members: &Map<String, Value>, name: &str) -> Option<String> {
    members.get(name).and_then(Value::as_str).map(str::to_owned)
}

fn within_length(length: usize) -> Result<(), Fault> {
    if length <= ENVELOPE_LENGTH_MAX {
        return Ok(());
    }
    Err(Fault::new(
        413,
        "too-large",
        "an envelope has at most 64 KiB; send a smaller one",
    ))
}

impl std::fmt::Debug for Envelope {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Envelope({} from {:?})", self.kind, self.from)
    }
}
