//! The coins that the relay asks for, derived rather than drawn: from a seed in the data folder and the name of the
//! top-up, as NUT-13 derives them from a seed and a counter. A top-up is done once, so that no counter has to be kept.

use bitcoin::hashes::hmac::{Hmac, HmacEngine};
use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::SecretKey;
use serde::{Deserialize, Serialize};

use super::curve;
use crate::hex;

/// What all of the relay's coins come from. Whoever knows it and the ledger can spend them.
#[derive(Clone)]
pub struct Seed([u8; 32]);

impl Seed {
    /// These bytes, which nobody else knows.
    pub const fn new(seed: [u8; 32]) -> Self {
        Self(seed)
    }

    /// Tells seeds apart without saying what they are.
    pub fn fingerprint(&self) -> String {
        hex::encode(&self.derive(&[b"fingerprint"])[..8])
    }

    fn derive(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut engine = HmacEngine::<sha256::Hash>::new(&self.0);
        for part in parts {
            engine.input(&(part.len() as u64).to_be_bytes());
            engine.input(part);
        }
        Hmac::from_engine(engine).to_byte_array()
    }

    /// A coin of a top-up.
    pub(super) fn output(&self, keyset: &str, top_up: &str, index: usize, amount: u64) -> Option<Output> {
        let of = |what: &[u8]| {
            let index = (index as u64).to_be_bytes();
            self.derive(&[
                b"Cashu_KDF_HMAC_SHA256",
                keyset.as_bytes(),
                top_up.as_bytes(),
                &index,
                what,
            ])
        };
        let secret = hex::encode(&of(b"secret"));
        // No hash that anybody will see is beyond the group's order.
        let r = SecretKey::from_slice(&of(b"r")).ok()?;
        let b = curve::text(&curve::blind(secret.as_bytes(), &r)?);
        Some(Output {
            shown: Shown {
                amount,
                id: keyset.to_owned(),
                b,
            },
            secret,
            r,
        })
    }
}

/// What the mint is shown, and what is written down before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shown {
    pub(super) amount: u64,
    pub(super) id: String,
    #[serde(rename = "B_")]
    pub(super) b: String,
}

/// A coin to be.
pub(super) struct Output {
    pub(super) shown: Shown,
    pub(super) secret: String,
    pub(super) r: SecretKey,
}
