//! The floor of a whole load: what loadtest's publishers send, forwarded with nothing but the unavoidable work, in
//! the batches that this load gives.
//!
//! A relay that sends *at once* finds in its socket what arrived since it last looked, and can put that into one send
//! to each subscriber. One with a *tick* waits that long after the first packet, for larger batches. Both are here;
//! nothing can batch better in the same time.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use datagram::{Fragmentation, Socket, Transmit};
use loadtest::process;
use loadtest::reception::{Percentiles, percentiles};
use serde::Serialize;

use super::cores::{Place, pin};
use super::departures::{Arrival, Departure, Departures, Kind};
use super::generator::{END, MARKER, microseconds};
use super::sinks::Sinks;
use super::ticked::Relay;
use super::{
    DESCRIPTORS_MORE, GRACE, HEADER_LEN, PAYLOAD_MAX, SEND_MAX, TAG_LEN, WARM_UP, allow_descriptors,
    finished, wait_for_relay,
};
use crate::Error;

/// Who sends what to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// One publisher to so many subscribers.
    Broadcast(usize),
    /// So many people, each of whom receives all others.
    Conference(usize),
}

/// What to do.
#[derive(Clone, Debug)]
pub struct LoadPlan {
    /// Who sends what to whom.
    pub scenario: Scenario,
    /// How a frame's packets leave a publisher.
    pub arrival: Arrival,
    /// How long the relay waits for more after a first packet; none at all where this is zero.
    pub tick: Duration,
    /// For how long it is measured.
    pub duration: Duration,
}

/// What forwarding this load cost.
#[derive(Clone, Debug, Serialize)]
pub struct LoadReport {
    /// "load".
    pub floor: &'static str,
    /// "broadcast" or "conference".
    pub scenario: &'static str,
    /// How many received.
    pub subscribers: usize,
    /// "burst" or "paced".
    pub arrival: &'static str,
    /// How long the relay waited for more.
    pub tick_milliseconds: f64,
    /// For how long it was measured.
    pub seconds: f64,
    /// Packets that were published.
    pub published_packets: u64,
    /// Packets that should have arrived.
    pub expected_packets: u64,
    /// Packets that did.
    pub forwarded_packets: u64,
    /// The difference in hundredths of what was expected.
    pub loss_percent: f64,
    /// As it was.
    pub mean_packets_per_send: f64,
    /// User and system time of the thread that forwards.
    pub cpu_seconds: f64,
    /// The same in nanoseconds for each packet that arrived.
    pub cpu_nanoseconds_per_forwarded_packet: f64,
    /// Of delta frames, from the generator's call to the sink's socket read.
    pub latency_delta_microseconds: Percentiles,
    /// Of keyframes.
    pub latency_key_microseconds: Percentiles,
    /// Of audio.
    pub latency_audio_microseconds: Percentiles,
    /// User and system time of generator and sinks, as a share of one core.
    pub generator_cpu_share: f64,
}

impl Scenario {
    /// How many receive.
    pub fn subscribers(self) -> usize {
        match self {
            Scenario::Broadcast(subscribers) => subscribers,
            Scenario::Conference(participants) => participants,
        }
    }

    pub(super) fn publishers(self) -> usize {
        match self {
            Scenario::Broadcast(_) => 1,
            Scenario::Conference(participants) => participants,
        }
    }

    /// How many receive each packet.
    fn receivers(self) -> usize {
        match self {
            Scenario::Broadcast(subscribers) => subscribers,
            Scenario::Conference(participants) => participants - 1,
        }
    }

    /// Nobody hears themselves.
    pub(super) fn receives(self, subscriber: usize, publisher: usize) -> bool {
        match self {
            Scenario::Broadcast(_) => true,
            Scenario::Conference(_) => subscriber != publisher,
        }
    }

    fn check(self) -> Result<(), Error> {
        match self {
            Scenario::Broadcast(0) => Err("nobody to forward to: at least 1 subscriber".into()),
            Scenario::Conference(0 | 1) => Err("a conference has at least 2 participants".into()),
            _ => Ok(()),
        }
    }
}

/// Forwards as planned, over loopback, and says what it cost.
pub fn run_load(plan: &LoadPlan) -> Result<LoadReport, Error> {
    plan.scenario.check()?;
    let subscribers = plan.scenario.subscribers();
    allow_descriptors(subscribers as u64 + DESCRIPTORS_MORE)?;
    let epoch = Instant::now();
    let sinks = Sinks::bind(
        subscribers,
        HEADER_LEN + TAG_LEN..=HEADER_LEN + PAYLOAD_MAX + TAG_LEN,
    )?;
    let relay = Relay::bind(plan.scenario, plan.tick, sinks.addresses())?;
    let mut publishers = Publishers::bind(relay.address())?;
    let stop = &AtomicBool::new(false);
    let (published, cost, mut reception, others) = thread::scope(|scope| {
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        let relay = named("relay").spawn_scoped(scope, move || {
            pin(Place::Relay);
            relay.run(stop)
        })?;
        pin(Place::Clients);
        let sinks = named("sinks")
            .spawn_scoped(scope, move || sinks.run(epoch, stop))
            .inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
        let used_before = process::usage(std::process::id()).unwrap_or_default().cpu_seconds;
        let published = publishers.run(plan, epoch);
        let cost = wait_for_relay(relay, stop);
        let used = process::usage(std::process::id()).unwrap_or_default().cpu_seconds - used_before;
        thread::sleep(GRACE);
        stop.store(true, Ordering::Relaxed);
        let cost = cost?;
        let others = (used - cost.cpu_ever.as_secs_f64()).max(0.0);
        Ok::<_, Error>((published?, cost, finished(sinks)?, others))
    })?;
    let expected_packets = published.packets * plan.scenario.receivers() as u64;
    let cpu_seconds = cost.cpu.as_secs_f64();
    Ok(LoadReport {
        floor: "load",
        scenario: match plan.scenario {
            Scenario::Broadcast(_) => "broadcast",
            Scenario::Conference(_) => "conference",
        },
        subscribers,
        arrival: match plan.arrival {
            Arrival::Burst => "burst",
            Arrival::Paced => "paced",
        },
        tick_milliseconds: plan.tick.as_secs_f64() * 1e3,
        seconds: published.seconds,
        published_packets: published.packets,
        expected_packets,
        forwarded_packets: reception.packets,
        loss_percent: expected_packets.saturating_sub(reception.packets) as f64 * 100.0
            / expected_packets.max(1) as f64,
        mean_packets_per_send: cost.sent as f64 / cost.sends.max(1) as f64,
        cpu_seconds,
        cpu_nanoseconds_per_forwarded_packet: cpu_seconds * 1e9 / reception.packets.max(1) as f64,
        latency_delta_microseconds: percentiles(&mut reception.latencies[Kind::Delta as usize]),
        latency_key_microseconds: percentiles(&mut reception.latencies[Kind::Key as usize]),
        latency_audio_microseconds: percentiles(&mut reception.latencies[Kind::Audio as usize]),
        generator_cpu_share: others / (published.seconds + WARM_UP.as_secs_f64()),
    })
}

/// All publishers on one socket: whose packet it is, its SSRC says.
struct Publishers {
    socket: Socket,
    relay: SocketAddr,
    burst: Vec<u8>,
    sequence_number: u16,
}

struct Published {
    packets: u64,
    seconds: f64,
}

impl Publishers {
    fn bind(relay: SocketAddr) -> Result<Publishers, Error> {
        Ok(Publishers {
            socket: Socket::bind((Ipv4Addr::LOCALHOST, 0).into(), Fragmentation::Forbidden)?,
            relay,
            burst: vec![0x5A; SEND_MAX],
            sequence_number: 0,
        })
    }

    /// Warms up, sends what the plan says, says that it is over.
    fn run(&mut self, plan: &LoadPlan, epoch: Instant) -> Result<Published, Error> {
        let sent = self.send_all(plan, epoch);
        // Even after a failure: the relay waits for it.
        let _ = self.send(END.len(), None, END.first().copied());
        sent
    }

    fn send_all(&mut self, plan: &LoadPlan, epoch: Instant) -> Result<Published, Error> {
        let start = Instant::now();
        let mut packets = 0;
        let departures = Departures::of(plan.scenario.publishers(), plan.arrival);
        for departure in departures.take_while(|d| d.at < WARM_UP + plan.duration) {
            let due = start + departure.at;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let measured = departure.at >= WARM_UP;
            self.depart(&departure, measured, epoch)?;
            packets += if measured { departure.packets as u64 } else { 0 };
        }
        Ok(Published {
            packets,
            seconds: start.elapsed().saturating_sub(WARM_UP).as_secs_f64(),
        })
    }

    fn depart(&mut self, departure: &Departure, measured: bool, epoch: Instant) -> Result<(), Error> {
        let size = HEADER_LEN + departure.bytes;
        let marker = if measured { MARKER } else { 0 };
        let (timestamp, ssrc) = (microseconds(epoch), departure.publisher as u32);
        for packet in self.burst.chunks_exact_mut(size).take(departure.packets) {
            packet[0] = 0x80;
            packet[1] = marker | departure.kind.payload_type();
            packet[2..4].copy_from_slice(&self.sequence_number.to_be_bytes());
            packet[4..8].copy_from_slice(&timestamp.to_be_bytes());
            packet[8..12].copy_from_slice(&ssrc.to_be_bytes());
            self.sequence_number = self.sequence_number.wrapping_add(1);
        }
        self.send(size * departure.packets, Some(size), None)
    }

    fn send(&mut self, len: usize, segment_size: Option<usize>, first: Option<u8>) -> Result<(), Error> {
        if let Some(first) = first {
            self.burst[0] = first;
        }
        let transmit = Transmit {
            destination: self.relay,
            source: None,
            segment_size,
            ecn: None,
            contents: &self.burst[..len],
        };
        self.socket
            .send(&transmit)
            .map_err(|refused| format!("the generator cannot send: {}", refused.kind).into())
    }
}
