//! Offers and answers: JSEP for a relay (RFC 8829), on BUNDLE (RFC 9143), rtcp-mux (RFC 5761) and ICE-lite
//! (RFC 8445 section 2.5), as WHIP (RFC 9725), WHEP (draft-ietf-wish-whep) and DSIP sessions need it.
//!
//! A client's text is read once into a `Description`, matched against the session's `State`, and the next state
//! is written out again. A description that is refused leaves the state as it was. What comes out for the packet
//! stages is [`Media`] and [`Transport`].
//!
//! Not here: candidates of the client (an ICE-lite relay learns addresses from checks), simulcast, data channels,
//! and who carries whom, which is [`crate::room`].

mod credentials;
mod description;
mod error;
mod extension;
mod fragment;
mod note;
mod payload;
mod state;
mod write;

use std::net::SocketAddr;

use rand::SeedableRng;
use rand::rngs::StdRng;

use description::Description;
pub use error::{Quoted, SdpError};
pub use fragment::Fragment;
pub use note::Note;
use state::{Flow, State};
use write::Form;

use crate::media::{Codec, Fingerprint, IceCredentials, Kind, Media, Payload, Role, Transport};
use crate::payload_type::best_match;
use crate::room::{Published, Slot};

/// Longest description that is read. Chromium writes 3.3 kB for a receiving video m-line, so this is a call with
/// nine people before the relay has to offer further lines itself.
pub const SDP_LENGTH_MAX: usize = 64 * 1024;
/// Longest trickle fragment that is read.
pub const FRAGMENT_LENGTH_MAX: usize = 16 * 1024;
/// Most m-lines of a session: 16 slots of two lines, as many disabled ones to be recycled.
pub const LINES_MAX: usize = 64;

const _: () = assert!(
    LINES_MAX >= 2 * crate::room::SLOTS_MAX + 2,
    "a full room needs a line pair for every slot"
);

/// What the session is for: decides what becomes of each m-line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Publishes on its sending m-lines and receives on its recvonly ones (DSIP).
    Call,
    /// Publishes only (WHIP).
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
        let mut codecs = VideoCodecs {
            preferred: Vec::new(),
            others: false,
        };
        for name in names {
            match Codec::from_name(name).filter(|codec| codec.kind() == Kind::Video) {
                Some(codec) => codecs.preferred.push(codec),
                None if name == "*" => codecs.others = true,
                None => return Err(SdpError::UnknownCodec(Quoted::new(name))),
            }
        }
        Ok(codecs)
    }
}

impl Default for VideoCodecs {
    /// VP8, which everything decodes; then H.264; then what the publisher offers.
    fn default() -> VideoCodecs {
        VideoCodecs {
            preferred: vec![Codec::Vp8, Codec::H264],
            others: true,
        }
    }
}

/// The relay's own side of a session.
#[derive(Debug, Clone)]
pub struct LocalParameters {
    /// What the session is for.
    pub purpose: Purpose,
    /// The relay's ICE credentials to begin with; an ICE restart makes new ones for the same shard.
    pub ice: IceCredentials,
    /// Digest of the relay's DTLS certificate.
    pub fingerprint: Fingerprint,
    /// Where the relay listens, best first.
    pub candidates: Vec<SocketAddr>,
    /// What a publisher may send.
    pub video_codecs: VideoCodecs,
}

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

/// The negotiation of one session: the order of its m-lines, their MIDs, payload types and SSRCs, and who has an
/// offer out.
pub struct Negotiation {
    local: LocalParameters,
    rng: StdRng,
    state: State,
    /// Our own offer, while the client has not answered it.
    pending: Option<Pending>,
    sequence: u64,
}

struct Pending {
    sequence: u64,
    state: State,
}

impl Negotiation {
    /// Nothing agreed yet. `seed` makes SSRCs, CNAMEs and later ICE credentials.
    #[must_use]
    pub fn new(local: LocalParameters, seed: [u8; 32]) -> Negotiation {
        let mut rng = StdRng::from_seed(seed);
        let state = State::new(local.ice.clone(), &mut rng);
        Negotiation {
            local,
            rng,
            state,
            pending: None,
            sequence: 0,
        }
    }

    /// Answers the client's offer: the first, a later one, or one that restarts ICE. While an offer of ours is
    /// out this is [`SdpError::Glare`], and the client has to roll back.
    pub fn answer(&mut self, offer: &str) -> Result<Answer, SdpError> {
        if self.pending.is_some() {
            return Err(SdpError::Glare);
        }
        let offer = Description::parse(offer)?;
        let mut next = self.state.clone();
        next.agree_on_transport(&offer, &mut self.rng)?;
        let mut notes = Vec::new();
        next.take_offer(&self.local, &offer, &mut notes)?;
        next.give_outlets(&mut self.rng);
        next.version += 1;
        let sdp = write::description(&self.local, &next, Form::Answer);
        self.state = next;
        let transport = self.transport().ok_or(SdpError::NotNegotiated)?;
        Ok(Answer {
            sdp,
            media: self.media(),
            transport,
            notes,
        })
    }

    /// An offer of our own that adds `audio` and `video` sendonly m-lines, and its sequence number. Refused while
    /// another one is out ([`SdpError::Glare`]) and past [`LINES_MAX`].
    pub fn offer_more(&mut self, audio: usize, video: usize) -> Result<(String, u64), SdpError> {
        if self.pending.is_some() {
            return Err(SdpError::Glare);
        }
        if self.state.remote.is_none() {
            return Err(SdpError::NotNegotiated);
        }
        let total = self.state.lines.len().saturating_add(audio).saturating_add(video);
        if total > LINES_MAX {
            return Err(SdpError::TooManyLines);
        }
        let mut next = self.state.clone();
        // Alternating, so that a slot's two lines lie together.
        for index in 0..audio.max(video) {
            for (kind, count) in [(Kind::Audio, audio), (Kind::Video, video)] {
                if index < count {
                    next.add_line(kind);
                }
            }
        }
        next.give_outlets(&mut self.rng);
        next.version += 1;
        self.sequence += 1;
        let sdp = write::description(&self.local, &next, Form::Offer);
        self.pending = Some(Pending {
            sequence: self.sequence,
            state: next,
        });
        Ok((sdp, self.sequence))
    }

    /// The client's answer to our offer `seq`. A refused answer leaves the offer open.
    pub fn accept_answer(&mut self, seq: u64, answer: &str) -> Result<(Media, Transport), SdpError> {
        let pending = self.pending.as_ref().filter(|pending| pending.sequence == seq);
        let mut next = pending.ok_or(SdpError::StaleAnswer { seq })?.state.clone();
        let answer = Description::parse(answer)?;
        next.take_answer(&answer)?;
        self.pending = None;
        self.state = next;
        let transport = self.transport().ok_or(SdpError::NotNegotiated)?;
        Ok((self.media(), transport))
    }

    /// The client will not answer our offer: back to what was agreed before it.
    pub fn abandon_offer(&mut self) {
        self.pending = None;
    }

    /// Whether an offer of ours is out.
    #[must_use]
    pub fn is_offering(&self) -> bool {
        self.pending.is_some()
    }

    /// ICE restart without an offer (RFC 9725 section 4.3.3): new credentials on both sides.
    /// [`Negotiation::fragment`] then tells the client ours.
    pub fn restart_ice(&mut self, ufrag: &str, pwd: &str) -> Result<Transport, SdpError> {
        let client = credentials::ice(ufrag, pwd)?;
        let remote = self.state.remote.as_mut().ok_or(SdpError::NotNegotiated)?;
        remote.0 = client.clone();
        self.state.ice = IceCredentials::generate(&mut self.rng);
        if let Some(pending) = &mut self.pending {
            pending.state.ice = self.state.ice.clone();
            pending.state.remote = self.state.remote.clone();
        }
        self.transport().ok_or(SdpError::NotNegotiated)
    }

    /// Our credentials and candidates as an `application/trickle-ice-sdpfrag` body.
    #[must_use]
    pub fn fragment(&self) -> String {
        write::fragment(&self.local, &self.state)
    }

    /// The client's current ICE credentials, to tell trickle from restart.
    #[must_use]
    pub fn remote_ice(&self) -> Option<&IceCredentials> {
        self.state.remote.as_ref().map(|(ice, _)| ice)
    }

    /// The state of the media, for the packet stages.
    #[must_use]
    pub fn media(&self) -> Media {
        self.state.media()
    }

    /// The BUNDLE's transport, once there is one.
    #[must_use]
    pub fn transport(&self) -> Option<Transport> {
        let (remote, fingerprint) = self.state.remote.clone()?;
        Some(Transport {
            local: self.state.ice.clone(),
            remote,
            fingerprint,
            role: self.state.role?,
        })
    }

    /// The lines we send on, paired into slots, for [`crate::room::Room::set_slots`] after every answer. A slot
    /// keeps its place in the list for its lines' life.
    #[must_use]
    pub fn slots(&self) -> Vec<Slot> {
        let mut slots = Vec::new();
        for line in self.state.lines.iter().filter(|line| line.flow == Flow::Send) {
            let (Some(outlet), Some(kind)) = (line.outlet, line.kind) else {
                continue;
            };
            if slots.len() <= outlet.slot {
                slots.resize(outlet.slot + 1, Slot::default());
            }
            match kind {
                Kind::Audio => slots[outlet.slot].audio = line.mid,
                Kind::Video => slots[outlet.slot].video = line.mid,
            }
        }
        slots
    }

    /// What of a publisher's media this client cannot decode, as far as it has offered.
    #[must_use]
    pub fn lacks(&self, publisher: &Media) -> Vec<Note> {
        let sent = publisher
            .lines
            .iter()
            .filter(|line| matches!(line.role, Role::Receive { .. }));
        let decoded = |payload: &Payload| {
            let mut lines = self.state.lines.iter().filter(|line| line.flow == Flow::Send);
            lines.any(|line| best_match(payload, &line.payloads).is_some())
        };
        let lacking = sent.filter_map(|line| line.payloads.first().filter(|payload| !decoded(payload)));
        lacking
            .map(|payload| Note::CodecLacking { codec: payload.codec })
            .collect()
    }

    /// What the client publishes now.
    #[must_use]
    pub fn published(&self) -> Published {
        let receives = |kind| {
            let lines = self.state.lines.iter();
            lines
                .clone()
                .any(|line| line.kind == Some(kind) && matches!(line.flow, Flow::Receive { .. }))
        };
        Published {
            audio: receives(Kind::Audio),
            video: receives(Kind::Video),
        }
    }
}
