//! The broadcast: one publisher to many subscribers through the SFU, and what it cost.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde::Serialize;

use crate::Error;
use crate::client::{Client, Place};
use crate::process::{self, Usage};
use crate::reception::{Percentiles, percentiles};
use crate::relay::faucet;
use crate::swarm::Swarm;

/// What each client may spend: enough for hours.
const BALANCE_MSAT: u64 = 100_000_000;

/// How long all clients together may take to connect and see the first picture.
const CONNECT_MAX: Duration = Duration::from_secs(60);

/// After the last measured packet left, it may still arrive.
const GRACE: Duration = Duration::from_millis(1_000);

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The relay's front door.
    pub base: String,
    /// Its process, where it runs on this machine.
    pub pid: Option<u32>,
    /// How many watch.
    pub subscribers: usize,
    /// For how long it is measured.
    pub duration: Duration,
}

/// What was measured. "Forwarded" packets are those that arrived at a subscriber.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// "sfu broadcast".
    pub scenario: &'static str,
    /// How many watched.
    pub subscribers: usize,
    /// For how long it was measured.
    pub seconds: f64,
    /// From the first subscriber's offer to the last one's first picture.
    pub connect_seconds: f64,
    /// Packets that the publisher sent.
    pub published_packets: u64,
    /// Packets that should have arrived: those, times the subscribers.
    pub expected_packets: u64,
    /// Packets that did, each once.
    pub received_packets: u64,
    /// The difference.
    pub lost_packets: u64,
    /// The same in hundredths of what was expected.
    pub loss_percent: f64,
    /// Packets that arrived again.
    pub duplicate_packets: u64,
    /// UDP payload that arrived and is billed, retransmissions included, a second.
    pub received_megabits_per_second: f64,
    /// From the publisher's call to the subscriber's socket read, the generator's own queueing included.
    pub latency_microseconds: Percentiles,
    /// Keyframes that the relay asked for, since the publisher joined.
    pub keyframe_requests: u64,
    /// Of the relay's process, where it runs on this machine.
    pub relay: Option<Cost>,
    /// CPU time of this program.
    pub generator_cpu_seconds: f64,
}

/// What the relay used while it was measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cost {
    /// User and system time of all its threads.
    pub cpu_seconds: f64,
    /// The same in nanoseconds for each packet that arrived at a subscriber.
    pub cpu_nanoseconds_per_forwarded_packet: f64,
    /// Resident memory at the end.
    pub resident_kib: u64,
    /// The most it was.
    pub resident_peak_kib: u64,
}

/// Runs the plan.
pub fn run(plan: &Plan, progress: &ProgressBar) -> Result<Report, Error> {
    let epoch = Instant::now();
    let mut swarm = Swarm::new()?;
    let room = format!("load-{}", std::process::id());
    let token = faucet(&plan.base, BALANCE_MSAT)?;
    let base = &plan.base[..];
    let place = Place {
        base,
        token: &token,
        room: &room,
        name: "stage",
    };
    swarm.add(Client::publish(place, epoch)?)?;
    let connecting = Instant::now();
    for index in 0..plan.subscribers {
        progress.set_message(format!("{} of {} subscribers join", index + 1, plan.subscribers));
        let token = faucet(base, BALANCE_MSAT)?;
        swarm.add(Client::subscribe(
            Place {
                token: &token,
                ..place
            },
            epoch,
        )?)?;
        swarm.run_until(Instant::now() + Duration::from_millis(5))?;
    }
    progress.set_message("waiting for the first picture everywhere");
    let end = Instant::now() + CONNECT_MAX;
    let all_see = swarm.run_while(end, Duration::from_millis(5), |clients| {
        !clients.iter_mut().all(sees)
    })?;
    failures(&mut swarm)?;
    if !all_see {
        let blind = swarm.clients().iter().filter(|client| !client.is_connected());
        return Err(format!(
            "not every subscriber saw a picture within {} s; {} are not even connected",
            CONNECT_MAX.as_secs(),
            blind.count()
        )
        .into());
    }
    let connect_seconds = connecting.elapsed().as_secs_f64();
    // A second for keyframes and retransmissions of the start to pass.
    swarm.run_until(Instant::now() + Duration::from_secs(1))?;
    measure(plan, swarm, epoch, connect_seconds, progress)
}

fn measure(
    plan: &Plan,
    mut swarm: Swarm,
    epoch: Instant,
    connect_seconds: f64,
    progress: &ProgressBar,
) -> Result<Report, Error> {
    let start = Instant::now();
    let window = start.duration_since(epoch).as_nanos() as u64
        ..(start + plan.duration).duration_since(epoch).as_nanos() as u64;
    let published_before = published(&mut swarm);
    for subscriber in swarm.clients().iter_mut().filter_map(Client::subscriber) {
        subscriber.video.measure(window.clone());
        subscriber.audio.measure(window.clone());
    }
    let bytes_before = billable_bytes(&mut swarm);
    let relay_before = plan.pid.and_then(process::usage);
    let generator_before = process::usage(std::process::id()).unwrap_or_default();
    progress.set_message("measuring");
    progress.set_length(plan.duration.as_secs().max(1));
    while start.elapsed() < plan.duration {
        let end = (start + plan.duration).min(Instant::now() + Duration::from_secs(1));
        swarm.run_until(end)?;
        failures(&mut swarm)?;
        progress.set_position(start.elapsed().as_secs());
    }
    let published_packets = published(&mut swarm) - published_before;
    let relay_after = plan.pid.and_then(process::usage);
    let generator_after = process::usage(std::process::id()).unwrap_or_default();
    let seconds = start.elapsed().as_secs_f64();
    let bytes = billable_bytes(&mut swarm) - bytes_before;
    swarm.run_until(Instant::now() + GRACE)?;
    let keyframe_requests = swarm
        .clients()
        .iter_mut()
        .filter_map(Client::publisher)
        .map(|p| p.keyframe_requests)
        .sum();
    let mut latencies = Vec::new();
    let (mut received_packets, mut duplicate_packets) = (0, 0);
    for subscriber in swarm.clients().iter_mut().filter_map(Client::subscriber) {
        for stream in [&mut subscriber.video, &mut subscriber.audio] {
            received_packets += stream.packets;
            duplicate_packets += stream.duplicates;
            latencies.append(&mut stream.latencies);
        }
    }
    progress.set_message("leaving");
    for client in swarm.into_clients() {
        client.leave()?;
    }
    let expected_packets = published_packets * plan.subscribers as u64;
    let lost_packets = expected_packets.saturating_sub(received_packets);
    Ok(Report {
        scenario: "sfu broadcast",
        subscribers: plan.subscribers,
        seconds,
        connect_seconds,
        published_packets,
        expected_packets,
        received_packets,
        lost_packets,
        loss_percent: lost_packets as f64 * 100.0 / expected_packets.max(1) as f64,
        duplicate_packets,
        received_megabits_per_second: bytes as f64 * 8.0 / 1e6 / seconds,
        latency_microseconds: percentiles(&mut latencies),
        keyframe_requests,
        relay: relay_before
            .zip(relay_after)
            .map(|(before, after)| cost(before, after, received_packets)),
        generator_cpu_seconds: generator_after.cpu_seconds - generator_before.cpu_seconds,
    })
}

fn cost(before: Usage, after: Usage, packets: u64) -> Cost {
    let cpu_seconds = after.cpu_seconds - before.cpu_seconds;
    Cost {
        cpu_seconds,
        cpu_nanoseconds_per_forwarded_packet: cpu_seconds * 1e9 / packets.max(1) as f64,
        resident_kib: after.resident_kib,
        resident_peak_kib: after.resident_peak_kib,
    }
}

fn sees(client: &mut Client) -> bool {
    client
        .subscriber()
        .is_none_or(|s| s.video.packets_ever > 0 && s.audio.packets_ever > 0)
}

fn published(swarm: &mut Swarm) -> u64 {
    swarm
        .clients()
        .iter_mut()
        .filter_map(Client::publisher)
        .map(|p| p.video.packets() + p.audio.packets())
        .sum()
}

fn billable_bytes(swarm: &mut Swarm) -> u64 {
    swarm
        .clients()
        .iter_mut()
        .filter_map(Client::subscriber)
        .map(|s| s.billable_bytes)
        .sum()
}

fn failures(swarm: &mut Swarm) -> Result<(), Error> {
    match swarm.clients().iter().find_map(|client| client.failure()) {
        Some(failure) => Err(format!("a client failed: {failure}").into()),
        None => Ok(()),
    }
}
