//! What a load found out about a TURN server, in the same names as the SFU's reports.

use serde::Serialize;

use super::link::Transport;
use super::load::{Load, ServerUsage, Way};
use crate::histogram::{Histogram, Percentiles};
use crate::process::Usage;
use crate::report::{Distribution, Generator};

/// What the server used.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cost {
    /// User and system time of all its threads.
    pub cpu_seconds: f64,
    /// The same as a share of one core.
    pub cpu_share: f64,
    /// The same in nanoseconds for each packet that came through.
    pub cpu_nanoseconds_per_relayed_packet: f64,
    /// The same number by the name that the SFU's reports have for it.
    pub cpu_nanoseconds_per_forwarded_packet: f64,
    /// Resident memory at the end.
    pub resident_kib: u64,
    /// The most it was.
    pub resident_peak_kib: u64,
    /// What each allocation with its channel added.
    pub resident_kib_per_allocation: f64,
}

/// Packets that flowed.
#[derive(Clone, Debug, Serialize)]
pub struct Flows {
    /// "turn sparse", "turn bursts", "turn flow", "turn tcp".
    pub scenario: String,
    /// The kind of server.
    pub target: String,
    /// How clients reached it.
    pub transport: Transport,
    /// How many allocations.
    pub allocations: usize,
    /// Packets that left in one send.
    pub burst_packets: usize,
    /// Application bytes of each.
    pub payload_bytes: usize,
    /// Which way they went.
    pub way: Way,
    /// For how long it was measured.
    pub seconds: f64,
    /// Packets that were sent.
    pub expected_packets: u64,
    /// Packets that arrived, each once.
    pub received_packets: u64,
    /// The difference.
    pub lost_packets: u64,
    /// The same in hundredths.
    pub loss_percent: f64,
    /// Packets that arrived again.
    pub duplicate_packets: u64,
    /// Packets that arrived a second.
    pub received_packets_per_second: f64,
    /// Application bytes that arrived.
    pub received_megabits_per_second: f64,
    /// From the sender's call to the receiver's socket read.
    pub latency_microseconds: Percentiles,
    /// For the plot.
    pub latency_distribution: Vec<Distribution>,
    /// Of the server's process, where it runs on this machine.
    pub relay: Option<Cost>,
    /// What the load generator itself used.
    #[serde(flatten)]
    pub generator: Generator,
}

/// What allocations cost.
#[derive(Clone, Debug, Serialize)]
pub struct Allocations {
    /// "turn allocations".
    pub scenario: &'static str,
    /// The kind of server.
    pub target: String,
    /// How clients reached it.
    pub transport: Transport,
    /// How many were made.
    pub allocations: usize,
    /// In what time.
    pub seconds: f64,
    /// Of some of them, spread over all: with all of them open, a packet went from the client to a peer and one back.
    /// None over streams.
    pub relayed_both_ways: Option<usize>,
    /// Of the server's process, where it runs on this machine.
    pub relay: Option<AllocationCost>,
    /// CPU time of this program.
    pub generator_cpu_seconds: f64,
    /// The same as a share of one core.
    pub generator_cpu_share: f64,
}

/// What the server used for allocations, each with its 401.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct AllocationCost {
    /// User and system time of all its threads.
    pub cpu_seconds: f64,
    /// The same as a share of one core.
    pub cpu_share: f64,
    /// How many it would make with a whole core.
    pub allocations_per_cpu_second: f64,
    /// Resident memory with all of them open.
    pub resident_kib: u64,
    /// The most it was.
    pub resident_peak_kib: u64,
    /// What each idle one added.
    pub resident_kib_per_allocation: f64,
}

impl Flows {
    /// From what was counted: packets sent, received, duplicates; bytes; latencies; what the server used.
    #[must_use]
    pub fn new(
        load: &Load,
        seconds: f64,
        (sent, received, duplicates): (u64, u64, u64),
        bytes: u64,
        latencies: &Histogram,
        server: Option<ServerUsage>,
        generator: Generator,
    ) -> Flows {
        let lost = sent.saturating_sub(received);
        let relay = server.map(|((before, after), packets, opened)| {
            let cpu_seconds = after.cpu_seconds - before.cpu_seconds;
            let each = cpu_seconds * 1e9 / packets.max(1) as f64;
            Cost {
                cpu_seconds,
                cpu_share: cpu_seconds / seconds,
                cpu_nanoseconds_per_relayed_packet: each,
                cpu_nanoseconds_per_forwarded_packet: each,
                resident_kib: after.resident_kib,
                resident_peak_kib: after.resident_peak_kib,
                resident_kib_per_allocation: opened.map_or(0.0, |opened| grown(opened, load.allocations)),
            }
        });
        Flows {
            scenario: load.scenario.clone(),
            target: load.target.clone(),
            transport: load.transport,
            allocations: load.allocations,
            burst_packets: load.burst,
            payload_bytes: load.bytes,
            way: load.way,
            seconds,
            expected_packets: sent,
            received_packets: received,
            lost_packets: lost,
            loss_percent: lost as f64 * 100.0 / sent.max(1) as f64,
            duplicate_packets: duplicates,
            received_packets_per_second: received as f64 / load.duration.as_secs_f64(),
            received_megabits_per_second: bytes as f64 * 8.0 / 1e6 / seconds,
            latency_microseconds: latencies.percentiles(),
            latency_distribution: vec![Distribution {
                content: "all",
                points: latencies.curve(),
            }],
            relay,
            generator,
        }
    }
}

impl Allocations {
    /// From what the server used before and after `count` were made in `seconds`.
    #[must_use]
    pub fn new(
        target: &str,
        transport: Transport,
        count: usize,
        seconds: f64,
        server: Option<(Usage, Usage)>,
        generator_cpu_seconds: f64,
    ) -> Allocations {
        let relay = server.map(|(before, after)| {
            let cpu_seconds = after.cpu_seconds - before.cpu_seconds;
            AllocationCost {
                cpu_seconds,
                cpu_share: cpu_seconds / seconds,
                // A hundredth of a second is the smallest that /proc tells.
                allocations_per_cpu_second: count as f64 / cpu_seconds.max(0.01),
                resident_kib: after.resident_kib,
                resident_peak_kib: after.resident_peak_kib,
                resident_kib_per_allocation: grown((before, after), count),
            }
        });
        Allocations {
            scenario: "turn allocations",
            target: target.to_owned(),
            transport,
            allocations: count,
            seconds,
            relayed_both_ways: None,
            relay,
            generator_cpu_seconds,
            generator_cpu_share: generator_cpu_seconds / seconds,
        }
    }
}

fn grown((before, after): (Usage, Usage), allocations: usize) -> f64 {
    after.resident_kib.saturating_sub(before.resident_kib) as f64 / allocations.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_are_counted_by_cpu_second_and_memory() {
        let usage = |cpu_seconds, resident_kib| Usage {
            cpu_seconds,
            resident_kib,
            resident_peak_kib: resident_kib,
        };
        let server = Some((usage(1.0, 10_000), usage(1.5, 14_000)));
        let report = Allocations::new("coturn", Transport::Udp, 2_000, 2.0, server, 0.2);
        let cost = report.relay.unwrap();
        assert_eq!(cost.allocations_per_cpu_second, 4_000.0);
        assert_eq!(cost.resident_kib_per_allocation, 2.0);
        assert_eq!((cost.cpu_share, report.generator_cpu_share), (0.25, 0.1));
    }
}
