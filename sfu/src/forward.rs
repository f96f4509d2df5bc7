//! Forwarding: from a stream's history to one subscriber's send buffer.
//!
//! For each packet, in this order: the ladder's gate, the place in the subscriber's numbering, the new header,
//! the charge, the seal. Nothing of the subscriber's state changes before the charge is paid, so a packet that
//! is not paid for is as if it had never been there.

use std::time::Instant;

use metering::{Direction, Step};

use crate::discard::{Counters, Discard};
use crate::dtls::Keys;
use crate::feedback::abs_send_time;
use crate::header::{HeaderBytes, Outgoing, header};
use crate::media::Kind;
use crate::rtx::Retransmission;
use crate::session::Session;
use crate::slot::{OSN_LENGTH, SLOT_BYTES};
use crate::stream::Stream;

/// Segments of one send: the kernel's limit for UDP segmentation offload.
const SEGMENTS_MAX: usize = 64;

/// The datagrams of one send to one subscriber.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Batch {
    pub(crate) length: usize,
    pub(crate) segment: usize,
    pub(crate) segments: usize,
}

impl Batch {
    /// Whether a datagram of `size` bytes can be added to a buffer with `room` bytes.
    fn fits(&self, size: usize, room: usize) -> bool {
        let equal = self.segments == 0 || size <= self.segment;
        equal && self.segments < SEGMENTS_MAX && self.length + size <= room
    }

    /// Whether it can be longer than it is: a shorter datagram ends a batch.
    fn is_open(&self) -> bool {
        self.length == self.segment * self.segments
    }

    fn add(&mut self, size: usize) {
        if self.segments == 0 {
            self.segment = size;
        }
        self.length += size;
        self.segments += 1;
    }
}

fn seal(keys: &Keys, header: &HeaderBytes, index: u64, payload: &[u8], packet: &mut [u8]) {
    packet[..header.length].copy_from_slice(&header.bytes[..header.length]);
    keys.sealer.seal(packet, header.length, index, payload);
}

/// Seals as many of the stream's fresh packets, from `next` on, as one send can carry. `next` is left at the
/// first one that was not looked at; the batch is empty when there is none left.
pub(crate) fn forward(
    stream: &Stream,
    session: &mut Session,
    track: usize,
    next: &mut usize,
    clock: Clock,
    buffer: &mut [u8],
    counters: &mut Counters,
) -> Batch {
    let mut batch = Batch::default();
    while batch.is_open() {
        let Some(&index) = stream.fresh.get(*next) else {
            break;
        };
        match forward_one(stream, session, track, index, clock, &mut batch, buffer) {
            Ok(()) => {}
            Err(Stop::Full) => break,
            Err(Stop::Discard(reason)) => counters.discard(reason),
        }
        *next += 1;
    }
    batch
}

/// Why a packet was not added to a batch.
enum Stop {
    /// It goes into the next batch.
    Full,
    /// It does not go to this subscriber.
    Discard(Discard),
}

impl From<Discard> for Stop {
    fn from(reason: Discard) -> Stop {
        Stop::Discard(reason)
    }
}

/// Now, and what abs-send-time counts from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    pub(crate) now: Instant,
    pub(crate) epoch: Instant,
}

impl Clock {
    fn abs_send_time(self) -> [u8; 3] {
        abs_send_time(self.now.saturating_duration_since(self.epoch))
    }
}

fn forward_one(
    stream: &Stream,
    session: &mut Session,
    track: usize,
    index: u64,
    clock: Clock,
    batch: &mut Batch,
    buffer: &mut [u8],
) -> Result<(), Stop> {
    let now = clock.now;
    let Session {
        keys: Some(keys),
        tracks,
        gate,
        allowance,
        extensions,
        transport_sequence,
        starved,
        ..
    } = session
    else {
        return Err(Stop::Discard(Discard::NoKeys));
    };
    let track = &mut tracks[track];
    if !track.active {
        return Err(Stop::Discard(Discard::NoPayloadType));
    }
    // Overwritten before it was forwarded: the caller fell behind by a whole ring.
    let slot = stream.history.get(index).ok_or(Discard::Backlog)?;
    let (stored, payload, descriptor) = (slot.stored(), slot.payload(), slot.descriptor());
    let starts_frame = track.starts_frame(stored.timestamp);
    let admitted = gate.admit(stream.kind, starts_frame, track.rewrite.is_waiting(), now);
    if let Err(reason) = admitted {
        track.rewrite.wait();
        return Err(Stop::Discard(reason));
    }
    let types = track
        .map_type(stored.payload_type)
        .ok_or(Discard::NoPayloadType)?;
    let placed = track.rewrite.place(stored, stream.serial, now)?;
    let outgoing = Outgoing {
        ssrc: track.ssrc,
        payload_type: types.to,
        sequence_number: placed.index as u16,
        timestamp: placed.timestamp,
        transport_sequence: *transport_sequence,
        sent_at: clock.abs_send_time(),
    };
    let header = header(&outgoing, track.mid, extensions, stored, descriptor);
    let size = header.length + payload.len() + keys.sealer.tag_length();
    if !batch.fits(size, buffer.len()) {
        return Err(Stop::Full);
    }
    if !track.sealed.is_new(placed.index) {
        return Err(Stop::Discard(Discard::SealedBefore));
    }
    if allowance.charge(Direction::ToClient, size as u64, now).is_err() {
        track.rewrite.wait();
        *starved = Some(now);
        return Err(Stop::Discard(Discard::Exhausted));
    }
    track.sealed.insert(placed.index);
    seal(
        keys,
        &header,
        placed.index,
        payload,
        &mut buffer[batch.length..batch.length + size],
    );
    track.rewrite.commit(&placed, now);
    *transport_sequence = transport_sequence.wrapping_add(1);
    if starts_frame {
        track.frame = Some(stored.timestamp);
    }
    if stream.kind == Kind::Video {
        gate.sent(size);
    }
    track.packets = track.packets.wrapping_add(1);
    track.octets = track.octets.wrapping_add(payload.len() as u32);
    batch.add(size);
    Ok(())
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
        extensions,
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
    let (stored, descriptor) = (slot.stored(), slot.descriptor());
    // The slot is shared: the original sequence number (RFC 4588 section 4) goes in front of a copy.
    let payload = &mut scratch[..OSN_LENGTH + slot.payload().len()];
    payload[..OSN_LENGTH].copy_from_slice(&(what.index_out as u16).to_be_bytes());
    payload[OSN_LENGTH..].copy_from_slice(slot.payload());
    let types = track.map_type(stored.payload_type);
    let payload_type = types
        .and_then(|types| types.rtx)
        .ok_or(Some(Discard::NoPayloadType))?;
    let index = track.retransmitter.peek_index();
    let outgoing = Outgoing {
        ssrc,
        payload_type,
        sequence_number: index as u16,
        timestamp: what.segment.timestamp_out(stored.timestamp),
        transport_sequence: *transport_sequence,
        sent_at: clock.abs_send_time(),
    };
    let header = header(&outgoing, track.mid, extensions, stored, descriptor);
    let size = header.length + payload.len() + keys.sealer.tag_length();
    if !batch.is_open() || !batch.fits(size, buffer.len()) {
        return Err(None);
    }
    if allowance.charge(Direction::ToClient, size as u64, now).is_err() {
        *starved = Some(now);
        return Err(Some(Discard::Exhausted));
    }
    let index = track.retransmitter.next_index();
    seal(
        keys,
        &header,
        index,
        payload,
        &mut buffer[batch.length..batch.length + size],
    );
    *transport_sequence = transport_sequence.wrapping_add(1);
    if stream.kind == Kind::Video {
        gate.sent(size);
    }
    batch.add(size);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_equal_segments_and_at_most_one_shorter_at_its_end() {
        let mut batch = Batch::default();
        batch.add(1_200);
        batch.add(1_200);
        assert!(batch.is_open() && batch.fits(1_200, 65_507) && batch.fits(100, 65_507));
        assert!(!batch.fits(1_201, 65_507), "a longer one starts its own");
        assert!(!batch.fits(1_200, 3_599), "no room");
        batch.add(100);
        assert!(!batch.is_open());
    }
}
