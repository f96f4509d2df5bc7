//! DTLS-SRTP (RFC 5763, RFC 5764) through `dimpl`: certificate, handshake, fingerprint, exported keys.

use std::sync::Arc;

use aws_lc_rs::digest;

use crate::media::{Fingerprint, FingerprintAlgorithm};

/// The relay's certificate, shared by every shard so that one fingerprint serves all.
#[derive(Clone)]
pub struct Certificate {
    inner: Arc<dimpl::DtlsCertificate>,
}

impl Certificate {
    /// A fresh self-signed ECDSA P-256 certificate.
    ///
    /// # Panics
    /// When the operating system gives no randomness.
    #[must_use]
    pub fn generate() -> Certificate {
        let certificate = dimpl::certificate::generate_self_signed_certificate()
            .expect("a P-256 key and a self-signed certificate can always be made");
        Certificate {
            inner: Arc::new(certificate),
        }
    }

    /// The SHA-256 fingerprint for `a=fingerprint`.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        fingerprint_of(FingerprintAlgorithm::Sha256, &self.inner.certificate)
    }
}

fn fingerprint_of(algorithm: FingerprintAlgorithm, der: &[u8]) -> Fingerprint {
    let digest = match algorithm {
        FingerprintAlgorithm::Sha256 => digest::digest(&digest::SHA256, der),
        FingerprintAlgorithm::Sha384 => digest::digest(&digest::SHA384, der),
        FingerprintAlgorithm::Sha512 => digest::digest(&digest::SHA512, der),
    };
    Fingerprint {
        algorithm,
        value: digest.as_ref().to_vec(),
    }
}
