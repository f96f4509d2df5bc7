//! The negotiated state of one session, as signalling hands it to the core: transport, m-lines, payload
//! types and header extensions (RFC 8829 section 5, RFC 9143, RFC 8839, RFC 8842).
//!
//! Plain data. The `sdp` module fills it from offers and answers, the packet stages read it. Nothing here
//! knows SDP syntax, and nothing here is ever touched per packet: the stages keep what they need in their
//! own compact form.

use std::fmt;

use rand::Rng;

/// The longest MID that fits a one-byte header extension element (RFC 8285 section 4.2, RFC 9143 section 15.2).
pub const MID_LENGTH_MAX: usize = 16;

/// The identification tag of an m-line (RFC 9143 `mid`), short enough for every header extension form.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mid {
    bytes: [u8; MID_LENGTH_MAX],
    length: u8,
}

impl Mid {
    /// A MID of 1 to [`MID_LENGTH_MAX`] RFC 4566 token characters, or `None`.
    #[must_use]
    pub fn new(text: &str) -> Option<Mid> {
        Mid::from_bytes(text.as_bytes())
    }

    /// As [`Mid::new`], from the bytes of a header extension element.
    #[must_use]
    pub fn from_bytes(text: &[u8]) -> Option<Mid> {
        let token = |byte: &u8| {
            byte.is_ascii_graphic()
                && !matches!(byte, b'"' | b'(' | b')' | b',' | b'/' | b':'..=b'@' | b'['..=b']')
        };
        if text.is_empty() || text.len() > MID_LENGTH_MAX || !text.iter().all(token) {
            return None;
        }
        let mut bytes = [0; MID_LENGTH_MAX];
        bytes[..text.len()].copy_from_slice(text);
        Some(Mid {
            bytes,
            length: text.len() as u8,
        })
    }

    /// The tag as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("a MID holds only ASCII token characters")
    }

    /// The tag as it travels in a header extension element.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl fmt::Debug for Mid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mid({})", self.as_str())
    }
}

impl fmt::Display for Mid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The media type of an m-line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `m=audio`.
    Audio,
    /// `m=video`.
    Video,
}

impl Kind {
    /// The word of the m-line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Audio => "audio",
            Kind::Video => "video",
        }
    }
}

/// Length of the ufrags this relay hands out: 12 random characters are 72 bits, which nobody guesses (RFC 8445
/// section 5.3 asks for at least 24).
pub const UFRAG_LENGTH: usize = 12;
/// Length of the passwords this relay hands out: 24 characters of 6 bits, 144 bits (RFC 8445 section 5.3
/// asks for at least 128).
pub const PASSWORD_LENGTH: usize = 24;

/// The characters of `ice-char` (RFC 8839 section 5.4): exactly 64 of them, so six random bits pick one.
const ICE_CHARACTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// One side's ICE username fragment and password (RFC 8445 section 5.3).
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    /// The username fragment.
    pub ufrag: String,
    /// The password: a key, never printed.
    pub pwd: String,
}

impl IceCredentials {
    /// Fresh local credentials. They say nothing about where the session lives: that is settled later, by where its
    /// client's packets land.
    #[must_use]
    pub fn generate(rng: &mut impl Rng) -> IceCredentials {
        let mut ufrag = String::with_capacity(UFRAG_LENGTH);
        push_ice_characters(&mut ufrag, UFRAG_LENGTH, rng);
        let mut pwd = String::with_capacity(PASSWORD_LENGTH);
        push_ice_characters(&mut pwd, PASSWORD_LENGTH, rng);
        IceCredentials { ufrag, pwd }
    }
}

fn push_ice_characters(text: &mut String, count: usize, rng: &mut impl Rng) {
    for _ in 0..count {
        text.push(char::from(ICE_CHARACTERS[(rng.next_u32() & 63) as usize]));
    }
}

impl fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceCredentials")
            .field("ufrag", &self.ufrag)
            .finish_non_exhaustive()
    }
}

/// The hash of an `a=fingerprint` line. SHA-1 and weaker are refused by having no variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FingerprintAlgorithm {
    /// `sha-256`
    Sha256,
    /// `sha-384`
    Sha384,
    /// `sha-512`
    Sha512,
}

impl FingerprintAlgorithm {
    /// The name in SDP (RFC 8122 section 5).
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            FingerprintAlgorithm::Sha256 => "sha-256",
            FingerprintAlgorithm::Sha384 => "sha-384",
            FingerprintAlgorithm::Sha512 => "sha-512",
        }
    }

    /// The algorithm of an SDP name in any case, or `None` for unknown and for refused ones (`sha-1`, `md5`).
    #[must_use]
    pub fn from_name(name: &str) -> Option<FingerprintAlgorithm> {
        [
            FingerprintAlgorithm::Sha256,
            FingerprintAlgorithm::Sha384,
            FingerprintAlgorithm::Sha512,
        ]
        .into_iter()
        .find(|algorithm| algorithm.as_str().eq_ignore_ascii_case(name))
    }

    /// Length of the digest in bytes.
    #[must_use]
    pub fn digest_length(self) -> usize {
        match self {
            FingerprintAlgorithm::Sha256 => 32,
            FingerprintAlgorithm::Sha384 => 48,
            FingerprintAlgorithm::Sha512 => 64,
        }
    }
}

/// The digest of a DTLS certificate (RFC 8122 section 5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// Which hash.
    pub algorithm: FingerprintAlgorithm,
    /// The digest itself, `algorithm.digest_length()` bytes.
    pub value: Vec<u8>,
}

impl fmt::Display for Fingerprint {
    /// As in SDP: `sha-256 AB:CD:...`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.algorithm.as_str())?;
        for (index, byte) in self.value.iter().enumerate() {
            let colon = if index == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02X}")?;
        }
        Ok(())
    }
}

/// The relay's part in the DTLS handshake (RFC 8842 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DtlsRole {
    /// The relay sends the ClientHello, after the first valid connectivity check.
    Active,
    /// The relay waits for the client's ClientHello.
    Passive,
}

/// What the one BUNDLE transport of a session needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transport {
    /// The relay's credentials: checks from the client name this ufrag and are keyed with this password.
    pub local: IceCredentials,
    /// The client's credentials: checks from the relay are keyed with this password.
    pub remote: IceCredentials,
    /// Digest of the certificate that the client must show.
    pub fingerprint: Fingerprint,
    /// The relay's role.
    pub role: DtlsRole,
}

/// A codec the relay knows by name. Payloads are never decoded; the name decides how key frames and frame
/// boundaries are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Opus (RFC 7587).
    Opus,
    /// VP8 (RFC 7741).
    Vp8,
    /// VP9 (RFC 9628).
    Vp9,
    /// H.264 (RFC 6184).
    H264,
    /// AV1 (AOM RTP payload specification).
    Av1,
}

impl Codec {
    /// The encoding name of `a=rtpmap`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Codec::Opus => "opus",
            Codec::Vp8 => "VP8",
            Codec::Vp9 => "VP9",
            Codec::H264 => "H264",
            Codec::Av1 => "AV1",
        }
    }

    /// The codec of an encoding name in any case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Codec> {
        [Codec::Opus, Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1]
            .into_iter()
            .find(|codec| codec.as_str().eq_ignore_ascii_case(name))
    }

    /// The media type it belongs to.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Codec::Opus => Kind::Audio,
            Codec::Vp8 | Codec::Vp9 | Codec::H264 | Codec::Av1 => Kind::Video,
        }
    }
}

/// One payload type of an m-line, with its RTX companion and the feedback agreed for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// RTP payload type.
    pub pt: u8,
    /// What it carries.
    pub codec: Codec,
    /// RTP clock rate in Hz.
    pub clock_rate: u32,
    /// Payload type of its retransmissions (RFC 4588 `apt`), when negotiated.
    pub rtx: Option<u8>,
    /// `a=rtcp-fb nack`
    pub nack: bool,
    /// `a=rtcp-fb nack pli`
    pub pli: bool,
    /// `a=rtcp-fb ccm fir`
    pub fir: bool,
    /// `a=rtcp-fb transport-cc`
    pub transport_cc: bool,
    /// `a=rtcp-fb goog-remb`
    pub remb: bool,
    /// The value of `a=fmtp`, empty when absent. Two H.264 payloads match only with compatible profiles.
    pub fmtp: String,
}

/// One SSRC that a client announced for a stream it sends, with its RTX companion (RFC 5576 `FID`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SourceSsrc {
    /// SSRC of the stream.
    pub ssrc: u32,
    /// SSRC of its retransmissions.
    pub rtx: Option<u32>,
}

/// What the relay does on an m-line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// The client publishes here.
    Receive {
        /// SSRCs the client announced; empty when it relies on MID or on the payload type.
        ssrcs: Vec<SourceSsrc>,
    },
    /// The client subscribes here, under SSRCs of the relay's choosing that stay for the m-line's life.
    Send {
        /// SSRC of the stream.
        ssrc: u32,
        /// SSRC of its retransmissions, when RTX was agreed.
        rtx_ssrc: Option<u32>,
        /// RTCP CNAME; lines of one slot share it so that the receiver synchronises them.
        cname: String,
    },
    /// Nothing flows.
    Inactive,
}

/// One m-line of the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaLine {
    /// Its identification tag.
    pub mid: Mid,
    /// Audio or video.
    pub kind: Kind,
    /// Which way it flows.
    pub role: Role,
    /// The accepted payload types, most preferred first.
    pub payloads: Vec<Payload>,
}

/// The RTP header extension ids of the session's BUNDLE (RFC 8285), the same map in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExtensionMap {
    /// `urn:ietf:params:rtp-hdrext:sdes:mid`
    pub mid: Option<u8>,
    /// `urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id`
    pub rid: Option<u8>,
    /// `urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id`
    pub rrid: Option<u8>,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time`
    pub abs_send_time: Option<u8>,
    /// `http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01`
    pub transport_wide_cc: Option<u8>,
    /// `urn:ietf:params:rtp-hdrext:ssrc-audio-level`
    pub audio_level: Option<u8>,
    /// `https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension`
    pub dependency_descriptor: Option<u8>,
    /// `urn:3gpp:video-orientation`
    pub video_orientation: Option<u8>,
}

/// Everything negotiated about a session's media.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Media {
    /// The m-lines in SDP order; rejected ones are left out.
    pub lines: Vec<MediaLine>,
    /// The header extensions of the BUNDLE.
    pub extensions: ExtensionMap,
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn credentials_are_random_and_as_long_as_they_should_be() {
        let mut rng = StdRng::seed_from_u64(7);
        let (one, two) = (
            IceCredentials::generate(&mut rng),
            IceCredentials::generate(&mut rng),
        );
        assert_eq!((one.ufrag.len(), one.pwd.len()), (UFRAG_LENGTH, PASSWORD_LENGTH));
        assert!(one.ufrag != two.ufrag && one.pwd != two.pwd);
    }

    #[test]
    fn a_mid_is_a_short_token() {
        assert_eq!(Mid::new("0").map(|mid| mid.to_string()), Some("0".to_owned()));
        assert!(Mid::new("").is_none());
        assert!(Mid::new("12345678901234567").is_none());
        assert!(Mid::new("a b").is_none());
        assert!(Mid::new("<b>").is_none());
        assert!(Mid::new("a\r\n").is_none());
    }

    #[test]
    fn passwords_do_not_print() {
        let credentials = IceCredentials {
            ufrag: "00frag".into(),
            pwd: "verysecret".into(),
        };
        assert!(!format!("{credentials:?}").contains("verysecret"));
    }
}
