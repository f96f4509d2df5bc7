//! SRTCP (RFC 3711 section 3.4, RFC 7714 section 9): compound packets with an explicit 31-bit index.

use super::key_derivation::Label;
use super::{Cipher, Master, Rejected, aead};
use crate::replay::Window;

/// The RTCP header and the sender's SSRC, which stay in clear.
const CLEAR_LENGTH: usize = 8;
/// The encryption flag of the index word.
const ENCRYPTED: u32 = 0x8000_0000;

fn cipher(master: Master<'_>) -> Cipher {
    Cipher::new(
        master,
        Label::RtcpEncryption,
        Label::RtcpAuthentication,
        Label::RtcpSalt,
    )
}

fn ssrc_of(packet: &[u8]) -> u32 {
    u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]])
}

/// Opens the RTCP packets of one peer and refuses replays.
pub struct RtcpOpener {
    cipher: Cipher,
    // One window for all sender SSRCs: every stack counts one SRTCP index per session and key.
    window: Window,
}

impl RtcpOpener {
    /// A context for packets sealed under `master`.
    #[must_use]
    pub fn new(master: Master<'_>) -> RtcpOpener {
        RtcpOpener {
            cipher: cipher(master),
            window: Window::new(),
        }
    }

    /// Opens `packet` into the start of `out` and returns the compound packet's length.
    ///
    /// # Errors
    /// As [`Rejected`] says; `out` may then hold anything. Unencrypted SRTCP is refused as unauthentic.
    pub fn open(&mut self, packet: &[u8], out: &mut [u8]) -> Result<usize, Rejected> {
        let tag_length = self.cipher.tag_length();
        if packet.len() < CLEAR_LENGTH + tag_length + 4 {
            return Err(Rejected::Short);
        }
        let length = packet.len() - tag_length - 4;
        let out = out.get_mut(..length).ok_or(Rejected::Oversize)?;
        let word_at =
            |at: usize| u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
        let (clear, plaintext) = out.split_at_mut(CLEAR_LENGTH);
        let word = match &self.cipher {
            Cipher::Aead(_) => word_at(packet.len() - 4),
            Cipher::CounterMode(_) => word_at(length),
        };
        let index = word & !ENCRYPTED;
        if word & ENCRYPTED == 0 {
            return Err(Rejected::Unauthentic);
        }
        if !self.window.is_new(u64::from(index)) {
            return Err(Rejected::Replayed);
        }
        match &self.cipher {
            Cipher::Aead(aead) => {
                let (ciphertext, tag) =
                    packet[CLEAR_LENGTH..packet.len() - 4].split_at(length - CLEAR_LENGTH);
                let associated = associated_data(&packet[..CLEAR_LENGTH], word);
                aead.open(
                    aead::rtcp_nonce(ssrc_of(packet), index),
                    &associated,
                    ciphertext,
                    tag,
                    plaintext,
                )?;
            }
            Cipher::CounterMode(cipher) => {
                let (authenticated, tag) = packet.split_at(length + 4);
                cipher.verify(authenticated, &[], tag)?;
                cipher.apply(
                    ssrc_of(packet),
                    u64::from(index),
                    &packet[CLEAR_LENGTH..length],
                    plaintext,
                );
            }
        }
        clear.copy_from_slice(&packet[..CLEAR_LENGTH]);
        self.window.insert(u64::from(index));
        Ok(length)
    }
}

/// Seals RTCP packets for one peer, counting the index itself.
pub struct RtcpSealer {
    cipher: Cipher,
    index: u32,
}

impl RtcpSealer {
    /// A context that seals under `master`, from index 1.
    #[must_use]
    pub fn new(master: Master<'_>) -> RtcpSealer {
        RtcpSealer {
            cipher: cipher(master),
            index: 0,
        }
    }

    #[cfg(test)]
    pub(super) fn for_vectors(cipher: Cipher, index: u32) -> RtcpSealer {
        RtcpSealer { cipher, index }
    }

    /// Seals the compound packet `plain` into the start of `out` and returns the length, or `None` when it
    /// does not fit or the key's 2^31 packets are used up (RFC 3711 section 9.2).
    pub fn seal(&mut self, plain: &[u8], out: &mut [u8]) -> Option<usize> {
        let tag_length = self.cipher.tag_length();
        let length = plain.len() + tag_length + 4;
        if plain.len() < CLEAR_LENGTH || out.len() < length || self.index == !ENCRYPTED {
            return None;
        }
        self.index += 1;
        let word = self.index | ENCRYPTED;
        let out = &mut out[..length];
        let (clear, rest) = out.split_at_mut(CLEAR_LENGTH);
        clear.copy_from_slice(&plain[..CLEAR_LENGTH]);
        let plaintext = &plain[CLEAR_LENGTH..];
        match &self.cipher {
            Cipher::Aead(aead) => {
                let (ciphertext, rest) = rest.split_at_mut(plaintext.len());
                let (tag, trailer) = rest.split_at_mut(tag_length);
                let associated = associated_data(clear, word);
                let nonce = aead::rtcp_nonce(ssrc_of(plain), self.index);
                aead.seal(nonce, &associated, plaintext, ciphertext, &[], tag);
                trailer.copy_from_slice(&word.to_be_bytes());
            }
            Cipher::CounterMode(cipher) => {
                cipher.apply(
                    ssrc_of(plain),
                    u64::from(self.index),
                    plaintext,
                    &mut rest[..plaintext.len()],
                );
                let (authenticated, tag) = out.split_at_mut(plain.len() + 4);
                authenticated[plain.len()..].copy_from_slice(&word.to_be_bytes());
                tag.copy_from_slice(&cipher.tag(authenticated, &[]));
            }
        }
        Some(length)
    }
}

fn associated_data(clear: &[u8], word: u32) -> [u8; CLEAR_LENGTH + 4] {
    let mut associated = [0; CLEAR_LENGTH + 4];
    associated[..CLEAR_LENGTH].copy_from_slice(clear);
    associated[CLEAR_LENGTH..].copy_from_slice(&word.to_be_bytes());
    associated
}
