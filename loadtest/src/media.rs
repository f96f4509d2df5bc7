//! What a publisher sends: 1.5 Mbit/s of video at 30 frames a second in VP8's RTP format (RFC 7741), and 50 packets
//! of audio a second. The pictures are noise; descriptors, keyframes, markers and timestamps are real, and the last
//! bytes of every payload are a stamp.

use std::time::{Duration, Instant};

/// Video packets carry this much payload at most.
pub const PAYLOAD_MAX: usize = 1_100;

/// Between two frames of video: 30 a second.
pub const FRAME_INTERVAL: Duration = Duration::from_nanos(33_333_333);

/// Between two packets of audio: 50 a second.
pub const AUDIO_INTERVAL: Duration = Duration::from_millis(20);

const FRAMES_PER_KEYFRAME: u64 = 90;
const KEYFRAME_LEN: usize = 25_000;
/// So that keyframes and others are 6,250 bytes on average: 1.5 Mbit/s.
const DELTA_FRAME_LEN: usize =
    (6_250 * FRAMES_PER_KEYFRAME as usize - KEYFRAME_LEN) / (FRAMES_PER_KEYFRAME as usize - 1);
const AUDIO_LEN: usize = 100;

const VIDEO_CLOCK: u64 = 90_000;
const AUDIO_CLOCK: u64 = 48_000;

const STAMP_MAGIC: [u8; 4] = *b"mway";

/// Bytes of a stamp.
pub const STAMP_LEN: usize = 20;

/// Counts a stream's packets and says when each left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// 0, 1, 2 and so on, whatever RTP says.
    pub number: u64,
    /// Since the epoch that publisher and subscribers share.
    pub nanoseconds: u64,
}

impl Stamp {
    fn write(self, payload: &mut Vec<u8>) {
        payload.extend(STAMP_MAGIC);
        payload.extend(self.number.to_be_bytes());
        payload.extend(self.nanoseconds.to_be_bytes());
    }

    /// Off the end of a payload; `None` where it is not one of ours.
    pub fn read(payload: &[u8]) -> Option<Stamp> {
        let (_, stamp) = payload.split_last_chunk::<STAMP_LEN>()?;
        let (magic, rest) = stamp.split_first_chunk::<4>()?;
        let (number, rest) = rest.split_first_chunk()?;
        let nanoseconds = rest.first_chunk()?;
        (*magic == STAMP_MAGIC).then_some(Stamp {
            number: u64::from_be_bytes(*number),
            nanoseconds: u64::from_be_bytes(*nanoseconds),
        })
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
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// The packets of the next frame.
    pub fn frame(&mut self, now: Instant) -> Vec<Outgoing> {
        let keyframe = self.keyframe_wanted || self.since_keyframe >= FRAMES_PER_KEYFRAME;
        self.since_keyframe = if keyframe { 1 } else { self.since_keyframe + 1 };
        self.keyframe_wanted = false;
        let len = if keyframe { KEYFRAME_LEN } else { DELTA_FRAME_LEN };
        let count = len.div_ceil(PAYLOAD_MAX);
        let timestamp = (self.frames * VIDEO_CLOCK / 30) as u32;
        let packets = (0..count).map(|at| {
            let mut payload = Vec::with_capacity(PAYLOAD_MAX);
            // RFC 7741 section 4.2: extended, start of the partition; a 15-bit picture id follows.
            payload.extend([if at == 0 { 0x90 } else { 0x80 }, 0x80]);
            payload.extend((0x8000 | (self.frames & 0x7FFF) as u16).to_be_bytes());
            if at == 0 {
                payload.extend(frame_header(keyframe));
            }
            payload.resize(len / count - STAMP_LEN, at as u8);
            self.stamp(now, &mut payload);
            let sequence_number = self.packets;
            self.packets += 1;
            Outgoing {
                sequence_number,
                timestamp,
                marker: at + 1 == count,
                payload,
            }
        });
        let packets = packets.collect();
        self.frames += 1;
        packets
    }

    fn stamp(&self, now: Instant, payload: &mut Vec<u8>) {
        let nanoseconds = now.saturating_duration_since(self.epoch).as_nanos() as u64;
        Stamp {
            number: self.packets,
            nanoseconds,
        }
        .write(payload);
    }
}

/// RFC 6386 section 9.1: the frame tag, and for a keyframe start code and 640 by 360.
fn frame_header(keyframe: bool) -> Vec<u8> {
    let mut header = vec![if keyframe { 0x10 } else { 0x11 }, 0x02, 0x00];
    if keyframe {
        header.extend([0x9D, 0x01, 0x2A]);
        header.extend(640u16.to_le_bytes());
        header.extend(360u16.to_le_bytes());
    }
    header
}

/// Makes packets of audio.
pub struct Audio {
    epoch: Instant,
    packets: u64,
}

impl Audio {
    /// Stamps count from `epoch`.
    pub fn new(epoch: Instant) -> Audio {
        Audio { epoch, packets: 0 }
    }

    /// Packets made until now.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// The next packet: 20 ms of Opus, by its first byte (RFC 6716 section 3.1).
    pub fn packet(&mut self, now: Instant) -> Outgoing {
        let mut payload = vec![0x78];
        payload.resize(AUDIO_LEN - STAMP_LEN, self.packets as u8);
        let nanoseconds = now.saturating_duration_since(self.epoch).as_nanos() as u64;
        Stamp {
            number: self.packets,
            nanoseconds,
        }
        .write(&mut payload);
        let sequence_number = self.packets;
        let timestamp = (self.packets * AUDIO_CLOCK / 50) as u32;
        self.packets += 1;
        Outgoing {
            sequence_number,
            timestamp,
            marker: sequence_number == 0,
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
            assert_eq!(packets.iter().filter(|packet| packet.marker).count(), 1);
            assert!(packets.last().is_some_and(|packet| packet.marker));
            // The first payload bit of a VP8 frame says whether it depends on others.
            assert_eq!(packets[0].payload[4] & 1, u8::from(frame != 0));
            bytes += packets.iter().map(|packet| packet.payload.len()).sum::<usize>();
        }
        let megabits = bytes as f64 * 8.0 / 3.0 / 1e6;
        assert!((1.45..1.55).contains(&megabits), "{megabits} Mbit/s");
        assert!(
            video.frame(epoch)[0].payload[4] & 1 == 0,
            "a keyframe every three seconds"
        );
        assert!(video.frame(epoch)[0].payload[4] & 1 == 1);
        video.want_keyframe();
        assert!(video.frame(epoch)[0].payload[4] & 1 == 0, "a keyframe when asked");
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
                number: 1,
                nanoseconds: 7_000_000
            })
        );
        assert_eq!(Stamp::read(&[0; 100]), None);
        assert_eq!(Stamp::read(&[]), None);
    }
}
