//! What an answer could not serve, told beside it: SDP itself can only say port 0 or `inactive`.

use std::fmt;

use super::error::Quoted;
use crate::media::{Codec, Kind};

/// One m-line that the answer rejected or left inactive, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// No payload type of the m-line is a codec we carry.
    CodecRefused {
        /// Audio or video.
        kind: Kind,
    },
    /// The publisher sends a codec that the subscriber has not offered.
    CodecLacking {
        /// What is sent.
        codec: Codec,
    },
    /// A publisher has one audio and one video stream.
    SecondStream {
        /// Audio or video.
        kind: Kind,
    },
    /// Not `m=audio` or `m=video`.
    MediaRefused(Quoted),
    /// Not a DTLS-SRTP profile.
    ProtocolRefused(Quoted),
    /// The m-line is not in the BUNDLE group.
    NotBundled {
        /// Audio or video.
        kind: Kind,
    },
    /// The direction makes no sense on this kind of session.
    Direction {
        /// Audio or video.
        kind: Kind,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::CodecRefused { kind: Kind::Audio } => f.write_str("audio refused: codec; offer Opus"),
            Note::CodecRefused { kind: Kind::Video } => {
                f.write_str("video refused: codec; offer VP8, H.264, VP9 or AV1")
            }
            Note::CodecLacking { codec } => {
                let (kind, codec) = (codec.kind().as_str(), codec.as_str());
                write!(
                    f,
                    "{kind} left out: the publisher sends {codec}, which was not offered in that form"
                )
            }
            Note::SecondStream { kind } => {
                let kind = kind.as_str();
                write!(
                    f,
                    "second {kind} left inactive: a publisher sends one {kind} stream"
                )
            }
            Note::MediaRefused(media) => write!(f, "{media} refused: this relay carries audio and video"),
            Note::ProtocolRefused(protocol) => write!(f, "{protocol} refused: offer UDP/TLS/RTP/SAVPF"),
            Note::NotBundled { kind } => {
                write!(f, "{} refused: its a=mid is not in a=group:BUNDLE", kind.as_str())
            }
            Note::Direction { kind } => {
                write!(
                    f,
                    "{} left inactive: nothing can flow that way on this session",
                    kind.as_str()
                )
            }
        }
    }
}
