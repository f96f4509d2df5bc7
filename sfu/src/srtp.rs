//! SRTP and SRTCP (RFC 3711) with AEAD_AES_128_GCM and AEAD_AES_256_GCM (RFC 7714) and
//! AES_CM_128_HMAC_SHA1_80, keyed by DTLS (RFC 5764).
//!
//! Key contexts are built once per session. Both ways are out of place: a packet is opened from the receive
//! buffer into a history slot, and sealed from that slot into each subscriber's send buffer, so a payload is
//! written once per cipher pass and never otherwise. Packet indices, replay windows and the rule that no
//! index is sealed twice belong to the callers, who keep them per SSRC.

mod aead;
mod counter_mode;
mod key_derivation;
mod srtcp;

use key_derivation::{Label, derive};

pub use srtcp::{RtcpOpener, RtcpSealer};

/// The longest authentication tag of the profiles.
pub const TAG_LENGTH_MAX: usize = 16;
/// What SRTCP adds at most: a tag and the word with the encryption flag and the index.
pub const RTCP_OVERHEAD_MAX: usize = TAG_LENGTH_MAX + 4;
/// RTP padding that a seal can add.
pub const PADDING_MAX: usize = 16;
/// Length of the fixed RTP header and thus the shortest packet with a readable SSRC.
const RTP_HEADER_LENGTH: usize = 12;

/// A protection profile of the `use_srtp` extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// SRTP_AEAD_AES_128_GCM
    AeadAes128Gcm,
    /// SRTP_AEAD_AES_256_GCM
    AeadAes256Gcm,
    /// SRTP_AES128_CM_HMAC_SHA1_80
    Aes128CmSha1_80,
}

impl Profile {
    const fn key_length(self) -> usize {
        match self {
            Profile::AeadAes256Gcm => 32,
            Profile::AeadAes128Gcm | Profile::Aes128CmSha1_80 => 16,
        }
    }

    const fn salt_length(self) -> usize {
        match self {
            Profile::Aes128CmSha1_80 => 14,
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => 12,
        }
    }

    /// Length of the authentication tag in bytes.
    #[must_use]
    pub const fn tag_length(self) -> usize {
        match self {
            Profile::Aes128CmSha1_80 => 10,
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => 16,
        }
    }

    /// Bytes of keying material that DTLS exports for both directions.
    #[must_use]
    pub const fn keying_material_length(self) -> usize {
        2 * (self.key_length() + self.salt_length())
    }
}

/// Why a packet could not be opened. The packet is dropped; nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Too short to hold a header and a tag.
    #[error("too short for a protected packet")]
    Short,
    /// The tag does not match: forged, damaged, or another key or ROC.
    #[error("authentication tag does not match")]
    Unauthentic,
    /// The index was opened before, or is too old to tell.
    #[error("replayed or too old")]
    Replayed,
    /// The opened packet would not fit where it should go.
    #[error("larger than the slot it should be opened into")]
    Oversize,
}

/// One direction's master key and salt.
#[derive(Clone, Copy)]
pub struct Master<'a> {
    /// Which profile they are for.
    pub profile: Profile,
    /// The master key.
    pub key: &'a [u8],
    /// The master salt.
    pub salt: &'a [u8],
}

impl<'a> Master<'a> {
    /// Splits what DTLS exported (RFC 5764 section 4.2) into the client's and the server's write keys;
    /// `None` when the length is not the profile's.
    #[must_use]
    pub fn from_dtls(profile: Profile, material: &'a [u8]) -> Option<(Master<'a>, Master<'a>)> {
        if material.len() != profile.keying_material_length() {
            return None;
        }
        let (client_key, rest) = material.split_at(profile.key_length());
        let (server_key, rest) = rest.split_at(profile.key_length());
        let (client_salt, server_salt) = rest.split_at(profile.salt_length());
        let master = |key, salt| Master { profile, key, salt };
        Some((master(client_key, client_salt), master(server_key, server_salt)))
    }
}

enum Cipher {
    Aead(aead::Aead),
    CounterMode(Box<counter_mode::CounterMode>),
}

impl Cipher {
    fn new(master: Master<'_>, encryption: Label, authentication: Label, salting: Label) -> Cipher {
        let mut key = [0; 32];
        let key = &mut key[..master.profile.key_length()];
        derive(master.key, master.salt, encryption, key);
        match master.profile {
            Profile::Aes128CmSha1_80 => {
                let mut salt = [0; 14];
                derive(master.key, master.salt, salting, &mut salt);
                let mut authentication_key = [0; 20];
                derive(master.key, master.salt, authentication, &mut authentication_key);
                Cipher::CounterMode(Box::new(counter_mode::CounterMode::new(
                    key,
                    salt,
                    &authentication_key,
                )))
            }
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => {
                let mut salt = [0; 12];
                derive(master.key, master.salt, salting, &mut salt);
                Cipher::Aead(aead::Aead::new(key, salt))
            }
        }
    }

    fn tag_length(&self) -> usize {
        match self {
            Cipher::Aead(_) => aead::TAG_LENGTH,
            Cipher::CounterMode(_) => counter_mode::TAG_LENGTH,
        }
    }
}

/// Opens the RTP packets of one peer.
pub struct Opener {
    cipher: Cipher,
}

impl Opener {
    /// A context for packets sealed under `master`.
    #[must_use]
    pub fn new(master: Master<'_>) -> Opener {
        Opener {
            cipher: Cipher::new(
                master,
                Label::RtpEncryption,
                Label::RtpAuthentication,
                Label::RtpSalt,
            ),
        }
    }

    /// Bytes that protection added to the packet.
    #[must_use]
    pub fn tag_length(&self) -> usize {
        self.cipher.tag_length()
    }

    /// Opens `packet`, whose header (with CSRCs and extensions) is `header_length` bytes long and whose
    /// packet index is `index`, into the start of `payload`. Returns the payload's length, padding included.
    ///
    /// # Errors
    /// As [`Rejected`] says; `payload` may then hold anything.
    pub fn open(
        &self,
        packet: &[u8],
        header_length: usize,
        index: u64,
        payload: &mut [u8],
    ) -> Result<usize, Rejected> {
        if header_length < RTP_HEADER_LENGTH || packet.len() < header_length + self.tag_length() {
            return Err(Rejected::Short);
        }
        let (header, rest) = packet.split_at(header_length);
        let (ciphertext, tag) = rest.split_at(rest.len() - self.tag_length());
        let payload = payload.get_mut(..ciphertext.len()).ok_or(Rejected::Oversize)?;
        let ssrc = rtp_ssrc(header);
        match &self.cipher {
            Cipher::Aead(aead) => {
                aead.open(aead::rtp_nonce(ssrc, index), header, ciphertext, tag, payload)?
            }
            Cipher::CounterMode(cipher) => {
                let roc = ((index >> 16) as u32).to_be_bytes();
                cipher.verify(&packet[..header_length + ciphertext.len()], &roc, tag)?;
                cipher.apply(ssrc, index, ciphertext, payload);
            }
        }
        Ok(payload.len())
    }
}

/// Seals RTP packets for one peer.
pub struct Sealer {
    cipher: Cipher,
}

impl Sealer {
    /// A context that seals under `master`.
    #[must_use]
    pub fn new(master: Master<'_>) -> Sealer {
        Sealer {
            cipher: Cipher::new(
                master,
                Label::RtpEncryption,
                Label::RtpAuthentication,
                Label::RtpSalt,
            ),
        }
    }

    /// Bytes that protection adds to a packet.
    #[must_use]
    pub fn tag_length(&self) -> usize {
        self.cipher.tag_length()
    }

    /// Seals `payload` behind the header that is already in `packet[..header_length]`. `packet` must be exactly
    /// header, payload and tag long. The caller vouches that `index` was never sealed for this SSRC.
    pub fn seal(&self, packet: &mut [u8], header_length: usize, index: u64, payload: &[u8]) {
        self.seal_padded(packet, header_length, index, payload, 0);
    }

    /// As [`Sealer::seal`], with `padding` bytes of RTP padding behind the payload (RFC 3550 section
    /// 5.1), at most [`PADDING_MAX`]; the header must have its P bit set then.
    pub fn seal_padded(
        &self,
        packet: &mut [u8],
        header_length: usize,
        index: u64,
        payload: &[u8],
        padding: usize,
    ) {
        assert_eq!(
            packet.len(),
            header_length + payload.len() + padding + self.tag_length(),
            "the packet's length was computed for this payload"
        );
        let (header, rest) = packet.split_at_mut(header_length);
        let ssrc = rtp_ssrc(header);
        let (ciphertext, tag) = rest.split_at_mut(payload.len());
        match &self.cipher {
            Cipher::Aead(aead) => {
                let nonce = aead::rtp_nonce(ssrc, index);
                aead.seal(
                    nonce,
                    header,
                    payload,
                    ciphertext,
                    padding_of(&mut [0; PADDING_MAX], padding),
                    tag,
                );
            }
            Cipher::CounterMode(cipher) => {
                let mut bytes = [0; PADDING_MAX];
                let after = padding_of(&mut bytes, padding);
                cipher.apply_to_parts(ssrc, index, [payload, after], [ciphertext, &mut tag[..padding]]);
                let roc = ((index >> 16) as u32).to_be_bytes();
                let (authenticated, tag) = packet.split_at_mut(header_length + payload.len() + padding);
                tag.copy_from_slice(&cipher.tag(authenticated, &roc));
            }
        }
    }
}

/// The last byte of padding says how much there is.
fn padding_of(bytes: &mut [u8; PADDING_MAX], padding: usize) -> &[u8] {
    let bytes = &mut bytes[..padding];
    if let Some(last) = bytes.last_mut() {
        *last = padding as u8;
    }
    bytes
}

fn rtp_ssrc(header: &[u8]) -> u32 {
    u32::from_be_bytes([header[8], header[9], header[10], header[11]])
}

#[cfg(test)]
mod tests;
