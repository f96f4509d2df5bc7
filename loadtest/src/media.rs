//! What a publisher sends: 1.5 Mbit/s of video at 30 frames a second in VP8's RTP format (RFC 7741), and 50 packets
//! of audio a second. The pictures are noise; descriptors, keyframes, markers and timestamps are real, frames are
//! split as libwebrtc splits them, and the last bytes of every payload are a stamp.

use std::time::{Duration, Instant};

/// Video packets carry this much payload at most.
pub const PAYLOAD_MAX: usize = 1_100;

/// Between two frames of video: 30 a second.
pub const FRAME_INTERVAL: Duration = Duration::from_nanos(33_333_333);

/// Between two packets of audio: 50 a second.
pub const AUDIO_INTERVAL: Duration = Duration::from_millis(20);

/// What the video takes on average.
pub const VIDEO_BITS_PER_SECOND: u64 = 1_500_000;

const FRAMES_PER_KEYFRAME: u64 = 90;
const KEYFRAME_LEN: usize = 25_000;
/// So that keyframes and others are 6,250 bytes on average: 1.5 Mbit/s.
const DELTA_FRAME_LEN: usize =
    (6_250 * FRAMES_PER_KEYFRAME as usize - KEYFRAME_LEN) / (FRAMES_PER_KEYFRAME as usize - 1);
/// Frames differ by up to this much from the average, so that they split evenly no more often than real ones.
const FRAME_LEN_SPREAD: u64 = 100;
const AUDIO_LEN: usize = 100;

const VIDEO_CLOCK: u64 = 90_000;
const AUDIO_CLOCK: u64 = 48_000;

/// Descriptor (RFC 7741 section 4.2) and frame header of a keyframe (RFC 6386 section 9.1).
const DESCRIPTOR_LEN: usize = 4;

const STAMP_MAGIC: [u8; 4] = *b"mway";

/// Bytes of a stamp.
pub const STAMP_LEN: usize = 24;

/// What a packet belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// 20 ms of sound.
    Audio,
    /// A frame that needs the one before it.
    Delta,
    /// A frame that stands alone.
    Key,
}

impl Content {
    /// All of them, in the order of their numbers.
    pub const ALL: [Content; 3] = [Content::Audio, Content::Delta, Content::Key];

    fn from_number(number: u8) -> Option<Content> {
        Content::ALL.get(usize::from(number)).copied()
    }
}

/// Names a packet and says when it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// What it belongs to.
    pub content: Content,
    /// Which publisher of the run.
    pub publisher: u16,
    /// 0, 1, 2 and so on in its publisher's audio or video, whatever RTP says.
    pub number: u64,
    /// Since the epoch that publishers and subscribers share.
    pub nanoseconds: u64,
}

impl Stamp {
    /// As it lies at the end of a payload.
    #[must_use]
    pub fn to_bytes(self) -> [u8; STAMP_LEN] {
        let mut bytes = [0; STAMP_LEN];
        bytes[..4].copy_from_slice(&STAMP_MAGIC);
        bytes[4] = self.content as u8;
        bytes[6..8].copy_from_slice(&self.publisher.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.number.to_be_bytes());
        bytes[16..].copy_from_slice(&self.nanoseconds.to_be_bytes());
        bytes
    }

    /// Off the end of a payload; `None` where it is not one of ours.
    #[must_use]
    pub fn read(payload: &[u8]) -> Option<Stamp> {
        let (_, stamp) = payload.split_last_chunk::<STAMP_LEN>()?;
        let (head, rest) = stamp.split_first_chunk::<8>()?;
        let (number, rest) = rest.split_first_chunk()?;
        let nanoseconds = rest.first_chunk()?;
        let [m0, m1, m2, m3, content, _, p0, p1] = *head;
        if [m0, m1, m2, m3] != STAMP_MAGIC {
            return None;
        }
        Some(Stamp {
            content: Content::from_number(content)?,
            publisher: u16::from_be_bytes([p0, p1]),
            number: u64::from_be_bytes(*number),
            nanoseconds: u64::from_be_bytes(*nanoseconds),
        })
    }
}

/// Where each packet of a frame ends: `count` packets of about equal size, of which the last ones are a byte longer
/// where the frame does not divide (libwebrtc, `RtpPacketizer::SplitAboutEqually`). The packet `at` has this many bytes.
#[must_use]
pub fn split_about_equally(len: usize, count: usize, at: usize) -> usize {
    len / count + usize::from(at >= count - len % count)
}

/// One frame of video before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// 0, 1, 2 and so on.
    pub number: u64,
    /// Whether it stands alone.
    pub is_key: bool,
    /// The number of its first packet.
    pub first_packet: u64,
    /// How many packets it takes.
    pub count: usize,
    len: usize,
}

impl Frame {
    /// On the 90 kHz clock.
    #[must_use]
    pub fn timestamp(&self) -> u32 {
        (self.number * VIDEO_CLOCK / 30) as u32
    }

    /// Payload bytes of the packet `at`.
    #[must_use]
    pub fn payload_len(&self, at: usize) -> usize {
        split_about_equally(self.len, self.count, at)
    }

    /// The content its packets are stamped with.
    #[must_use]
    pub fn content(&self) -> Content {
        if self.is_key { Content::Key } else { Content::Delta }
    }

    /// Writes the payload of packet `at` without its stamp into the start of `payload` and returns its length.
    pub fn write(&self, at: usize, payload: &mut [u8]) -> usize {
        let len = self.payload_len(at) - STAMP_LEN;
        let payload = &mut payload[..len];
        payload.fill(at as u8);
        // Extended, start of the partition; a 15-bit picture id follows.
        payload[0] = if at == 0 { 0x90 } else { 0x80 };
        payload[1] = 0x80;
        payload[2..DESCRIPTOR_LEN].copy_from_slice(&(0x8000 | (self.number & 0x7FFF) as u16).to_be_bytes());
        if at == 0 {
            // The frame tag, and for a keyframe start code and 640 by 360.
            let header: &[u8] = if self.is_key {
                &[0x10, 0x02, 0x00, 0x9D, 0x01, 0x2A, 0x80, 0x02, 0x68, 0x01]
            } else {
                &[0x11, 0x02, 0x00]
            };
            payload[DESCRIPTOR_LEN..DESCRIPTOR_LEN + header.len()].copy_from_slice(header);
        }
        len
    }
}

/// One packet to be sent.
pub struct Outgoing {
    /// Extended, starting below 65,536 as SRTP wants.
    pub sequence_number: u64,
    /// On the media's own clock.
    pub timestamp: u32,
    /// The last of its frame.
    pub marker: bool,
    /// With the stamp at its end.
    pub payload: Vec<u8>,
}

/// Makes frames of video.
pub struct Video {
    epoch: Instant,
    frames: u64,
    since_keyframe: u64,
    packets: u64,
    keyframe_wanted: bool,
}

impl Video {
    /// Stamps count from `epoch`. The first frame is a keyframe.
    #[must_use]
    pub fn new(epoch: Instant) -> Video {
        Video {
            epoch,
            frames: 0,
            since_keyframe: 0,
            packets: 0,
            keyframe_wanted: true,
        }
    }

    /// The next frame is to be a keyframe: a subscriber sent PLI.
    pub fn want_keyframe(&mut self) {
        self.keyframe_wanted = true;
    }

    /// Packets made until now.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// The next frame.
    pub fn next_frame(&mut self) -> Frame {
        let is_key = self.keyframe_wanted || self.since_keyframe >= FRAMES_PER_KEYFRAME;
        self.since_keyframe = if is_key { 1 } else { self.since_keyframe + 1 };
        self.keyframe_wanted = false;
        let len = if is_key {
            KEYFRAME_LEN
        } else {
            // 37 and the number of lengths have no common divisor: every length comes once before one comes again.
            let spread = self.frames * 37 % (2 * FRAME_LEN_SPREAD + 1);
            DELTA_FRAME_LEN + spread as usize - FRAME_LEN_SPREAD as usize
        };
        let frame = Frame {
            number: self.frames,
            is_key,
            first_packet: self.packets,
            count: len.div_ceil(PAYLOAD_MAX),
            len,
        };
        self.frames += 1;
        self.packets += frame.count as u64;
        frame
    }

    /// The packets of the next frame, ready to be sent.
    pub fn frame(&mut self, now: Instant) -> Vec<Outgoing> {
        let frame = self.next_frame();
        let nanoseconds = now.saturating_duration_since(self.epoch).as_nanos() as u64;
        let packets = (0..frame.count).map(|at| {
            let number = frame.first_packet + at as u64;
            let stamp = Stamp {
                content: frame.content(),
                publisher: 0,
                number,
                nanoseconds,
            };
            let mut payload = vec![0; frame.payload_len(at)];
            let len = frame.write(at, &mut payload);
            payload[len..].copy_from_slice(&stamp.to_bytes());
            Outgoing {
                sequence_number: number,
                timestamp: frame.timestamp(),
                marker: at + 1 == frame.count,
                payload,
            }
        });
        packets.collect()
    }
}

/// Makes packets of audio.
pub struct Audio {
    epoch: Instant,
    packets: u64,
}

impl Audio {
    /// Payload of every packet.
    pub const PAYLOAD_LEN: usize = AUDIO_LEN;

    /// Stamps count from `epoch`.
    #[must_use]
    pub fn new(epoch: Instant) -> Audio {
        Audio { epoch, packets: 0 }
    }

    /// Packets made until now.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// The number of the next packet.
    pub fn next_number(&mut self) -> u64 {
        self.packets += 1;
        self.packets - 1
    }

    /// The RTP timestamp of a packet on the 48 kHz clock.
    #[must_use]
    pub fn timestamp(number: u64) -> u32 {
        (number * AUDIO_CLOCK / 50) as u32
    }

    /// Writes a payload without its stamp: 20 ms of Opus, by its first byte (RFC 6716 section 3.1). Returns its length.
    pub fn write(number: u64, payload: &mut [u8]) -> usize {
        let payload = &mut payload[..AUDIO_LEN - STAMP_LEN];
        payload.fill(number as u8);
        payload[0] = 0x78;
        payload.len()
    }

    /// The next packet, ready to be sent.
    pub fn packet(&mut self, now: Instant) -> Outgoing {
        let number = self.next_number();
        let stamp = Stamp {
            content: Content::Audio,
            publisher: 0,
            number,
            nanoseconds: now.saturating_duration_since(self.epoch).as_nanos() as u64,
        };
        let mut payload = vec![0; AUDIO_LEN];
        let len = Audio::write(number, &mut payload);
        payload[len..].copy_from_slice(&stamp.to_bytes());
        Outgoing {
            sequence_number: number,
            timestamp: Audio::timestamp(number),
            marker: number == 0,
            payload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_video_is_1_5_megabits_in_packets_that_fit() {
        let epoch = Instant::now();
        let mut video = Video::new(epoch);
        let mut bytes = 0;
        for frame in 0..90 {
            let packets = video.frame(epoch);
            assert!(packets.iter().all(|packet| packet.payload.len() <= PAYLOAD_MAX));
            assert_eq!(packets.len(), if frame == 0 { 23 } else { 6 });
            assert_eq!(packets.iter().filter(|packet| packet.marker).count(), 1);
            assert!(packets.last().is_some_and(|packet| packet.marker));
            // The first payload bit of a VP8 frame says whether it depends on others.
            assert_eq!(packets[0].payload[4] & 1, u8::from(frame != 0));
            bytes += packets.iter().map(|packet| packet.payload.len()).sum::<usize>();
        }
        let megabits = bytes as f64 * 8.0 / 3.0 / 1e6;
        assert!((1.45..1.55).contains(&megabits), "{megabits} Mbit/s");
        assert!(video.next_frame().is_key, "a keyframe every three seconds");
        assert!(!video.next_frame().is_key);
        video.want_keyframe();
        assert!(video.next_frame().is_key, "a keyframe when asked");
    }

    #[test]
    fn a_frame_is_split_about_equally_with_the_last_packets_a_byte_longer() {
        let sizes = |len, count| {
            (0..count)
                .map(|at| split_about_equally(len, count, at))
                .collect::<Vec<_>>()
        };
        assert_eq!(sizes(6_038, 6), [1_006, 1_006, 1_006, 1_006, 1_007, 1_007]);
        assert_eq!(sizes(12, 3), [4, 4, 4]);
        assert_eq!(sizes(7, 1), [7]);
        let mut video = Video::new(Instant::now());
        let mut even = 0;
        for _ in 0..300 {
            let frame = video.next_frame();
            let sizes: Vec<_> = (0..frame.count).map(|at| frame.payload_len(at)).collect();
            assert!(sizes.is_sorted() && sizes[frame.count - 1] - sizes[0] <= 1);
            even += usize::from(sizes[0] == sizes[frame.count - 1]);
        }
        assert!((20..100).contains(&even), "{even} of 300 frames divide evenly");
    }

    #[test]
    fn a_stamp_is_read_as_written() {
        let epoch = Instant::now();
        let mut audio = Audio::new(epoch);
        audio.packet(epoch);
        let packet = audio.packet(epoch + Duration::from_millis(7));
        let stamp = Stamp::read(&packet.payload);
        assert_eq!(
            stamp,
            Some(Stamp {
                content: Content::Audio,
                publisher: 0,
                number: 1,
                nanoseconds: 7_000_000
            })
        );
        assert_eq!(Stamp::read(&[0; 100]), None);
        assert_eq!(Stamp::read(&[]), None);
    }
}
