//! What a receiving light client does with a packet: finds its stream, opens it, reads the stamp and counts; and what
//! it tells the server: receiver reports, negative acknowledgements, transport-wide feedback where it was agreed on.
//!
//! Streams are found by SSRC and made by payload type, as a browser does for SSRCs that no description names. Nothing
//! is allocated per packet once a stream is known and [`Receiver::measure`] has made room.

use std::ops::Range;

use wire::rtcp::{Packet, ReportBlock, Writer, compound};
use wire::rtp::HeaderView;

use crate::dtls::Keys;
use crate::histogram::Histogram;
use crate::loss::Loss;
use crate::media::{Content, Stamp};
use crate::sdp::{Direction, Kind, Remote};

const SECOND: u64 = 1_000_000_000;
const REPORT_INTERVAL: u64 = SECOND;
/// Chromium sends transport-wide feedback about so often at this rate.
const FEEDBACK_INTERVAL: u64 = SECOND / 10;
/// After a NACK, before the next one for the same packet; and how often it is tried (libwebrtc: 10).
const NACK_INTERVAL: u64 = 50_000_000;
const NACKS_MAX: u8 = 10;
/// Missing packets of one stream that are remembered; a longer gap is given up, as libwebrtc does with 1,000.
const MISSING_MAX: usize = 512;
/// Packets noted between two transport-wide feedbacks.
const ARRIVALS_MAX: usize = 1_024;
/// Streams of one client: 64 publishers with audio, video and RTX.
const STREAMS_MAX: usize = 192;
/// Between two requests for a keyframe.
const PLI_INTERVAL: u64 = SECOND;

/// Room for one compound packet of feedback.
pub const FEEDBACK_MAX: usize = 1_200;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Usage {
    Audio,
    Video,
    Rtx,
}

/// Latencies of everything that arrived within the measured time, of all receivers together.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// By content, in the order of [`Content::ALL`].
    pub latencies: [Histogram; 3],
    /// Of packets that came as retransmissions; they are among those above too.
    pub recovered: Histogram,
}

impl Tally {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> Histogram {
        let mut all = Histogram::default();
        self.latencies.iter().for_each(|one| all.add(one));
        all
    }
}

/// Which packets of one stream arrived within the measured time, one bit each.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    first: u64,
    bits: Vec<u64>,
    /// Each once.
    pub packets: u64,
    /// Again.
    pub duplicates: u64,
    /// Ever, in the measured time or not.
    pub packets_ever: u64,
}

impl Seen {
    fn begin(&mut self, first: u64, room: usize) {
        *self = Seen {
            first,
            bits: vec![0; room.div_ceil(64)],
            packets_ever: self.packets_ever,
            ..Seen::default()
        };
    }

    fn note(&mut self, number: u64) {
        let Some(at) = number.checked_sub(self.first) else {
            return;
        };
        let Some(word) = self.bits.get_mut((at / 64) as usize) else {
            return;
        };
        let bit = 1 << (at % 64);
        if *word & bit == 0 {
            self.packets += 1;
        } else {
            self.duplicates += 1;
        }
        *word |= bit;
    }

    /// Whether this packet arrived.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        let Some(at) = number.checked_sub(self.first) else {
            return false;
        };
        self.bits
            .get((at / 64) as usize)
            .is_some_and(|word| word & 1 << (at % 64) != 0)
    }
}

/// What arrived of one publisher.
#[derive(Clone, Debug, Default)]
pub struct Track {
    /// Whose.
    pub publisher: u16,
    /// Audio.
    pub audio: Seen,
    /// Video.
    pub video: Seen,
}

/// A packet that did not come.
#[derive(Clone, Copy)]
struct Missing {
    index: u64,
    due: u64,
    nacks: u8,
}

/// One SSRC that arrives.
struct Stream {
    ssrc: u32,
    usage: Usage,
    publisher: u16,
    base: u64,
    highest: u64,
    received: u64,
    expected_before: u64,
    received_before: u64,
    jitter: f64,
    transit: i64,
    last_sender_report: u32,
    sender_report_at: u64,
    missing: Vec<Missing>,
}

/// A receiving client's side.
pub struct Receiver {
    ssrc: u32,
    usages: [Option<Usage>; 128],
    transport_wide: Option<u8>,
    /// Whether feedback may go without a report before it.
    is_reduced_size: bool,
    streams: Vec<Stream>,
    last: usize,
    window: Range<u64>,
    loss: Option<Loss>,
    arrivals: Vec<(u16, u64)>,
    feedback_count: u8,
    next_report: u64,
    next_feedback: u64,
    next_nack: u64,
    last_pli: u64,
    /// What arrived of each publisher.
    pub tracks: Vec<Track>,
    /// RTP packets that arrived, retransmissions and those lost on purpose included.
    pub rtp_packets: u64,
    /// Their UDP payload.
    pub rtp_bytes: u64,
    /// Packets that could not be opened.
    pub unopened: u64,
    /// Packets that were lost on purpose within the measured time.
    pub lost_on_purpose: u64,
    /// Sequence numbers asked for again within the measured time.
    pub nacked: u64,
}

impl Receiver {
    /// For what the server said that it would send. `ssrc` is what it reports as.
    #[must_use]
    pub fn new(ssrc: u32, remote: &Remote, now: u64) -> Receiver {
        let mut receiver = Receiver {
            ssrc,
            usages: [None; 128],
            transport_wide: None,
            is_reduced_size: false,
            streams: Vec::with_capacity(4),
            last: 0,
            window: 0..0,
            loss: None,
            arrivals: Vec::new(),
            feedback_count: 0,
            // Clients do not all report at the same moment.
            next_report: now + u64::from(ssrc.wrapping_mul(0x9E37_79B1)) * REPORT_INTERVAL / (1 << 32),
            next_feedback: u64::MAX,
            next_nack: u64::MAX,
            last_pli: 0,
            tracks: Vec::new(),
            rtp_packets: 0,
            rtp_bytes: 0,
            unopened: 0,
            lost_on_purpose: 0,
            nacked: 0,
        };
        receiver.learn(remote);
        if receiver.transport_wide.is_some() {
            receiver.next_feedback = receiver.next_report;
            receiver.arrivals.reserve(ARRIVALS_MAX);
        }
        receiver
    }

    fn learn(&mut self, remote: &Remote) {
        let sends = |direction| matches!(direction, Direction::Send | Direction::Both);
        for line in remote.lines.iter().filter(|line| sends(line.direction)) {
            let mut learn = |pt: Option<u8>, usage| {
                if let Some(slot) = pt.and_then(|pt| self.usages.get_mut(usize::from(pt))) {
                    *slot = Some(usage);
                }
            };
            match line.kind {
                Some(Kind::Audio) => learn(line.payload_type(), Usage::Audio),
                Some(Kind::Video) => {
                    learn(line.payload_type(), Usage::Video);
                    learn(line.rtx_payload_type(), Usage::Rtx);
                }
                None => {}
            }
        }
        self.is_reduced_size = remote
            .lines
            .iter()
            .all(|line| line.is_reduced_size || line.is_rejected);
        let video = remote.agreed(Kind::Video, Direction::Send);
        self.transport_wide = video.and_then(|agreed| agreed.transport_wide);
    }

    /// Whether audio and video of so many publishers have arrived.
    #[must_use]
    pub fn sees(&self, publishers: usize) -> bool {
        let complete = |track: &&Track| track.audio.packets_ever > 0 && track.video.packets_ever > 0;
        self.tracks.iter().filter(complete).count() >= publishers
    }

    /// Counts anew what is stamped within these nanoseconds. `first` gives a publisher's next audio and video number,
    /// and there is room for so many packets of each stream.
    pub fn measure(&mut self, window: Range<u64>, first: impl Fn(u16) -> (u64, u64), room: usize) {
        self.window = window;
        self.lost_on_purpose = 0;
        self.nacked = 0;
        for track in &mut self.tracks {
            let (audio, video) = first(track.publisher);
            track.audio.begin(audio, room);
            track.video.begin(video, room);
        }
    }

    /// From now on its link from the server loses packets.
    pub fn lose(&mut self, loss: Option<Loss>) {
        self.loss = loss;
    }

    /// When [`Receiver::feedback`] is to be called next.
    #[must_use]
    pub fn due(&self) -> u64 {
        self.next_report.min(self.next_feedback).min(self.next_nack)
    }

    /// Takes an RTP packet that arrived.
    pub fn handle_rtp(
        &mut self,
        now: u64,
        packet: &[u8],
        keys: &Keys,
        scratch: &mut [u8; 2_048],
        tally: &mut Tally,
    ) {
        self.rtp_packets += 1;
        self.rtp_bytes += packet.len() as u64;
        if self.loss.as_mut().is_some_and(Loss::takes) {
            self.lost_on_purpose += u64::from(self.window.contains(&now));
            return;
        }
        let Ok(header) = HeaderView::parse(packet) else {
            return;
        };
        if self.transport_wide.is_some() {
            self.note_arrival(&header, now);
        }
        let Some(at) = self.stream(&header) else {
            return;
        };
        let stream = &mut self.streams[at];
        let index = stream.index_of(header.sequence_number());
        let Ok(length) = keys.opener.open(packet, header.header_len(), index, scratch) else {
            self.unopened += 1;
            return;
        };
        let mut payload = &scratch[..length];
        if header.padding() {
            let padding = usize::from(*payload.last().unwrap_or(&0)).min(payload.len());
            payload = &payload[..payload.len() - padding];
        }
        let usage = stream.usage;
        if stream.arrived(index, now, header.timestamp()) {
            self.next_nack = self.next_nack.min(now);
        }
        let Some(stamp) = Stamp::read(payload) else {
            return;
        };
        let is_again = usage == Usage::Rtx;
        if is_again {
            let number = u16::from_be_bytes([payload[0], payload[1]]);
            self.recovered(stamp.publisher, number);
        } else {
            self.streams[at].publisher = stamp.publisher;
        }
        self.count(now, stamp, is_again, tally);
    }

    /// Where the stream of this packet is; a new SSRC is taken in where its payload type is known.
    fn stream(&mut self, header: &HeaderView<'_>) -> Option<usize> {
        let ssrc = header.ssrc();
        if self
            .streams
            .get(self.last)
            .is_some_and(|stream| stream.ssrc == ssrc)
        {
            return Some(self.last);
        }
        let at = match self.streams.iter().position(|stream| stream.ssrc == ssrc) {
            Some(at) => at,
            None => {
                let usage = self.usages[usize::from(header.payload_type())]?;
                if self.streams.len() >= STREAMS_MAX {
                    return None;
                }
                self.streams
                    .push(Stream::new(ssrc, usage, header.sequence_number()));
                self.streams.len() - 1
            }
        };
        self.last = at;
        Some(at)
    }

    fn count(&mut self, now: u64, stamp: Stamp, is_again: bool, tally: &mut Tally) {
        let at = match self
            .tracks
            .iter()
            .position(|track| track.publisher == stamp.publisher)
        {
            Some(at) => at,
            None => {
                self.tracks.push(Track {
                    publisher: stamp.publisher,
                    ..Track::default()
                });
                self.tracks.len() - 1
            }
        };
        let track = &mut self.tracks[at];
        let seen = match stamp.content {
            Content::Audio => &mut track.audio,
            Content::Delta | Content::Key => &mut track.video,
        };
        seen.packets_ever += 1;
        if !self.window.contains(&stamp.nanoseconds) {
            return;
        }
        let before = seen.packets;
        seen.note(stamp.number);
        if seen.packets == before {
            return;
        }
        let microseconds = now.saturating_sub(stamp.nanoseconds) / 1_000;
        let microseconds = u32::try_from(microseconds).unwrap_or(u32::MAX);
        tally.latencies[stamp.content as usize].record(microseconds);
        if is_again {
            tally.recovered.record(microseconds);
        }
    }

    fn recovered(&mut self, publisher: u16, number: u16) {
        for stream in &mut self.streams {
            if stream.usage == Usage::Video && stream.publisher == publisher {
                stream.missing.retain(|missing| missing.index as u16 != number);
            }
        }
    }

    fn note_arrival(&mut self, header: &HeaderView<'_>, now: u64) {
        let element = self
            .transport_wide
            .zip(header.extension())
            .and_then(|(id, extension)| extension.find(id));
        if let Some(&[high, low]) = element
            && self.arrivals.len() < ARRIVALS_MAX
        {
            self.arrivals.push((u16::from_be_bytes([high, low]), now));
        }
    }

    /// Takes a compound RTCP packet of the server's.
    pub fn handle_rtcp(&mut self, packets: &[u8], now: u64) {
        for packet in compound(packets).map_while(Result::ok) {
            if let Packet::SenderReport(report) = packet
                && let Some(stream) = self
                    .streams
                    .iter_mut()
                    .find(|stream| stream.ssrc == report.sender.ssrc)
            {
                stream.last_sender_report = (report.sender.ntp >> 16) as u32;
                stream.sender_report_at = now;
            }
        }
    }

    /// Writes one compound packet that is due into `buffer`; `None` where nothing is.
    pub fn feedback(&mut self, now: u64, buffer: &mut [u8; FEEDBACK_MAX]) -> Option<usize> {
        let mut writer = Writer::new(buffer);
        let has_feedback = self.next_nack <= now || self.next_feedback <= now;
        if self.next_report <= now || has_feedback && !self.is_reduced_size {
            self.next_report = now + REPORT_INTERVAL;
            self.write_report(now, &mut writer);
        }
        if self.next_nack <= now {
            self.write_nacks(now, &mut writer);
        }
        if self.next_feedback <= now {
            self.next_feedback = now + FEEDBACK_INTERVAL;
            self.write_arrivals(&mut writer);
        }
        (!writer.is_empty()).then(|| writer.finish())
    }

    fn write_report(&mut self, now: u64, writer: &mut Writer<'_>) {
        let mut blocks = [ReportBlock::default(); 31];
        let mut count = 0;
        let media = self
            .streams
            .iter_mut()
            .filter(|stream| stream.usage != Usage::Rtx);
        for (block, stream) in blocks.iter_mut().zip(media) {
            *block = stream.report(now);
            count += 1;
        }
        // What does not fit is told with the next report.
        let _ = writer
            .receiver_report(self.ssrc, &blocks[..count])
            .and_then(|writer| writer.source_description(self.ssrc, "loadtest"));
    }

    fn write_nacks(&mut self, now: u64, writer: &mut Writer<'_>) {
        let is_measured = self.window.contains(&now);
        self.next_nack = u64::MAX;
        for stream in &mut self.streams {
            let mut numbers = [0; 128];
            let mut count = 0;
            let mut gave_up = false;
            stream.missing.retain_mut(|missing| {
                if missing.due <= now && count < numbers.len() {
                    if missing.nacks == NACKS_MAX {
                        gave_up = true;
                        return false;
                    }
                    numbers[count] = missing.index as u16;
                    count += 1;
                    missing.nacks += 1;
                    missing.due = now + NACK_INTERVAL;
                }
                true
            });
            if count > 0 {
                let _ = writer.nack(self.ssrc, stream.ssrc, numbers[..count].iter().copied());
                self.nacked += if is_measured { count as u64 } else { 0 };
            }
            if gave_up && now >= self.last_pli + PLI_INTERVAL {
                self.last_pli = now;
                let _ = writer.picture_loss_indication(self.ssrc, stream.ssrc);
            }
            let next = stream.missing.iter().map(|missing| missing.due).min();
            self.next_nack = self.next_nack.min(next.unwrap_or(u64::MAX));
        }
    }

    fn write_arrivals(&mut self, writer: &mut Writer<'_>) {
        let Some(&(first, began)) = self.arrivals.first() else {
            return;
        };
        let media_ssrc = self.streams.first().map_or(0, |stream| stream.ssrc);
        self.arrivals
            .sort_unstable_by_key(|(number, _)| number.wrapping_sub(first).wrapping_add(0x4000));
        let base = self.arrivals[0].0;
        const TICK: u64 = 250_000;
        const REFERENCE: u64 = 64_000_000;
        let reference = began / REFERENCE;
        let mut previous = reference * REFERENCE / TICK;
        let mut deltas = [None; 2 * ARRIVALS_MAX];
        let mut length = 0;
        for (number, at) in &self.arrivals {
            let slot = usize::from(number.wrapping_sub(base));
            let ticks = at / TICK;
            if let Some(delta) = deltas.get_mut(slot) {
                *delta = i16::try_from(ticks as i64 - previous as i64).ok();
                previous = ticks;
                length = length.max(slot + 1);
            }
        }
        let written = writer.transport_wide_feedback(
            self.ssrc,
            media_ssrc,
            base,
            (reference & 0xFF_FFFF) as i32,
            self.feedback_count,
            deltas[..length].iter().copied(),
        );
        if written.is_ok() {
            self.feedback_count = self.feedback_count.wrapping_add(1);
        }
        self.arrivals.clear();
    }
}

impl Stream {
    fn new(ssrc: u32, usage: Usage, number: u16) -> Stream {
        Stream {
            ssrc,
            usage,
            publisher: u16::MAX,
            base: u64::from(number),
            highest: u64::from(number),
            received: 0,
            expected_before: 0,
            received_before: 0,
            jitter: 0.0,
            transit: 0,
            last_sender_report: 0,
            sender_report_at: 0,
            missing: Vec::with_capacity(if usage == Usage::Video { 32 } else { 0 }),
        }
    }

    /// The SRTP index nearest to the highest one (RFC 3711 section 3.3.1).
    fn index_of(&self, number: u16) -> u64 {
        let distance = number.wrapping_sub(self.highest as u16) as i16;
        self.highest.saturating_add_signed(i64::from(distance))
    }

    /// Counts an authentic packet; true where it shows a new gap.
    fn arrived(&mut self, index: u64, now: u64, timestamp: u32) -> bool {
        self.received += 1;
        if self.usage != Usage::Rtx {
            self.note_jitter(now, timestamp);
        }
        if index <= self.highest {
            if self.usage == Usage::Video && !self.missing.is_empty() {
                self.missing.retain(|missing| missing.index != index);
            }
            return false;
        }
        let gap = index - self.highest - 1;
        let first = self.highest + 1;
        self.highest = index;
        if gap == 0 || self.usage != Usage::Video {
            return false;
        }
        if gap as usize + self.missing.len() > MISSING_MAX {
            self.missing.clear();
            return false;
        }
        self.missing.extend((first..index).map(|index| Missing {
            index,
            due: now,
            nacks: 0,
        }));
        true
    }

    /// RFC 3550 section 6.4.1.
    fn note_jitter(&mut self, now: u64, timestamp: u32) {
        let clock = if self.usage == Usage::Audio {
            48_000
        } else {
            90_000
        };
        let arrival = (now as i128 * clock / SECOND as i128) as i64;
        let transit = arrival.wrapping_sub(i64::from(timestamp));
        if self.received > 1 {
            let difference = (transit - self.transit).unsigned_abs() as u32;
            self.jitter += (f64::from(difference) - self.jitter) / 16.0;
        }
        self.transit = transit;
    }

    fn report(&mut self, now: u64) -> ReportBlock {
        let expected = self.highest - self.base + 1;
        let expected_now = expected - self.expected_before;
        let lost_now = expected_now.saturating_sub(self.received - self.received_before);
        self.expected_before = expected;
        self.received_before = self.received;
        let since = match self.last_sender_report {
            0 => 0,
            _ => ((now - self.sender_report_at) << 16) / SECOND,
        };
        ReportBlock {
            ssrc: self.ssrc,
            fraction_lost: (lost_now * 256 / expected_now.max(1)).min(255) as u8,
            cumulative_lost: (expected as i64 - self.received as i64) as i32,
            extended_highest_sequence: self.highest as u32,
            jitter: self.jitter as u32,
            last_sender_report: self.last_sender_report,
            delay_since_last_sender_report: since as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_counts_once_and_those_before_the_measurement_do_not() {
        let mut seen = Seen::default();
        seen.begin(100, 128);
        [99, 100, 227, 228, 100].into_iter().for_each(|n| seen.note(n));
        assert_eq!((seen.packets, seen.duplicates), (2, 1));
        assert!(seen.contains(100) && seen.contains(227));
        assert!(!seen.contains(99) && !seen.contains(101) && !seen.contains(228));
    }

    #[test]
    fn the_rollover_counter_follows_the_sequence_number_both_ways() {
        let mut stream = Stream::new(1, Usage::Video, 65_534);
        assert_eq!(stream.index_of(65_535), 65_535);
        stream.arrived(65_535, 0, 0);
        assert_eq!(stream.index_of(1), 65_537);
        stream.arrived(65_537, 0, 0);
        assert_eq!(stream.index_of(65_535), 65_535);
    }

    #[test]
    fn a_gap_is_asked_for_at_once_again_after_a_while_and_given_up_with_a_pli() {
        let mut remote = crate::sdp::Remote {
            ufrag: String::new(),
            pwd: String::new(),
            fingerprint: (String::new(), Vec::new()),
            setup: crate::sdp::Setup::Passive,
            ice_lite: true,
            candidates: Vec::new(),
            lines: Vec::new(),
        };
        remote.lines.clear();
        let mut receiver = Receiver::new(9, &remote, 0);
        receiver.next_report = u64::MAX;
        receiver.streams.push(Stream::new(5, Usage::Video, 10));
        assert!(receiver.streams[0].arrived(13, 7, 0));
        receiver.next_nack = 7;
        let mut buffer = [0; FEEDBACK_MAX];
        let (mut now, mut asked) = (7, 0);
        let mut pli = false;
        while receiver.due() < u64::MAX {
            now = now.max(receiver.due());
            let Some(length) = receiver.feedback(now, &mut buffer) else {
                continue;
            };
            for packet in compound(&buffer[..length]).map(Result::unwrap) {
                match packet {
                    Packet::Nack(nack) => {
                        assert_eq!(nack.sequence_numbers().collect::<Vec<_>>(), [11, 12]);
                        asked += 1;
                    }
                    Packet::PictureLossIndication(_) => pli = true,
                    other => panic!("{other:?}"),
                }
            }
            // The first request for a keyframe may come no earlier than a second in.
            assert!(asked <= NACKS_MAX);
        }
        assert_eq!(asked, NACKS_MAX);
        assert!(pli || now < PLI_INTERVAL);
        assert!(receiver.streams[0].missing.is_empty());
    }

    #[test]
    fn a_retransmission_ends_the_asking() {
        let mut stream = Stream::new(5, Usage::Video, 10);
        stream.arrived(10, 0, 0);
        assert!(stream.arrived(13, 0, 0));
        assert!(!stream.arrived(11, 0, 0));
        assert_eq!(stream.missing.len(), 1);
        let report = stream.report(0);
        assert_eq!((report.cumulative_lost, report.fraction_lost), (1, 64));
    }
}
