//! AES-GCM for SRTP and SRTCP (RFC 7714 sections 8 and 9), on aws-lc's scatter and gather calls.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::Rejected;

pub(super) const TAG_LENGTH: usize = 16;

pub(super) struct Aead {
    key: LessSafeKey,
    salt: [u8; NONCE_LEN],
}

/// The nonce of an RTP packet before salting: zero, SSRC, ROC, sequence number.
pub(super) fn rtp_nonce(ssrc: u32, index: u64) -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    nonce[2..6].copy_from_slice(&ssrc.to_be_bytes());
    nonce[6..].copy_from_slice(&index.to_be_bytes()[2..]);
    nonce
}

/// The nonce of an RTCP packet before salting: zero, SSRC, zero, SRTCP index.
pub(super) fn rtcp_nonce(ssrc: u32, index: u32) -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    nonce[2..6].copy_from_slice(&ssrc.to_be_bytes());
    nonce[8..].copy_from_slice(&index.to_be_bytes());
    nonce
}

impl Aead {
    pub(super) fn new(key: &[u8], salt: [u8; NONCE_LEN]) -> Aead {
        let algorithm = if key.len() == 32 {
            &AES_256_GCM
        } else {
            &AES_128_GCM
        };
        let key = UnboundKey::new(algorithm, key).expect("the key length chose the algorithm");
        Aead {
            key: LessSafeKey::new(key),
            salt,
        }
    }

    fn salted(&self, mut nonce: [u8; NONCE_LEN]) -> Nonce {
        nonce
            .iter_mut()
            .zip(self.salt)
            .for_each(|(byte, salt)| *byte ^= salt);
        Nonce::assume_unique_for_key(nonce)
    }

    pub(super) fn open(
        &self,
        nonce: [u8; NONCE_LEN],
        associated: &[u8],
        ciphertext: &[u8],
        tag: &[u8],
        plaintext: &mut [u8],
    ) -> Result<(), Rejected> {
        self.key
            .open_separate_gather(
                self.salted(nonce),
                Aad::from(associated),
                ciphertext,
                tag,
                plaintext,
            )
            .map_err(|_| Rejected::Unauthentic)
    }

    /// Seals `plaintext` into `ciphertext`, and `more` behind it into the start of `more_and_tag`.
    pub(super) fn seal(
        &self,
        nonce: [u8; NONCE_LEN],
        associated: &[u8],
        plaintext: &[u8],
        ciphertext: &mut [u8],
        more: &[u8],
        more_and_tag: &mut [u8],
    ) {
        self.key
            .seal_out_of_place_scatter(
                self.salted(nonce),
                Aad::from(associated),
                plaintext,
                ciphertext,
                more,
                more_and_tag,
            )
            .expect("lengths match and stay far below the GCM limit");
    }
}
