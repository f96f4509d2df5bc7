//! What a publishing light client sends: frames in a burst or paced, audio, what it is asked to send again, and a
//! sender report a second. All packets that are due together and equally long leave in one GSO send.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;

use datagram::{Socket, Transmit};
use wire::rtcp::{Packet, SenderInfo, Writer, compound};
use wire::rtp::{Extension, Header};

use crate::dtls::Keys;
use crate::histogram::Histogram;
use crate::loss::Loss;
use crate::media::{
    AUDIO_INTERVAL, Audio, Content, FRAME_INTERVAL, Frame, PAYLOAD_MAX, STAMP_LEN, Stamp,
    VIDEO_BITS_PER_SECOND, Video,
};
use crate::sdp::{Agreed, Ssrcs};

const SECOND: u64 = 1_000_000_000;

/// How fast a paced publisher lets a frame go, as a multiple of the video's rate (libwebrtc's pacing factor).
const PACING_FACTOR: f64 = 2.5;

/// Between two keyframes that were asked for (libwebrtc's default).
const KEYFRAME_INTERVAL_MIN: u64 = 300_000_000;

/// Video packets that can be sent again: more than a second of them.
const HISTORY: usize = 512;

/// One GSO send.
const BATCH_MAX: usize = 60_000;
const SEGMENTS_MAX: usize = 60;
/// Header, extension, payload, RTX's number and tag.
const PACKET_MAX: usize = 12 + 24 + PAYLOAD_MAX + 2 + 16;

/// How frames arrive at the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Arrival {
    /// All packets of a frame at once.
    Burst,
    /// Spread out at 2.5 times the video's rate, as libwebrtc's pacer does.
    Paced,
}

/// A frame that left within the measured time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentFrame {
    /// The number of its first packet.
    pub first_packet: u64,
    /// How many packets it has.
    pub count: u64,
}

/// What was sent within the measured time.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// Packets by content, in the order of [`Content::ALL`].
    pub packets: [u64; 3],
    /// Frames of which every packet left in it.
    pub frames: Vec<SentFrame>,
    /// Packets of video that were sent again.
    pub retransmitted: u64,
    /// Packets that the loss injection took.
    pub lost_on_purpose: u64,
    /// Packets that the kernel did not take.
    pub refused: u64,
    /// How far behind its time each frame and audio packet left, in microseconds.
    pub lateness: Histogram,
}

/// One SSRC.
struct Outlet {
    ssrc: u32,
    /// The next packet's SRTP index.
    index: u64,
    packets: u32,
    octets: u32,
    /// Timestamp of the last packet and when it left.
    last: (u32, u64),
}

impl Outlet {
    fn new(ssrc: u32) -> Outlet {
        // Somewhere in the lower half, so that the number does not wrap before the first packets have arrived.
        let index = u64::from(ssrc.wrapping_mul(0x9E37_79B1) >> 17);
        Outlet {
            ssrc,
            index,
            packets: 0,
            octets: 0,
            last: (0, 0),
        }
    }
}

/// A video packet as it can be made again.
#[derive(Clone, Copy)]
struct Kept {
    index: u64,
    frame: Frame,
    at: usize,
    stamp: Stamp,
}

/// Datagrams laid out for one send.
struct Batch {
    bytes: Box<[u8]>,
    len: usize,
    segment: usize,
    segments: usize,
}

/// A publisher's streams.
pub struct Publisher {
    id: u16,
    arrival: Arrival,
    audio_line: Agreed,
    video_line: Agreed,
    audio: Audio,
    video: Video,
    audio_out: Outlet,
    video_out: Outlet,
    rtx_out: Outlet,
    transport_wide: u16,
    batch: Batch,
    history: Vec<Option<Kept>>,
    /// Packets of frames that the pacer holds.
    held: VecDeque<(Frame, usize)>,
    next_audio: u64,
    next_frame: u64,
    next_paced: u64,
    next_report: u64,
    last_keyframe: u64,
    window: Range<u64>,
    frame_began: u64,
    loss: Option<Loss>,
    /// Times it was asked for a keyframe.
    pub keyframe_requests: u64,
    /// Within the measured time.
    pub sent: Sent,
}

impl Publisher {
    /// Starts both streams at `start`; stamps count from `epoch`, as every time here.
    #[must_use]
    pub fn new(
        id: u16,
        arrival: Arrival,
        ssrcs: Ssrcs,
        audio_line: Agreed,
        video_line: Agreed,
        epoch: std::time::Instant,
        start: u64,
    ) -> Publisher {
        // Publishers of one run do not all send at the same moment.
        let offset = u64::from(id) * 7_919_003 % FRAME_INTERVAL.as_nanos() as u64;
        Publisher {
            id,
            arrival,
            audio_line,
            video_line,
            audio: Audio::new(epoch),
            video: Video::new(epoch),
            audio_out: Outlet::new(ssrcs.audio),
            video_out: Outlet::new(ssrcs.video),
            rtx_out: Outlet::new(ssrcs.rtx),
            transport_wide: 0,
            batch: Batch {
                bytes: vec![0; BATCH_MAX + PACKET_MAX].into_boxed_slice(),
                len: 0,
                segment: 0,
                segments: 0,
            },
            history: vec![None; HISTORY],
            held: VecDeque::with_capacity(64),
            next_audio: start + offset / 2,
            next_frame: start + offset,
            next_paced: start,
            next_report: start + offset,
            last_keyframe: 0,
            window: 0..0,
            frame_began: 0,
            loss: None,
            keyframe_requests: 0,
            sent: Sent::default(),
        }
    }

    /// Which publisher it is.
    #[must_use]
    pub fn id(&self) -> u16 {
        self.id
    }

    /// The numbers of the next audio and video packet.
    #[must_use]
    pub fn next_numbers(&self) -> (u64, u64) {
        let held = self
            .held
            .front()
            .map(|(frame, at)| frame.first_packet + *at as u64);
        (self.audio.packets(), held.unwrap_or(self.video.packets()))
    }

    /// Counts anew what leaves within these nanoseconds.
    pub fn measure(&mut self, window: Range<u64>) {
        self.window = window;
        self.sent = Sent::default();
    }

    /// From now on its link to the server loses packets.
    pub fn lose(&mut self, loss: Option<Loss>) {
        self.loss = loss;
    }

    /// When [`Publisher::run`] is to be called next.
    #[must_use]
    pub fn due(&self) -> u64 {
        let paced = if self.held.is_empty() {
            u64::MAX
        } else {
            self.next_paced
        };
        self.next_audio
            .min(self.next_frame)
            .min(paced)
            .min(self.next_report)
    }

    /// Sends what is due. `clock` is read once more for every stamp.
    pub fn run(&mut self, clock: impl Fn() -> u64, keys: &mut Keys, socket: &mut Socket, to: SocketAddr) {
        let now = clock();
        while self.next_frame <= now {
            self.note_lateness(self.next_frame, now);
            if self.held.is_empty() {
                self.next_paced = self.next_paced.max(self.next_frame);
            }
            let frame = self.video.next_frame();
            self.held.extend((0..frame.count).map(|at| (frame, at)));
            self.next_frame += FRAME_INTERVAL.as_nanos() as u64;
        }
        while let Some(&(frame, at)) = self.held.front()
            && (self.arrival == Arrival::Burst || self.next_paced <= now)
        {
            self.held.pop_front();
            let gap = (frame.payload_len(at) * 8) as f64 * SECOND as f64;
            self.next_paced += (gap / (VIDEO_BITS_PER_SECOND as f64 * PACING_FACTOR)) as u64;
            self.send_video(frame, at, clock(), keys, socket, to);
        }
        self.flush(socket, to);
        while self.next_audio <= now {
            self.note_lateness(self.next_audio, now);
            self.send_audio(clock(), keys, socket, to);
            self.next_audio += AUDIO_INTERVAL.as_nanos() as u64;
        }
        self.flush(socket, to);
        if self.next_report <= now {
            self.next_report = now + SECOND;
            self.report(now, keys, socket, to);
        }
    }

    fn note_lateness(&mut self, due: u64, now: u64) {
        if self.window.contains(&due) {
            self.sent.lateness.record(((now - due) / 1_000) as u32);
        }
    }

    fn send_audio(&mut self, now: u64, keys: &Keys, socket: &mut Socket, to: SocketAddr) {
        let number = self.audio.next_number();
        let stamp = self.stamp(Content::Audio, number, now);
        let mut payload = [0; Audio::PAYLOAD_LEN];
        let length = Audio::write(number, &mut payload);
        payload[length..].copy_from_slice(&stamp.to_bytes());
        let header = Header {
            padding: false,
            marker: number == 0,
            payload_type: self.audio_line.payload_type,
            sequence_number: self.audio_out.index as u16,
            timestamp: Audio::timestamp(number),
            ssrc: self.audio_out.ssrc,
        };
        let extension = extension(&self.audio_line, now, &mut self.transport_wide);
        self.count(Content::Audio, now);
        if self.loses(now) {
            self.audio_out.index += 1;
            return;
        }
        let outlet = &mut self.audio_out;
        self.batch.push(
            socket,
            to,
            keys,
            outlet,
            &header,
            &extension,
            &[&payload],
            now,
            &mut self.sent,
        );
    }

    fn send_video(
        &mut self,
        frame: Frame,
        at: usize,
        now: u64,
        keys: &Keys,
        socket: &mut Socket,
        to: SocketAddr,
    ) {
        let stamp = self.stamp(frame.content(), frame.first_packet + at as u64, now);
        if at == 0 {
            self.frame_began = now;
        }
        if at + 1 == frame.count && self.window.contains(&self.frame_began) && self.window.contains(&now) {
            self.sent.frames.push(SentFrame {
                first_packet: frame.first_packet,
                count: frame.count as u64,
            });
        }
        let index = self.video_out.index;
        self.history[index as usize % HISTORY] = Some(Kept {
            index,
            frame,
            at,
            stamp,
        });
        let extension = extension(&self.video_line, now, &mut self.transport_wide);
        self.count(frame.content(), now);
        if self.loses(now) {
            self.video_out.index += 1;
            return;
        }
        let mut payload = [0; PAYLOAD_MAX];
        let length = payload_of(&frame, at, stamp, &mut payload);
        let header = Header {
            padding: false,
            marker: at + 1 == frame.count,
            payload_type: self.video_line.payload_type,
            sequence_number: index as u16,
            timestamp: frame.timestamp(),
            ssrc: self.video_out.ssrc,
        };
        let (outlet, payload) = (&mut self.video_out, &payload[..length]);
        self.batch.push(
            socket,
            to,
            keys,
            outlet,
            &header,
            &extension,
            &[payload],
            now,
            &mut self.sent,
        );
    }

    fn stamp(&self, content: Content, number: u64, now: u64) -> Stamp {
        Stamp {
            content,
            publisher: self.id,
            number,
            nanoseconds: now,
        }
    }

    fn count(&mut self, content: Content, now: u64) {
        if self.window.contains(&now) {
            self.sent.packets[content as usize] += 1;
        }
    }

    fn loses(&mut self, now: u64) -> bool {
        let lost = self.loss.as_mut().is_some_and(Loss::takes);
        if lost && self.window.contains(&now) {
            self.sent.lost_on_purpose += 1;
        }
        lost
    }

    fn flush(&mut self, socket: &mut Socket, to: SocketAddr) {
        self.sent.refused += self.batch.flush(socket, to);
    }

    /// Takes a compound RTCP packet of the server's.
    pub fn handle_rtcp(
        &mut self,
        packets: &[u8],
        now: u64,
        keys: &Keys,
        socket: &mut Socket,
        to: SocketAddr,
    ) {
        for packet in compound(packets).map_while(Result::ok) {
            match packet {
                Packet::PictureLossIndication(_) | Packet::FullIntraRequest(_) => {
                    self.keyframe_requests += 1;
                    if now >= self.last_keyframe + KEYFRAME_INTERVAL_MIN {
                        self.last_keyframe = now;
                        self.video.want_keyframe();
                    }
                }
                Packet::Nack(nack) if nack.media_ssrc == self.video_out.ssrc => {
                    for number in nack.sequence_numbers() {
                        self.send_again(number, now, keys, socket, to);
                    }
                    self.flush(socket, to);
                }
                _ => {}
            }
        }
    }

    fn send_again(&mut self, number: u16, now: u64, keys: &Keys, socket: &mut Socket, to: SocketAddr) {
        let behind = (self.video_out.index as u16).wrapping_sub(number);
        let Some(index) = self.video_out.index.checked_sub(u64::from(behind)) else {
            return;
        };
        let Some(kept) = self.history[index as usize % HISTORY].filter(|kept| kept.index == index) else {
            return;
        };
        if self.window.contains(&now) {
            self.sent.retransmitted += 1;
        }
        let mut payload = [0; PAYLOAD_MAX];
        let length = payload_of(&kept.frame, kept.at, kept.stamp, &mut payload);
        let payload = &payload[..length];
        let mut header = Header {
            padding: false,
            marker: kept.at + 1 == kept.frame.count,
            payload_type: self.video_line.payload_type,
            sequence_number: number,
            timestamp: kept.frame.timestamp(),
            ssrc: self.video_out.ssrc,
        };
        if self.loses(now) {
            return;
        }
        if let Some(rtx) = self.video_line.rtx_payload_type {
            header.payload_type = rtx;
            header.sequence_number = self.rtx_out.index as u16;
            header.ssrc = self.rtx_out.ssrc;
            let extension = extension(&self.video_line, now, &mut self.transport_wide);
            let original = number.to_be_bytes();
            self.batch.push(
                socket,
                to,
                keys,
                &mut self.rtx_out,
                &header,
                &extension,
                &[&original, payload],
                now,
                &mut self.sent,
            );
        }
        // Without RTX the same index would be sealed twice, with another transport-wide number: not sent.
    }

    fn report(&mut self, now: u64, keys: &mut Keys, socket: &mut Socket, to: SocketAddr) {
        let mut plain = [0; 256];
        let mut writer = Writer::new(&mut plain);
        for (outlet, clock) in [(&self.audio_out, 48_000), (&self.video_out, 90_000)] {
            if outlet.packets == 0 {
                continue;
            }
            let since = now.saturating_sub(outlet.last.1);
            let info = SenderInfo {
                ssrc: outlet.ssrc,
                ntp: ntp(now),
                rtp_timestamp: outlet.last.0.wrapping_add((since * clock / SECOND) as u32),
                packet_count: outlet.packets,
                octet_count: outlet.octets,
            };
            let written = writer
                .sender_report(&info, &[])
                .and_then(|writer| writer.source_description(outlet.ssrc, "loadtest"));
            debug_assert!(written.is_ok(), "two reports fit in 256 bytes");
        }
        let length = writer.finish();
        let mut sealed = [0; 512];
        if length > 0
            && let Some(length) = keys.rtcp_sealer.seal(&plain[..length], &mut sealed)
        {
            let refused = socket.send(&single(to, &sealed[..length])).is_err();
            self.sent.refused += u64::from(refused);
        }
    }
}

/// Nanoseconds as NTP's 32.32 bits.
fn ntp(nanoseconds: u64) -> u64 {
    let (seconds, rest) = (nanoseconds / SECOND, nanoseconds % SECOND);
    (seconds << 32) + (rest << 32) / SECOND
}

fn payload_of(frame: &Frame, at: usize, stamp: Stamp, payload: &mut [u8; PAYLOAD_MAX]) -> usize {
    let length = frame.write(at, payload);
    payload[length..length + STAMP_LEN].copy_from_slice(&stamp.to_bytes());
    length + STAMP_LEN
}

/// One datagram to send.
#[must_use]
pub fn single(to: SocketAddr, contents: &[u8]) -> Transmit<'_> {
    Transmit {
        destination: to,
        source: None,
        segment_size: None,
        ecn: None,
        contents,
    }
}

/// Elements of the one-byte form (RFC 8285 section 4.2), zeroes up to a word.
struct Elements {
    bytes: [u8; 24],
    len: usize,
}

fn extension(line: &Agreed, now: u64, transport_wide: &mut u16) -> Elements {
    let mut elements = Elements {
        bytes: [0; 24],
        len: 0,
    };
    let mut put = |id: Option<u8>, data: &[u8]| {
        let Some(id) = id.filter(|id| (1..15).contains(id)) else {
            return;
        };
        elements.bytes[elements.len] = id << 4 | (data.len() - 1) as u8;
        elements.bytes[elements.len + 1..][..data.len()].copy_from_slice(data);
        elements.len += 1 + data.len();
    };
    if line.mid.len() <= 4 {
        put(
            line.mid_extension.filter(|_| !line.mid.is_empty()),
            line.mid.as_bytes(),
        );
    }
    // 6.18 bits of a second.
    let sent = ((now % (64 * SECOND)) << 18) / SECOND;
    put(line.abs_send_time, &(sent as u32).to_be_bytes()[1..]);
    if line.transport_wide.is_some() {
        put(line.transport_wide, &transport_wide.to_be_bytes());
        *transport_wide = transport_wide.wrapping_add(1);
    }
    elements
}

impl Batch {
    /// Seals a packet behind those that are already there; sends those first where it is of another length.
    #[allow(
        clippy::too_many_arguments,
        reason = "one call a packet, of borrowed fields of one struct"
    )]
    fn push(
        &mut self,
        socket: &mut Socket,
        to: SocketAddr,
        keys: &Keys,
        outlet: &mut Outlet,
        header: &Header,
        elements: &Elements,
        payload: &[&[u8]],
        now: u64,
        sent: &mut Sent,
    ) {
        let mut packet = [0; PACKET_MAX];
        let extension = (elements.len > 0).then(|| Extension {
            profile: wire::rtp::extension::ONE_BYTE_PROFILE,
            data: &elements.bytes[..elements.len],
        });
        let Ok(header_length) = header.write(&[], extension, &mut packet) else {
            return;
        };
        let mut plain = [0; PAYLOAD_MAX + 2];
        let mut length = 0;
        for part in payload {
            plain[length..length + part.len()].copy_from_slice(part);
            length += part.len();
        }
        let total = header_length + length + keys.sealer.tag_length();
        keys.sealer.seal(
            &mut packet[..total],
            header_length,
            outlet.index,
            &plain[..length],
        );
        outlet.index += 1;
        outlet.packets = outlet.packets.wrapping_add(1);
        outlet.octets = outlet.octets.wrapping_add(length as u32);
        outlet.last = (header.timestamp, now);
        let fits = total == self.segment && self.segments < SEGMENTS_MAX && self.len + total <= BATCH_MAX;
        if self.segments > 0 && !fits {
            sent.refused += self.flush(socket, to);
        }
        self.bytes[self.len..self.len + total].copy_from_slice(&packet[..total]);
        self.len += total;
        self.segment = total;
        self.segments += 1;
    }

    /// Sends what is there; how many packets the kernel refused.
    fn flush(&mut self, socket: &mut Socket, to: SocketAddr) -> u64 {
        if self.segments == 0 {
            return 0;
        }
        let transmit = Transmit {
            segment_size: (self.segments > 1).then_some(self.segment),
            ..single(to, &self.bytes[..self.len])
        };
        let refused = socket
            .send(&transmit)
            .err()
            .map_or(0, |refused| refused.datagrams);
        (self.len, self.segments) = (0, 0);
        refused
    }
}
