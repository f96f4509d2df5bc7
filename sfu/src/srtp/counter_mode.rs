//! AES-128 in counter mode with HMAC-SHA1 cut to 80 bits (RFC 3711 sections 4.1.1 and 4.2).

use aes::Aes128;
use aes::cipher::{InnerIvInit, KeyInit, StreamCipher, StreamCipherCoreWrapper};
use aws_lc_rs::hmac;
use ctr::CtrCore;
use ctr::flavors::Ctr128BE;
use subtle::ConstantTimeEq;

use super::Rejected;

pub(super) const TAG_LENGTH: usize = 10;

pub(super) struct CounterMode {
    cipher: Aes128,
    salt: [u8; 14],
    authentication: hmac::Key,
}

impl CounterMode {
    pub(super) fn new(key: &[u8], salt: [u8; 14], authentication: &[u8]) -> CounterMode {
        CounterMode {
            cipher: Aes128::new_from_slice(key).expect("AES_CM_128 keys have 16 bytes"),
            salt,
            authentication: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, authentication),
        }
    }

    /// Encrypts or decrypts `input` into `output` of the same length.
    pub(super) fn apply(&self, ssrc: u32, index: u64, input: &[u8], output: &mut [u8]) {
        self.apply_to_parts(ssrc, index, [input, &[]], [output, &mut []]);
    }

    /// Encrypts or decrypts the parts of `input`, one after the other, into those of `output` of the same lengths.
    pub(super) fn apply_to_parts(&self, ssrc: u32, index: u64, input: [&[u8]; 2], output: [&mut [u8]; 2]) {
        let mut iv = [0u8; 16];
        iv[..14].copy_from_slice(&self.salt);
        iv[4..8]
            .iter_mut()
            .zip(ssrc.to_be_bytes())
            .for_each(|(byte, with)| *byte ^= with);
        iv[8..14]
            .iter_mut()
            .zip(&index.to_be_bytes()[2..])
            .for_each(|(byte, with)| *byte ^= with);
        let core = CtrCore::<&Aes128, Ctr128BE>::inner_iv_init(&self.cipher, (&iv).into());
        // Cannot panic: both sides have one length, far below the keystream's.
        let mut stream = StreamCipherCoreWrapper::from_core(core);
        for (input, output) in input.into_iter().zip(output) {
            if !input.is_empty() {
                stream.apply_keystream_b2b(input, output);
            }
        }
    }

    /// The tag over `packet` and `suffix` (the ROC; nothing for SRTCP).
    pub(super) fn tag(&self, packet: &[u8], suffix: &[u8]) -> [u8; TAG_LENGTH] {
        let mut context = hmac::Context::with_key(&self.authentication);
        context.update(packet);
        context.update(suffix);
        let mut tag = [0; TAG_LENGTH];
        tag.copy_from_slice(&context.sign().as_ref()[..TAG_LENGTH]);
        tag
    }

    pub(super) fn verify(&self, packet: &[u8], suffix: &[u8], tag: &[u8]) -> Result<(), Rejected> {
        if bool::from(self.tag(packet, suffix).as_slice().ct_eq(tag)) {
            Ok(())
        } else {
            Err(Rejected::Unauthentic)
        }
    }
}
