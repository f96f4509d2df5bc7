//! Limits and intervals of one shard's core. Every number has a default and a reason.

use std::time::Duration;

/// Sessions of one shard: 10,000 idle ones cost about 100 MB, and no shard can encrypt for more live ones.
const SESSIONS_MAX: usize = 10_000;
/// Handshakes under way at once on one shard: each may hold 30 buffered datagrams, so 512 are 20 MB at worst.
const HANDSHAKES_MAX: usize = 512;
/// A publisher's ingress: far above any call's video, far below what would starve a shard.
const PUBLISHER_BITS_PER_SECOND: u64 = 20_000_000;
/// Packets remembered at once: 128 MiB, which 150 publishers of 1.5 Mbit/s fill in the 2 s for which a packet is
/// worth sending again. Memory is touched as it is first needed.
const SLOTS: usize = 65_536;
/// With a millisecond for the timer's own step and one for the sending, added latency stays below 6 ms.
const TICK: Duration = Duration::from_millis(3);
/// DESIGN 4.8: video of the reduced rung.
const REDUCED_VIDEO_BITS_PER_SECOND: u64 = 300_000;

/// What an operator may tune in the core.
#[derive(Debug, Clone)]
pub struct Config {
    /// Sessions at most.
    pub sessions_max: usize,
    /// DTLS handshakes under way at most.
    pub handshakes_max: usize,
    /// Packets that all streams together may hold for retransmission, 2 KiB each.
    pub slots: usize,
    /// How long packets for one subscriber wait for each other under load, and the step in which a key frame is
    /// spread: 1 to 5 ms.
    pub tick: Duration,
    /// From opening to connected at most.
    pub setup_timeout: Duration,
    /// Sending stops this long after the last authenticated check (RFC 7675 section 5.1).
    pub consent_timeout: Duration,
    /// Ingress limit of one publisher.
    pub publisher_bits_per_second: u64,
    /// Video budget of a subscriber on the reduced rung.
    pub reduced_video_bits_per_second: u64,
    /// How often a publisher is told what arrived when (transport-wide feedback).
    pub feedback_interval: Duration,
    /// How often reception is reported.
    pub report_interval: Duration,
    /// At most one key frame request per stream in this time.
    pub keyframe_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            sessions_max: SESSIONS_MAX,
            handshakes_max: HANDSHAKES_MAX,
            slots: SLOTS,
            tick: TICK,
            setup_timeout: Duration::from_secs(30),
            consent_timeout: Duration::from_secs(30),
            publisher_bits_per_second: PUBLISHER_BITS_PER_SECOND,
            reduced_video_bits_per_second: REDUCED_VIDEO_BITS_PER_SECOND,
            feedback_interval: Duration::from_millis(50),
            report_interval: Duration::from_secs(1),
            keyframe_interval: Duration::from_millis(500),
        }
    }
}
