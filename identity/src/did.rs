//! Decentralised identifiers (W3C DID Core 1.0 section 3.1) and the methods that need no network: did:key and
//! did:jwk. Other methods parse (an operator may be a did:web) but do not resolve here.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::document::{Document, VerificationMethod};
use crate::key::{KeyError, PublicKey, sha256};
use crate::{base64url, json};

/// Longest DID accepted. A did:jwk of a P-256 key is under 250 characters; did:web rarely passes 200.
pub const DID_LENGTH_MAX: usize = 1024;

/// A syntactically valid DID without path, query or fragment. Cheap to clone. It names a person: `Debug` prints
/// only [`Did::redacted`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Did(Arc<str>);

/// Why a text is not a DID, or a DID has no keys here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DidError {
    /// Not `did:method:identifier`, or too long.
    #[error("not a DID; send did:method:identifier without path, query or fragment, at most 1024 characters")]
    Syntax,
    /// A method that this relay does not resolve.
    #[error("this DID method cannot be resolved here; use did:key, did:jwk or did:web")]
    Method,
    /// The identifier is not what its method says.
    #[error("the identifier does not follow its DID method; create the DID again from the key")]
    Identifier,
    /// The key inside is refused.
    #[error("{0}")]
    Key(#[from] KeyError),
    /// A did:web names no place that a document may be fetched from.
    #[error("this did:web names no place to fetch a document from: {0}")]
    Location(&'static str),
    /// The document could not be fetched.
    #[error("the DID document could not be fetched: {0}")]
    Fetch(&'static str),
    /// The document was fetched and cannot be used.
    #[error("the DID document cannot be used: {0}")]
    Document(&'static str),
}

impl Did {
    /// Parses a DID.
    pub fn parse(text: &str) -> Result<Did, DidError> {
        let rest = text.strip_prefix("did:").ok_or(DidError::Syntax)?;
        let (method, identifier) = rest.split_once(':').ok_or(DidError::Syntax)?;
        let method_ok = !method.is_empty()
            && method
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if text.len() > DID_LENGTH_MAX || !method_ok || !identifier_ok(identifier.as_bytes()) {
            return Err(DidError::Syntax);
        }
        Ok(Did(text.into()))
    }

    /// The did:key of a key.
    pub fn from_key(key: &PublicKey) -> Did {
        let multibase = bs58::encode(key.to_multicodec()).into_string();
        Did(format!("did:key:z{multibase}").into())
    }

    /// The did:jwk of a key, in the two orders of members that are written: the lexical one of thumbprints, and `kty`
    /// first.
    pub fn jwks_from_key(key: &PublicKey) -> [Did; 2] {
        let lexical = key.to_jwk();
        let member = |name: &str| lexical.get(name).map(|value| format!("\"{name}\":{value}"));
        let text = |names: [&str; 4]| {
            let members: Vec<String> = names.into_iter().filter_map(member).collect();
            format!("{{{}}}", members.join(","))
        };
        [["crv", "kty", "x", "y"], ["kty", "crv", "x", "y"]]
            .map(|names| Did(format!("did:jwk:{}", base64url::encode(text(names))).into()))
    }

    /// The whole DID.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The method's name, as in `did:method:…`.
    pub fn method(&self) -> &str {
        self.0[4..].split(':').next().expect("parsed with a method")
    }

    /// Method and a short hash: tells people apart in a log without naming them.
    pub fn redacted(&self) -> String {
        let hash = sha256(self.0.as_bytes());
        format!(
            "did:{}:~{:02x}{:02x}{:02x}{:02x}",
            self.method(),
            hash[0],
            hash[1],
            hash[2],
            hash[3]
        )
    }

    /// Does its document come from a network? Those of did:key and did:jwk are in the DID itself.
    pub fn needs_network(&self) -> bool {
        !matches!(self.method(), "key" | "jwk")
    }

    pub(crate) fn identifier(&self) -> &str {
        &self.0[4 + self.method().len() + 1..]
    }
}

/// `method-specific-id = *( *idchar ":" ) 1*idchar`, idchar = ALPHA / DIGIT / "." / "-" / "_" / pct-encoded.
fn identifier_ok(bytes: &[u8]) -> bool {
    let mut at = 0;
    while at < bytes.len() {
        at += match bytes[at] {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b':' => 1,
            b'%' if bytes.len() > at + 2 && bytes[at + 1..at + 3].iter().all(u8::is_ascii_hexdigit) => 3,
            _ => return false,
        };
    }
    bytes.last().is_some_and(|last| *last != b':')
}

/// The keys behind a DID, for the methods that carry them inside.
pub fn resolve(did: &Did) -> Result<Document, DidError> {
    match did.method() {
        "key" => {
            let multibase = did.identifier();
            let key = PublicKey::from_multibase(multibase)?;
            Ok(Document::with_one_key(did, multibase, key))
        }
        "jwk" => {
            let bytes = base64url::decode(did.identifier()).ok_or(DidError::Identifier)?;
            let text = str::from_utf8(&bytes).map_err(|_| DidError::Identifier)?;
            let jwk = json::parse_object(text).map_err(|_| DidError::Identifier)?;
            let key = PublicKey::from_jwk(&jwk)?;
            if jwk.get("use").is_some_and(|usage| usage != "sig") {
                return Err(DidError::Identifier); // an encryption key signs nothing (did:jwk, "to create the DID document")
            }
            Ok(Document::with_one_key(did, "0", key))
        }
        _ => Err(DidError::Method),
    }
}

impl Document {
    fn with_one_key(did: &Did, fragment: &str, key: PublicKey) -> Document {
        let id = format!("{did}#{fragment}");
        let method = VerificationMethod { id, key };
        Document {
            id: did.clone(),
            authentication: vec![method.clone()],
            assertion: vec![method],
            also_known_as: Vec::new(),
        }
    }
}

impl fmt::Display for Did {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Did {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.redacted())
    }
}

impl FromStr for Did {
    type Err = DidError;
    fn from_str(text: &str) -> Result<Did, DidError> {
        Did::parse(text)
    }
}

impl Serialize for Did {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Did {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Did, D::Error> {
        let text = String::deserialize(deserializer)?;
        Did::parse(&text).map_err(serde::de::Error::custom)
    }
}
