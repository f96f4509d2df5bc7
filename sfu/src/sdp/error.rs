//! Why a description is refused. Every sentence names the field and says what to do, and repeats nothing of the
//! client's text but short, harmless characters.

use std::fmt;

use super::{FRAGMENT_LENGTH_MAX, LINES_MAX, SDP_LENGTH_MAX};
use crate::media::Mid;

/// Up to this many characters of the client's own text are repeated in a message.
const QUOTE_LENGTH_MAX: usize = 24;

/// A word of the client's, made fit to be repeated: short, and without any character that could be markup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quoted(String);

impl Quoted {
    pub(super) fn new(text: &str) -> Quoted {
        let harmless =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '/' | '+' | ' ');
        Quoted(
            text.chars()
                .take(QUOTE_LENGTH_MAX)
                .map(|c| if harmless(c) { c } else { '?' })
                .collect(),
        )
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

/// Why an offer, an answer or a fragment was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SdpError {
    /// Longer than [`SDP_LENGTH_MAX`].
    #[error("the SDP is longer than {SDP_LENGTH_MAX} bytes: offer fewer m-lines, codecs or candidates")]
    TooLarge,
    /// A trickle fragment longer than [`FRAGMENT_LENGTH_MAX`].
    #[error("the SDP fragment is longer than {FRAGMENT_LENGTH_MAX} bytes: send fewer candidates")]
    FragmentTooLarge,
    /// More m-lines than [`LINES_MAX`].
    #[error("the SDP has more than {LINES_MAX} m-lines: offer {LINES_MAX} at most")]
    TooManyLines,
    /// A line breaks the grammar of RFC 8866.
    #[error("line {line} of the SDP is malformed ({field}): send SDP as RFC 8866 has it")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// What is wrong, in the parser's words.
        field: &'static str,
    },
    /// The media type or protocol of an m-line is no token.
    #[error(
        "m-line {index} has an unusable media type or protocol: write it as m=video 9 UDP/TLS/RTP/SAVPF 96"
    )]
    BadLine {
        /// Counted from 0.
        index: usize,
    },
    /// The text ends too early.
    #[error(
        "the SDP was cut short: its BUNDLE names {0}, which has no m-line, and the last line has no line break; send it whole"
    )]
    CutShort(Quoted),
    /// No `m=`.
    #[error("the SDP has no m-line: offer at least one m=audio or m=video")]
    NoMedia,
    /// No `a=group:BUNDLE`.
    #[error("a=group:BUNDLE is missing: bundle every m-line on one transport (bundlePolicy max-bundle)")]
    NoBundle,
    /// An m-line without `a=mid`.
    #[error("m-line {index} has no a=mid: give every m-line one and name it in a=group:BUNDLE")]
    MissingMid {
        /// Counted from 0.
        index: usize,
    },
    /// A MID that no header extension can carry.
    #[error("a=mid of m-line {index} is not usable: take 1 to 16 token characters")]
    BadMid {
        /// Counted from 0.
        index: usize,
    },
    /// Two m-lines share a MID.
    #[error("a=mid:{0} is on two m-lines: every m-line needs its own")]
    DuplicateMid(Mid),
    /// No `a=rtcp-mux`.
    #[error("a=rtcp-mux is missing on m-line {0}: RTP and RTCP share one port here (rtcpMuxPolicy require)")]
    MissingRtcpMux(Mid),
    /// No ICE credentials.
    #[error("a=ice-ufrag or a=ice-pwd is missing: the client's ICE credentials are needed")]
    MissingIce,
    /// ICE credentials that RFC 8839 does not allow.
    #[error(
        "{field} is not usable: RFC 8839 wants a ufrag of 4 to 256 and a password of 22 to 256 letters, digits, + and /"
    )]
    BadIce {
        /// Which attribute.
        field: &'static str,
    },
    /// The client is ICE-lite, as the relay is.
    #[error("a=ice-lite: this relay is ICE-lite itself, so the client must do full ICE; remove a=ice-lite")]
    IceLite,
    /// No DTLS fingerprint.
    #[error(
        "a=fingerprint is missing: media is encrypted with DTLS-SRTP only; offer UDP/TLS/RTP/SAVPF with a fingerprint"
    )]
    MissingFingerprint,
    /// Only hashes that are broken or unknown.
    #[error("a=fingerprint uses {0}: use sha-256, sha-384 or sha-512")]
    WeakFingerprint(Quoted),
    /// Not a digest of the named hash.
    #[error(
        "a=fingerprint is malformed: it is the hash's name and its bytes in hexadecimal with colons between"
    )]
    BadFingerprint,
    /// Another certificate in a later description.
    #[error("a=fingerprint changed within the session: start a new session for a new certificate")]
    FingerprintChanged,
    /// Not a DTLS role.
    #[error("a=setup:{0} is not usable: offer actpass, active or passive")]
    BadSetup(Quoted),
    /// The DTLS roles would swap in a running session.
    #[error("a=setup contradicts the DTLS roles of this session: offer actpass")]
    RoleChanged,
    /// A dynamic payload type without a codec.
    #[error("payload type {pt} of m-line {mid} has no a=rtpmap: the SDP is incomplete, send it whole")]
    MissingRtpmap {
        /// Whose m-line.
        mid: Mid,
        /// Which payload type.
        pt: u8,
    },
    /// An attribute that cannot be read.
    #[error("a={attribute} on m-line {mid} is malformed: see its RFC for the form")]
    BadAttribute {
        /// Whose m-line.
        mid: Mid,
        /// Which attribute.
        attribute: &'static str,
    },
    /// Every m-line had to be rejected.
    #[error("no m-line of the offer can be served ({0}): offer Opus audio, or VP8, H.264, VP9 or AV1 video")]
    NothingUsable(String),
    /// A WHIP offer that sends nothing.
    #[error(
        "the offer sends nothing: a publisher offers a=sendonly (or a=sendrecv) m-lines; to receive, use WHEP"
    )]
    NothingSent,
    /// A WHEP offer that receives nothing.
    #[error("the offer receives nothing: a subscriber offers a=recvonly m-lines; to publish, use WHIP")]
    NothingReceived,
    /// A later description lacks m-lines.
    #[error(
        "the description has {found} m-lines where the session has {expected}: m-lines are never removed, only disabled with port 0"
    )]
    LinesMissing {
        /// How many it has.
        found: usize,
        /// How many the session has.
        expected: usize,
    },
    /// A later description changed what an m-line is.
    #[error(
        "m-line {index} changed its a=mid or its media type: keep the order of the m-lines (RFC 8829 section 5.2.2)"
    )]
    LineChanged {
        /// Counted from 0.
        index: usize,
    },
    /// The client's offer met ours.
    #[error("an offer of the relay is on its way: roll back, answer that one, then offer again")]
    Glare,
    /// An answer without an offer, or to an old one.
    #[error("there is no open offer with seq {seq}: answer the relay's latest offer only, and once")]
    StaleAnswer {
        /// What the answer named.
        seq: u64,
    },
    /// The answer has new ICE credentials although the offer restarted nothing.
    #[error("a=ice-ufrag or a=ice-pwd changed in an answer: to restart ICE, offer with new credentials")]
    AnswerRestartsIce,
    /// Something was asked of a session whose first offer was not answered yet.
    #[error("the session has not been negotiated yet: send the first offer")]
    NotNegotiated,
    /// A name in the configuration that is no codec.
    #[error("{0} is not a video codec: name VP8, VP9, H264, AV1, or * for any further one")]
    UnknownCodec(Quoted),
}

impl SdpError {
    /// The stable slug of the problem: `too-large` or `bad-sdp`.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self {
            SdpError::TooLarge | SdpError::FragmentTooLarge => "too-large",
            _ => "bad-sdp",
        }
    }

    /// The client's offer lost against one of ours: it rolls back, and its offer is forgotten.
    #[must_use]
    pub fn is_glare(&self) -> bool {
        *self == SdpError::Glare
    }
}
