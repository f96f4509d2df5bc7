//! Everything the core keeps about one session: a client's one transport and what flows on it.

use std::sync::Arc;
use std::time::Instant;

use identity::Permit;
use metering::{Allowance, SessionId};

use crate::budget::Budget;
use crate::config::Config;
use crate::dtls::{Connection, Keys};
use crate::feedback::Arrivals;
use crate::header::Template;
use crate::ice::Agent;
use crate::ladder_gate::LadderGate;
use crate::media::{ExtensionMap, Kind, Media, Mid, Payload, Role, SourceSsrc, Transport};
use crate::replay::Window;
use crate::rtx;
use crate::stream::StreamKey;
use crate::track::Track;

/// SSRCs a session may use over its life: streams, their RTX, and what replaced them.
pub(crate) const SOURCES_MAX: usize = 64;
/// m-lines of a session.
pub(crate) const LINES_MAX: usize = 64;

/// An m-line on which the client publishes.
pub(crate) struct ReceiveLine {
    pub(crate) mid: Mid,
    pub(crate) kind: Kind,
    pub(crate) ssrcs: Vec<SourceSsrc>,
    pub(crate) payloads: Vec<Payload>,
    pub(crate) stream: Option<StreamKey>,
}

/// What an SSRC of the client's carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Media,
    Retransmission,
}

/// An SSRC that was proved by an authentic packet. It stays for the life of the keys, so that its replay
/// window does.
pub(crate) struct SourceEntry {
    pub(crate) ssrc: u32,
    pub(crate) mid: Mid,
    pub(crate) purpose: Purpose,
    pub(crate) stream: Option<StreamKey>,
    pub(crate) window: Window,
}

/// A session.
pub(crate) struct Session {
    pub(crate) id: SessionId,
    /// Held for as long as the session lives: who was let in.
    pub(crate) _permit: Arc<Permit>,
    pub(crate) agent: Agent,
    pub(crate) transport: Transport,
    pub(crate) dtls: Option<Connection>,
    pub(crate) keys: Option<Box<Keys>>,
    pub(crate) allowance: Allowance,
    pub(crate) gate: LadderGate,
    pub(crate) ingress: Budget,
    pub(crate) retransmission: Budget,
    pub(crate) extensions: ExtensionMap,
    pub(crate) receive: Vec<ReceiveLine>,
    pub(crate) sources: Vec<SourceEntry>,
    pub(crate) tracks: Vec<Track>,
    pub(crate) arrivals: Arrivals,
    /// SSRC of the relay's own RTCP towards this client.
    pub(crate) rtcp_ssrc: u32,
    /// The next transport-wide number towards this client.
    pub(crate) transport_sequence: u16,
    pub(crate) opened: Instant,
    pub(crate) report_due: Instant,
    pub(crate) feedback_due: Instant,
    /// A subscriber of its video may now take another bandwidth.
    pub(crate) bandwidth_changed: bool,
    /// The last bandwidth the publisher was told, and how often.
    pub(crate) told: Option<(u64, u8)>,
    /// When the allowance last refused a packet.
    pub(crate) starved: Option<Instant>,
}

impl Session {
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn new(
        id: SessionId,
        permit: Arc<Permit>,
        transport: Transport,
        allowance: Allowance,
        config: &Config,
        tie_breaker: u64,
        rtcp_ssrc: u32,
        now: Instant,
    ) -> Session {
        let bits = config.publisher_bits_per_second;
        Session {
            id,
            _permit: permit,
            agent: Agent::new(transport.local.clone(), transport.remote.clone(), tie_breaker),
            transport,
            dtls: None,
            keys: None,
            allowance,
            gate: LadderGate::new(config.reduced_video_bits_per_second, now),
            // Half a second of burst: a large key frame.
            ingress: Budget::new(bits, bits / 2, now),
            retransmission: rtx::budget(now),
            extensions: ExtensionMap::default(),
            receive: Vec::new(),
            sources: Vec::new(),
            tracks: Vec::new(),
            arrivals: Arrivals::new(now),
            rtcp_ssrc,
            transport_sequence: 0,
            opened: now,
            report_due: now + config.report_interval,
            feedback_due: now,
            bandwidth_changed: true,
            told: None,
            starved: None,
        }
    }

    /// Whether media can flow.
    pub(crate) fn is_connected(&self) -> bool {
        self.keys.is_some()
    }

    /// The last sign of life: an authenticated check, or the opening.
    pub(crate) fn last_sign_of_life(&self) -> Instant {
        self.agent.last_check().unwrap_or(self.opened)
    }

    pub(crate) fn receive_line(&mut self, mid: Mid) -> Option<&mut ReceiveLine> {
        self.receive.iter_mut().find(|line| line.mid == mid)
    }

    /// The stream this session publishes of a kind: of its first m-line that has one.
    pub(crate) fn published(&self, kind: Kind) -> Option<StreamKey> {
        self.receive
            .iter()
            .filter(|line| line.kind == kind)
            .find_map(|line| line.stream)
    }

    /// Takes over the negotiated state and returns the streams whose m-line is gone.
    pub(crate) fn set_media(
        &mut self,
        media: Media,
        first_sequence: &mut dyn FnMut() -> u16,
    ) -> Vec<StreamKey> {
        self.extensions = media.extensions;
        let mut gone: Vec<StreamKey> = Vec::new();
        let mut receive = Vec::new();
        self.tracks.iter_mut().for_each(|track| track.active = false);
        for line in media.lines.into_iter().take(LINES_MAX) {
            match line.role {
                Role::Receive { ssrcs } => {
                    let at = self.receive.iter().position(|old| old.mid == line.mid);
                    let stream = at.and_then(|at| self.receive.swap_remove(at).stream);
                    let (mid, kind, payloads) = (line.mid, line.kind, line.payloads);
                    receive.push(ReceiveLine {
                        mid,
                        kind,
                        ssrcs,
                        payloads,
                        stream,
                    });
                }
                Role::Send {
                    ssrc,
                    rtx_ssrc,
                    cname,
                } => {
                    let known = self
                        .tracks
                        .iter()
                        .position(|track| track.mid == line.mid && track.ssrc == ssrc);
                    if let Some(at) = known {
                        let track = &mut self.tracks[at];
                        track.active = true;
                        track.rtx_ssrc = rtx_ssrc;
                        track.cname = cname;
                        track.payloads = line.payloads;
                    } else if self.tracks.len() < 2 * LINES_MAX {
                        // Tracks stay for the session's life: what was sealed under their SSRC is remembered.
                        let (mid, kind, payloads) = (line.mid, line.kind, line.payloads);
                        self.tracks.push(Track::new(
                            mid,
                            kind,
                            ssrc,
                            rtx_ssrc,
                            cname,
                            payloads,
                            first_sequence(),
                        ));
                    }
                }
                Role::Inactive => {}
            }
        }
        for track in &mut self.tracks {
            track.template = Template::new(track.mid, &self.extensions);
        }
        gone.extend(self.receive.iter().filter_map(|line| line.stream));
        self.receive = receive;
        gone
    }

    /// The active track with this SSRC, or whose retransmissions have it.
    pub(crate) fn track_of_ssrc(&self, ssrc: u32) -> Option<usize> {
        self.tracks
            .iter()
            .position(|track| track.active && (track.ssrc == ssrc || track.rtx_ssrc == Some(ssrc)))
    }

    pub(crate) fn source_of_ssrc(&mut self, ssrc: u32) -> Option<&mut SourceEntry> {
        self.sources.iter_mut().find(|source| source.ssrc == ssrc)
    }
}
