//! What the tests share: a clock, keys of both kinds, and JWS made by hand, so that bad ones can be made too.
#![allow(dead_code, unreachable_pub, missing_docs)]

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use identity::token::{self, RelayToken, TokenPolicy};
use identity::{Did, PublicKey, Refusal, SigningKey};
use serde_json::{Value, json};

pub const NOW: u64 = 1_760_000_000;

pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

/// Who is who.
pub fn issuer() -> SigningKey {
    key(1)
}
pub fn operator() -> Did {
    key(2).did().clone()
}
pub fn holder() -> SigningKey {
    key(3)
}
pub fn victim() -> SigningKey {
    key(4)
}
pub fn attacker() -> SigningKey {
    key(5)
}

pub fn policy() -> TokenPolicy {
    TokenPolicy::new(operator(), vec![issuer().did().clone()])
}

pub fn verify(jwt: &str) -> Result<RelayToken, Refusal> {
    token::verify(jwt, &policy(), NOW)
}

/// Claims of a good token of the holder.
pub fn claims() -> Value {
    json!({
        "iss": issuer().did(), "sub": holder().did(), "aud": operator(), "iat": NOW, "nbf": NOW, "exp": NOW + 3600,
        "jti": "voucher-1", "balance_msat": 1000,
    })
}

pub fn header() -> Value {
    json!({"alg": "EdDSA", "typ": "relay+jwt", "kid": issuer().kid()})
}

/// A token by the issuer with one claim changed; null removes it.
pub fn token_with(name: &str, value: Value) -> String {
    let mut claims = claims();
    claims[name] = value.clone();
    if value.is_null() {
        claims.as_object_mut().unwrap().remove(name);
    }
    signed(&header(), &claims.to_string(), &issuer())
}

/// A token whose claims are this text.
pub fn token_of(claims: &str) -> String {
    signed(&header(), claims, &issuer())
}

pub fn signed(header: &Value, payload: &str, key: &SigningKey) -> String {
    jws(&header.to_string(), payload, |input| key.sign(input).to_vec())
}

pub fn jws(header: &str, payload: &str, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let input = format!(
        "{}.{}",
        base64url(header.as_bytes()),
        base64url(payload.as_bytes())
    );
    format!("{input}.{}", base64url(&sign(input.as_bytes())))
}

/// A P-256 key pair, which the crate itself never holds.
pub struct P256(EcdsaKeyPair);

impl P256 {
    pub fn generate() -> P256 {
        P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }
    pub fn public(&self) -> PublicKey {
        PublicKey::p256(self.0.public_key().as_ref()).unwrap()
    }
    pub fn did(&self) -> Did {
        Did::from_key(&self.public())
    }
    pub fn kid(&self) -> String {
        format!("{}#{}", self.did(), &self.did().as_str()[8..])
    }
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0
            .sign(&SystemRandom::new(), message)
            .unwrap()
            .as_ref()
            .to_vec()
    }
}

pub fn base64url(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

pub fn sha256(bytes: &[u8]) -> String {
    base64url(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref())
}
