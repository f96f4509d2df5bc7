//! What a run found out, as one JSON object. Latencies are in microseconds, from the moment a packet was given to the
//! publisher's socket to the moment a receiver's socket was read, the generator's own queueing included.

use serde::Serialize;

use crate::histogram::{Histogram, Percentiles};
use crate::media::Content;
use crate::process::Usage;
use crate::publisher::Arrival;
use crate::stage::{LossOn, Measured};

/// A generator that uses more of its core than this measures itself.
const GENERATOR_SHARE_MAX: f64 = 0.9;
/// So does one that waits longer than this for its core.
const GENERATOR_WAIT_SHARE_MAX: f64 = 0.1;
/// And one whose media leaves later than this, 99 of 100 times.
const LATENESS_MAX: u32 = 10_000;

/// What the server used while it was measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cost {
    /// User and system time of all its threads.
    pub cpu_seconds: f64,
    /// The same as a share of one core.
    pub cpu_share: f64,
    /// The same in nanoseconds for each packet that arrived at a receiver's socket.
    pub cpu_nanoseconds_per_forwarded_packet: f64,
    /// Resident memory at the end.
    pub resident_kib: u64,
    /// The most it was.
    pub resident_peak_kib: u64,
    /// Before receivers joined.
    pub resident_kib_before: u64,
    /// What each of them added.
    pub resident_kib_per_subscriber: f64,
}

/// The latency of one content as points of a plot: share of all, microseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Distribution {
    /// "delta", "audio", "key".
    pub content: &'static str,
    /// The curve.
    pub points: Vec<(f64, u32)>,
}

/// What was measured. "Forwarded" packets are those that arrived at a receiver.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// "sfu broadcast", "sfu conference", "sfu rooms".
    pub scenario: String,
    /// The kind of server.
    pub target: String,
    /// How frames arrived.
    pub arrival: Arrival,
    /// The SRTP profile that was negotiated.
    pub profile: String,
    /// Connections that received.
    pub subscribers: usize,
    /// Connections that published.
    pub publishers: usize,
    /// Rooms.
    pub rooms: usize,
    /// People in each room.
    pub participants: usize,
    /// For how long it was measured.
    pub seconds: f64,
    /// From the first receiver's offer to the last one's first picture.
    pub connect_seconds: f64,
    /// Packets that all publishers sent.
    pub published_packets: u64,
    /// Packets that should have arrived, each at every receiver.
    pub expected_packets: u64,
    /// Packets that did, each once.
    pub received_packets: u64,
    /// The difference.
    pub lost_packets: u64,
    /// The same in hundredths of what was expected.
    pub loss_percent: f64,
    /// Of the receiver that lost most.
    pub loss_percent_worst: f64,
    /// Packets that arrived again.
    pub duplicate_packets: u64,
    /// Frames that all publishers sent.
    pub frames_sent: u64,
    /// Frames that arrived whole, in hundredths of those that should have.
    pub frames_complete_percent: f64,
    /// At the receiver that got fewest.
    pub frames_complete_percent_worst: f64,
    /// Loss that the generator made itself.
    pub injected_loss_percent: f64,
    /// Where.
    pub injected_loss_on: LossOn,
    /// Packets that it took.
    pub injected_losses: u64,
    /// Packets that receivers asked for again.
    pub nacked_packets: u64,
    /// Packets that publishers sent again.
    pub publisher_retransmissions: u64,
    /// Packets that arrived and could not be opened.
    pub unopened_packets: u64,
    /// UDP payload that arrived, retransmissions included, a second.
    pub received_megabits_per_second: f64,
    /// RTP packets that arrived, a second.
    pub received_packets_per_second: f64,
    /// Of all packets.
    pub latency_microseconds: Percentiles,
    /// Of packets of delta frames.
    pub latency_delta_microseconds: Percentiles,
    /// Of audio.
    pub latency_audio_microseconds: Percentiles,
    /// Of packets of keyframes.
    pub latency_key_microseconds: Percentiles,
    /// Of packets that came as retransmissions.
    pub latency_recovered_microseconds: Percentiles,
    /// For the plot.
    pub latency_distribution: Vec<Distribution>,
    /// Keyframes that the server asked for, since the publishers joined.
    pub keyframe_requests: u64,
    /// Of the server's process, where it runs on this machine.
    pub relay: Option<Cost>,
    /// What the load generator itself used.
    #[serde(flatten)]
    pub generator: Generator,
}

/// The load generator's own side.
#[derive(Clone, Debug, Serialize)]
pub struct Generator {
    /// CPU time of this program.
    pub generator_cpu_seconds: f64,
    /// The same as a share of one core.
    pub generator_cpu_share: f64,
    /// The same in nanoseconds for each packet that it received.
    pub generator_nanoseconds_per_packet: f64,
    /// Share of the time that its thread was ready and had no core.
    pub generator_wait_share: f64,
    /// Datagrams that its sockets dropped because it did not read them in time.
    pub generator_dropped_datagrams: u64,
    /// Datagrams that the kernel did not take from it.
    pub generator_refused_datagrams: u64,
    /// How late frames and audio left, against their schedule.
    pub generator_lateness_microseconds: Percentiles,
    /// Whether the figures above are its own limit, not the server's.
    pub generator_starved: bool,
    /// Why.
    pub generator_starved_because: Vec<String>,
}

impl Generator {
    /// From its usage before and after.
    #[must_use]
    pub fn new(
        usage: (Usage, Usage),
        seconds: f64,
        packets: u64,
        waited: f64,
        dropped: u64,
        refused: u64,
        lateness: &Histogram,
    ) -> Generator {
        let cpu_seconds = usage.1.cpu_seconds - usage.0.cpu_seconds;
        let share = cpu_seconds / seconds;
        let wait_share = waited / seconds;
        let lateness = lateness.percentiles();
        let mut because = Vec::new();
        if share > GENERATOR_SHARE_MAX {
            because.push(format!("it used {:.0} % of a core", share * 100.0));
        }
        if wait_share > GENERATOR_WAIT_SHARE_MAX {
            because.push(format!(
                "it waited for its core {:.0} % of the time",
                wait_share * 100.0
            ));
        }
        if lateness.p99 > LATENESS_MAX {
            because.push(format!("its media left {} ms late (p99)", lateness.p99 / 1_000));
        }
        if dropped > 0 {
            because.push(format!(
                "its sockets dropped {dropped} datagrams that it did not read in time"
            ));
        }
        if refused > 0 {
            because.push(format!("the kernel took {refused} datagrams not from it"));
        }
        Generator {
            generator_cpu_seconds: cpu_seconds,
            generator_cpu_share: share,
            generator_nanoseconds_per_packet: cpu_seconds * 1e9 / packets.max(1) as f64,
            generator_wait_share: wait_share,
            generator_dropped_datagrams: dropped,
            generator_refused_datagrams: refused,
            generator_lateness_microseconds: lateness,
            generator_starved: !because.is_empty(),
            generator_starved_because: because,
        }
    }
}

impl Cost {
    /// From usage before and after `seconds` in which so many packets were forwarded.
    #[must_use]
    pub fn new(
        usage: (Usage, Usage),
        seconds: f64,
        packets: u64,
        before: Option<Usage>,
        receivers: usize,
    ) -> Cost {
        let cpu_seconds = usage.1.cpu_seconds - usage.0.cpu_seconds;
        let resident_before = before.unwrap_or(usage.0).resident_kib;
        let grown = usage.1.resident_kib.saturating_sub(resident_before);
        Cost {
            cpu_seconds,
            cpu_share: cpu_seconds / seconds,
            cpu_nanoseconds_per_forwarded_packet: cpu_seconds * 1e9 / packets.max(1) as f64,
            resident_kib: usage.1.resident_kib,
            resident_peak_kib: usage.1.resident_peak_kib,
            resident_kib_before: resident_before,
            resident_kib_per_subscriber: grown as f64 / receivers.max(1) as f64,
        }
    }
}

/// What a scenario knows beside what was measured.
#[derive(Clone, Debug)]
pub struct Setting {
    /// "sfu broadcast".
    pub scenario: String,
    /// The kind of server.
    pub target: String,
    /// How frames arrive.
    pub arrival: Arrival,
    /// The SRTP profile.
    pub profile: String,
    /// Connections that receive.
    pub subscribers: usize,
    /// Connections that publish.
    pub publishers: usize,
    /// Rooms.
    pub rooms: usize,
    /// People in each.
    pub participants: usize,
    /// How long they took to join.
    pub connect_seconds: f64,
    /// Loss on purpose.
    pub loss: Option<(f64, LossOn)>,
    /// The server's usage before receivers joined.
    pub server_before: Option<Usage>,
}

impl Report {
    /// Puts both together.
    #[must_use]
    pub fn new(setting: &Setting, measured: &Measured) -> Report {
        let tally = &measured.tally;
        let of = |content: Content| tally.latencies[content as usize].percentiles();
        let lost = measured.expected.saturating_sub(measured.received);
        let percent = |part: u64, whole: u64| part as f64 * 100.0 / whole.max(1) as f64;
        let (injected_loss_percent, injected_loss_on) = setting.loss.unwrap_or((0.0, LossOn::None));
        let distribution = [
            ("delta", Content::Delta),
            ("audio", Content::Audio),
            ("key", Content::Key),
        ];
        Report {
            scenario: setting.scenario.clone(),
            target: setting.target.clone(),
            arrival: setting.arrival,
            profile: setting.profile.clone(),
            subscribers: setting.subscribers,
            publishers: setting.publishers,
            rooms: setting.rooms,
            participants: setting.participants,
            seconds: measured.seconds,
            connect_seconds: setting.connect_seconds,
            published_packets: measured.sent.packets.iter().sum(),
            expected_packets: measured.expected,
            received_packets: measured.received,
            lost_packets: lost,
            loss_percent: percent(lost, measured.expected),
            loss_percent_worst: measured.loss_percent_worst,
            duplicate_packets: measured.duplicates,
            frames_sent: measured.sent.frames.len() as u64,
            frames_complete_percent: percent(measured.frames_complete, measured.frames_expected),
            frames_complete_percent_worst: measured.frames_complete_percent_worst,
            injected_loss_percent,
            injected_loss_on,
            injected_losses: measured.lost_on_purpose,
            nacked_packets: measured.nacked,
            publisher_retransmissions: measured.sent.retransmitted,
            unopened_packets: measured.unopened,
            received_megabits_per_second: measured.bytes as f64 * 8.0 / 1e6 / measured.seconds,
            received_packets_per_second: measured.arrived as f64 / measured.seconds,
            latency_microseconds: tally.all().percentiles(),
            latency_delta_microseconds: of(Content::Delta),
            latency_audio_microseconds: of(Content::Audio),
            latency_key_microseconds: of(Content::Key),
            latency_recovered_microseconds: tally.recovered.percentiles(),
            latency_distribution: distribution
                .into_iter()
                .map(|(name, content)| Distribution {
                    content: name,
                    points: tally.latencies[content as usize].curve(),
                })
                .collect(),
            keyframe_requests: measured.keyframe_requests,
            relay: measured.server.map(|usage| {
                Cost::new(
                    usage,
                    measured.seconds,
                    measured.arrived,
                    setting.server_before,
                    setting.subscribers,
                )
            }),
            generator: Generator::new(
                measured.generator,
                measured.seconds,
                measured.arrived,
                measured.generator_waited,
                measured.generator_drops,
                measured.sent.refused,
                &measured.sent.lateness,
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(cpu_seconds: f64, resident_kib: u64) -> Usage {
        Usage {
            cpu_seconds,
            resident_kib,
            resident_peak_kib: resident_kib,
        }
    }

    #[test]
    fn cost_is_per_packet_and_memory_per_subscriber() {
        let cost = Cost::new(
            (usage(1.0, 3_000), usage(3.0, 5_000)),
            4.0,
            1_000_000,
            Some(usage(0.0, 1_000)),
            100,
        );
        assert_eq!(cost.cpu_nanoseconds_per_forwarded_packet, 2_000.0);
        assert_eq!((cost.cpu_share, cost.resident_kib_per_subscriber), (0.5, 40.0));
    }

    #[test]
    fn a_starved_generator_says_so_and_why() {
        let generator = |cpu, waited, dropped, late: u32| {
            let mut lateness = Histogram::default();
            lateness.record(late);
            Generator::new(
                (usage(0.0, 1), usage(cpu, 1)),
                1.0,
                10,
                waited,
                dropped,
                0,
                &lateness,
            )
        };
        assert!(!generator(0.5, 0.0, 0, 10).generator_starved);
        for starved in [
            generator(0.95, 0.0, 0, 10),
            generator(0.5, 0.2, 0, 10),
            generator(0.5, 0.0, 1, 10),
            generator(0.5, 0.0, 0, 50_000),
        ] {
            assert!(starved.generator_starved);
            assert_eq!(starved.generator_starved_because.len(), 1);
        }
    }
}
