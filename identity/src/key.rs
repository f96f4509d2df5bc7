//! Public keys: Ed25519 (RFC 8032), P-256 (FIPS 186-5) and secp256k1 (RFC 8812, feature `es256k`), their JWK form
//! (RFC 7517, RFC 8037) and thumbprint (RFC 7638).
//!
//! A key is checked when it is made: Ed25519 points of small order and non-canonical encodings have no
//! constructor, the others' points are on their curve. `kty: oct` and JWKs with private members are refused.

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, UnparsedPublicKey};
use serde_json::{Map, Value, json};

use crate::base64url;
use crate::jws::Algorithm;

/// A public key of a DID or of a proof.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PublicKey(Kind);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Kind {
    Ed25519([u8; 32]),
    /// SEC 1 uncompressed: 4, x, y.
    P256([u8; 65]),
    /// The same of the other curve.
    #[cfg(feature = "es256k")]
    Secp256k1([u8; 65]),
}

/// SHA-256 over a key's required JWK members (RFC 7638).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Thumbprint([u8; 32]);

/// Why bytes or a JWK are not a key that may be used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Another key type, curve or algorithm.
    #[error("this key type is not accepted; use Ed25519 (kty OKP), P-256 or secp256k1 (kty EC)")]
    Unsupported,
    /// `kty: oct`: a shared secret is never a public key.
    #[error(
        "a symmetric key (kty oct) is never accepted; publish a public key (Ed25519, P-256 or secp256k1)"
    )]
    Symmetric,
    /// `d` or another private member.
    #[error("the JWK contains a private member; publish only the public part and make a new key")]
    Private,
    /// Missing or wrongly encoded members.
    #[error("the key is not encoded correctly; export it again from the library that made it")]
    Encoding,
    /// An Ed25519 point of small order, under which signatures by anybody verify.
    #[error("this Ed25519 point has small order and proves nothing; make a new key")]
    SmallOrder,
    /// A point that is not on the curve.
    #[error("this point is not on its curve; make a new key")]
    NotOnCurve,
}

/// y coordinates of the points whose order divides 8 (little-endian, sign bit cleared).
/// Non-canonical encodings of the same points are refused by the range check.
const SMALL_ORDER_Y: [[u8; 32]; 5] = [
    [0; 32],
    {
        let mut one = [0; 32];
        one[0] = 1;
        one
    },
    {
        let mut minus_one = FIELD_PRIME;
        minus_one[0] = 0xec;
        minus_one
    },
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5,
        0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a,
        0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
];

/// 2^255 - 19, little-endian.
const FIELD_PRIME: [u8; 32] = {
    let mut prime = [0xff; 32];
    prime[0] = 0xed;
    prime[31] = 0x7f;
    prime
};

impl PublicKey {
    /// An Ed25519 key from its 32 bytes.
    pub fn ed25519(bytes: &[u8]) -> Result<PublicKey, KeyError> {
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| KeyError::Encoding)?;
        let mut y = bytes;
        y[31] &= 0x7f;
        if y.iter().rev().ge(FIELD_PRIME.iter().rev()) {
            return Err(KeyError::Encoding);
        }
        if SMALL_ORDER_Y.contains(&y) {
            return Err(KeyError::SmallOrder);
        }
        Ok(PublicKey(Kind::Ed25519(bytes)))
    }

    /// A P-256 key from SEC 1 bytes, compressed (33) or uncompressed (65).
    pub fn p256(sec1: &[u8]) -> Result<PublicKey, KeyError> {
        if !matches!((sec1.len(), sec1.first()), (33, Some(2 | 3)) | (65, Some(4))) {
            return Err(KeyError::Encoding);
        }
        let parsed =
            ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, sec1).map_err(|_| KeyError::NotOnCurve)?;
        // The SubjectPublicKeyInfo of a P-256 key ends with the uncompressed point.
        let der = parsed.as_der().map_err(|_| KeyError::NotOnCurve)?;
        let point = der.as_ref().last_chunk::<65>().ok_or(KeyError::Encoding)?;
        if point[0] != 4 {
            return Err(KeyError::Encoding);
        }
        Ok(PublicKey(Kind::P256(*point)))
    }

    /// A secp256k1 key from SEC 1 bytes, compressed (33) or uncompressed (65).
    #[cfg(feature = "es256k")]
    pub fn secp256k1(sec1: &[u8]) -> Result<PublicKey, KeyError> {
        if !matches!((sec1.len(), sec1.first()), (33, Some(2 | 3)) | (65, Some(4))) {
            return Err(KeyError::Encoding);
        }
        let key = k256::ecdsa::VerifyingKey::from_sec1_bytes(sec1).map_err(|_| KeyError::NotOnCurve)?;
        let point = key.to_sec1_point(false);
        let point = point.as_bytes().try_into().map_err(|_| KeyError::Encoding)?;
        Ok(PublicKey(Kind::Secp256k1(point)))
    }

    /// A key in multibase text, as `publicKeyMultibase` has it: base58-btc over the multicodec form.
    pub fn from_multibase(text: &str) -> Result<PublicKey, KeyError> {
        let base58 = text.strip_prefix('z').ok_or(KeyError::Encoding)?;
        if base58.len() > BASE58_LENGTH_MAX {
            return Err(KeyError::Encoding);
        }
        let bytes = bs58::decode(base58).into_vec().map_err(|_| KeyError::Encoding)?;
        PublicKey::from_multicodec(&bytes)
    }

    /// A key in base58 without a code, whose kind is the verification method's type (older documents).
    pub(crate) fn from_base58(kind: &str, base58: &str) -> Result<PublicKey, KeyError> {
        if base58.len() > BASE58_LENGTH_MAX {
            return Err(KeyError::Encoding);
        }
        let bytes = bs58::decode(base58).into_vec().map_err(|_| KeyError::Encoding)?;
        PublicKey::from_raw(kind, &bytes)
    }

    /// A key in hexadecimal digits (did:ethr).
    pub(crate) fn from_hex(kind: &str, hex: &str) -> Result<PublicKey, KeyError> {
        let digit = |digit: u8| {
            char::from(digit)
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        };
        let pairs = hex.as_bytes().chunks_exact(2);
        if hex.len() > 130 || !pairs.remainder().is_empty() {
            return Err(KeyError::Encoding);
        }
        let bytes: Option<Vec<u8>> = pairs
            .map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?))
            .collect();
        PublicKey::from_raw(kind, &bytes.ok_or(KeyError::Encoding)?)
    }

    fn from_raw(kind: &str, bytes: &[u8]) -> Result<PublicKey, KeyError> {
        match kind {
            "Ed25519VerificationKey2018" => PublicKey::ed25519(bytes),
            #[cfg(feature = "es256k")]
            "EcdsaSecp256k1VerificationKey2019" => PublicKey::secp256k1(bytes),
            _ => Err(KeyError::Unsupported),
        }
    }

    /// A public JWK. `alg`, where present, has to fit the key; other descriptive members are ignored.
    pub fn from_jwk(jwk: &Map<String, Value>) -> Result<PublicKey, KeyError> {
        const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let coordinate = |name: &str| {
            let bytes = base64url::decode(text(name)?)?;
            <[u8; 32]>::try_from(bytes).ok()
        };
        match text("kty") {
            Some("oct") => return Err(KeyError::Symmetric),
            _ if PRIVATE.iter().any(|name| jwk.contains_key(*name)) => return Err(KeyError::Private),
            _ => {}
        }
        let key = match (text("kty"), text("crv")) {
            (Some("OKP"), Some("Ed25519")) => {
                PublicKey::ed25519(&coordinate("x").ok_or(KeyError::Encoding)?)?
            }
            (Some("EC"), Some(curve @ ("P-256" | "secp256k1"))) => {
                let mut point = [4; 65];
                point[1..33].copy_from_slice(&coordinate("x").ok_or(KeyError::Encoding)?);
                point[33..].copy_from_slice(&coordinate("y").ok_or(KeyError::Encoding)?);
                match curve {
                    "P-256" => PublicKey::p256(&point)?,
                    #[cfg(feature = "es256k")]
                    "secp256k1" => PublicKey::secp256k1(&point)?,
                    _ => return Err(KeyError::Unsupported),
                }
            }
            _ => return Err(KeyError::Unsupported),
        };
        match jwk.get("alg") {
            None => Ok(key),
            Some(Value::String(alg)) if key.algorithm().is_named(alg) => Ok(key),
            Some(_) => Err(KeyError::Unsupported),
        }
    }

    /// The public JWK with exactly the members of the thumbprint.
    pub fn to_jwk(&self) -> Value {
        match &self.0 {
            Kind::Ed25519(x) => json!({"crv": "Ed25519", "kty": "OKP", "x": base64url::encode(x)}),
            Kind::P256(point) => json!({
                "crv": "P-256", "kty": "EC",
                "x": base64url::encode(&point[1..33]), "y": base64url::encode(&point[33..]),
            }),
            #[cfg(feature = "es256k")]
            Kind::Secp256k1(point) => json!({
                "crv": "secp256k1", "kty": "EC",
                "x": base64url::encode(&point[1..33]), "y": base64url::encode(&point[33..]),
            }),
        }
    }

    /// RFC 7638 thumbprint: SHA-256 over the required members in lexical order, without spaces.
    pub fn thumbprint(&self) -> Thumbprint {
        let on_curve = |curve: &str, point: &[u8; 65]| {
            let (x, y) = (base64url::encode(&point[1..33]), base64url::encode(&point[33..]));
            format!(r#"{{"crv":"{curve}","kty":"EC","x":"{x}","y":"{y}"}}"#)
        };
        let members = match &self.0 {
            Kind::Ed25519(x) => format!(
                r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#,
                base64url::encode(x)
            ),
            Kind::P256(point) => on_curve("P-256", point),
            #[cfg(feature = "es256k")]
            Kind::Secp256k1(point) => on_curve("secp256k1", point),
        };
        Thumbprint(sha256(members.as_bytes()))
    }

    /// The one algorithm of this key.
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            Kind::Ed25519(_) => Algorithm::EdDsa,
            Kind::P256(_) => Algorithm::Es256,
            #[cfg(feature = "es256k")]
            Kind::Secp256k1(_) => Algorithm::Es256k,
        }
    }

    /// Is `signature` (64 bytes: R, S or r, s) this key's over `message`? Scalars out of range (S >= L, r or s
    /// zero) are refused.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.0 {
            Kind::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key)
                .verify(message, signature)
                .is_ok(),
            Kind::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                .verify(message, signature)
                .is_ok(),
            #[cfg(feature = "es256k")]
            Kind::Secp256k1(point) => verify_secp256k1(point, message, signature),
        }
    }

    /// The multicodec form inside did:key: varint code, then the key (P-256 compressed).
    pub(crate) fn to_multicodec(&self) -> Vec<u8> {
        match &self.0 {
            Kind::Ed25519(key) => [&ED25519_CODE[..], key].concat(),
            Kind::P256(point) => compressed(&P256_CODE, point),
            #[cfg(feature = "es256k")]
            Kind::Secp256k1(point) => compressed(&SECP256K1_CODE, point),
        }
    }

    pub(crate) fn from_multicodec(bytes: &[u8]) -> Result<PublicKey, KeyError> {
        if let Some(key) = bytes.strip_prefix(&ED25519_CODE) {
            PublicKey::ed25519(key)
        } else if let Some(key) = bytes.strip_prefix(&P256_CODE) {
            if key.len() != 33 {
                return Err(KeyError::Encoding); // did:key has one text per key: the compressed one
            }
            PublicKey::p256(key)
        } else {
            #[cfg(feature = "es256k")]
            if let Some(key) = bytes.strip_prefix(&SECP256K1_CODE) {
                return match key.len() {
                    33 => PublicKey::secp256k1(key),
                    _ => Err(KeyError::Encoding),
                };
            }
            Err(KeyError::Unsupported)
        }
    }
}

/// ed25519-pub 0xed, p256-pub 0x1200 and secp256k1-pub 0xe7 of the multicodec table, as unsigned varints.
const ED25519_CODE: [u8; 2] = [0xed, 0x01];
const P256_CODE: [u8; 2] = [0x80, 0x24];
#[cfg(feature = "es256k")]
const SECP256K1_CODE: [u8; 2] = [0xe7, 0x01];

/// base58 decoding is quadratic; a compressed point with its code has 48 characters.
const BASE58_LENGTH_MAX: usize = 64;

fn compressed(code: &[u8; 2], point: &[u8; 65]) -> Vec<u8> {
    let sign = 2 + (point[64] & 1);
    [&code[..], &[sign], &point[1..33]].concat()
}

/// Both halves of s are taken: RFC 8812 asks for neither, and half of the libraries' signatures are high. Nothing
/// here is keyed by a signature's bytes.
#[cfg(feature = "es256k")]
fn verify_secp256k1(point: &[u8; 65], message: &[u8], signature: &[u8]) -> bool {
    use k256::ecdsa::signature::Verifier as _;
    use k256::ecdsa::{Signature, VerifyingKey};
    let key = VerifyingKey::from_sec1_bytes(point);
    match (key, Signature::from_slice(signature)) {
        (Ok(key), Ok(signature)) => key.verify(message, &signature.normalize_s()).is_ok(),
        _ => false,
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "PublicKey({:?}, {:?})",
            self.algorithm(),
            self.thumbprint()
        )
    }
}

impl Thumbprint {
    /// From base64url text, as in `cnf.jkt`.
    pub fn parse(text: &str) -> Option<Thumbprint> {
        Some(Thumbprint(base64url::decode(text)?.try_into().ok()?))
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// base64url text.
    pub fn to_text(&self) -> String {
        base64url::encode(self.0)
    }
}

/// The first few characters only: enough to tell two keys apart in a log, not enough to name a person.
impl fmt::Debug for Thumbprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_text();
        write!(formatter, "{}…", &text[..6])
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, bytes)
        .as_ref()
        .try_into()
        .expect("SHA-256 has 32 bytes")
}
