//! Detached COSE_Sign1 (RFC 9052 section 4.2), as DSIP envelopes in CBOR carry it: untagged, payload nil, external data
//! "dsip/0.3", protected header exactly {1: alg, 4: kid}, nothing unprotected.
//!
//! As with [`crate::jws`], the algorithm comes from the key and the header only has to agree.

use coset::iana::{self, EnumI64};
use coset::{
    CborSerializable, CoseSign1, CoseSign1Builder, Header, HeaderBuilder, RegisteredLabelWithPrivate,
};

use crate::jws::{Algorithm, HEADER_LENGTH_MAX};
use crate::key::PublicKey;
use crate::signing_key::SigningKey;

/// The external data of every signature over an envelope: it cannot be taken for a signature over anything else.
pub const DSIP_AAD: &[u8] = b"dsip/0.3";

/// Why a COSE_Sign1 is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoseError {
    /// Not an untagged COSE_Sign1 with a detached payload.
    #[error("it is not an untagged COSE_Sign1 with a nil payload (RFC 9052 section 4.2)")]
    Malformed,
    /// A header parameter that has no place here, or one that is missing.
    #[error(
        "its protected header must be exactly 1 (alg) and 4 (kid, the DID URL), with nothing unprotected"
    )]
    HeaderParameter,
    /// `alg` is not that of the key.
    #[error(
        "its `alg` must be that of the key: -8 (EdDSA) for Ed25519, -7 (ES256) for P-256, -47 (ES256K) for secp256k1"
    )]
    Algorithm,
    /// The signature does not verify.
    #[error("its signature does not verify under the named key")]
    Signature,
}

/// A parsed, not yet verified COSE_Sign1.
pub struct DetachedCose {
    sign1: CoseSign1,
    kid: String,
}

impl DetachedCose {
    /// Parses the CBOR of one COSE_Sign1.
    pub fn parse(bytes: &[u8]) -> Result<DetachedCose, CoseError> {
        let sign1 = CoseSign1::from_slice(bytes).map_err(|_| CoseError::Malformed)?;
        if sign1.payload.is_some() {
            return Err(CoseError::Malformed);
        }
        let kid = String::from_utf8(sign1.protected.header.key_id.clone())
            .ok()
            .filter(|kid| (1..=HEADER_LENGTH_MAX).contains(&kid.len()))
            .ok_or(CoseError::HeaderParameter)?;
        let expected = Header {
            alg: sign1.protected.header.alg.clone(),
            key_id: kid.clone().into_bytes(),
            ..Header::default()
        };
        if expected.alg.is_none() || sign1.protected.header != expected || !sign1.unprotected.is_empty() {
            return Err(CoseError::HeaderParameter);
        }
        Ok(DetachedCose { sign1, kid })
    }

    /// The DID URL of the key.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Checks `alg` against the key, then the signature over the payload and [`DSIP_AAD`].
    pub fn verify(&self, key: &PublicKey, payload: &[u8]) -> Result<(), CoseError> {
        let alg = RegisteredLabelWithPrivate::Assigned(assigned(key.algorithm()));
        if self.sign1.protected.header.alg.as_ref() != Some(&alg) {
            return Err(CoseError::Algorithm);
        }
        self.sign1
            .verify_detached_signature(payload, DSIP_AAD, |signature, signed| {
                if key.verify(signed, signature) {
                    Ok(())
                } else {
                    Err(CoseError::Signature)
                }
            })
    }
}

/// Signs `payload` detached, as [`DetachedCose`] reads it: the CBOR of a COSE_Sign1.
pub fn sign_cose(key: &SigningKey, payload: &[u8]) -> Vec<u8> {
    let protected = HeaderBuilder::new()
        .algorithm(assigned(key.public_key().algorithm()))
        .key_id(key.kid().as_bytes().to_vec())
        .build();
    CoseSign1Builder::new()
        .protected(protected)
        .create_detached_signature(payload, DSIP_AAD, |signed| key.sign(signed).to_vec())
        .build()
        .to_vec()
        .expect("a COSE_Sign1 of byte strings has a CBOR form")
}

/// The value that COSE gives to an algorithm (RFC 9053 section 2).
pub fn algorithm_value(algorithm: Algorithm) -> i64 {
    assigned(algorithm).to_i64()
}

fn assigned(algorithm: Algorithm) -> iana::Algorithm {
    match algorithm {
        Algorithm::EdDsa => iana::Algorithm::EdDSA,
        Algorithm::Es256 => iana::Algorithm::ES256,
        #[cfg(feature = "es256k")]
        Algorithm::Es256k => iana::Algorithm::ES256K,
    }
}

#[cfg(test)]
mod tests {
    use coset::cbor::value::Value;
    use coset::{AsCborValue, TaggedCborSerializable};

    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_seed(&[1; 32])
    }

    #[test]
    fn what_is_signed_verifies_and_nothing_else_does() {
        let key = key();
        let bytes = sign_cose(&key, b"payload");
        let parsed = DetachedCose::parse(&bytes).unwrap();
        assert_eq!(parsed.kid(), key.kid());
        assert_eq!(parsed.verify(key.public_key(), b"payload"), Ok(()));
        assert_eq!(
            parsed.verify(key.public_key(), b"Payload"),
            Err(CoseError::Signature)
        );
        let other = SigningKey::from_seed(&[2; 32]);
        assert_eq!(
            parsed.verify(other.public_key(), b"payload"),
            Err(CoseError::Signature)
        );
        assert_eq!(algorithm_value(key.public_key().algorithm()), -8);
    }

    #[test]
    fn other_external_data_is_another_signature() {
        let key = key();
        let sign1 = CoseSign1Builder::new()
            .protected(
                HeaderBuilder::new()
                    .algorithm(iana::Algorithm::EdDSA)
                    .key_id(key.kid().into())
                    .build(),
            )
            .create_detached_signature(b"payload", b"dsip/0.2", |signed| key.sign(signed).to_vec())
            .build();
        let parsed = DetachedCose::parse(&sign1.to_vec().unwrap()).unwrap();
        assert_eq!(
            parsed.verify(key.public_key(), b"payload"),
            Err(CoseError::Signature)
        );
    }

    #[test]
    fn tags_payloads_and_further_parameters_are_refused() {
        let key = key();
        let good = CoseSign1::from_slice(&sign_cose(&key, b"payload")).unwrap();
        let refused = |sign1: CoseSign1| DetachedCose::parse(&sign1.to_vec().unwrap()).err();
        assert!(DetachedCose::parse(&good.clone().to_tagged_vec().unwrap()).is_err());
        let mut attached = good.clone();
        attached.payload = Some(b"payload".to_vec());
        assert_eq!(refused(attached), Some(CoseError::Malformed));
        let mut unprotected = good.clone();
        unprotected.unprotected.key_id = key.kid().into();
        assert_eq!(refused(unprotected), Some(CoseError::HeaderParameter));
        for change in [
            |header: &mut Header| header.key_id.clear(),
            |header: &mut Header| header.key_id = vec![0xff],
            |header: &mut Header| header.alg = None,
            |header: &mut Header| header.iv = vec![1],
            |header: &mut Header| header.rest.push((coset::Label::Int(77), Value::Null)),
        ] {
            let mut changed = good.clone();
            changed.protected.original_data = None;
            change(&mut changed.protected.header);
            assert_eq!(refused(changed), Some(CoseError::HeaderParameter));
        }
        let value = good.to_cbor_value().unwrap();
        assert!(matches!(value, Value::Array(ref parts) if parts.len() == 4));
        for bytes in [&b""[..], b"\x80", b"\xf6", b"\x84\x40\xa0\xf6"] {
            assert!(DetachedCose::parse(bytes).is_err());
        }
    }

    #[test]
    fn the_header_cannot_choose_another_algorithm() {
        let key = key();
        let mut sign1 = CoseSign1::from_slice(&sign_cose(&key, b"payload")).unwrap();
        sign1.protected.original_data = None;
        sign1.protected.header.alg = Some(RegisteredLabelWithPrivate::Assigned(
            iana::Algorithm::HMAC_256_256,
        ));
        let parsed = DetachedCose::parse(&sign1.to_vec().unwrap()).unwrap();
        assert_eq!(
            parsed.verify(key.public_key(), b"payload"),
            Err(CoseError::Algorithm)
        );
    }
}
