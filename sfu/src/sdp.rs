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
mod write;

use std::net::SocketAddr;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use credentials::Setup;
use description::{Description, Section};
pub use error::{Quoted, SdpError};
use extension::Extension;
pub use fragment::Fragment;
pub use note::Note;
use write::Form;

use crate::media::{
    Codec, DtlsRole, ExtensionMap, Fingerprint, IceCredentials, Kind, Media, MediaLine, Mid, Payload, Role,
    SourceSsrc, Transport, shard_of,
};
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

/// What both sides have agreed on so far.
#[derive(Debug, Clone)]
struct State {
    lines: Vec<Line>,
    /// MIDs in the order of the BUNDLE group; rejected ones are left out when it is written.
    bundle: Vec<Mid>,
    ice: IceCredentials,
    remote: Option<(IceCredentials, Fingerprint)>,
    role: Option<DtlsRole>,
    extensions: ExtensionMap,
    mixed_extensions: bool,
    /// What the client decodes, as far as it has told.
    decodes: [Vec<Payload>; 2],
    /// `o=`: our session id and version.
    session_number: u64,
    version: u64,
    /// Relay-made m-lines so far, for their MIDs.
    own_lines: u32,
}

/// One m-line. Its index never changes.
#[derive(Debug, Clone)]
struct Line {
    mid: Option<Mid>,
    kind: Option<Kind>,
    media: String,
    protocol: String,
    /// Repeated when the line is rejected.
    format: String,
    flow: Flow,
    payloads: Vec<Payload>,
    extensions: Vec<(u8, Extension)>,
    rtcp_rsize: bool,
    /// Kept for the line's life, so that a receiver never sees its SSRCs change.
    outlet: Option<Outlet>,
}

/// What the relay does on a line.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Flow {
    Receive { ssrcs: Vec<SourceSsrc> },
    Send,
    Inactive,
    Rejected,
}

/// The relay's identity on a line it sends on.
#[derive(Debug, Clone, Copy)]
struct Outlet {
    /// Audio and video line of one slot share stream and CNAME.
    slot: usize,
    ssrc: u32,
    rtx_ssrc: Option<u32>,
}

impl Negotiation {
    /// Nothing agreed yet. `seed` makes SSRCs, CNAMEs and later ICE credentials.
    #[must_use]
    pub fn new(local: LocalParameters, seed: [u8; 32]) -> Negotiation {
        let mut rng = StdRng::from_seed(seed);
        let state = State {
            lines: Vec::new(),
            bundle: Vec::new(),
            ice: local.ice.clone(),
            remote: None,
            role: None,
            extensions: ExtensionMap::default(),
            mixed_extensions: false,
            decodes: [Vec::new(), Vec::new()],
            // 62 bits: RFC 8829 section 5.2.1 wants it to fit a signed integer.
            session_number: rng.next_u64() >> 2,
            version: 0,
            own_lines: 0,
        };
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
        self.state.ice = renewed(&self.state.ice, &mut self.rng);
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

/// Fresh credentials on the shard of the old ones.
fn renewed(old: &IceCredentials, rng: &mut StdRng) -> IceCredentials {
    IceCredentials::generate(shard_of(&old.ufrag).unwrap_or(0), rng)
}

impl State {
    /// Credentials, fingerprint and role of an offer. New ICE credentials restart ICE on our side too; another
    /// fingerprint or swapped roles would be another DTLS association, which a session does not survive.
    fn agree_on_transport(&mut self, offer: &Description, rng: &mut StdRng) -> Result<(), SdpError> {
        let transport = offer.transport()?;
        let (ice, fingerprint, setup) = (transport.ice()?, transport.fingerprint()?, transport.setup()?);
        if let Some((old_ice, old_fingerprint)) = &self.remote {
            if *old_fingerprint != fingerprint {
                return Err(SdpError::FingerprintChanged);
            }
            if *old_ice != ice {
                self.ice = renewed(&self.ice, rng);
            }
        }
        let role = match (self.role, setup) {
            (Some(DtlsRole::Passive), Setup::Passive) | (Some(DtlsRole::Active), Setup::Active) => {
                return Err(SdpError::RoleChanged);
            }
            (Some(role), _) => role,
            (None, setup) => setup.our_role(),
        };
        self.remote = Some((ice, fingerprint));
        self.role = Some(role);
        Ok(())
    }

    fn take_offer(
        &mut self,
        local: &LocalParameters,
        offer: &Description,
        notes: &mut Vec<Note>,
    ) -> Result<(), SdpError> {
        self.same_lines(offer)?;
        let first = self.lines.is_empty();
        self.mixed_extensions = offer.mixed_extensions;
        self.extensions = ExtensionMap::default();
        self.decodes = decodes(offer);
        self.bundle = offer.bundle.clone();
        let outlets: Vec<Option<Outlet>> = self.lines.iter().map(|line| line.outlet).collect();
        self.lines.clear();
        let mut publishing = Published::default();
        for (index, section) in offer.sections.iter().enumerate() {
            let mut line = Line::rejected(section);
            line.outlet = outlets.get(index).copied().flatten();
            if !section.disabled {
                match self.serve(local, offer, section, &mut line, &mut publishing) {
                    Ok(None) => {}
                    Ok(Some(note)) => notes.push(note),
                    Err(Refusal::Line(note)) => notes.push(note),
                    Err(Refusal::Offer(error)) => return Err(error),
                }
            }
            if line.flow == Flow::Rejected {
                line.outlet = None;
            }
            self.lines.push(line);
        }
        if first {
            self.usable(local.purpose, notes)?;
        }
        Ok(())
    }

    /// A later description has the session's lines in the session's order (RFC 8829 section 5.2.2); only the
    /// place of a disabled line may be taken by another one.
    fn same_lines(&self, description: &Description) -> Result<(), SdpError> {
        if description.sections.len() < self.lines.len() {
            return Err(SdpError::LinesMissing {
                found: description.sections.len(),
                expected: self.lines.len(),
            });
        }
        for (index, (line, section)) in self.lines.iter().zip(&description.sections).enumerate() {
            let same = line.mid == section.mid && line.media == section.media;
            if line.flow != Flow::Rejected && !section.disabled && !same {
                return Err(SdpError::LineChanged { index });
            }
        }
        Ok(())
    }

    /// Fills in one line of an answer.
    fn serve(
        &mut self,
        local: &LocalParameters,
        offer: &Description,
        section: &Section,
        line: &mut Line,
        publishing: &mut Published,
    ) -> Result<Option<Note>, Refusal> {
        let kind = section
            .kind
            .ok_or_else(|| Note::MediaRefused(Quoted::new(&section.media)))?;
        if !section.secure {
            return Err(Note::ProtocolRefused(Quoted::new(&section.protocol)).into());
        }
        let Some(mid) = section.mid.filter(|mid| offer.bundle.contains(mid)) else {
            return Err(Note::NotBundled { kind }.into());
        };
        if !section.rtcp_mux {
            return Err(Refusal::Offer(SdpError::MissingRtcpMux(mid)));
        }
        let (sends, receives) = (section.direction.sends(), section.direction.receives());
        let taken = match kind {
            Kind::Audio => &mut publishing.audio,
            Kind::Video => &mut publishing.video,
        };
        let mut note = None;
        let flow = match local.purpose {
            Purpose::Call | Purpose::Publish if sends && *taken => {
                note = Some(Note::SecondStream { kind });
                Flow::Inactive
            }
            Purpose::Call | Purpose::Publish if sends => Flow::Receive {
                ssrcs: section.sources.clone(),
            },
            Purpose::Call | Purpose::Subscribe if receives => Flow::Send,
            Purpose::Publish if receives => {
                note = Some(Note::Direction { kind });
                Flow::Inactive
            }
            Purpose::Subscribe if sends => {
                note = Some(Note::Direction { kind });
                Flow::Inactive
            }
            _ => Flow::Inactive,
        };
        let publishes = matches!(flow, Flow::Receive { .. });
        line.payloads = match publishes {
            true => payload::choose(kind, &section.payloads, &local.video_codecs)
                .into_iter()
                .collect(),
            false => section.payloads.clone(),
        };
        if line.payloads.is_empty() {
            return Err(Note::CodecRefused { kind }.into());
        }
        *taken |= publishes;
        for payload in &mut line.payloads {
            // Answered only where the relay sends that feedback.
            payload.transport_cc &= publishes;
        }
        line.flow = flow;
        line.rtcp_rsize = section.rtcp_rsize;
        let transport_cc = line.payloads.iter().any(|payload| payload.transport_cc);
        for (id, extension) in &section.extensions {
            let known = line.extensions.iter().any(|(_, other)| other == extension);
            let agreed = extension.agreed(kind, &line.flow, transport_cc);
            let removed = matches!(extension, Extension::Rid | Extension::RepairedRid);
            if !known
                && (agreed || removed)
                && extension::enter(&mut self.extensions, *id, *extension)
                && agreed
            {
                line.extensions.push((*id, *extension));
            }
        }
        Ok(note)
    }

    /// A first offer has to lead to something.
    fn usable(&self, purpose: Purpose, notes: &[Note]) -> Result<(), SdpError> {
        if self.lines.iter().all(|line| line.flow == Flow::Rejected) {
            let reason = notes
                .first()
                .map_or_else(|| "all are disabled".to_owned(), ToString::to_string);
            return Err(SdpError::NothingUsable(reason));
        }
        let receives = self
            .lines
            .iter()
            .any(|line| matches!(line.flow, Flow::Receive { .. }));
        let sends = self.lines.iter().any(|line| line.flow == Flow::Send);
        match purpose {
            Purpose::Publish if !receives => Err(SdpError::NothingSent),
            Purpose::Subscribe if !sends => Err(SdpError::NothingReceived),
            _ => Ok(()),
        }
    }

    /// The client's answer applied to a state in which our offer is already written.
    fn take_answer(&mut self, answer: &Description) -> Result<(), SdpError> {
        self.same_lines(answer)?;
        if answer.sections.len() > self.lines.len() {
            return Err(SdpError::LineChanged {
                index: self.lines.len(),
            });
        }
        let transport = answer.transport()?;
        let (ice, fingerprint) = self.remote.as_ref().ok_or(SdpError::NotNegotiated)?;
        if transport.fingerprint()? != *fingerprint {
            return Err(SdpError::FingerprintChanged);
        }
        if transport.ice()? != *ice {
            return Err(SdpError::AnswerRestartsIce);
        }
        for (line, section) in self.lines.iter_mut().zip(&answer.sections) {
            let bundled = section.mid.is_some_and(|mid| answer.bundle.contains(&mid));
            if section.disabled || line.flow == Flow::Rejected || !bundled {
                line.flow = Flow::Rejected;
                line.outlet = None;
                continue;
            }
            if let Some(mid) = section.mid.filter(|_| !section.rtcp_mux) {
                return Err(SdpError::MissingRtcpMux(mid));
            }
            let payloads = payload::intersect(&line.payloads, &section.payloads);
            let flows = match &line.flow {
                Flow::Receive { .. } => section.direction.sends(),
                Flow::Send => section.direction.receives(),
                Flow::Inactive | Flow::Rejected => false,
            };
            if !flows || payloads.is_empty() {
                line.flow = Flow::Inactive;
                continue;
            }
            line.payloads = payloads;
            line.extensions.retain(|ours| section.extensions.contains(ours));
            line.rtcp_rsize &= section.rtcp_rsize;
            if let Flow::Receive { ssrcs } = &mut line.flow {
                ssrcs.clone_from(&section.sources);
            }
        }
        Ok(())
    }

    /// A further sendonly line of ours.
    fn add_line(&mut self, kind: Kind) {
        let taken = |pt| {
            let payloads = self
                .lines
                .iter()
                .flat_map(|line| &line.payloads)
                .chain(self.decodes.iter().flatten());
            payloads
                .into_iter()
                .any(|payload| payload.pt == pt || payload.rtx == Some(pt))
        };
        let known = payload::worth_offering(&self.decodes[kind as usize]);
        let payloads = if known.is_empty() {
            payload::defaults(kind, taken)
        } else {
            known
        };
        let mid = loop {
            let mid = write::own_mid(self.own_lines);
            self.own_lines += 1;
            if self.lines.iter().all(|line| line.mid != Some(mid)) {
                break mid;
            }
        };
        self.bundle.push(mid);
        self.lines.push(Line {
            mid: Some(mid),
            kind: Some(kind),
            media: kind.as_str().to_owned(),
            protocol: "UDP/TLS/RTP/SAVPF".to_owned(),
            format: "0".to_owned(),
            flow: if payloads.is_empty() {
                Flow::Rejected
            } else {
                Flow::Send
            },
            payloads,
            extensions: write::offered_extensions(self, kind),
            rtcp_rsize: true,
            outlet: None,
        });
    }

    /// Gives every sending line that has none its SSRCs, and a place in the lowest slot that lacks its kind.
    fn give_outlets(&mut self, rng: &mut StdRng) {
        for index in 0..self.lines.len() {
            let line = &self.lines[index];
            if line.flow != Flow::Send || line.outlet.is_some() {
                continue;
            }
            let occupied = |slot: usize| {
                let same_kind = self.lines.iter().filter(|other| other.kind == line.kind);
                same_kind
                    .filter_map(|other| other.outlet)
                    .any(|outlet| outlet.slot == slot)
            };
            let slot = (0..)
                .find(|slot| !occupied(*slot))
                .expect("lines are bounded, slots are not");
            let ssrc = self.free_ssrc(rng, None);
            let rtx_ssrc = (line.kind == Some(Kind::Video)).then(|| self.free_ssrc(rng, Some(ssrc)));
            self.lines[index].outlet = Some(Outlet { slot, ssrc, rtx_ssrc });
        }
    }

    fn free_ssrc(&self, rng: &mut StdRng, other: Option<u32>) -> u32 {
        loop {
            let ssrc = rng.next_u32();
            let ours = |line: &Line| {
                line.outlet
                    .is_some_and(|o| o.ssrc == ssrc || o.rtx_ssrc == Some(ssrc))
            };
            let theirs = |line: &Line| match &line.flow {
                Flow::Receive { ssrcs } => ssrcs.iter().any(|s| s.ssrc == ssrc || s.rtx == Some(ssrc)),
                _ => false,
            };
            let taken = self.lines.iter().any(|line| ours(line) || theirs(line));
            if ssrc != 0 && other != Some(ssrc) && !taken {
                return ssrc;
            }
        }
    }

    /// The BUNDLE group as written: members whose line is not rejected.
    fn bundle(&self) -> Vec<Mid> {
        let lives = |mid: &Mid| {
            let mut lines = self.lines.iter();
            lines.any(|line| line.mid == Some(*mid) && line.flow != Flow::Rejected)
        };
        self.bundle.iter().copied().filter(lives).collect()
    }

    /// Media stream id and CNAME of a slot: random per session (RFC 7022), equal for its two lines.
    fn stream(&self, slot: usize) -> String {
        format!("{:012x}-{slot}", self.session_number & 0xffff_ffff_ffff)
    }

    fn media(&self) -> Media {
        let lines = self.lines.iter().filter_map(|line| {
            let role = match (&line.flow, line.outlet) {
                (Flow::Rejected, _) => return None,
                (Flow::Receive { ssrcs }, _) => Role::Receive { ssrcs: ssrcs.clone() },
                (Flow::Send, Some(outlet)) => Role::Send {
                    ssrc: outlet.ssrc,
                    rtx_ssrc: outlet.rtx_ssrc.filter(|_| line.repaired()),
                    cname: self.stream(outlet.slot),
                },
                (Flow::Send | Flow::Inactive, _) => Role::Inactive,
            };
            Some(MediaLine {
                mid: line.mid?,
                kind: line.kind?,
                role,
                payloads: line.payloads.clone(),
            })
        });
        Media {
            lines: lines.collect(),
            extensions: self.extensions,
        }
    }
}

/// Why a line of an offer is not served, or the offer as a whole.
enum Refusal {
    Line(Note),
    Offer(SdpError),
}

impl From<Note> for Refusal {
    fn from(note: Note) -> Refusal {
        Refusal::Line(note)
    }
}

impl Line {
    /// The line of an answer before anything about it is accepted.
    fn rejected(section: &Section) -> Line {
        Line {
            mid: section.mid,
            kind: section.kind,
            media: section.media.clone(),
            protocol: section.protocol.clone(),
            format: section.format.clone(),
            flow: Flow::Rejected,
            payloads: Vec::new(),
            extensions: Vec::new(),
            rtcp_rsize: false,
            outlet: None,
        }
    }

    /// Whether any payload of the line is retransmitted over RTX.
    fn repaired(&self) -> bool {
        self.payloads.iter().any(|payload| payload.rtx.is_some())
    }
}

/// What the client decodes: of its receiving lines the one with the most codecs, else of its sending ones.
fn decodes(offer: &Description) -> [Vec<Payload>; 2] {
    [Kind::Audio, Kind::Video].map(|kind| {
        let of_kind = offer.sections.iter().filter(|section| section.kind == Some(kind));
        let best = of_kind.max_by_key(|section| (section.direction.receives(), section.payloads.len()));
        let mut payloads = best.map(|section| section.payloads.clone()).unwrap_or_default();
        for payload in &mut payloads {
            payload.transport_cc = false;
        }
        payloads
    })
}
