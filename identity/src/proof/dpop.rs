//! DPoP proofs (RFC 9449 section 4.3): this key signed this method, this URL, this token, this body, with a nonce
//! that this node gave out in the last five minutes, and has not said so before.

use std::fmt;

use serde_json::{Map, Value};

use super::nonce::{NONCE_LIFETIME, NonceKey};
use super::replay::{PROOFS_MAX, PROOFS_PER_KEY_MAX, ReplayCache, STRANGERS_MAX};
use crate::did::Did;
use crate::documents::{Documents, did_of};
use crate::jws::{Jws, JwsError, quoted, sign};
use crate::key::{PublicKey, sha256};
use crate::refusal::Refusal;
use crate::signing_key::SigningKey;
use crate::token::RelayToken;
use crate::{base64url, json, random};

const TYP: &str = "dpop+jwt";
/// Longest proof: a kid of a did:jwk is the longest part.
const PROOF_LENGTH_MAX: usize = 8 * 1024;
/// Longest `jti`.
const PROOF_ID_LENGTH_MAX: usize = 256;
/// How far `iat` may be from now, seconds: the nonce's lifetime and the leeway of tokens.
const IAT_WINDOW: u64 = NONCE_LIFETIME + 30;

/// The request that a proof has to be for. `url` is built from the configured public URL, never from `Host`.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// `htm`.
    pub method: &'a str,
    /// `htu`: absolute, query and fragment are ignored.
    pub url: &'a str,
    /// The exact body; empty for none.
    pub body: &'a [u8],
}

/// Checks DPoP proofs on one node. Shared by reference; keeps its nonce key and replay memory.
pub struct Verifier {
    nonces: NonceKey,
    holders: ReplayCache,
    /// Proofs without a token come from anybody, so they may not fill the memory of those with one.
    strangers: ReplayCache,
    require_body_hash: bool,
}

/// A key of the token's holder signed this request. Only [`Verifier::possession`] makes one.
pub struct Possession {
    token_hash: [u8; 32],
}

/// A key of this DID signed this request: enough to see the DID's own account.
pub struct AccountProof {
    did: Did,
    others: Vec<Did>,
}

impl Possession {
    pub(crate) fn is_for(&self, token: &RelayToken) -> bool {
        self.token_hash == *token.hash()
    }
}

impl AccountProof {
    /// Whose account.
    pub fn did(&self) -> &Did {
        &self.did
    }

    /// Other DIDs that are nothing but this key: a proof without `kid` does not say which of them it means.
    pub fn others(&self) -> &[Did] {
        &self.others
    }
}

impl Verifier {
    /// A verifier with a new nonce key. `node` names this node among those of an operator.
    pub fn new(node: &str, require_body_hash: bool) -> Verifier {
        Verifier {
            nonces: NonceKey::generate(node),
            holders: ReplayCache::new(PROOFS_MAX, PROOFS_PER_KEY_MAX),
            strangers: ReplayCache::new(STRANGERS_MAX, PROOFS_PER_KEY_MAX),
            require_body_hash,
        }
    }

    /// A nonce for the `DPoP-Nonce` header; send one with every answer so that clients rarely meet a 401.
    pub fn nonce(&self, now: u64) -> String {
        self.nonces.issue(now)
    }

    /// Is `dpop` a proof by the token's holder for this request? `dpop` is the one `DPoP` header; the caller
    /// refuses requests with several.
    pub fn possession(
        &self,
        dpop: &str,
        token: &RelayToken,
        request: &Request<'_>,
        now: u64,
    ) -> Result<Possession, Refusal> {
        let proof = Proof::parse(dpop)?;
        let thumbprint = proof.key.thumbprint();
        if !token.is_held_by(&thumbprint) {
            return Err(Refusal::ProofKey);
        }
        proof.check_hash(
            "ath",
            token.hash(),
            "it must be base64url(SHA-256) of the token sent",
        )?;
        self.check_request(&proof, request, now)?;
        self.holders.once(&thumbprint, &proof.id, now)?;
        Ok(Possession {
            token_hash: *token.hash(),
        })
    }

    /// Is `dpop` a proof by a key of an account, for calls that need no token? The DID is that of `kid` in the
    /// header if there is one, else the key's did:key, with its did:jwk beside it.
    ///
    /// `documents` holds what [`account_named`] asked for.
    pub fn account(
        &self,
        dpop: &str,
        request: &Request<'_>,
        documents: &Documents,
        now: u64,
    ) -> Result<AccountProof, Refusal> {
        let proof = Proof::parse(dpop)?;
        let mut others = Vec::new();
        let did = match &proof.kid {
            None => {
                others.extend(Did::jwks_from_key(&proof.key));
                Did::from_key(&proof.key)
            }
            Some(url) => {
                let document = did_of(url).and_then(|did| documents.resolve(&did).ok());
                let document = document.ok_or(Refusal::ProofMalformed {
                    field: "kid",
                    fix: "it must be the DID URL of a key of a DID that resolves here, or be left out",
                })?;
                if document.key(url) != Some(&proof.key) {
                    return Err(Refusal::ProofKey);
                }
                document.id.clone()
            }
        };
        self.check_request(&proof, request, now)?;
        self.strangers.once(&proof.key.thumbprint(), &proof.id, now)?;
        Ok(AccountProof { did, others })
    }

    fn check_request(&self, proof: &Proof, request: &Request<'_>, now: u64) -> Result<(), Refusal> {
        if proof.text("htm") != Some(request.method) {
            return Err(Refusal::ProofMismatch {
                field: "htm",
                fix: "it must be this request's method",
            });
        }
        if proof.text("htu").and_then(target) != target(request.url) {
            return Err(Refusal::ProofMismatch {
                field: "htu",
                fix: "it must be this call's URL under the relay's public URL (see `http` in its did.json), \
                      without query",
            });
        }
        if proof.claims.contains_key("bdh") || (self.require_body_hash && !request.body.is_empty()) {
            let fix = "it must be base64url(SHA-256) of the body sent; add it for every call with a body";
            proof.check_hash("bdh", &sha256(request.body), fix)?;
        }
        if !proof
            .text("nonce")
            .is_some_and(|nonce| self.nonces.is_fresh(nonce, now))
        {
            return Err(Refusal::NonceRequired);
        }
        let issued = proof
            .claims
            .get("iat")
            .and_then(Value::as_u64)
            .ok_or(Refusal::ProofMalformed {
                field: "iat",
                fix: "it must be the time in whole seconds since 1970",
            })?;
        if issued.abs_diff(now) > IAT_WINDOW {
            Err(Refusal::ProofExpired)
        } else {
            Ok(())
        }
    }
}

/// The DID that an account proof names and that needs a network, before the proof is checked. Whether a stranger's
/// word is reason enough to fetch it is for the caller to say.
pub fn account_named(dpop: &str) -> Option<Did> {
    let proof = Proof::parse(dpop).ok()?;
    did_of(proof.kid.as_deref()?).filter(Did::needs_network)
}

/// A proof whose signature has been verified under the key in its header.
struct Proof {
    key: PublicKey,
    kid: Option<String>,
    id: String,
    claims: Map<String, Value>,
}

impl Proof {
    fn parse(dpop: &str) -> Result<Proof, Refusal> {
        let malformed = |field, fix| Refusal::ProofMalformed { field, fix };
        if dpop.is_empty() {
            return Err(Refusal::ProofMissing);
        }
        if dpop.len() > PROOF_LENGTH_MAX {
            return Err(malformed("JWT", "send at most 8 KiB"));
        }
        let jws = Jws::parse(dpop, "typ, alg, jwk, kid").map_err(|error| match error {
            JwsError::HeaderMember(_) => {
                malformed("header", "it may contain `typ`, `alg`, `jwk` and `kid` only")
            }
            _ => malformed("JWT", "send a compact JWS: three base64url parts without padding"),
        })?;
        if jws.header("typ") != Some(TYP) {
            return Err(malformed("typ", "the header's `typ` must be \"dpop+jwt\""));
        }
        let jwk = jws.header_value("jwk").and_then(Value::as_object);
        let jwk = jwk.ok_or(malformed(
            "jwk",
            "the header must contain the public key as a JWK",
        ))?;
        let key = PublicKey::from_jwk(jwk).map_err(Refusal::ProofKeyRefused)?;
        let kid = match jws.header_value("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.clone()),
            Some(_) => return Err(malformed("kid", "it must be a DID URL, or be left out")),
        };
        jws.verify(&key).map_err(|error| match error {
            JwsError::Algorithm => malformed(
                "alg",
                "it must be that of the key: EdDSA for Ed25519, ES256 for P-256, ES256K for secp256k1",
            ),
            _ => Refusal::ProofSignature,
        })?;
        let text = str::from_utf8(jws.payload()).map_err(|_| malformed("claims", "send UTF-8"))?;
        let claims = json::parse_object(text)
            .map_err(|_| malformed("claims", "send one JSON object with each member once"))?;
        let id = claims
            .get("jti")
            .and_then(Value::as_str)
            .filter(|id| (1..=PROOF_ID_LENGTH_MAX).contains(&id.len()));
        let id = id
            .ok_or(malformed("jti", "it must be a string of 1 to 256 bytes"))?
            .to_owned();
        Ok(Proof { key, kid, id, claims })
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.claims.get(name).and_then(Value::as_str)
    }

    fn check_hash(&self, field: &'static str, expected: &[u8; 32], fix: &'static str) -> Result<(), Refusal> {
        if self.text(field) == Some(base64url::encode(expected).as_str()) {
            Ok(())
        } else {
            Err(Refusal::ProofMismatch { field, fix })
        }
    }
}

/// A URL as `htu` compares it (RFC 9449 section 4.3, RFC 3986 section 6.2.2): scheme and host in lower case, no
/// default port, no query, no fragment, an empty path is "/".
fn target(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let rest = &rest[..rest.find(['?', '#']).unwrap_or(rest.len())];
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let authority = authority.to_ascii_lowercase();
    let default_port = match scheme.as_str() {
        "https" => ":443",
        "http" => ":80",
        _ => return None,
    };
    let authority = authority.strip_suffix(default_port).unwrap_or(&authority);
    if authority.is_empty() || authority.contains('@') {
        return None;
    }
    Some(format!(
        "{scheme}://{authority}{}",
        if path.is_empty() { "/" } else { path }
    ))
}

/// What a client does: a proof for `request`, with `token` if one is sent along. The `jti` is random.
pub fn sign_dpop(
    key: &SigningKey,
    request: &Request<'_>,
    token: Option<&str>,
    nonce: &str,
    now: u64,
) -> String {
    let header = format!(
        r#"{{"typ":"{TYP}","alg":"{}","jwk":{},"kid":{}}}"#,
        key.public_key().algorithm().name(),
        key.public_key().to_jwk(),
        quoted(key.kid())
    );
    let url = &request.url[..request.url.find(['?', '#']).unwrap_or(request.url.len())];
    let mut claims = serde_json::json!({
        "jti": base64url::encode(random::bytes::<16>()),
        "htm": request.method, "htu": url, "iat": now, "nonce": nonce,
    });
    if let Some(token) = token {
        claims["ath"] = base64url::encode(sha256(token.as_bytes())).into();
    }
    if !request.body.is_empty() {
        claims["bdh"] = base64url::encode(sha256(request.body)).into();
    }
    sign(key, &header, claims.to_string().as_bytes())
}

impl fmt::Debug for AccountProof {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "AccountProof({:?})", self.did)
    }
}

impl fmt::Debug for Possession {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Possession(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_compare_by_scheme_host_port_and_path_only() {
        let same = [
            "https://relay.example/whip/a/b",
            "HTTPS://Relay.Example:443/whip/a/b",
            "https://relay.example/whip/a/b?x=1#y",
        ];
        for url in same {
            assert_eq!(target(url), target(same[0]), "{url}");
        }
        let other = [
            "http://relay.example/whip/a/b",
            "https://relay.example:8443/whip/a/b",
            "https://relay.example/whip/a/B",
            "https://relay.example/whip/a/b/",
            "https://evil@relay.example/whip/a/b",
            "/whip/a/b",
            "",
        ];
        for url in other {
            assert_ne!(target(url), target(same[0]), "{url}");
        }
        assert_eq!(target("http://localhost:80"), target("http://localhost/"));
    }

    #[test]
    fn no_url_panics_the_comparison() {
        for url in [
            "://",
            "http://",
            "http://?",
            "é://é",
            "http://é/é?é#é",
            "https://:443",
        ] {
            let _ = target(url);
        }
    }
}
