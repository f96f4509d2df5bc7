//! Forwarding: from what waits for one subscriber to one send.
//!
//! For each packet, in this order: the ladder's gate, the place in the subscriber's numbering, room in the batch
//! and in the tick, the charge. Then the headers and the seals. Where the allowance covers the largest batch, the
//! batch is charged once with exactly what it holds; near its end each packet is charged by itself before anything
//! of the subscriber's state changes, so a packet that is not paid for is as if it had never been there.

use std::time::{Duration, Instant};

use metering::{Direction, Step};

use crate::batch::Batch;
use crate::discard::{Counters, Discard};
use crate::feedback::abs_send_time;
use crate::header::Outgoing;
use crate::media::Kind;
use crate::pacer::Queue;
use crate::rtx::Retransmission;
use crate::session::Session;
use crate::slot::{OSN_LENGTH, SLOT_BYTES};
use crate::stream::{Stream, StreamKey};

/// Now, and what abs-send-time counts from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    pub(crate) now: Instant,
    pub(crate) epoch: Instant,
    /// How long packets wait for each other at most.
    pub(crate) tick: Duration,
}

impl Clock {
    fn abs_send_time(self) -> [u8; 3] {
        abs_send_time(self.now.saturating_duration_since(self.epoch))
    }
}

/// A packet that goes into the batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Planned {
    track: usize,
    stream: StreamKey,
    /// The publisher's index.
    index_in: u64,
    /// The subscriber's index.
    index_out: u64,
    timestamp: u32,
    payload_type: u8,
    size: usize,
}

impl Planned {
    /// The send line it goes out on.
    pub(crate) fn track(&self) -> usize {
        self.track
    }
}

/// What is left of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// Nothing.
    Nothing,
    /// What did not fit this batch.
    More,
    /// A key frame, for its next ticks.
    KeyFrame,
}

/// Why a track gave no further packet.
enum Stop {
    /// It has no more.
    Drained,
    /// The batch is full.
    Full,
    /// The rest of a key frame waits for the next tick.
    Paced,
}

/// The stage's view of the core.
pub(crate) struct Forwarder<'a> {
    pub(crate) streams: &'a [Option<Box<Stream>>],
    pub(crate) counters: &'a mut Counters,
    pub(crate) plan: &'a mut Vec<Planned>,
    pub(crate) clock: Clock,
}

impl Forwarder<'_> {
    /// Seals as much of what waits for a session as one send can carry: video first, so that audio is the shorter
    /// segment at its end.
    pub(crate) fn forward(
        &mut self,
        session: &mut Session,
        queue: &mut Queue,
        buffer: &mut [u8],
    ) -> (Batch, Left) {
        let mut batch = Batch::default();
        self.plan.clear();
        if session.keys.is_none() {
            (queue.video, queue.audio) = (0, 0);
            return (batch, Left::Nothing);
        }
        let room = buffer.len();
        // Sealed packets are numbered, so they must be known to be paid for.
        let covered = session
            .allowance
            .covers(Direction::ToClient, room as u64, self.clock.now);
        let mut left = Left::Nothing;
        'queue: for kind in [Kind::Video, Kind::Audio] {
            let mut rest = match kind {
                Kind::Video => queue.video,
                Kind::Audio => queue.audio,
            };
            while rest != 0 {
                let track = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                match self.plan_track(session, queue, track, covered, room, &mut batch) {
                    Stop::Drained => match kind {
                        Kind::Video => queue.video &= !(1 << track),
                        Kind::Audio => queue.audio &= !(1 << track),
                    },
                    Stop::Full => {
                        left = Left::More;
                        break 'queue;
                    }
                    Stop::Paced => left = Left::KeyFrame,
                }
            }
        }
        if left == Left::Nothing {
            queue.spread();
        }
        if batch.segments > 0 && self.seal(session, batch, covered, buffer) {
            queue.sent(batch.length(), self.clock.now);
        } else {
            batch = Batch::default();
        }
        (batch, left)
    }

    /// Takes packets of one track into the plan, each with its place in the subscriber's numbering.
    fn plan_track(
        &mut self,
        session: &mut Session,
        queue: &mut Queue,
        at: usize,
        covered: bool,
        room: usize,
        batch: &mut Batch,
    ) -> Stop {
        let now = self.clock.now;
        let Session {
            keys: Some(keys),
            tracks,
            gate,
            allowance,
            starved,
            ..
        } = session
        else {
            return Stop::Drained;
        };
        let Some(track) = tracks.get_mut(at) else {
            return Stop::Drained;
        };
        let Some((key, stream)) = track
            .stream
            .and_then(|key| Some((key, self.streams[key].as_ref()?)))
        else {
            return Stop::Drained;
        };
        let tag_length = keys.sealer.tag_length();
        let (start, end) = (stream.fresh.start(), stream.fresh.end());
        if track.cursor < start {
            // So far behind that what it would need is no longer written down.
            self.counters.discard_many(Discard::Backlog, start - track.cursor);
            track.rewrite.wait();
            track.cursor = start;
        }
        while let Some(index) = stream.fresh.get(track.cursor) {
            let decided = stream
                .history
                .get(index)
                .ok_or(Discard::Backlog)
                .and_then(|slot| {
                    if !track.active {
                        return Err(Discard::NoPayloadType);
                    }
                    let stored = slot.stored();
                    if stream.resumes == Some(index) {
                        // Whole frames are missing before it: a new start, so that no gap is asked for.
                        track.rewrite.wait();
                    }
                    let starts_frame = track.starts_frame(stored.timestamp);
                    gate.admit(stream.kind, starts_frame, track.rewrite.is_waiting(), now)?;
                    let types = track
                        .map_type(stored.payload_type)
                        .ok_or(Discard::NoPayloadType)?;
                    let placed = track.rewrite.place(stored, stream.serial, now)?;
                    if !track.sealed.is_new(placed.index) {
                        return Err(Discard::SealedBefore);
                    }
                    Ok((slot, types, placed, starts_frame))
                });
            let (slot, types, placed, starts_frame) = match decided {
                Ok(decided) => decided,
                Err(reason) => {
                    if matches!(
                        reason,
                        Discard::Backlog | Discard::Held | Discard::Reduced | Discard::AudioOnly
                    ) {
                        track.rewrite.wait();
                    }
                    self.counters.discard(reason);
                    track.cursor += 1;
                    continue;
                }
            };
            let stored = slot.stored();
            let size = track.template.length(slot) + slot.payload().len() + tag_length;
            let paddable = covered && stream.kind == Kind::Video && !stored.padded;
            let mut with = *batch;
            if !with.add(size, paddable, room) {
                return Stop::Full;
            }
            if stored.of_key_frame
                && !queue.admit_key_frame(size, (end - track.cursor) * size as u64, now, self.clock.tick)
            {
                return Stop::Paced;
            }
            track.cursor += 1;
            if !covered && allowance.charge(Direction::ToClient, size as u64, now).is_err() {
                track.rewrite.wait();
                *starved = Some(now);
                self.counters.discard(Discard::Exhausted);
                continue;
            }
            *batch = with;
            track.sealed.insert(placed.index);
            track.rewrite.commit(&placed, now);
            if starts_frame {
                track.frame = Some(stored.timestamp);
            }
            if stream.kind == Kind::Video {
                gate.sent(size);
            }
            track.packets = track.packets.wrapping_add(1);
            track.octets = track.octets.wrapping_add(slot.payload().len() as u32);
            self.plan.push(Planned {
                track: at,
                stream: key,
                index_in: index,
                index_out: placed.index,
                timestamp: placed.timestamp,
                payload_type: types.to,
                size,
            });
        }
        Stop::Drained
    }

    /// Charges what was planned, where that was not done yet, and writes it. False when it may not leave after all.
    fn seal(&mut self, session: &mut Session, batch: Batch, covered: bool, buffer: &mut [u8]) -> bool {
        let Session {
            keys: Some(keys),
            tracks,
            allowance,
            transport_sequence,
            ..
        } = session
        else {
            return false;
        };
        let length = batch.length() as u64;
        if covered
            && allowance
                .charge(Direction::ToClient, length, self.clock.now)
                .is_err()
        {
            // Cannot be: it covered more at the same instant. The numbers are used up, so nothing is sent twice.
            self.counters
                .discard_many(Discard::Exhausted, batch.segments as u64);
            return false;
        }
        let sent_at = self.clock.abs_send_time();
        let mut rest = buffer;
        for (number, planned) in self.plan.iter().enumerate() {
            let last = number + 1 == self.plan.len();
            let padding = if last { 0 } else { batch.segment - planned.size };
            let (packet, after) = rest.split_at_mut(planned.size + padding);
            rest = after;
            let slot = self.streams[planned.stream]
                .as_ref()
                .and_then(|stream| stream.history.get(planned.index_in))
                .expect("planned from this history a moment ago");
            let track = &tracks[planned.track];
            let outgoing = Outgoing {
                ssrc: track.ssrc,
                payload_type: planned.payload_type,
                sequence_number: planned.index_out as u16,
                timestamp: planned.timestamp,
                transport_sequence: *transport_sequence,
                sent_at,
                padding: padding > 0,
            };
            let header_length = track.template.write(packet, &outgoing, slot);
            keys.sealer
                .seal_padded(packet, header_length, planned.index_out, slot.payload(), padding);
            *transport_sequence = transport_sequence.wrapping_add(1);
        }
        true
    }
}

/// Seals one retransmission behind what `batch` holds. `Err(None)` when it does not fit any more.
pub(crate) fn retransmit(
    stream: &Stream,
    session: &mut Session,
    what: &Retransmission,
    clock: Clock,
    batch: &mut Batch,
    buffer: &mut [u8],
    scratch: &mut [u8; SLOT_BYTES],
) -> Result<(), Option<Discard>> {
    let now = clock.now;
    let Session {
        keys: Some(keys),
        tracks,
        gate,
        allowance,
        transport_sequence,
        starved,
        ..
    } = session
    else {
        return Err(Some(Discard::NoKeys));
    };
    let track = &mut tracks[what.track];
    if stream.kind == Kind::Video && gate.step() >= Step::AudioOnly || gate.step() >= Step::Held {
        return Err(Some(Discard::Held));
    }
    let ssrc = track
        .rtx_ssrc
        .filter(|_| track.active)
        .ok_or(Some(Discard::NoPayloadType))?;
    let slot = stream
        .history
        .recent(what.index_in, now)
        .ok_or(Some(Discard::NotInHistory))?;
    // The slot is shared: the original sequence number (RFC 4588 section 4) goes in front of a copy.
    let payload = &mut scratch[..OSN_LENGTH + slot.payload().len()];
    payload[..OSN_LENGTH].copy_from_slice(&(what.index_out as u16).to_be_bytes());
    payload[OSN_LENGTH..].copy_from_slice(slot.payload());
    let types = track.map_type(slot.stored().payload_type);
    let payload_type = types
        .and_then(|types| types.rtx)
        .ok_or(Some(Discard::NoPayloadType))?;
    let size = track.template.length(slot) + payload.len() + keys.sealer.tag_length();
    let start = batch.length();
    let mut with = *batch;
    if !with.add(size, false, buffer.len()) {
        return Err(None);
    }
    if allowance.charge(Direction::ToClient, size as u64, now).is_err() {
        *starved = Some(now);
        return Err(Some(Discard::Exhausted));
    }
    let retransmitter = track.retransmitter.as_mut().ok_or(Some(Discard::NoPayloadType))?;
    let index = retransmitter.next_index();
    let outgoing = Outgoing {
        ssrc,
        payload_type,
        sequence_number: index as u16,
        timestamp: what.segment.timestamp_out(slot.stored().timestamp),
        transport_sequence: *transport_sequence,
        sent_at: clock.abs_send_time(),
        padding: false,
    };
    let packet = &mut buffer[start..start + size];
    let header_length = track.template.write(packet, &outgoing, slot);
    keys.sealer.seal(packet, header_length, index, payload);
    *batch = with;
    *transport_sequence = transport_sequence.wrapping_add(1);
    if stream.kind == Kind::Video {
        gate.sent(size);
    }
    Ok(())
}
