//! DID documents (W3C DID Core 1.0 section 5): the keys of somebody, and the relay's own document with its
//! `DSIPService` entry.

use serde_json::{Value, json};

use crate::did::Did;
use crate::key::PublicKey;

/// What a DID resolves to, as far as the relay looks: the keys that may act for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Whose document.
    pub id: Did,
    /// Keys under `authentication`, never empty for did:key and did:jwk.
    pub authentication: Vec<VerificationMethod>,
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
