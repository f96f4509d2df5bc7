//! What a step of the low-balance ladder lets through to a subscriber: everything; video within a budget,
//! whole frames only; audio only; nothing.
//!
//! The reduced rung decides at a frame's first packet and carries the whole frame, overdrawing its bucket if
//! it must; a refused frame closes the gate until a key frame finds the bucket filled again, because nothing
//! in between could be decoded.

use std::time::Instant;

use metering::Step;

use crate::budget::Budget;
use crate::discard::Discard;
use crate::media::Kind;

/// Key frames are asked for again once this share of the bucket is there: one in 2 pays for a key frame and
/// some frames behind it.
const RETURN_SHARE: i64 = 2;

/// The gate of one session.
#[derive(Debug)]
pub(crate) struct LadderGate {
    step: Step,
    video: Budget,
    bits_per_second: u64,
}

impl LadderGate {
    pub(crate) fn new(bits_per_second: u64, now: Instant) -> LadderGate {
        LadderGate {
            step: Step::Full,
            video: Budget::new(bits_per_second, bits_per_second, now),
            bits_per_second,
        }
    }

    pub(crate) fn step(&self) -> Step {
        self.step
    }

    pub(crate) fn set_step(&mut self, step: Step, now: Instant) {
        if step == Step::Reduced && self.step != Step::Reduced {
            self.video = Budget::new(self.bits_per_second, self.bits_per_second, now);
        }
        self.step = step;
    }

    /// Whether a packet may go. `starts_frame` is true for the first packet of a frame that comes by; `waiting`
    /// while the subscriber waits for a key frame.
    pub(crate) fn admit(
        &mut self,
        kind: Kind,
        starts_frame: bool,
        waiting: bool,
        now: Instant,
    ) -> Result<(), Discard> {
        match (self.step, kind) {
            (Step::Held | Step::Ended, _) => Err(Discard::Held),
            (Step::Full | Step::Warned, _) | (_, Kind::Audio) => Ok(()),
            (Step::AudioOnly, Kind::Video) => Err(Discard::AudioOnly),
            (Step::Reduced, Kind::Video) => {
                let room = if waiting {
                    self.may_return(now)
                } else {
                    !starts_frame || self.video.level(now) > 0
                };
                if room { Ok(()) } else { Err(Discard::Reduced) }
            }
        }
    }

    /// Counts a video packet that goes.
    pub(crate) fn sent(&mut self, bytes: usize) {
        if self.step == Step::Reduced {
            self.video.take(bytes as u64 * 8);
        }
    }

    /// Whether a key frame would be let through now.
    pub(crate) fn wants_video(&mut self, now: Instant) -> bool {
        match self.step {
            Step::Full | Step::Warned => true,
            Step::Reduced => self.may_return(now),
            Step::AudioOnly | Step::Held | Step::Ended => false,
        }
    }

    fn may_return(&mut self, now: Instant) -> bool {
        self.video.level(now) >= (self.bits_per_second as i64) / RETURN_SHARE
    }

    /// The video bit rate this subscriber can use, `None` for no limit.
    pub(crate) fn video_cap(&self) -> Option<u64> {
        match self.step {
            Step::Full | Step::Warned => None,
            Step::Reduced => Some(self.bits_per_second),
            Step::AudioOnly | Step::Held | Step::Ended => Some(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn reduced_video_keeps_its_rate_and_never_tears_a_frame() {
        let start = Instant::now();
        let mut gate = LadderGate::new(300_000, start);
        gate.set_step(Step::Reduced, start);
        let (mut waiting, mut sent, mut torn) = (false, 0u64, 0);
        // 1.5 Mbit/s: 30 frames a second of 5 packets of 1,250 bytes, every 60th a key frame.
        for frame in 0..1_800u64 {
            let now = start + Duration::from_millis(frame * 1_000 / 30);
            let mut passed = 0;
            for packet in 0..5 {
                let starts_key_frame = frame % 60 == 0 && packet == 0;
                if waiting && !starts_key_frame {
                    continue;
                }
                match gate.admit(Kind::Video, packet == 0, waiting, now) {
                    Ok(()) => {
                        waiting = false;
                        gate.sent(1_250);
                        sent += 10_000;
                        passed += 1;
                    }
                    Err(reason) => {
                        assert_eq!(reason, Discard::Reduced);
                        waiting = true;
                    }
                }
            }
            torn += u32::from(passed != 0 && passed != 5);
        }
        assert_eq!(torn, 0);
        assert!((5_000_000..=18_600_000).contains(&sent), "{sent} bits in 60 s");
    }

    #[test]
    fn audio_passes_until_held() {
        let now = Instant::now();
        let mut gate = LadderGate::new(300_000, now);
        for step in [Step::Full, Step::Warned, Step::Reduced, Step::AudioOnly] {
            gate.set_step(step, now);
            assert!(gate.admit(Kind::Audio, true, false, now).is_ok());
        }
        assert_eq!(gate.admit(Kind::Video, true, false, now), Err(Discard::AudioOnly));
        gate.set_step(Step::Held, now);
        assert_eq!(gate.admit(Kind::Audio, true, false, now), Err(Discard::Held));
    }
}
