//! One send line of a session.

use std::time::{Duration, Instant};

use crate::Source;
use crate::header::Template;
use crate::media::{ExtensionMap, Kind, Mid, Payload};
use crate::payload_type::{TypeMap, best_match};
use crate::replay::Window;
use crate::rewrite::Rewrite;
use crate::rtx::Retransmitter;
use crate::stream::{Stream, StreamKey};

/// One send line of a session: what it carries and how it is numbered.
pub(crate) struct Track {
    pub(crate) mid: Mid,
    pub(crate) kind: Kind,
    pub(crate) ssrc: u32,
    pub(crate) rtx_ssrc: Option<u32>,
    pub(crate) cname: String,
    pub(crate) payloads: Vec<Payload>,
    /// Whether the m-line still exists.
    pub(crate) active: bool,
    /// What it should carry.
    pub(crate) source: Option<Source>,
    /// The stream it carries.
    pub(crate) stream: Option<StreamKey>,
    types: Vec<TypeMap>,
    pub(crate) rewrite: Rewrite,
    /// Indices sealed under the SSRC: none is ever sealed twice.
    pub(crate) sealed: Window,
    /// Made with the first stream it carries: who never got one needs none.
    pub(crate) retransmitter: Option<Box<Retransmitter>>,
    first_rtx_sequence: u16,
    /// The header of its packets.
    pub(crate) template: Template,
    /// How far it got in its stream's log.
    pub(crate) cursor: u64,
    /// Timestamp of the latest frame that came by.
    pub(crate) frame: Option<u32>,
    pub(crate) packets: u32,
    pub(crate) octets: u32,
    /// A sender report is to be sent.
    pub(crate) report_due: bool,
    /// Middle of the NTP time of the last sender report, and when it was sent.
    pub(crate) reported: Option<(u32, Instant)>,
    /// The round trip, from the last receiver report.
    pub(crate) round_trip: Option<Duration>,
}

impl Track {
    pub(crate) fn new(
        mid: Mid,
        kind: Kind,
        ssrc: u32,
        rtx_ssrc: Option<u32>,
        cname: String,
        payloads: Vec<Payload>,
        first_sequence: u16,
    ) -> Track {
        let clock_rate = payloads.first().map_or(90_000, |payload| payload.clock_rate);
        Track {
            mid,
            kind,
            ssrc,
            rtx_ssrc,
            cname,
            payloads,
            active: true,
            source: None,
            stream: None,
            types: Vec::new(),
            rewrite: Rewrite::new(first_sequence, clock_rate),
            sealed: Window::new(),
            retransmitter: None,
            first_rtx_sequence: first_sequence.rotate_left(7),
            template: Template::new(mid, &ExtensionMap::default()),
            cursor: 0,
            frame: None,
            packets: 0,
            octets: 0,
            report_due: false,
            reported: None,
            round_trip: None,
        }
    }

    /// Numbers anew, under new keys: their receiver guesses ROC 0 (RFC 3711 section 3.3.1).
    pub(crate) fn rekey(&mut self, first_sequence: u16) {
        let clock_rate = self.payloads.first().map_or(90_000, |payload| payload.clock_rate);
        self.rewrite = Rewrite::new(first_sequence, clock_rate);
        self.sealed = Window::new();
        self.first_rtx_sequence = first_sequence.rotate_left(7);
        self.retransmitter = self.retransmitter.take().map(|_| self.new_retransmitter());
        self.frame = None;
    }

    fn new_retransmitter(&self) -> Box<Retransmitter> {
        Box::new(Retransmitter::new(self.first_rtx_sequence))
    }

    /// Carries `stream` from now on, or nothing.
    pub(crate) fn attach(&mut self, key: Option<StreamKey>, stream: Option<&Stream>) {
        self.stream = key;
        self.cursor = stream.map_or(0, |stream| stream.fresh.end());
        if stream.is_some() && self.rtx_ssrc.is_some() && self.retransmitter.is_none() {
            self.retransmitter = Some(self.new_retransmitter());
        }
        self.rewrite.wait();
        self.frame = None;
        self.report_due = stream.is_some_and(|stream| stream.clock.is_some());
        self.map_types(stream);
    }

    /// Matches the publisher's payload types with the subscriber's.
    pub(crate) fn map_types(&mut self, stream: Option<&Stream>) {
        self.types.clear();
        let Some(stream) = stream else {
            return;
        };
        if let Some(first) = stream.payloads.first() {
            self.rewrite.set_clock_rate(first.clock_rate);
        }
        for payload in &stream.payloads {
            if let Some(to) = best_match(payload, &self.payloads) {
                self.types.push(TypeMap {
                    from: payload.pt,
                    to: to.pt,
                    rtx: to.rtx,
                });
            }
        }
    }

    /// Whether any of the publisher's payload types can be sent.
    pub(crate) fn can_carry(&self) -> bool {
        self.active && !self.types.is_empty()
    }

    pub(crate) fn map_type(&self, payload_type: u8) -> Option<TypeMap> {
        self.types.iter().find(|map| map.from == payload_type).copied()
    }

    /// Whether `timestamp` begins a frame that did not come by yet.
    pub(crate) fn starts_frame(&self, timestamp: u32) -> bool {
        self.frame
            .is_none_or(|frame| (timestamp.wrapping_sub(frame) as i32) > 0)
    }
}
