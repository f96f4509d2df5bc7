//! What waits for each subscriber, and when it may go.
//!
//! Under load a stream's packets are held for at most a tick, or until their frame is complete, so that they
//! leave together; when there is little to do nothing is held. Key frames are spread, so that a receiver's link
//! is not met by one burst of dozens of packets. What waits is not stored here: a queue is one bit a track, and the
//! track knows how far it got in its stream's log.

use std::time::{Duration, Instant};

use crate::media::Kind;

/// A key frame leaves at no less than this many times the subscriber's rate.
const KEY_FRAME_FACTOR: u64 = 5;
/// A key frame is spread over no longer than this.
const SPREAD_MAX: Duration = Duration::from_millis(50);
/// The rate of a subscriber of whom nothing is known yet, in bytes a second: ordinary video.
const RATE_MIN: u64 = 1_500_000 / 8;
/// Over which a subscriber's rate is measured: some frames, so that a key frame does not count for much.
const RATE_WINDOW: Duration = Duration::from_secs(1);

/// Over which the shard's load is measured.
const LOAD_WINDOW: Duration = Duration::from_millis(100);
/// Packets a second above which it pays to hold packets for each other: sent one by one, these would take half a
/// percent of a core.
const BUSY_PACKETS_PER_SECOND: u64 = 2_000;

/// What one session has waiting.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Queue {
    /// A bit for each video track that may have something to send.
    pub(crate) video: u128,
    /// The same for audio.
    pub(crate) audio: u128,
    /// Whether the session can be sent media.
    pub(crate) connected: bool,
    /// Whether it is among those that are served next.
    pub(crate) listed: bool,
    /// Whether it waits for its next tick.
    pub(crate) paced: bool,
    /// Bytes of key frames that may still leave in this tick; negative when overdrawn.
    left: i64,
    tick_ends: Option<Instant>,
    spread_ends: Option<Instant>,
    rate: u64,
    window: Option<Instant>,
    window_bytes: u64,
}

impl Queue {
    /// Track `track` has something to send.
    pub(crate) fn mark(&mut self, track: usize, kind: Kind) {
        let bit = 1u128 << track;
        match kind {
            Kind::Audio => self.audio |= bit,
            Kind::Video => self.video |= bit,
        }
    }

    /// Whether a packet of a key frame may leave in this tick; if so, it is counted. `backlog` are the bytes that
    /// wait, this packet included.
    pub(crate) fn admit_key_frame(
        &mut self,
        size: usize,
        backlog: u64,
        now: Instant,
        tick: Duration,
    ) -> bool {
        if self.tick_ends.is_none_or(|ends| ends <= now) {
            let ends = *self.spread_ends.get_or_insert(now + SPREAD_MAX);
            let tick_micros = tick.as_micros().max(1) as u64;
            let ticks = ends.saturating_duration_since(now).as_micros() as u64 / tick_micros;
            let by_rate = KEY_FRAME_FACTOR * self.rate.max(RATE_MIN) * tick_micros / 1_000_000;
            self.left = by_rate.max(backlog / ticks.max(1)) as i64;
            self.tick_ends = Some(now + tick);
        }
        if self.left <= 0 {
            return false;
        }
        self.left -= size as i64;
        true
    }

    /// Nothing of a key frame is left waiting.
    pub(crate) fn spread(&mut self) {
        self.spread_ends = None;
    }

    /// When its next tick begins.
    pub(crate) fn next_tick(&self, now: Instant) -> Instant {
        self.tick_ends.unwrap_or(now)
    }

    /// So many bytes left.
    pub(crate) fn sent(&mut self, bytes: usize, now: Instant) {
        let since = *self.window.get_or_insert(now);
        let elapsed = now.saturating_duration_since(since);
        if elapsed >= RATE_WINDOW {
            self.rate = self.window_bytes.saturating_mul(1_000) / (elapsed.as_millis().max(1) as u64);
            (self.window, self.window_bytes) = (Some(now), 0);
        }
        self.window_bytes += bytes as u64;
    }
}

/// Whether a shard has much to send.
#[derive(Debug, Default)]
pub(crate) struct Load {
    since: Option<Instant>,
    packets: u64,
    busy: bool,
}

impl Load {
    /// Whether it pays to hold packets; `packets` is how many ever left.
    pub(crate) fn is_busy(&mut self, packets: u64, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let elapsed = now.saturating_duration_since(since);
        if elapsed >= LOAD_WINDOW {
            let sent = (packets - self.packets).saturating_mul(1_000_000);
            self.busy = sent / (elapsed.as_micros().max(1) as u64) >= BUSY_PACKETS_PER_SECOND;
            (self.since, self.packets) = (Some(now), packets);
        }
        self.busy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(4);

    /// How long a key frame of so many packets of 1,100 bytes takes to leave, and the most that left in one tick.
    fn key_frame(queue: &mut Queue, packets: u64) -> (Duration, u64) {
        let start = Instant::now();
        let (mut now, mut left, mut most) = (start, packets, 0);
        loop {
            let mut sent = 0;
            while left > 0 && queue.admit_key_frame(1_100, left * 1_100, now, TICK) {
                left -= 1;
                sent += 1;
            }
            most = most.max(sent);
            if left == 0 {
                queue.spread();
                return (now - start, most);
            }
            now = queue.next_tick(now);
        }
    }

    #[test]
    fn a_key_frame_is_spread_at_five_times_the_rate_and_over_50_ms_at_most() {
        let mut queue = Queue::default();
        let (took, most) = key_frame(&mut queue, 23);
        assert!(
            took >= Duration::from_millis(12) && took <= Duration::from_millis(28),
            "{took:?}"
        );
        assert!(most <= 5, "{most} packets in one tick");
        for packets in [1, 50, 100, 400] {
            let (took, _) = key_frame(&mut Queue::default(), packets);
            assert!(took <= SPREAD_MAX, "{packets} packets took {took:?}");
        }
    }

    #[test]
    fn a_faster_subscriber_s_key_frames_leave_faster() {
        let start = Instant::now();
        let mut queue = Queue::default();
        for ms in 0..2_100 {
            queue.sent(1_250, start + Duration::from_millis(ms));
        }
        let (took, _) = key_frame(&mut queue, 23);
        assert!(took < Duration::from_millis(4), "10 Mbit/s: {took:?}");
    }

    #[test]
    fn a_shard_is_busy_by_what_it_sent_lately() {
        let start = Instant::now();
        let mut load = Load::default();
        let busy = |load: &mut Load, packets, ms| load.is_busy(packets, start + Duration::from_millis(ms));
        assert!(!busy(&mut load, 0, 0));
        assert!(!busy(&mut load, 150, 100));
        assert!(busy(&mut load, 450, 200));
        assert!(busy(&mut load, 450, 250));
        assert!(!busy(&mut load, 500, 301));
    }
}
