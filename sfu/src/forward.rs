//! Forwarding: from a stream's history to one subscriber's send buffer.
//!
//! For each packet, in this order: the ladder's gate, the place in the subscriber's numbering, the new header,
//! the charge, the seal. Nothing of the subscriber's state changes before the charge is paid, so a packet that
//! is not paid for is as if it had never been there.

use std::time::{Duration, Instant};

use metering::{Direction, Step};
use wire::rtp::extension::{Form, Writer};
use wire::rtp::{FIXED_HEADER_LEN, Header};

use crate::Source;
use crate::discard::{Counters, Discard};
use crate::dtls::Keys;
use crate::feedback::abs_send_time;
use crate::history::{DESCRIPTOR_BYTES_MAX, Stored};
use crate::media::{Codec, ExtensionMap, Kind, Mid, Payload};
use crate::replay::Window;
use crate::rewrite::Rewrite;
use crate::rtx::{Retransmission, Retransmitter};
use crate::session::Session;
use crate::stream::{Stream, StreamKey};

/// Fixed header, block header, every element with its own header, padding.
const HEADER_BYTES_MAX: usize = FIXED_HEADER_LEN + 4 + (DESCRIPTOR_BYTES_MAX + 2) + 48;
/// Segments of one send: the kernel's limit for UDP segmentation offload.
const SEGMENTS_MAX: usize = 64;

/// From a publisher's payload type to a subscriber's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TypeMap {
    from: u8,
    to: u8,
    rtx: Option<u8>,
}

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
    sealed: Window,
    pub(crate) retransmitter: Retransmitter,
    /// Timestamp of the latest frame that came by.
    frame: Option<u32>,
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
            retransmitter: Retransmitter::new(first_sequence.rotate_left(7)),
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
        self.retransmitter = Retransmitter::new(first_sequence.rotate_left(7));
        self.frame = None;
    }

    /// Carries `stream` from now on, or nothing.
    pub(crate) fn attach(&mut self, key: Option<StreamKey>, stream: Option<&Stream>) {
        self.stream = key;
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

    fn map_type(&self, payload_type: u8) -> Option<TypeMap> {
        self.types.iter().find(|map| map.from == payload_type).copied()
    }

    /// Whether `timestamp` begins a frame that did not come by yet.
    fn starts_frame(&self, timestamp: u32) -> bool {
        self.frame
            .is_none_or(|frame| (timestamp.wrapping_sub(frame) as i32) > 0)
    }
}

/// The subscriber's payload that a publisher's fits: of the same codec, and for codecs whose parameters change
/// the bit stream, of the same parameters.
fn best_match<'p>(payload: &Payload, offered: &'p [Payload]) -> Option<&'p Payload> {
    let same = |candidate: &&Payload| {
        candidate.codec == payload.codec
            && match payload.codec {
                Codec::H264 => {
                    parameter(payload, "packetization-mode").unwrap_or("0")
                        == parameter(candidate, "packetization-mode").unwrap_or("0")
                        && h264_profile(payload) == h264_profile(candidate)
                }
                Codec::Vp9 => {
                    parameter(payload, "profile-id").unwrap_or("0")
                        == parameter(candidate, "profile-id").unwrap_or("0")
                }
                Codec::Av1 => {
                    parameter(payload, "profile").unwrap_or("0")
                        == parameter(candidate, "profile").unwrap_or("0")
                }
                Codec::Opus | Codec::Vp8 => true,
            }
    };
    let exact = offered
        .iter()
        .filter(same)
        .find(|candidate| candidate.fmtp == payload.fmtp);
    exact.or_else(|| offered.iter().find(same))
}

fn parameter<'p>(payload: &'p Payload, name: &str) -> Option<&'p str> {
    payload.fmtp.split(';').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// `profile_idc` of `profile-level-id`; baseline when it is absent (RFC 6184 section 8.1). Constrained and plain
/// baseline decode alike, and levels are the encoder's to keep.
fn h264_profile(payload: &Payload) -> [u8; 2] {
    let id = parameter(payload, "profile-level-id")
        .unwrap_or("42e01f")
        .as_bytes();
    match id {
        [first, second, ..] => [first.to_ascii_lowercase(), second.to_ascii_lowercase()],
        _ => *b"42",
    }
}

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

/// A header in the making.
struct HeaderBytes {
    bytes: [u8; HEADER_BYTES_MAX],
    length: usize,
}

/// What the header of an outgoing packet says besides what was stored.
struct Outgoing {
    ssrc: u32,
    payload_type: u8,
    sequence_number: u16,
    timestamp: u32,
    transport_sequence: u16,
    sent_at: [u8; 3],
}

fn header(
    outgoing: &Outgoing,
    mid: Mid,
    ids: &ExtensionMap,
    stored: &Stored,
    descriptor: &[u8],
) -> HeaderBytes {
    let mut bytes = [0; HEADER_BYTES_MAX];
    let fixed = Header {
        padding: false,
        marker: stored.marker,
        payload_type: outgoing.payload_type,
        sequence_number: outgoing.sequence_number,
        timestamp: outgoing.timestamp,
        ssrc: outgoing.ssrc,
    };
    bytes[..FIXED_HEADER_LEN].copy_from_slice(&fixed.to_bytes());
    let transport_sequence = outgoing.transport_sequence.to_be_bytes();
    let (level, orientation) = (
        stored.audio_level.unwrap_or(0),
        stored.video_orientation.unwrap_or(0),
    );
    let elements: [(Option<u8>, &[u8]); 6] = [
        (ids.mid, mid.as_bytes()),
        (ids.abs_send_time, &outgoing.sent_at),
        (ids.transport_wide_cc, &transport_sequence),
        (ids.audio_level.filter(|_| stored.audio_level.is_some()), &[level]),
        (
            ids.video_orientation
                .filter(|_| stored.video_orientation.is_some()),
            &[orientation],
        ),
        (
            ids.dependency_descriptor.filter(|_| !descriptor.is_empty()),
            descriptor,
        ),
    ];
    let present = || elements.iter().filter_map(|(id, data)| Some(((*id)?, *data)));
    let mut length = FIXED_HEADER_LEN;
    if present().next().is_some() {
        let small = present().all(|(id, data)| id <= 14 && data.len() <= 16);
        let form = if small { Form::OneByte } else { Form::TwoByte };
        let written = Writer::new(&mut bytes[FIXED_HEADER_LEN..], form).and_then(|mut writer| {
            // An element that its form cannot hold is left out; none of these can be.
            for (id, data) in present() {
                let _ = writer.push(id, data);
            }
            writer.finish()
        });
        if let Ok(written) = written {
            const EXTENSION: u8 = 0x10;
            bytes[0] |= EXTENSION;
            length += written;
        }
    }
    HeaderBytes { bytes, length }
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
    let (stored, payload, descriptor) = stream.history.get(index).ok_or(Discard::Backlog)?;
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
    stream: &mut Stream,
    session: &mut Session,
    what: &Retransmission,
    clock: Clock,
    batch: &mut Batch,
    buffer: &mut [u8],
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
    let (stored, payload, descriptor) = stream
        .history
        .get_with_osn(what.index_in, what.index_out as u16, now)
        .ok_or(Some(Discard::NotInHistory))?;
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
    let header = header(&outgoing, track.mid, extensions, &stored, descriptor);
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
mod tests;
