//! RTCP from clients: everything in it ends here, nothing is passed through (RFC 7667 section 3.7).

use std::time::{Duration, Instant};

use wire::rtcp::{Packet, ReportBlock, compound};

use crate::Sfu;
use crate::discard::Discard;
use crate::media::Kind;
use crate::report::{SenderClock, in_65536ths};
use crate::rtx::{NACKED_MAX, QUEUE_MAX, Retransmission};
use crate::session::Purpose;
use crate::stream::SessionKey;

/// RTCP packets read from one datagram: a compound packet of every kind for a few streams.
const PACKETS_MAX: usize = 64;

impl Sfu {
    pub(crate) fn handle_rtcp(
        &mut self,
        now: Instant,
        key: SessionKey,
        datagram: &[u8],
    ) -> Result<(), Discard> {
        let mut plain = [0; 2048];
        let session = self.sessions[key].as_mut().ok_or(Discard::UnknownAddress)?;
        let keys = session.keys.as_mut().ok_or(Discard::NoKeys)?;
        let length = keys.rtcp_opener.open(datagram, &mut plain)?;
        for packet in compound(&plain[..length]).take(PACKETS_MAX) {
            let packet = packet.map_err(|_| Discard::MalformedRtcp)?;
            match packet {
                Packet::SenderReport(report) => {
                    self.handle_sender_clock(
                        now,
                        key,
                        report.sender.ssrc,
                        report.sender.ntp,
                        report.sender.rtp_timestamp,
                    );
                    report
                        .reports()
                        .for_each(|block| self.handle_report_block(now, key, &block));
                }
                Packet::ReceiverReport(report) => {
                    report
                        .reports()
                        .for_each(|block| self.handle_report_block(now, key, &block));
                }
                Packet::Nack(nack) => {
                    self.handle_nack(
                        now,
                        key,
                        nack.media_ssrc,
                        nack.sequence_numbers().take(NACKED_MAX),
                    );
                }
                Packet::PictureLossIndication(pli) => self.handle_keyframe_request(now, key, pli.media_ssrc),
                Packet::FullIntraRequest(fir) => {
                    fir.entries()
                        .for_each(|entry| self.handle_keyframe_request(now, key, entry.ssrc));
                }
                Packet::Goodbye(goodbye) => goodbye.sources().for_each(|ssrc| self.handle_goodbye(key, ssrc)),
                // Bandwidth estimation towards subscribers is not done yet.
                Packet::SourceDescription(_)
                | Packet::Remb(_)
                | Packet::TransportWideFeedback(_)
                | Packet::Unknown(_) => {}
            }
        }
        Ok(())
    }

    /// A publisher's clock: every subscriber's sender report follows from it.
    fn handle_sender_clock(
        &mut self,
        now: Instant,
        key: SessionKey,
        ssrc: u32,
        ntp: u64,
        rtp_timestamp: u32,
    ) {
        let Sfu {
            sessions, counters, ..
        } = self;
        let source = sessions[key]
            .as_mut()
            .and_then(|session| session.source_of_ssrc(ssrc));
        let Some(source) = source.filter(|source| source.purpose == Purpose::Media) else {
            counters.discard(Discard::ForeignRtcp);
            return;
        };
        let Some(stream_key) = source.stream else {
            return;
        };
        let clock = SenderClock {
            ntp,
            rtp_timestamp,
            arrival: now,
        };
        self.take_clock(stream_key, clock, now);
    }

    /// What a subscriber says about a track: here only the round trip matters.
    fn handle_report_block(&mut self, now: Instant, key: SessionKey, block: &ReportBlock) {
        let Some(session) = self.sessions[key].as_mut() else {
            return;
        };
        let Some(track) = session.tracks.iter_mut().find(|track| track.ssrc == block.ssrc) else {
            return;
        };
        let Some((_, sent)) = track
            .reported
            .filter(|(middle, _)| *middle == block.last_sender_report)
        else {
            return;
        };
        let elapsed = in_65536ths(now.saturating_duration_since(sent));
        if let Some(ticks) = elapsed.checked_sub(block.delay_since_last_sender_report) {
            track.round_trip = Some(Duration::from_micros(u64::from(ticks) * 1_000_000 / 65_536));
        }
    }

    fn handle_nack(
        &mut self,
        now: Instant,
        key: SessionKey,
        ssrc: u32,
        sequences: impl Iterator<Item = u16>,
    ) {
        let Sfu {
            sessions,
            streams,
            counters,
            retransmissions,
            span,
            ..
        } = self;
        let Some(session) = sessions[key].as_mut() else {
            return;
        };
        let Some(at) = session.track_of_ssrc(ssrc) else {
            counters.discard(Discard::ForeignRtcp);
            return;
        };
        let track = &mut session.tracks[at];
        if track.rtx_ssrc.is_none() {
            return;
        }
        let mut stream = track.stream.and_then(|stream| streams[stream].as_mut());
        for sequence in sequences {
            let traced = track.rewrite.trace(sequence);
            let found = traced.and_then(|(index_in, index_out, segment)| {
                let stream = stream.as_deref_mut()?;
                if stream.serial != segment.stream {
                    return None;
                }
                let Some(slot) = stream.history.get(index_in) else {
                    if let Some((core, ask)) = stream.ask(index_in, now)
                        && let Some(link) = span.link(core)
                    {
                        link.tell(ask);
                        counters.packets_asked += 1;
                    }
                    return None;
                };
                Some((index_in, index_out, segment, slot.payload().len() as u64))
            });
            let Some((index_in, index_out, segment, length)) = found else {
                counters.discard(Discard::NotInHistory);
                continue;
            };
            let repeats = track
                .retransmitter
                .as_mut()
                .is_some_and(|retransmitter| retransmitter.may_repeat(index_out, now, track.round_trip));
            if !repeats {
                continue;
            }
            if retransmissions.len() >= QUEUE_MAX || !session.retransmission.take_if_any(length, now) {
                counters.discard(Discard::RetransmissionBudget);
                continue;
            }
            retransmissions.push_back(Retransmission {
                session: key,
                track: at,
                index_in,
                index_out,
                segment,
            });
        }
    }

    fn handle_keyframe_request(&mut self, now: Instant, key: SessionKey, ssrc: u32) {
        let Sfu {
            sessions,
            streams,
            counters,
            ..
        } = self;
        let Some(session) = sessions[key].as_mut() else {
            return;
        };
        let Some(at) = session.track_of_ssrc(ssrc) else {
            counters.discard(Discard::ForeignRtcp);
            return;
        };
        // Who may not get video may not make a publisher work for it.
        if !session.gate.wants_video(now) {
            return;
        }
        let stream = session.tracks[at]
            .stream
            .and_then(|stream| streams[stream].as_mut());
        if let Some(stream) = stream.filter(|stream| stream.kind == Kind::Video) {
            stream.keyframes.want();
            let owner = stream.owner;
            self.urge(owner, now);
        }
    }

    /// The client stopped sending a stream. Its SSRC keeps its replay window.
    fn handle_goodbye(&mut self, key: SessionKey, ssrc: u32) {
        let source = self.sessions[key]
            .as_mut()
            .and_then(|session| session.source_of_ssrc(ssrc));
        let stream = source
            .filter(|source| source.purpose == Purpose::Media)
            .and_then(|source| source.stream);
        if let Some(stream) = stream {
            self.remove_stream(stream);
        }
    }
}
