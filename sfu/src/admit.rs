//! The second stage: a publisher's packet proves which stream it belongs to and goes into its history.
//!
//! A stream is known by its SSRC. An SSRC seen for the first time is explained by the SDP, else by the MID
//! header extension, else by its payload type (RFC 9143 section 9.2), and only an authentic packet makes it
//! known, so forged packets leave no state behind.

use std::time::{Duration, Instant};

use metering::Direction;
use wire::rtp::HeaderView;

use crate::Sfu;
use crate::codec::starts_key_frame;
use crate::discard::Discard;
use crate::event::Event;
use crate::media::{ExtensionMap, Kind, Mid};
use crate::replay::{Window, estimate_index};
use crate::session::{Purpose, SOURCES_MAX, Session, SourceEntry};
use crate::slot::{OSN_LENGTH, Stored};
use crate::stream::{Origin, SessionKey, Stream, StreamKey};

/// A new SSRC replaces the stream of its m-line once that was silent for this long.
const REPLACED_AFTER: Duration = Duration::from_millis(500);

impl Sfu {
    pub(crate) fn admit(&mut self, now: Instant, key: SessionKey, datagram: &[u8]) -> Result<(), Discard> {
        let header = HeaderView::parse(datagram).map_err(|_| Discard::MalformedRtp)?;
        let session = self.sessions[key].as_mut().ok_or(Discard::UnknownAddress)?;
        if session.keys.is_none() {
            return Err(Discard::NoKeys);
        }
        if session.gate.step() >= metering::Step::Held {
            return Err(Discard::Held);
        }
        if session
            .source_of_ssrc(header.ssrc())
            .is_none_or(|source| source.stream.is_none())
        {
            self.introduce(now, key, &header)?;
        }
        self.admit_known(now, key, &header)
    }

    /// A packet of a known SSRC.
    fn admit_known(&mut self, now: Instant, key: SessionKey, header: &HeaderView<'_>) -> Result<(), Discard> {
        let Sfu {
            sessions,
            streams,
            pool,
            counters,
            waiting,
            config,
            ..
        } = self;
        let session = sessions[key].as_mut().ok_or(Discard::UnknownAddress)?;
        let Session {
            keys: Some(keys),
            sources,
            extensions,
            arrivals,
            allowance,
            ..
        } = &mut **session
        else {
            return Err(Discard::NoKeys);
        };
        let ssrc = header.ssrc();
        let at = sources
            .iter()
            .position(|source| source.ssrc == ssrc)
            .ok_or(Discard::UnknownSsrc)?;
        let stream_key = sources[at].stream.ok_or(Discard::UnknownSsrc)?;
        let stream = streams[stream_key].as_mut().ok_or(Discard::UnknownSsrc)?;
        let source = &mut sources[at];
        let index =
            estimate_index(source.window.highest(), header.sequence_number()).ok_or(Discard::Replayed)?;
        if !source.window.is_new(index) {
            return Err(Discard::Replayed);
        }
        let retransmission = source.purpose == Purpose::Retransmission;
        let (packet, header_length) = (header.as_bytes(), header.header_len());
        if pool.is_exhausted()
            && let Some(oldest) = stream.history.shrink()
        {
            pool.give(oldest);
        }
        let slot = pool.spare(now)?;
        let room = if retransmission {
            slot.room_with_osn()
        } else {
            slot.room()
        };
        let opened = keys.opener.open(packet, header_length, index, room)?;
        // Paid for once it is known to be the publisher's; what is not paid for leaves no trace.
        if allowance.charges_ingress()
            && allowance
                .charge(Direction::FromClient, packet.len() as u64, now)
                .is_err()
        {
            return Err(Discard::Exhausted);
        }
        source.window.insert(index);
        counters.packets_in += 1;
        counters.bytes_in += packet.len() as u64;
        let padding = if header.padding() {
            room[..opened].last().map_or(0, |last| usize::from(*last))
        } else {
            0
        };
        if header.padding() && (padding == 0 || padding > opened) {
            return Err(Discard::MalformedRtp);
        }
        let length = opened - padding;
        let kept = Kept::read(header, extensions);
        if let Some(number) = kept.transport_sequence {
            arrivals.arrived(number, ssrc, now);
        }
        let (index, payload_type, length) = if retransmission {
            let Some(length) = length.checked_sub(OSN_LENGTH) else {
                // Padding that probes for bandwidth.
                return Ok(());
            };
            let original = stream
                .payload_of_rtx(header.payload_type())
                .ok_or(Discard::UnknownPayloadType)?
                .pt;
            let media = sources
                .iter_mut()
                .find(|source| source.ssrc == stream.ssrc)
                .ok_or(Discard::UnknownSsrc)?;
            let index = estimate_index(media.window.highest(), slot.osn()).ok_or(Discard::Replayed)?;
            // The original may still be on its way; whichever comes second is a duplicate.
            if !media.window.insert(index) {
                return Err(Discard::Duplicate);
            }
            (index, original, length)
        } else {
            stream.reception.arrived(index, header.timestamp(), now);
            (index, header.payload_type(), length)
        };
        stream.gaps.arrived(index, stream.last_index, now);
        stream.last_index = stream.last_index.max(Some(index));
        let codec = stream
            .payload(payload_type)
            .ok_or(Discard::UnknownPayloadType)?
            .codec;
        let starts_key_frame = starts_key_frame(codec, slot.opened(length));
        if starts_key_frame && stream.kind == Kind::Video {
            stream.key_frame = Some(header.timestamp());
        }
        let stored = Stored {
            index,
            arrival: now,
            timestamp: header.timestamp(),
            payload_length: length as u16,
            descriptor_length: 0,
            payload_type,
            marker: header.marker(),
            padded: header.padding(),
            of_key_frame: stream.kind == Kind::Video && stream.key_frame == Some(header.timestamp()),
            starts_key_frame,
            audio_level: kept.audio_level,
            video_orientation: kept.video_orientation,
        };
        slot.describe(stored, kept.descriptor);
        let slot = pool.take().ok_or(Discard::NoSlot)?;
        let crossing = (!stream.feeds.is_empty()).then(|| slot.clone());
        stream.accept(slot, now, config.tick, |evicted| pool.give(evicted))?;
        if !stream.queued && !stream.subscribers.is_empty() {
            stream.queued = true;
            waiting.push_back(stream_key);
        }
        let nack_due = stream.gaps.due();
        if let Some(due) = nack_due {
            self.urge(key, due);
        }
        if let Some(slot) = crossing {
            self.cross(stream_key, &slot, now);
        }
        Ok(())
    }

    /// Makes an SSRC known, if something explains it and the packet is authentic.
    fn introduce(&mut self, now: Instant, key: SessionKey, header: &HeaderView<'_>) -> Result<(), Discard> {
        let Sfu {
            sessions,
            streams,
            scratch,
            ..
        } = self;
        let session = sessions[key].as_mut().ok_or(Discard::UnknownAddress)?;
        let ssrc = header.ssrc();
        let (mid, purpose) = explain(session, header)?;
        let known = session.sources.iter().any(|source| source.ssrc == ssrc);
        if !known && session.sources.len() == SOURCES_MAX {
            return Err(Discard::TooManyStreams);
        }
        // Proved with the replay window it had, if the SSRC was in use before.
        let window = session.source_of_ssrc(ssrc).map(|source| source.window.clone());
        let highest = window.as_ref().and_then(Window::highest);
        let index = estimate_index(highest, header.sequence_number()).ok_or(Discard::Replayed)?;
        if window.is_some_and(|window| !window.is_new(index)) {
            return Err(Discard::Replayed);
        }
        let keys = session.keys.as_ref().ok_or(Discard::NoKeys)?;
        keys.opener.open(
            header.as_bytes(),
            header.header_len(),
            index,
            scratch.as_mut_slice(),
        )?;

        let line = session.receive_line(mid).ok_or(Discard::UnknownSsrc)?;
        let current = line.stream.and_then(|stream| streams[stream].as_ref());
        let stream = match purpose {
            Purpose::Retransmission => line.stream.ok_or(Discard::UnknownSsrc)?,
            Purpose::Media => {
                let announced = |ssrc: u32| line.ssrcs.iter().any(|source| source.ssrc == ssrc);
                let stays = current.is_some_and(|stream| {
                    let silent = now.saturating_duration_since(stream.last_arrival) >= REPLACED_AFTER;
                    !silent && (announced(stream.ssrc) || !announced(ssrc))
                });
                if stays {
                    return Err(Discard::SsrcCollision);
                }
                self.publish(now, key, mid, ssrc)?
            }
        };
        let session = self.sessions[key].as_mut().ok_or(Discard::UnknownAddress)?;
        match session.source_of_ssrc(ssrc) {
            Some(source) => (source.mid, source.purpose, source.stream) = (mid, purpose, Some(stream)),
            None => {
                let window = Window::new();
                session.sources.push(SourceEntry {
                    ssrc,
                    mid,
                    purpose,
                    stream: Some(stream),
                    window,
                });
            }
        }
        Ok(())
    }

    /// Makes the stream of an m-line, in place of the one it may have had, and connects its subscribers.
    fn publish(&mut self, now: Instant, key: SessionKey, mid: Mid, ssrc: u32) -> Result<StreamKey, Discard> {
        let session = self.sessions[key].as_mut().ok_or(Discard::UnknownAddress)?;
        let id = session.id;
        let line = session.receive_line(mid).ok_or(Discard::UnknownSsrc)?;
        let (kind, payloads, old) = (line.kind, line.payloads.clone(), line.stream.take());
        self.serial += 1;
        let origin = Origin {
            serial: self.serial,
            owner: key,
            kind,
            ssrc,
        };
        let mut stream = Box::new(Stream::new(origin, payloads, now));
        if let Some(last) = session
            .source_of_ssrc(ssrc)
            .and_then(|source| source.window.highest())
        {
            stream.last_index = Some(last);
        }
        if let Some(old) = old {
            self.remove_stream(old);
        } else {
            self.events.push_back(Event::Publishing {
                session: id,
                mid,
                kind,
            });
        }
        let stream_key = self.place_stream(stream);
        if let Some(line) = self.sessions[key]
            .as_mut()
            .and_then(|session| session.receive_line(mid))
        {
            line.stream = Some(stream_key);
        }
        self.connect_subscribers(key, kind, now);
        self.feed_waiting(key, kind, now);
        Ok(stream_key)
    }

    pub(crate) fn place_stream(&mut self, stream: Box<Stream>) -> StreamKey {
        match self.streams.iter().position(Option::is_none) {
            Some(free) => {
                self.streams[free] = Some(stream);
                free
            }
            None => {
                self.streams.push(Some(stream));
                self.streams.len() - 1
            }
        }
    }
}

/// Which m-line an unknown SSRC belongs to, and what it carries there.
fn explain(session: &Session, header: &HeaderView<'_>) -> Result<(Mid, Purpose), Discard> {
    let (ssrc, payload_type) = (header.ssrc(), header.payload_type());
    for line in &session.receive {
        if line.ssrcs.iter().any(|source| source.ssrc == ssrc) {
            return Ok((line.mid, Purpose::Media));
        }
        if line.ssrcs.iter().any(|source| source.rtx == Some(ssrc)) {
            return Ok((line.mid, Purpose::Retransmission));
        }
    }
    let purpose_on = |line: &crate::session::ReceiveLine| {
        if line.payloads.iter().any(|payload| payload.pt == payload_type) {
            Some(Purpose::Media)
        } else if line
            .payloads
            .iter()
            .any(|payload| payload.rtx == Some(payload_type))
        {
            Some(Purpose::Retransmission)
        } else {
            None
        }
    };
    let mid = session
        .extensions
        .mid
        .and_then(|id| Mid::from_bytes(header.extension()?.find(id)?));
    if let Some(mid) = mid {
        let line = session
            .receive
            .iter()
            .find(|line| line.mid == mid)
            .ok_or(Discard::UnknownSsrc)?;
        let purpose = purpose_on(line).ok_or(Discard::UnknownPayloadType)?;
        return Ok((mid, purpose));
    }
    // Several m-lines may share the payload type: then the first that has no stream of its own yet.
    let explained = |line: &crate::session::ReceiveLine| Some((line.mid, purpose_on(line)?));
    let mut candidates = session.receive.iter().filter(|line| purpose_on(line).is_some());
    let first = candidates.clone().next().ok_or(Discard::UnknownSsrc)?;
    candidates
        .find(|line| line.stream.is_none())
        .or(Some(first))
        .and_then(explained)
        .ok_or(Discard::UnknownSsrc)
}

/// The header extensions that mean something here.
struct Kept<'a> {
    transport_sequence: Option<u16>,
    audio_level: Option<u8>,
    video_orientation: Option<u8>,
    descriptor: &'a [u8],
}

impl<'a> Kept<'a> {
    fn read(header: &HeaderView<'a>, ids: &ExtensionMap) -> Kept<'a> {
        let mut kept = Kept {
            transport_sequence: None,
            audio_level: None,
            video_orientation: None,
            descriptor: &[],
        };
        let Some(extension) = header.extension() else {
            return kept;
        };
        for element in extension.elements() {
            let id = Some(element.id);
            if id == ids.transport_wide_cc {
                kept.transport_sequence = element.data.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
            } else if id == ids.audio_level {
                kept.audio_level = element.data.first().copied();
            } else if id == ids.video_orientation {
                kept.video_orientation = element.data.first().copied();
            } else if id == ids.dependency_descriptor {
                kept.descriptor = element.data;
            }
        }
        kept
    }
}
