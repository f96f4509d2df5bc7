//! Offers and answers: JSEP for a relay (RFC 8829), on BUNDLE (RFC 9143), rtcp-mux (RFC 5761) and ICE-lite
//! (RFC 8445 section 2.5).

use std::net::SocketAddr;

use crate::media::{Codec, Fingerprint, IceCredentials, Media, Transport};

/// What the session is for: decides what becomes of each m-line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Publishes on its sending m-lines and receives on its recvonly ones (DSIP).
    Call,
    /// Publishes only (WHIP, RFC 9725).
    Publish,
    /// Receives only (WHEP).
    Subscribe,
}

/// Which video codecs a publisher may be answered, most preferred first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoCodecs {
    /// Tried in this order.
    pub preferred: Vec<Codec>,
    /// Whether any other known codec follows, in the order of the offer.
    pub others: bool,
}

impl VideoCodecs {
    /// From configuration: codec names, and `*` for "then whatever else is offered".
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<VideoCodecs, SdpError> {
        let _ = names;
        todo!()
    }
}

/// The relay's own side of a session.
#[derive(Debug, Clone)]
pub struct LocalParameters {
    /// What the session is for.
    pub purpose: Purpose,
    /// The relay's ICE credentials for this session.
    pub ice: IceCredentials,
    /// Digest of the relay's DTLS certificate.
    pub fingerprint: Fingerprint,
    /// Where the relay listens, best first.
    pub candidates: Vec<SocketAddr>,
    /// What a publisher may send.
    pub video_codecs: VideoCodecs,
}

/// Why a description was refused: a sentence that names the field and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("todo")]
pub struct SdpError;

impl SdpError {
    /// The stable slug: `bad-sdp` or `too-large`.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        "bad-sdp"
    }
    /// Whether our own offer is out, so that the client has to roll back.
    #[must_use]
    pub fn is_glare(&self) -> bool {
        false
    }
}

/// Something that could not be served, in a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("todo")]
pub struct Note;

/// The answer to an offer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The SDP.
    pub sdp: String,
    /// What was agreed.
    pub media: Media,
    /// The BUNDLE's transport.
    pub transport: Transport,
    /// What could not be served.
    pub notes: Vec<Note>,
}

/// The negotiation of one session.
pub struct Negotiation {}

#[allow(unused_variables, clippy::todo, missing_docs)]
impl Negotiation {
    pub fn new(local: LocalParameters, seed: [u8; 32]) -> Negotiation {
        todo!()
    }
    /// Answers an offer, first or later.
    pub fn answer(&mut self, offer: &str) -> Result<Answer, SdpError> {
        todo!()
    }
    /// Offers further sendonly m-lines; refused while an offer of ours is out (`is_glare`).
    pub fn offer_more(&mut self, audio: usize, video: usize) -> Result<(String, u64), SdpError> {
        todo!()
    }
    /// The client's answer to our offer `seq`.
    pub fn accept_answer(&mut self, seq: u64, answer: &str) -> Result<(Media, Transport), SdpError> {
        todo!()
    }
    /// Our offer was never answered: back to the state before it.
    pub fn abandon_offer(&mut self) {
        todo!()
    }
    /// ICE restart without SDP (WHIP PATCH): new credentials on both sides.
    pub fn restart_ice(&mut self, ufrag: &str, pwd: &str) -> Result<Transport, SdpError> {
        todo!()
    }
    /// The client's lines to send on, paired into slots. Give them to `Room::set_slots` after every answer.
    pub fn slots(&self) -> Vec<crate::room::Slot> {
        todo!()
    }
    /// What the client publishes now.
    pub fn published(&self) -> crate::room::Published {
        todo!()
    }
}
