//! What loadtest's publishers send, and when: the same frames and the same audio, so that a floor under this load
//! wakes as often and finds as much to batch as a relay does.

use std::collections::VecDeque;
use std::iter::Peekable;
use std::time::{Duration, Instant};

use loadtest::media::{AUDIO_INTERVAL, Audio, FRAME_INTERVAL, Video};

/// A paced publisher sends at this multiple of its mean rate, as libwebrtc's pacer does.
const PACING_FACTOR: f64 = 2.5;

/// The mean rate that the factor is of.
const VIDEO_BITS_PER_SECOND: f64 = 1.5e6;

/// A frame with more packets than this is a keyframe: a delta frame of loadtest's has 6.
const DELTA_PACKETS_MAX: usize = 10;

/// How a frame's packets leave the publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// All at once, in one send.
    Burst,
    /// One by one, at 2.5 times the mean rate.
    Paced,
}

/// What a packet is part of, which decides how late it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Delta,
    Key,
    Audio,
}

impl Kind {
    pub(super) const ALL: [Kind; 3] = [Kind::Delta, Kind::Key, Kind::Audio];

    /// A payload type of its own, so that whoever reads a packet can tell.
    pub(super) fn payload_type(self) -> u8 {
        match self {
            Kind::Delta => 96,
            Kind::Key => 97,
            Kind::Audio => 111,
        }
    }

    pub(super) fn of(payload_type: u8) -> Option<Kind> {
        Kind::ALL
            .into_iter()
            .find(|kind| kind.payload_type() == payload_type)
    }
}

/// Equal packets of one publisher that leave in one send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Departure {
    /// Since the first of all.
    pub(super) at: Duration,
    pub(super) publisher: usize,
    pub(super) kind: Kind,
    pub(super) packets: usize,
    /// RTP payload of each.
    pub(super) bytes: usize,
}

/// Everything that all publishers send, in order, without end.
pub(super) struct Departures {
    publishers: Vec<Peekable<Publisher>>,
}

struct Publisher {
    number: usize,
    video: Video,
    audio: Audio,
    arrival: Arrival,
    epoch: Instant,
    next_frame: Duration,
    next_audio: Duration,
    /// Packets of frames that are not gone yet.
    paced: VecDeque<Departure>,
}

impl Departures {
    /// Publishers begin evenly spread over a frame's time, as people do who join a call at any moment.
    pub(super) fn of(publishers: usize, arrival: Arrival) -> Departures {
        let epoch = Instant::now();
        let publisher = |number| {
            let share = number as f64 / publishers as f64;
            Publisher {
                number,
                video: Video::new(epoch),
                audio: Audio::new(epoch),
                arrival,
                epoch,
                next_frame: FRAME_INTERVAL.mul_f64(share),
                next_audio: AUDIO_INTERVAL.mul_f64(share),
                paced: VecDeque::new(),
            }
        };
        Departures {
            publishers: (0..publishers)
                .map(|number| publisher(number).peekable())
                .collect(),
        }
    }
}

impl Iterator for Departures {
    type Item = Departure;

    fn next(&mut self) -> Option<Departure> {
        let peeked = self.publishers.iter_mut().filter_map(|p| Some((p.peek()?.at, p)));
        let (_, first) = peeked.min_by_key(|(at, _)| *at)?;
        first.next()
    }
}

impl Iterator for Publisher {
    type Item = Departure;

    fn next(&mut self) -> Option<Departure> {
        loop {
            let at = self.next_at();
            if self.next_audio <= at {
                return Some(self.audio());
            }
            if self.paced.front().is_some_and(|packet| packet.at <= at) {
                return self.paced.pop_front();
            }
            let frame = self.frame();
            match self.arrival {
                Arrival::Burst => return Some(frame),
                Arrival::Paced => self.pace(frame),
            }
        }
    }
}

impl Publisher {
    fn next_at(&self) -> Duration {
        let paced = self.paced.front().map_or(self.next_frame, |packet| packet.at);
        paced.min(self.next_frame).min(self.next_audio)
    }

    fn audio(&mut self) -> Departure {
        let at = self.next_audio;
        self.next_audio += AUDIO_INTERVAL;
        Departure {
            at,
            publisher: self.number,
            kind: Kind::Audio,
            packets: 1,
            bytes: self.audio.packet(self.epoch + at).payload.len(),
        }
    }

    /// A frame's packets differ by a byte at most; here they are as long as the longest.
    fn frame(&mut self) -> Departure {
        let at = self.next_frame;
        self.next_frame += FRAME_INTERVAL;
        let frame = self.video.frame(self.epoch + at);
        let kind = if frame.len() > DELTA_PACKETS_MAX {
            Kind::Key
        } else {
            Kind::Delta
        };
        Departure {
            at,
            publisher: self.number,
            kind,
            packets: frame.len(),
            bytes: frame.iter().map(|packet| packet.payload.len()).max().unwrap_or(0),
        }
    }

    /// Behind what is still waiting.
    fn pace(&mut self, frame: Departure) {
        let gap = Duration::from_secs_f64(frame.bytes as f64 * 8.0 / (PACING_FACTOR * VIDEO_BITS_PER_SECOND));
        let mut at = self
            .paced
            .back()
            .map_or(frame.at, |last| frame.at.max(last.at + gap));
        for _ in 0..frame.packets {
            self.paced.push_back(Departure {
                at,
                packets: 1,
                ..frame
            });
            at += gap;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three_seconds(publishers: usize, arrival: Arrival) -> Vec<Departure> {
        Departures::of(publishers, arrival)
            .take_while(|departure| departure.at < Duration::from_secs(3))
            .collect()
    }

    fn packets(departures: &[Departure], kind: Kind) -> usize {
        let of_kind = departures.iter().filter(|departure| departure.kind == kind);
        of_kind.map(|departure| departure.packets).sum()
    }

    #[test]
    fn three_seconds_of_a_publisher_are_1_5_megabits_a_second_and_150_packets_of_audio() {
        let departures = three_seconds(1, Arrival::Burst);
        assert_eq!(packets(&departures, Kind::Audio), 150);
        let bytes = |kind| {
            let of_kind = departures.iter().filter(move |departure| departure.kind == kind);
            of_kind
                .map(|departure| departure.packets * departure.bytes)
                .sum::<usize>()
        };
        // 30 frames a second are not quite 33.3 ms apart: the next keyframe is in it.
        let megabits = (bytes(Kind::Delta) + bytes(Kind::Key)) as f64 * 8.0 / 3.0 / 1e6;
        assert!((1.45..1.60).contains(&megabits), "{megabits} Mbit/s");
        assert!(packets(&departures, Kind::Key) > DELTA_PACKETS_MAX);
    }

    #[test]
    fn departures_are_in_order_and_those_of_a_paced_publisher_single() {
        for arrival in [Arrival::Burst, Arrival::Paced] {
            let departures = three_seconds(8, arrival);
            assert!(departures.is_sorted_by_key(|departure| departure.at));
            assert_eq!(packets(&departures, Kind::Audio), 8 * 150);
            assert_eq!(
                departures.iter().all(|departure| departure.packets == 1),
                arrival == Arrival::Paced
            );
        }
    }

    #[test]
    fn a_paced_frame_takes_two_fifths_of_its_time() {
        let departures = three_seconds(1, Arrival::Paced);
        let delta: Vec<Duration> = departures
            .iter()
            .filter(|departure| departure.kind == Kind::Delta && departure.at > Duration::from_secs(1))
            .map(|departure| departure.at)
            .take(60)
            .collect();
        // The gap between the frames is the longest of the gaps.
        let gap = delta
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .max()
            .unwrap_or_default();
        assert!(gap > FRAME_INTERVAL / 2, "{gap:?} between two frames");
        assert!(gap < FRAME_INTERVAL * 4 / 5, "{gap:?} between two frames");
    }
}
