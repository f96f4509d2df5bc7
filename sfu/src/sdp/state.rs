//! What both sides have agreed on so far, line by line, and how an offer or an answer changes it (RFC 8829
//! sections 5.3 and 5.11). Every change works on a copy; the negotiation keeps it only if all of it is good.

use rand::Rng;
use rand::rngs::StdRng;

use super::credentials::Setup;
use super::description::{Description, Section};
use super::error::{Quoted, SdpError};
use super::extension::{self, Extension};
use super::note::Note;
use super::{LocalParameters, Purpose, payload, write};
use crate::media::{
    DtlsRole, ExtensionMap, Fingerprint, IceCredentials, Kind, Media, MediaLine, Mid, Payload, Role,
    SourceSsrc,
};
use crate::room::Published;

/// What both sides have agreed on so far.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) lines: Vec<Line>,
    /// MIDs in the order of the BUNDLE group; rejected ones are left out when it is written.
    pub(super) bundle: Vec<Mid>,
    pub(super) ice: IceCredentials,
    pub(super) remote: Option<(IceCredentials, Fingerprint)>,
    pub(super) role: Option<DtlsRole>,
    pub(super) extensions: ExtensionMap,
    pub(super) mixed_extensions: bool,
    /// What the client decodes, as far as it has told.
    pub(super) decodes: [Vec<Payload>; 2],
    /// `o=`: our session id and version.
    pub(super) session_number: u64,
    pub(super) version: u64,
    /// Relay-made m-lines so far, for their MIDs.
    pub(super) own_lines: u32,
}

/// One m-line. Its index never changes.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) mid: Option<Mid>,
    pub(super) kind: Option<Kind>,
    pub(super) media: String,
    pub(super) protocol: String,
    /// Repeated when the line is rejected.
    pub(super) format: String,
    pub(super) flow: Flow,
    pub(super) payloads: Vec<Payload>,
    pub(super) extensions: Vec<(u8, Extension)>,
    pub(super) rtcp_rsize: bool,
    /// Kept for the line's life, so that a receiver never sees its SSRCs change.
    pub(super) outlet: Option<Outlet>,
}

/// What the relay does on a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Flow {
    Receive { ssrcs: Vec<SourceSsrc> },
    Send,
    Inactive,
    Rejected,
}

/// The relay's identity on a line it sends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outlet {
    /// Audio and video line of one slot share stream and CNAME.
    pub(super) slot: usize,
    pub(super) ssrc: u32,
    pub(super) rtx_ssrc: Option<u32>,
}

impl State {
    pub(super) fn new(ice: IceCredentials, rng: &mut StdRng) -> State {
        State {
            lines: Vec::new(),
            bundle: Vec::new(),
            ice,
            remote: None,
            role: None,
            extensions: ExtensionMap::default(),
            mixed_extensions: false,
            decodes: [Vec::new(), Vec::new()],
            // 62 bits: RFC 8829 section 5.2.1 wants it to fit a signed integer.
            session_number: rng.next_u64() >> 2,
            version: 0,
            own_lines: 0,
        }
    }

    /// Credentials, fingerprint and role of an offer. New ICE credentials restart ICE on our side too; another
    /// fingerprint or swapped roles would be another DTLS association, which a session does not survive.
    pub(super) fn agree_on_transport(
        &mut self,
        offer: &Description,
        rng: &mut StdRng,
    ) -> Result<(), SdpError> {
        let transport = offer.transport()?;
        let (ice, fingerprint, setup) = (transport.ice()?, transport.fingerprint()?, transport.setup()?);
        if let Some((old_ice, old_fingerprint)) = &self.remote {
            if *old_fingerprint != fingerprint {
                return Err(SdpError::FingerprintChanged);
            }
            if *old_ice != ice {
                self.ice = IceCredentials::generate(rng);
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

    pub(super) fn take_offer(
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
            let useful = !known && (agreed || removed);
            let entered = useful && extension::enter(&mut self.extensions, *id, *extension);
            if entered && agreed {
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
    pub(super) fn take_answer(&mut self, answer: &Description) -> Result<(), SdpError> {
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
    pub(super) fn add_line(&mut self, kind: Kind) {
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
    pub(super) fn give_outlets(&mut self, rng: &mut StdRng) {
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
    pub(super) fn bundle(&self) -> Vec<Mid> {
        let lives = |mid: &Mid| {
            let mut lines = self.lines.iter();
            lines.any(|line| line.mid == Some(*mid) && line.flow != Flow::Rejected)
        };
        self.bundle.iter().copied().filter(lives).collect()
    }

    /// Media stream id and CNAME of a slot: random per session (RFC 7022), equal for its two lines.
    pub(super) fn stream(&self, slot: usize) -> String {
        format!("{:012x}-{slot}", self.session_number & 0xffff_ffff_ffff)
    }

    pub(super) fn media(&self) -> Media {
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
    pub(super) fn repaired(&self) -> bool {
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
