//! The SRTP key derivation function with AES in counter mode (RFC 3711 section 4.3; RFC 7714 section 11
//! for 96-bit salts, RFC 6188 section 3 for 256-bit keys). The key derivation rate is always 0.

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes256, Block};

/// What a derived key is for (RFC 3711 section 4.3.1).
#[derive(Debug, Clone, Copy)]
pub(super) enum Label {
    RtpEncryption = 0,
    RtpAuthentication = 1,
    RtpSalt = 2,
    RtcpEncryption = 3,
    RtcpAuthentication = 4,
    RtcpSalt = 5,
}

/// Fills `out` with the key that `label` names. `key` has 16 or 32 bytes, `salt` 12 or 14.
pub(super) fn derive(key: &[u8], salt: &[u8], label: Label, out: &mut [u8]) {
    let mut block = [0u8; 16];
    block[..salt.len()].copy_from_slice(salt);
    block[7] ^= label as u8;
    let encrypt: &dyn Fn(&mut Block) = match key.len() {
        16 => {
            let cipher = Aes128::new_from_slice(key).expect("length was matched");
            &move |block: &mut Block| cipher.encrypt_block(block)
        }
        32 => {
            let cipher = Aes256::new_from_slice(key).expect("length was matched");
            &move |block: &mut Block| cipher.encrypt_block(block)
        }
        other => unreachable!("profiles have 16- or 32-byte keys, not {other}"),
    };
    for (counter, chunk) in out.chunks_mut(16).enumerate() {
        let mut keystream = block;
        keystream[15] = counter as u8;
        let mut keystream = Block::from(keystream);
        encrypt(&mut keystream);
        chunk.copy_from_slice(&keystream[..chunk.len()]);
    }
}
