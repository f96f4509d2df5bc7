//! What time brings: expiry of consent, DTLS and ICE retransmissions, and the RTCP the relay makes itself:
//! receiver reports, sender reports, transport-wide feedback, NACK, PLI, FIR, REMB.

use std::time::{Duration, Instant};

use wire::rtcp::{FirEntry, ReportBlock, SenderInfo, Writer};

use crate::Sfu;
use crate::discard::{Counters, Discard};
use crate::event::CloseReason;
use crate::ice::MESSAGE_BYTES_MAX;
use crate::media::Kind;
use crate::nack::MISSING_MAX;
use crate::outbox::Outbox;
use crate::replica::ELSEWHERE;
use crate::session::{ReceiveLine, Session};
use crate::srtp::RTCP_OVERHEAD_MAX;
use crate::stream::{SessionKey, Stream};

/// A compound packet, below the smallest path MTU of IPv6 less IP, UDP and TURN headers.
const COMPOUND_BYTES_MAX: usize = 1150;
const _: () = assert!(COMPOUND_BYTES_MAX + RTCP_OVERHEAD_MAX <= crate::dtls::DATAGRAM_BYTES_MAX);
/// Report blocks of one RTCP packet (its count has five bits).
const BLOCKS_MAX: usize = 31;
/// How soon a subscriber that waits for a key frame asks again.
const WAITING: Duration = Duration::from_millis(100);
/// A subscriber whose allowance refused a packet asks for no key frame this soon.
const STARVED: Duration = Duration::from_secs(1);
/// What a publisher may send when nobody limits it any more: REMB has no other way to say so.
const UNLIMITED: u64 = 100_000_000;
/// What a publisher is told when none of its subscribers takes video: enough for its audio.
const AUDIO_ONLY: u64 = 60_000;
/// A bandwidth that no longer applies is corrected this often, as RTCP may be lost.
const CORRECTIONS: u8 = 3;

impl Sfu {
    /// Makes sure that the session is looked at by `at`.
    pub(crate) fn urge(&mut self, key: SessionKey, at: Instant) {
        if key == ELSEWHERE {
            self.span.urge(at);
        } else if self.sessions[key].is_some() {
            self.timers.urge(key, at);
        }
    }

    pub(crate) fn expire(&mut self, now: Instant) {
        // As many as there are: whoever is urged meanwhile for this very instant has the next call.
        for _ in 0..self.timers.len() {
            let Some(key) = self.timers.pop(now) else {
                break;
            };
            self.tick(key, now);
        }
        self.tend_replicas(now);
    }

    fn tick(&mut self, key: SessionKey, now: Instant) {
        let Some(session) = self.sessions[key].as_mut() else {
            return;
        };
        let (limit, reason) = if session.is_connected() {
            (
                session.last_sign_of_life() + self.config.consent_timeout,
                CloseReason::Consent,
            )
        } else {
            (session.opened + self.config.setup_timeout, CloseReason::Setup)
        };
        if limit <= now {
            self.close_key(key, reason, now);
            return;
        }
        self.urge(key, limit);
        self.drive_dtls(key, now);
        self.send_check(key, now);
        self.want_key_frames(key, now);
        self.send_reports(key, now);
        self.report(key, now);
        if let Some(at) = self.sessions[key]
            .as_ref()
            .and_then(|session| session.allowance.next_report())
        {
            // Never at once again: whatever is due now was just reported.
            self.urge(key, at.max(now + Duration::from_millis(1)));
        }
        if let Some(at) = self.sessions[key]
            .as_ref()
            .and_then(|session| session.dtls.as_ref())
            .and_then(|dtls| dtls.due())
        {
            self.urge(key, at.max(now + Duration::from_millis(1)));
        }
    }

    /// A Binding request to an address that is to prove itself.
    fn send_check(&mut self, key: SessionKey, now: Instant) {
        let Sfu { sessions, outbox, .. } = self;
        let Some(session) = sessions[key].as_mut() else {
            return;
        };
        let mut request = [0; MESSAGE_BYTES_MAX];
        if let Some((length, path)) = session.agent.poll_request(now, &mut request) {
            outbox.push(path, None, |out| {
                out[..length].copy_from_slice(&request[..length]);
                Some(length)
            });
        }
        if let Some(due) = session.agent.due() {
            self.urge(key, due);
        }
    }

    /// Asks for the key frames that this session's send lines wait for and may have.
    fn want_key_frames(&mut self, key: SessionKey, now: Instant) {
        let Sfu {
            sessions,
            streams,
            config,
            wake,
            ..
        } = self;
        let Some(session) = sessions[key].as_mut().filter(|session| session.is_connected()) else {
            return;
        };
        let starved = session
            .starved
            .is_some_and(|at| now.saturating_duration_since(at) < STARVED);
        let mut waits = false;
        for track in &session.tracks {
            if track.kind != Kind::Video || !track.rewrite.is_waiting() || !track.can_carry() {
                continue;
            }
            let Some(stream) = track.stream.and_then(|stream| streams[stream].as_mut()) else {
                continue;
            };
            if session.gate.step() >= metering::Step::AudioOnly {
                continue;
            }
            waits = true;
            if starved || !session.gate.wants_video(now) {
                continue;
            }
            stream.keyframes.want();
            if let Some(due) = stream.keyframes.due(config.keyframe_interval, now) {
                wake.push((stream.owner, due));
            }
        }
        while let Some((owner, due)) = self.wake.pop() {
            self.urge(owner, due);
        }
        if waits {
            self.urge(key, now + WAITING);
        }
    }

    fn send_reports(&mut self, key: SessionKey, now: Instant) {
        let asks = self.sessions[key]
            .as_ref()
            .is_some_and(|session| session.bandwidth_changed || session.report_due <= now);
        // A walk over all subscribers, so only now and then.
        let cap = if asks { Some(self.video_cap(key)) } else { None };
        let Sfu {
            sessions,
            streams,
            outbox,
            counters,
            config,
            ..
        } = self;
        let Some(session) = sessions[key].as_mut().filter(|session| session.is_connected()) else {
            return;
        };
        let mut out = Compounds {
            session,
            outbox,
            counters,
        };
        let mut next = None;
        let mut at =
            |instant: Instant| next = Some(next.map_or(instant, |other: Instant| other.min(instant)));

        let regular = out.session.report_due <= now;
        if regular {
            out.receiver_report(streams, now);
            out.session.report_due = now + config.report_interval;
        }
        if let Some(cap) = cap {
            out.session.bandwidth_changed = false;
            let changed = cap.unwrap_or(UNLIMITED) != out.session.told.map_or(UNLIMITED, |(told, _)| told);
            if regular || changed {
                out.bandwidth(streams, cap);
            }
        }
        at(out.session.report_due);
        out.sender_reports(streams, now);
        if out.session.arrivals.pending() && out.session.feedback_due <= now {
            out.feedback();
            out.session.feedback_due = now + config.feedback_interval;
        }
        if !out.session.receive.is_empty() {
            at(out.session.feedback_due.max(now + config.feedback_interval / 4));
        }
        for line in 0..out.session.receive.len() {
            let Some(stream) = out.session.receive[line]
                .stream
                .and_then(|stream| streams[stream].as_mut())
            else {
                continue;
            };
            out.nack(stream, line, now);
            out.key_frame_request(stream, line, config.keyframe_interval, now);
            if let Some(due) = stream.gaps.due() {
                at(due);
            }
            if let Some(due) = stream.keyframes.due(config.keyframe_interval, now) {
                at(due);
            }
        }
        if let Some(next) = next {
            self.urge(key, next.max(now + Duration::from_millis(1)));
        }
    }

    /// The largest video cap of the subscribers of what this session publishes; `None` when one has no cap or
    /// there is none.
    fn video_cap(&self, key: SessionKey) -> Option<u64> {
        let session = self.sessions[key].as_ref()?;
        let mut cap = None;
        for line in session.receive.iter().filter(|line| line.kind == Kind::Video) {
            let Some(stream) = line.stream.and_then(|stream| self.streams[stream].as_ref()) else {
                continue;
            };
            for subscriber in &stream.subscribers {
                let Some(subscriber) = self.sessions[subscriber.session].as_ref() else {
                    continue;
                };
                cap = cap.max(Some(subscriber.gate.video_cap()?));
            }
            for feed in &stream.feeds {
                cap = cap.max(Some(feed.cap?));
            }
        }
        cap.map(|cap| cap.max(AUDIO_ONLY))
    }
}

/// Writes compound packets for one session and seals them into the outbox.
struct Compounds<'a> {
    session: &'a mut Session,
    outbox: &'a mut Outbox,
    counters: &'a mut Counters,
}

impl Compounds<'_> {
    /// Seals and queues one compound packet.
    fn send(&mut self, compound: &[u8]) {
        let (Some(keys), Some(path)) = (self.session.keys.as_mut(), self.session.agent.selected()) else {
            return;
        };
        if !compound.is_empty()
            && !self
                .outbox
                .push(path, None, |out| keys.rtcp_sealer.seal(compound, out))
        {
            self.counters.discard(Discard::ControlBacklog);
        }
    }

    fn receiver_report(&mut self, streams: &mut [Option<Box<Stream>>], now: Instant) {
        let mut blocks = [ReportBlock::default(); BLOCKS_MAX];
        let mut count = 0;
        for line in &self.session.receive {
            let Some(stream) = line.stream.and_then(|stream| streams[stream].as_mut()) else {
                continue;
            };
            let Some(block) = stream.reception.report(stream.ssrc, stream.clock, now) else {
                continue;
            };
            if count < BLOCKS_MAX {
                blocks[count] = block;
                count += 1;
            }
        }
        if count == 0 {
            return;
        }
        let ssrc = self.session.rtcp_ssrc;
        let mut buffer = [0; COMPOUND_BYTES_MAX];
        let mut writer = Writer::new(&mut buffer);
        // 31 blocks fit; the description names nobody and only completes the compound.
        let _ = writer.receiver_report(ssrc, &blocks[..count]);
        let _ = writer.source_description(ssrc, "milliway");
        let length = writer.finish();
        self.send(&buffer[..length]);
    }

    /// The publisher's clock in the subscriber's numbering, with the relay's own counts.
    fn sender_reports(&mut self, streams: &[Option<Box<Stream>>], now: Instant) {
        for at in 0..self.session.tracks.len() {
            let track = &mut self.session.tracks[at];
            if !track.report_due || track.rewrite.is_waiting() {
                continue;
            }
            let stream = track.stream.and_then(|stream| streams[stream].as_ref());
            let Some((clock, segment)) = stream
                .and_then(|stream| stream.clock)
                .zip(track.rewrite.current())
            else {
                continue;
            };
            track.report_due = false;
            track.reported = Some((crate::report::middle_of_ntp(clock.ntp), now));
            let info = SenderInfo {
                ssrc: track.ssrc,
                ntp: clock.ntp,
                rtp_timestamp: segment.timestamp_out(clock.rtp_timestamp),
                packet_count: track.packets,
                octet_count: track.octets,
            };
            let mut buffer = [0; COMPOUND_BYTES_MAX];
            let mut writer = Writer::new(&mut buffer);
            let _ = writer.sender_report(&info, &[]);
            let _ = writer.source_description(track.ssrc, &track.cname);
            let length = writer.finish();
            self.send(&buffer[..length]);
        }
    }

    fn feedback(&mut self) {
        while self.session.arrivals.pending() {
            let mut buffer = [0; COMPOUND_BYTES_MAX];
            let mut writer = Writer::new(&mut buffer);
            if self
                .session
                .arrivals
                .write(self.session.rtcp_ssrc, &mut writer)
                .is_err()
                || writer.is_empty()
            {
                return;
            }
            let length = writer.finish();
            self.send(&buffer[..length]);
        }
    }

    fn nack(&mut self, stream: &mut Stream, line: usize, now: Instant) {
        if !self.agreed(line, |payload| payload.nack) {
            return;
        }
        let mut wanted = [0; MISSING_MAX];
        let count = stream.gaps.poll(now, &mut wanted);
        if count == 0 {
            return;
        }
        let mut buffer = [0; COMPOUND_BYTES_MAX];
        let mut writer = Writer::new(&mut buffer);
        let _ = writer.nack(
            self.session.rtcp_ssrc,
            stream.ssrc,
            wanted[..count].iter().copied(),
        );
        let length = writer.finish();
        self.send(&buffer[..length]);
    }

    fn key_frame_request(&mut self, stream: &mut Stream, line: usize, interval: Duration, now: Instant) {
        if stream.kind != Kind::Video || !stream.keyframes.poll(interval, now) {
            return;
        }
        let ssrc = self.session.rtcp_ssrc;
        let mut buffer = [0; COMPOUND_BYTES_MAX];
        let mut writer = Writer::new(&mut buffer);
        if !self.agreed(line, |payload| payload.pli) && self.agreed(line, |payload| payload.fir) {
            let sequence_number = stream.keyframes.next_fir_sequence();
            let _ = writer.full_intra_request(
                ssrc,
                &[FirEntry {
                    ssrc: stream.ssrc,
                    sequence_number,
                }],
            );
        } else {
            let _ = writer.picture_loss_indication(ssrc, stream.ssrc);
        }
        let length = writer.finish();
        self.send(&buffer[..length]);
        self.counters.keyframe_requests += 1;
    }

    /// What the publisher may send, when all of its subscribers are on a low rung (and that it may send more
    /// again, once one is not).
    fn bandwidth(&mut self, streams: &[Option<Box<Stream>>], cap: Option<u64>) {
        let told = match (cap, self.session.told) {
            (Some(cap), _) => (cap, 0),
            (None, Some((UNLIMITED, times))) if times < CORRECTIONS => (UNLIMITED, times + 1),
            (None, Some((UNLIMITED, _)) | None) => return,
            (None, Some(_)) => (UNLIMITED, 1),
        };
        let mut ssrcs = [0; BLOCKS_MAX];
        let mut count = 0;
        let wants = |line: &&ReceiveLine| line.payloads.iter().any(|payload| payload.remb);
        for line in self
            .session
            .receive
            .iter()
            .filter(|line| line.kind == Kind::Video)
            .filter(wants)
        {
            let stream = line.stream.and_then(|stream| streams[stream].as_ref());
            if let Some((slot, stream)) = ssrcs.get_mut(count).zip(stream) {
                *slot = stream.ssrc;
                count += 1;
            }
        }
        if count == 0 {
            return;
        }
        self.session.told = Some(told);
        let mut buffer = [0; COMPOUND_BYTES_MAX];
        let mut writer = Writer::new(&mut buffer);
        let _ = writer.remb(self.session.rtcp_ssrc, told.0, &ssrcs[..count]);
        let length = writer.finish();
        self.send(&buffer[..length]);
    }

    fn agreed(&self, line: usize, what: impl Fn(&crate::media::Payload) -> bool) -> bool {
        self.session.receive[line].payloads.iter().any(what)
    }
}
