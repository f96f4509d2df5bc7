//! The encryption pass: AES-128-GCM as SRTP has it (RFC 7714), out of place, with the key's context built once.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::HEADER_LEN;

/// What a sealed packet has more.
pub const TAG_LEN: usize = 16;

/// One subscriber's session key.
pub struct Sealer {
    key: LessSafeKey,
    salt: [u8; NONCE_LEN],
}

impl Sealer {
    /// From a session key and a session salt, as they are after SRTP's key derivation.
    pub fn new(key: [u8; 16], salt: [u8; NONCE_LEN]) -> Sealer {
        let key = UnboundKey::new(&AES_128_GCM, &key).expect("16 bytes are what AES-128 takes");
        Sealer {
            key: LessSafeKey::new(key),
            salt,
        }
    }

    /// With a key of its own for each subscriber. Nothing secret is ever sealed with it.
    pub fn of_subscriber(number: usize) -> Sealer {
        let mut key = [0x4B; 16];
        key[..8].copy_from_slice(&(number as u64).to_be_bytes());
        Sealer::new(key, [0x53; NONCE_LEN])
    }

    /// `packet` has an RTP header of 12 bytes; ciphertext and tag of `payload` are written behind it and must fill it.
    /// `index` is rollover counter and sequence number (RFC 3711 section 3.3.1), which must not repeat under a key.
    pub fn seal(&self, packet: &mut [u8], index: u64, payload: &[u8]) {
        let (header, sealed) = packet.split_at_mut(HEADER_LEN);
        let (ciphertext, tag) = sealed.split_at_mut(payload.len());
        // RFC 7714 section 8.1: zero, SSRC, rollover counter and sequence number; salted.
        let mut nonce = [0; NONCE_LEN];
        nonce[2..6].copy_from_slice(&header[8..12]);
        nonce[6..].copy_from_slice(&index.to_be_bytes()[2..]);
        nonce
            .iter_mut()
            .zip(self.salt)
            .for_each(|(byte, salt)| *byte ^= salt);
        self.key
            .seal_out_of_place_scatter(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(&*header),
                payload,
                ciphertext,
                &[],
                tag,
            )
            .expect("lengths match and stay far below the GCM limit");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    #[test]
    fn it_seals_as_in_rfc_7714_16_1() {
        let sealer = Sealer::new(
            hex("000102030405060708090a0b0c0d0e0f").try_into().unwrap(),
            hex("517569642070726f2071756f").try_into().unwrap(),
        );
        let plain = hex(
            "8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976
            69736120 696e2070 61727465 73207472 6573",
        );
        let mut packet = vec![0; plain.len() + TAG_LEN];
        packet[..HEADER_LEN].copy_from_slice(&plain[..HEADER_LEN]);
        sealer.seal(&mut packet, 0xf17b, &plain[HEADER_LEN..]);
        let expected = "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5
            0d294e6f 42a5f47a 51c7d19b 36de3adf 8833899d 7f27beb1 6a9152cf 765ee439 0cce";
        assert_eq!(packet, hex(expected));
    }
}
