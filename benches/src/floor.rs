//! The floor under forwarding: programs that do the unavoidable work and nothing else. A packet comes in, and for
//! every subscriber it gets a header, is encrypted under that subscriber's key, and goes out.
//!
//! No session, no billing, no history, no RTCP, no decryption of what comes in (it is paid once a packet, not once a
//! subscriber). What is left is what the machine itself asks for, so a relay's cost divided by this one is a number
//! that can be compared across machines.
//!
//! Only the thread that forwards is counted (CLOCK_THREAD_CPUTIME_ID). Over loopback that includes more than a
//! network card would ask for: the kernel delivers into the receiver's socket on the sender's time. A relay measured
//! over loopback pays the same.

pub(crate) mod cores;
mod departures;
mod generator;
mod load;
mod relay;
mod seal;
mod sinks;
mod ticked;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use loadtest::process;
use loadtest::reception::{Percentiles, percentiles};
use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

pub use departures::Arrival;
pub use load::{LoadPlan, LoadReport, Scenario, run_load};
pub use seal::{Sealer, TAG_LEN};

use crate::Error;
use cores::{Place, pin};
use departures::Kind;
use generator::Generator;
use relay::Relay;
pub(crate) use relay::{Cost, IDLE};
use sinks::Sinks;

/// The RTP header that all packets here have (RFC 3550 section 5.1).
pub const HEADER_LEN: usize = 12;

/// The largest payload: with header and tag it fits a 1,500-byte link.
pub const PAYLOAD_MAX: usize = 1_400;

/// The most packets that one send may carry.
pub const PACKETS_MAX: usize = 44;

/// What one send can carry: an IPv4 packet's 16-bit length, without its headers.
const SEND_MAX: usize = 65_507;

const _: () = assert!(PACKETS_MAX * (HEADER_LEN + PAYLOAD_MAX + TAG_LEN) <= SEND_MAX);

/// Sent before what is measured, so that caches, routes and buffers are warm.
pub(crate) const WARM_UP: Duration = Duration::from_millis(300);

/// After the relay has sent its last packet, a sink may still be reading.
pub(crate) const GRACE: Duration = Duration::from_millis(300);

/// Descriptors beside the sinks' sockets.
const DESCRIPTORS_MORE: u64 = 64;

/// How packets travel through the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trips {
    /// One receive call and one send call a packet.
    Single,
    /// This many in one receive (GRO), and in one send (GSO) to each subscriber.
    Batch(usize),
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How packets travel.
    pub trips: Trips,
    /// How many receive.
    pub subscribers: usize,
    /// RTP payload of each packet.
    pub bytes: usize,
    /// Published packets a second. They come in bursts of what one send carries.
    pub rate: f64,
    /// For how long it is measured.
    pub duration: Duration,
}

/// What forwarding cost.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// "single" or "batch".
    pub floor: &'static str,
    /// How many received.
    pub subscribers: usize,
    /// RTP payload of each packet; header and tag are 28 more.
    pub bytes: usize,
    /// As planned.
    pub packets_per_send: usize,
    /// As it was.
    pub mean_packets_per_send: f64,
    /// For how long it was measured.
    pub seconds: f64,
    /// Packets that were published.
    pub published_packets: u64,
    /// Those, times the subscribers.
    pub expected_packets: u64,
    /// Packets that arrived at a subscriber.
    pub forwarded_packets: u64,
    /// The difference.
    pub lost_packets: u64,
    /// The same in hundredths of what was expected.
    pub loss_percent: f64,
    /// User and system time of the thread that forwards.
    pub cpu_seconds: f64,
    /// The same in nanoseconds for each packet that arrived.
    pub cpu_nanoseconds_per_forwarded_packet: f64,
    /// From the generator's call to the sink's socket read.
    pub latency_microseconds: Percentiles,
    /// User and system time of generator and sinks, which is not counted above.
    pub generator_cpu_seconds: f64,
}

/// What encryption alone cost.
#[derive(Clone, Debug, Serialize)]
pub struct SealReport {
    /// "seal".
    pub floor: &'static str,
    /// Keys, in turn.
    pub subscribers: usize,
    /// RTP payload of each packet.
    pub bytes: usize,
    /// For how long it was measured.
    pub seconds: f64,
    /// Packets that were encrypted.
    pub forwarded_packets: u64,
    /// User and system time.
    pub cpu_seconds: f64,
    /// The same in nanoseconds a packet.
    pub cpu_nanoseconds_per_forwarded_packet: f64,
}

impl Trips {
    /// Packets in one send.
    pub fn packets(self) -> usize {
        match self {
            Trips::Single => 1,
            Trips::Batch(packets) => packets,
        }
    }
}

impl Plan {
    fn check(&self) -> Result<(), Error> {
        let packets = self.trips.packets();
        if !(1..=PACKETS_MAX).contains(&packets) {
            return Err(format!("a send carries 1 to {PACKETS_MAX} packets, not {packets}").into());
        }
        check(self.subscribers, self.bytes)?;
        if !(self.rate > 0.0 && self.rate <= 1e7) {
            return Err(format!("a rate of {} packets a second cannot be kept", self.rate).into());
        }
        Ok(())
    }
}

fn check(subscribers: usize, bytes: usize) -> Result<(), Error> {
    if subscribers == 0 {
        return Err("nobody to forward to: at least 1 subscriber".into());
    }
    if !(1..=PAYLOAD_MAX).contains(&bytes) {
        return Err(format!("a payload has 1 to {PAYLOAD_MAX} bytes, not {bytes}").into());
    }
    Ok(())
}

/// Forwards as planned, over loopback, and says what it cost.
pub fn run(plan: &Plan) -> Result<Report, Error> {
    plan.check()?;
    allow_descriptors(plan.subscribers as u64 + DESCRIPTORS_MORE)?;
    let epoch = Instant::now();
    let packet_len = HEADER_LEN + plan.bytes;
    let sealed_len = packet_len + TAG_LEN;
    let sinks = Sinks::bind(plan.subscribers, sealed_len..=sealed_len)?;
    let relay = Relay::bind(plan.trips, packet_len, sinks.addresses())?;
    let generator = Generator::bind(relay.address(), plan)?;
    let process_before = process::usage(std::process::id()).unwrap_or_default();
    let stop = &AtomicBool::new(false);
    let (published, cost, mut reception) = thread::scope(|scope| {
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        let relay = named("relay").spawn_scoped(scope, move || {
            pin(Place::Relay);
            relay.run(stop)
        })?;
        pin(Place::Clients);
        // Whatever fails from here on, the others are told to stop before the scope waits for them.
        let sinks = named("sinks")
            .spawn_scoped(scope, move || sinks.run(epoch, stop))
            .inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
        let published = generator.run(epoch, plan.duration);
        let cost = wait_for_relay(relay, stop);
        thread::sleep(GRACE);
        stop.store(true, Ordering::Relaxed);
        Ok::<_, Error>((published?, cost?, finished(sinks)?))
    })?;
    let process_after = process::usage(std::process::id()).unwrap_or_default();
    let expected_packets = published.packets * plan.subscribers as u64;
    let lost_packets = expected_packets.saturating_sub(reception.packets);
    let cpu_seconds = cost.cpu.as_secs_f64();
    let others = process_after.cpu_seconds - process_before.cpu_seconds - cost.cpu_ever.as_secs_f64();
    Ok(Report {
        floor: match plan.trips {
            Trips::Single => "single",
            Trips::Batch(_) => "batch",
        },
        subscribers: plan.subscribers,
        bytes: plan.bytes,
        packets_per_send: plan.trips.packets(),
        mean_packets_per_send: cost.sent as f64 / cost.sends.max(1) as f64,
        seconds: published.seconds,
        published_packets: published.packets,
        expected_packets,
        forwarded_packets: reception.packets,
        lost_packets,
        loss_percent: lost_packets as f64 * 100.0 / expected_packets.max(1) as f64,
        cpu_seconds,
        cpu_nanoseconds_per_forwarded_packet: cpu_seconds * 1e9 / reception.packets.max(1) as f64,
        latency_microseconds: percentiles(&mut reception.latencies[Kind::Delta as usize]),
        generator_cpu_seconds: others.max(0.0),
    })
}

/// Encrypts the same payload under each subscriber's key in turn.
pub fn run_seal(subscribers: usize, bytes: usize, duration: Duration) -> Result<SealReport, Error> {
    /// Between two looks at the clock.
    const ROUND: u64 = 1_000;
    check(subscribers, bytes)?;
    let sealers: Vec<Sealer> = (0..subscribers).map(Sealer::of_subscriber).collect();
    let payload = vec![0x5A; bytes];
    let mut packet = vec![0; HEADER_LEN + bytes + TAG_LEN];
    let mut keys = sealers.iter().cycle();
    let mut seal = |packets: std::ops::Range<u64>| {
        for (index, sealer) in packets.zip(&mut keys) {
            sealer.seal(
                std::hint::black_box(&mut packet),
                index,
                std::hint::black_box(&payload),
            );
        }
    };
    seal(0..ROUND);
    let (start, cpu_before, mut packets) = (Instant::now(), thread_cpu(), 0);
    while start.elapsed() < duration {
        seal(ROUND + packets..2 * ROUND + packets);
        packets += ROUND;
    }
    let cpu_seconds = (thread_cpu() - cpu_before).as_secs_f64();
    Ok(SealReport {
        floor: "seal",
        subscribers,
        bytes,
        seconds: start.elapsed().as_secs_f64(),
        forwarded_packets: packets,
        cpu_seconds,
        cpu_nanoseconds_per_forwarded_packet: cpu_seconds * 1e9 / packets.max(1) as f64,
    })
}

/// User and system time of the calling thread.
pub(crate) fn thread_cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// The relay ends by itself when the generator's last datagram reaches it; should that one be lost, it is told to.
pub(crate) fn wait_for_relay(
    relay: ScopedJoinHandle<'_, Result<Cost, Error>>,
    stop: &AtomicBool,
) -> Result<Cost, Error> {
    let asked = Instant::now();
    while !relay.is_finished() {
        if asked.elapsed() > Duration::from_secs(5) {
            stop.store(true, Ordering::Relaxed);
        }
        thread::sleep(Duration::from_millis(10));
    }
    finished(relay)
}

fn finished<T>(thread: ScopedJoinHandle<'_, Result<T, Error>>) -> Result<T, Error> {
    thread.join().unwrap_or_else(|_| Err("a thread panicked".into()))
}

pub(crate) fn allow_descriptors(needed: u64) -> Result<(), Error> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < needed) {
        limit.current = limit.maximum.map_or(Some(needed), |most| Some(needed.min(most)));
        setrlimit(Resource::Nofile, limit)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
