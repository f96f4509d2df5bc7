//! The publisher's side of a stream that crosses: which packets go to another core.
//!
//! Whole frames or nothing. A frame that finds no room when it begins is left out, and so is everything behind it until
//! a key frame finds room, because nothing in between could be decoded. A frame that has begun is finished: what finds
//! the queue full meanwhile is taken from the history once there is room. Audio packets are frames of their own.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::discard::Discard;
use crate::history::History;
use crate::media::Kind;
use crate::slot::Slot;
use crate::span::Link;

/// Packets of begun frames that wait for room: half a megabyte.
const WAITING_MAX: usize = 512;

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crossed {
    /// It crossed.
    Now,
    /// It will, from the history.
    Later,
    /// It does not.
    Not(Discard),
}

/// One stream's way to one other core.
pub(crate) struct Feed {
    pub(crate) core: usize,
    /// The largest cap of that core's subscribers, if all of them have one.
    pub(crate) cap: Option<u64>,
    /// Whether frames may begin to cross; else a key frame is waited for.
    open: bool,
    /// The packet at which it was opened: nothing older crosses.
    since: u64,
    /// Timestamp of the newest frame that crosses.
    frame: Option<u32>,
    waiting: VecDeque<u64>,
}

impl Feed {
    pub(crate) fn new(core: usize, cap: Option<u64>) -> Feed {
        Feed {
            core,
            cap,
            open: false,
            since: 0,
            frame: None,
            waiting: VecDeque::with_capacity(WAITING_MAX),
        }
    }

    /// A packet of the stream has arrived.
    pub(crate) fn offer(&mut self, link: &mut Link, serial: u64, kind: Kind, slot: &Arc<Slot>) -> Crossed {
        if kind == Kind::Audio {
            let passed = link.pass(serial, false, slot);
            return if passed {
                Crossed::Now
            } else {
                Crossed::Not(Discard::ShardQueueFull)
            };
        }
        let stored = slot.stored();
        if self.open && stored.index < self.since {
            return Crossed::Not(Discard::BeforeJoin);
        }
        let begun = self
            .frame
            .is_some_and(|frame| stored.timestamp.wrapping_sub(frame) as i32 <= 0);
        let mut resumes = false;
        if !begun {
            let room = self.waiting.is_empty() && link.has_room_for_a_frame();
            if !self.open && !stored.starts_key_frame {
                return Crossed::Not(Discard::AwaitingKeyFrame);
            }
            if !room {
                self.open = false;
                return Crossed::Not(Discard::ShardQueueFull);
            }
            if !self.open {
                (self.open, self.since, resumes) = (true, stored.index, true);
            }
            self.frame = Some(stored.timestamp);
        } else if stored.index < self.since {
            return Crossed::Not(Discard::BeforeJoin);
        }
        if self.waiting.is_empty() && link.pass(serial, resumes, slot) {
            return Crossed::Now;
        }
        if self.waiting.len() == WAITING_MAX {
            return Crossed::Not(Discard::ShardQueueFull);
        }
        self.waiting.push_back(stored.index);
        Crossed::Later
    }

    /// Lets cross what waits. True if something still does.
    pub(crate) fn flush(&mut self, link: &mut Link, serial: u64, history: &History) -> bool {
        while let Some(&index) = self.waiting.front() {
            if let Some(slot) = history.get(index)
                && !link.pass(serial, false, slot)
            {
                return true;
            }
            self.waiting.pop_front();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Instant;

    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;
    use crate::slot::Stored;
    use crate::span::{Crossing, Span};

    #[test]
    fn every_frame_that_crosses_is_whole_however_full_the_queue_and_resumes_at_a_key_frame() {
        for seed in 0..20 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut spans = Span::with_queues(2, 1_024);
            let (mut two, mut one) = (spans.remove(1), spans.remove(0));
            let (now, mut history, mut feed) =
                (Instant::now(), History::new(Kind::Video), Feed::new(1, None));
            let (mut index, mut lost, mut got) = (0u64, 0u32, Vec::new());
            let mut sizes = BTreeMap::new();
            for frame in 0..2_000u32 {
                let key = frame % 50 == 0;
                let packets = if key {
                    rng.random_range(10..60)
                } else {
                    rng.random_range(1..12)
                };
                sizes.insert(frame, packets);
                for packet in 0..packets {
                    let mut slot = Slot::new(now);
                    let starts_key_frame = key && packet == 0;
                    let stored = Stored {
                        index,
                        timestamp: frame,
                        starts_key_frame,
                        ..Stored::empty(now)
                    };
                    slot.describe(stored, &[]);
                    let slot = Arc::new(slot);
                    let _ = history.store(slot.clone(), drop);
                    let crossed = feed.offer(one.link(1).unwrap(), 7, Kind::Video, &slot);
                    lost += u32::from(crossed == Crossed::Not(Discard::ShardQueueFull));
                    index += 1;
                }
                feed.flush(one.link(1).unwrap(), 7, &history);
                // The other core stands still now and then.
                if (frame / 200) % 2 == 0 || frame == 1_999 {
                    while let Some(Crossing::Packet { slot, resumes, .. }) = two.link(0).unwrap().next() {
                        got.push((slot.stored().timestamp, resumes, slot.stored().starts_key_frame));
                    }
                }
            }
            while feed.flush(one.link(1).unwrap(), 7, &history) || two.link(0).unwrap().has_next() {
                while let Some(Crossing::Packet { slot, resumes, .. }) = two.link(0).unwrap().next() {
                    got.push((slot.stored().timestamp, resumes, slot.stored().starts_key_frame));
                }
            }
            assert!(lost > 0, "seed {seed}: the queue was never full");
            let mut frames: BTreeMap<u32, u32> = BTreeMap::new();
            let mut last = None;
            for (frame, resumes, starts_key_frame) in got {
                *frames.entry(frame).or_default() += 1;
                if last.is_none_or(|last| frame > last + 1) {
                    assert!(
                        resumes && starts_key_frame,
                        "seed {seed}: frame {frame} after {last:?}"
                    );
                }
                last = Some(frame);
            }
            assert!(frames.len() > 500, "seed {seed}: {} frames", frames.len());
            for (frame, packets) in frames {
                assert_eq!(packets, sizes[&frame], "seed {seed}: frame {frame}");
            }
        }
    }
}
