//! DID documents (W3C DID Core 1.0 section 5): the keys of somebody, read out of JSON that a stranger's server sent,
//! and the relay's own document with its `DSIPService` entry.
//!
//! Reading is strict where two readers could differ: repeated members, an `id` that is not the DID asked for, two
//! keys under one id. It is lenient about what it has no use for: other key types, other services, contexts.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::did::{Did, DidError};
use crate::json::parse_object;
use crate::key::{KeyError, PublicKey};

/// Longest document: the largest that is ever fetched.
pub const DOCUMENT_LENGTH_MAX: usize = 64 * 1024;
/// Most keys looked at in one document. An operator lists one a node.
const METHODS_MAX: usize = 256;

/// What a DID resolves to, as far as the relay looks: the keys that may act for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Whose document.
    pub id: Did,
    /// Keys under `authentication`, never empty for did:key and did:jwk.
    pub authentication: Vec<VerificationMethod>,
    /// Keys under `assertionMethod`.
    pub assertion: Vec<VerificationMethod>,
    /// Other names that its owner goes by, such as `acct:alice@voice.example`.
    pub also_known_as: Vec<String>,
}

/// A key with its DID URL.
#[derive(Clone, PartialEq, Eq)]
pub struct VerificationMethod {
    /// DID URL: the DID, `#`, a fragment.
    pub id: String,
    /// The key.
    pub key: PublicKey,
}

impl Document {
    /// Reads the document that was fetched for `did`. Of its keys those are kept that can be used here.
    pub fn parse(did: &Did, text: &str) -> Result<Document, DidError> {
        if text.len() > DOCUMENT_LENGTH_MAX {
            return Err(DidError::Document("it has more than 64 KiB"));
        }
        let object = parse_object(text).map_err(|_| {
            DidError::Document("it must be one JSON object (RFC 8259) without repeated members")
        })?;
        if object.get("id").and_then(Value::as_str) != Some(did.as_str()) {
            return Err(DidError::Document(
                "its `id` is not the DID that it was fetched for",
            ));
        }
        let mut named = HashMap::new();
        for method in list(&object, "verificationMethod")? {
            add(did, method, &mut named)?;
        }
        let mut relationship = |name: &str| -> Result<Vec<VerificationMethod>, DidError> {
            let mut methods = Vec::new();
            for entry in list(&object, name)? {
                let id = match entry {
                    Value::String(id) => absolute(did, id),
                    _ => add(did, entry, &mut named)?,
                };
                let known = id.and_then(|id| Some((named.get(&id)?.clone()?, id)));
                methods.extend(known.map(|(key, id)| VerificationMethod { id, key }));
            }
            Ok(methods)
        };
        let names = list(&object, "alsoKnownAs")?.iter().filter_map(Value::as_str);
        Ok(Document {
            also_known_as: names.map(str::to_owned).collect(),
            authentication: relationship("authentication")?,
            assertion: relationship("assertionMethod")?,
            id: did.clone(),
        })
    }

    /// The key with this DID URL that may vouch for others: one under `assertionMethod`, or, in a document that
    /// does not tell its keys apart, under `authentication` (as in DSIP section 4.2).
    pub fn issuing_key(&self, id: &str) -> Option<&PublicKey> {
        let methods = match self.assertion.is_empty() {
            true => &self.authentication,
            false => &self.assertion,
        };
        methods
            .iter()
            .find(|method| method.id == id)
            .map(|method| &method.key)
    }

    /// The authentication key with this DID URL.
    pub fn key(&self, id: &str) -> Option<&PublicKey> {
        self.authentication
            .iter()
            .find(|method| method.id == id)
            .map(|method| &method.key)
    }

    /// Does one of the authentication keys have this thumbprint?
    pub fn has_key(&self, thumbprint: &crate::Thumbprint) -> bool {
        self.authentication
            .iter()
            .any(|method| method.key.thumbprint() == *thumbprint)
    }
}

fn list<'a>(object: &'a Map<String, Value>, name: &str) -> Result<&'a [Value], DidError> {
    match object.get(name) {
        None => Ok(&[]),
        Some(Value::Array(list)) if list.len() <= METHODS_MAX => Ok(list),
        Some(_) => Err(DidError::Document("its keys must be lists of at most 256")),
    }
}

/// A DID URL of this document, whole. Keys of other documents have no say here.
fn absolute(did: &Did, id: &str) -> Option<String> {
    let fragment = id.strip_prefix(did.as_str()).unwrap_or(id).strip_prefix('#')?;
    (!fragment.is_empty()).then(|| format!("{did}#{fragment}"))
}

/// Notes a verification method under its id: with its key, or without if the key cannot be used here.
fn add(
    did: &Did,
    method: &Value,
    named: &mut HashMap<String, Option<PublicKey>>,
) -> Result<Option<String>, DidError> {
    let id = method
        .get("id")
        .and_then(Value::as_str)
        .and_then(|id| absolute(did, id));
    let (Some(id), Some(method)) = (id, method.as_object()) else {
        return Ok(None);
    };
    let key = match key_of(method) {
        // A secret that everybody can read: whoever publishes one has more to put right than this entry.
        Err(error @ (KeyError::Symmetric | KeyError::Private)) => return Err(DidError::Key(error)),
        key => key.ok(),
    };
    match named.get(&id) {
        Some(known) if *known != key => Err(DidError::Document("two different keys have one `id`")),
        _ => {
            named.insert(id.clone(), key);
            Ok(Some(id))
        }
    }
}

fn key_of(method: &Map<String, Value>) -> Result<PublicKey, KeyError> {
    if let Some(jwk) = method.get("publicKeyJwk") {
        return PublicKey::from_jwk(jwk.as_object().ok_or(KeyError::Encoding)?);
    }
    let text = |name: &str| method.get(name).and_then(Value::as_str);
    if let Some(multibase) = text("publicKeyMultibase") {
        return PublicKey::from_multibase(multibase);
    }
    let kind = text("type").ok_or(KeyError::Unsupported)?;
    match (text("publicKeyBase58"), text("publicKeyHex")) {
        (Some(base58), _) => PublicKey::from_base58(kind, base58),
        (_, Some(hex)) => PublicKey::from_hex(kind, hex),
        _ => Err(KeyError::Unsupported),
    }
}

impl std::fmt::Debug for VerificationMethod {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.key.fmt(formatter)
    }
}

/// Where the relay can be reached, for the `DSIPService` entry. Only listeners that are open belong here.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    /// Base URLs of the HTTP calls: what `htu` is compared with.
    pub http: Vec<String>,
    /// WebSocket URLs of DSIP.
    pub ws: Vec<String>,
    /// QUIC endpoints of DSIP.
    pub quic: Vec<String>,
    /// TURN URIs (RFC 7065).
    pub turn: Vec<String>,
    /// Media addresses of the SFU.
    pub sfu: Vec<String>,
}

/// The relay's own DID document, for `/.well-known/did.json`.
pub fn relay_document(did: &Did, keys: &[(String, PublicKey)], endpoints: &Endpoints) -> Value {
    let methods: Vec<Value> = keys
        .iter()
        .map(|(id, key)| {
            json!({"id": id, "type": "JsonWebKey2020", "controller": did, "publicKeyJwk": key.to_jwk()})
        })
        .collect();
    let ids: Vec<&String> = keys.iter().map(|(id, _)| id).collect();
    let mut endpoint = serde_json::Map::new();
    for (name, urls) in [
        ("http", &endpoints.http),
        ("ws", &endpoints.ws),
        ("quic", &endpoints.quic),
        ("turn", &endpoints.turn),
        ("sfu", &endpoints.sfu),
    ] {
        if !urls.is_empty() {
            endpoint.insert(name.to_owned(), json!(urls));
        }
    }
    json!({
        "@context": ["https://www.w3.org/ns/did/v1", "https://w3id.org/security/suites/jws-2020/v1"],
        "id": did,
        "verificationMethod": methods,
        "authentication": ids,
        "assertionMethod": ids,
        "service": [{"id": format!("{did}#dsip"), "type": "DSIPService", "serviceEndpoint": endpoint}],
    })
}
