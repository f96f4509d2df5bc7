//! What a shard counts, published once a second under the names of the interface. Plain numbers until then.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use super::turn::TurnPort;
use super::turn_stream::StreamDiscard;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

/// How often counters are published.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);

/// Datagrams in one send, at most (UDP_MAX_SEGMENTS).
const SEGMENTS_MAX: usize = 64;

/// Forwarding times kept between two publications; a busy shard samples.
const SAMPLES_MAX: usize = 256;

/// A counter and what was published of it.
struct Published {
    counter: Counter,
    told: u64,
}

impl Published {
    fn new(counter: Counter) -> Self {
        Self { counter, told: 0 }
    }

    fn set(&mut self, value: u64) {
        // Given-back packets can take a count down for a moment; a counter only goes up.
        self.counter.increment(value.saturating_sub(self.told));
        self.told = self.told.max(value);
    }
}

/// The figures of one shard.
pub(super) struct Gauges {
    next: Instant,
    sfu: [Published; 4],
    turn: [Published; 4],
    sfu_discards: Vec<Published>,
    turn_discards: Vec<Published>,
    stream_discards: Vec<Published>,
    auth_failures: Vec<Published>,
    /// Between TURN and our own SFU: datagrams to the SFU and to clients, those that crossed
    /// to another shard, and what was lost.
    hairpin: [Published; 5],
    untold: Published,
    refused: [Published; 3],
    refused_counts: [u64; 3],
    /// What this shard does of it all: packets in and out, crossings in and out.
    shard: [Published; 4],
    sessions: Gauge,
    allocations: Gauge,
    allocations_told: usize,
    batch_packets: Histogram,
    batches: [u64; SEGMENTS_MAX + 1],
    forward_seconds: Histogram,
    forwarded: Vec<Duration>,
}

impl Gauges {
    pub(super) fn new(shard: usize, now: Instant) -> Self {
        let of = |name: &'static str, direction: &'static str| {
            Published::new(counter!(name, "direction" => direction))
        };
        let of_shard = |name: &'static str, direction: &'static str| {
            let shard = shard.to_string();
            Published::new(counter!(name, "shard" => shard, "direction" => direction))
        };
        let four = |packets, bytes| {
            [
                of(packets, "in"),
                of(packets, "out"),
                of(bytes, "in"),
                of(bytes, "out"),
            ]
        };
        let discard = |core: &'static str, reason: &'static str| {
            Published::new(counter!("milliway_discards_total", "core" => core, "reason" => reason))
        };
        let auth = |reason: &turn_server::AuthFailure| {
            Published::new(counter!("milliway_auth_failures_total", "reason" => reason.as_str()))
        };
        Self {
            next: now,
            sfu: four("milliway_sfu_packets_total", "milliway_sfu_bytes_total"),
            turn: four("milliway_turn_packets_total", "milliway_turn_bytes_total"),
            sfu_discards: sfu::Discard::ALL
                .iter()
                .map(|reason| discard("sfu", reason.as_str()))
                .collect(),
            turn_discards: turn_server::Discard::ALL
                .iter()
                .map(|reason| discard("turn", reason.as_str()))
                .collect(),
            stream_discards: StreamDiscard::ALL
                .iter()
                .map(|reason| discard("turn", reason.as_str()))
                .collect(),
            auth_failures: turn_server::AuthFailure::ALL.iter().map(auth).collect(),
            hairpin: [
                of("milliway_hairpin_packets_total", "to-sfu"),
                of("milliway_hairpin_packets_total", "to-client"),
                of("milliway_hairpin_packets_total", "to-another-shard"),
                discard("turn", "hairpin-full"),
                discard("turn", "hairpin-gone"),
            ],
            untold: discard("turn", "icmp-limit"),
            refused: ["kernel-buffer-full", "message-too-long", "kernel-refused"]
                .map(|reason| discard("socket", reason)),
            refused_counts: [0; 3],
            shard: [
                of_shard("milliway_shard_sfu_packets_total", "in"),
                of_shard("milliway_shard_sfu_packets_total", "out"),
                of_shard("milliway_shard_crossings_total", "in"),
                of_shard("milliway_shard_crossings_total", "out"),
            ],
            sessions: gauge!("milliway_shard_sfu_sessions", "shard" => shard.to_string()),
            allocations: gauge!("milliway_turn_allocations"),
            allocations_told: 0,
            batch_packets: histogram!("milliway_egress_batch_packets"),
            batches: [0; SEGMENTS_MAX + 1],
            forward_seconds: histogram!("milliway_forward_seconds"),
            forwarded: Vec::with_capacity(SAMPLES_MAX),
        }
    }

    /// One send of so many datagrams.
    pub(super) fn batch(&mut self, datagrams: usize) {
        self.batches[datagrams.min(SEGMENTS_MAX)] += 1;
    }

    /// The kernel refused so many datagrams.
    pub(super) fn refused(&mut self, datagrams: u64, kind: ErrorKind) {
        let which = match kind {
            ErrorKind::WouldBlock => 0,
            // EMSGSIZE has no kind of its own that is stable; it is what is left without one.
            ErrorKind::InvalidInput
            | ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable => 2,
            _ => 1,
        };
        self.refused_counts[which] += datagrams;
    }

    /// Is there room for another forwarding time?
    pub(super) fn samples(&self) -> bool {
        self.forwarded.len() < SAMPLES_MAX
    }

    /// From receiving a batch to having sent what followed from it, where there is room.
    pub(super) fn forwarded(&mut self, took: Duration) {
        if self.samples() {
            self.forwarded.push(took);
        }
    }

    /// When figures are due.
    pub(super) fn due(&self) -> Instant {
        self.next
    }

    /// Publishes what is due.
    pub(super) fn publish(&mut self, sfu: &sfu::Counters, port: &TurnPort, sessions: usize, now: Instant) {
        if now < self.next {
            return;
        }
        let (turn, allocations) = (port.core.counters(), port.core.allocations());
        self.next = now + PUBLISH_EVERY;
        let sfu_figures = [sfu.packets_in, sfu.packets_out, sfu.bytes_in, sfu.bytes_out];
        let turn_figures = [
            turn.packets_from_client,
            turn.packets_to_client,
            turn.bytes_from_client,
            turn.bytes_to_client,
        ];
        self.sfu
            .iter_mut()
            .zip(sfu_figures)
            .for_each(|(published, value)| published.set(value));
        self.turn
            .iter_mut()
            .zip(turn_figures)
            .for_each(|(published, value)| published.set(value));
        self.sfu_discards
            .iter_mut()
            .zip(sfu.discards())
            .for_each(|(published, (_, value))| published.set(value));
        self.turn_discards
            .iter_mut()
            .zip(turn.discards())
            .for_each(|(published, (_, value))| published.set(value));
        self.auth_failures
            .iter_mut()
            .zip(turn.auth_failures())
            .for_each(|(p, (_, value))| p.set(value));
        self.stream_discards
            .iter_mut()
            .zip(port.stream_discards())
            .for_each(|(published, value)| published.set(*value));
        let hairpin = port.hairpin_figures();
        let hairpin = [
            hairpin.to_sfu,
            hairpin.to_clients,
            hairpin.crossed,
            hairpin.full,
            hairpin.gone,
        ];
        self.hairpin
            .iter_mut()
            .zip(hairpin)
            .for_each(|(published, value)| published.set(value));
        self.untold.set(port.untold());
        self.refused
            .iter_mut()
            .zip(self.refused_counts)
            .for_each(|(published, value)| published.set(value));
        let shard_figures = [
            sfu.packets_in,
            sfu.packets_out,
            sfu.crossings_in,
            sfu.crossings_out,
        ];
        self.shard
            .iter_mut()
            .zip(shard_figures)
            .for_each(|(published, value)| published.set(value));
        self.sessions.set(sessions as f64);
        // All shards share the gauge, so each adds and takes away its own.
        self.allocations
            .increment(allocations as f64 - self.allocations_told as f64);
        self.allocations_told = allocations;
        for (datagrams, count) in self.batches.iter_mut().enumerate() {
            if *count > 0 {
                let count = usize::try_from(std::mem::take(count)).unwrap_or(usize::MAX);
                self.batch_packets.record_many(datagrams as f64, count);
            }
        }
        for took in self.forwarded.drain(..) {
            self.forward_seconds.record(took.as_secs_f64());
        }
    }
}
