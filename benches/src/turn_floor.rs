//! The floor under a TURN relay: what comes from a client in ChannelData leaves for the peer without its header, and
//! what comes from the peer leaves for the client with one. Nothing else: no session, no permission, no billing.
//!
//! As a TURN server it has one socket towards all clients and one socket for each allocation, behind epoll, with the
//! relay's socket options. Two ways through the kernel:
//!
//! - *single*: one receive call and one send call a packet. The header is skipped or put into headroom, so that the
//!   payload is touched by nobody.
//! - *batch*: receive offload in, one layout pass because segments must be contiguous and equal, segmentation offload out.

mod clients;
mod relay;
mod sockets;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use loadtest::process;
use serde::Serialize;

use crate::Error;
use crate::floor::cores::{Place, pin};
use crate::floor::{GRACE, WARM_UP, allow_descriptors, wait_for_relay};
use clients::Clients;
use relay::Relay;

/// A ChannelData header (RFC 8656 section 12.4).
const CHANNEL_HEADER_LEN: usize = 4;

/// The largest payload: with its header it fits a 1,500-byte link.
const PAYLOAD_MAX: usize = 1_400;

/// The smallest holds a marker.
const PAYLOAD_MIN: usize = 8;

/// Packets in a burst: with headers they fit one send.
const BURST_MAX: usize = 44;

const _: () = assert!(BURST_MAX * (CHANNEL_HEADER_LEN + PAYLOAD_MAX) <= 65_507);

/// Every allocation has three sockets here: its client's, its own, and its peer's.
const SOCKETS_PER_ALLOCATION: u64 = 3;

/// Ports for them all: half of those there are.
const ALLOCATIONS_MAX: usize = 9_000;

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From clients to peers.
    Up,
    /// From peers to clients.
    Down,
    /// Every other allocation up, the rest down.
    Both,
}

/// What to do.
#[derive(Clone, Debug)]
pub struct TurnPlan {
    /// Whether the relay receives and sends several packets in one call.
    pub is_batched: bool,
    /// How many allocations.
    pub allocations: usize,
    /// Payload of each packet.
    pub bytes: usize,
    /// Packets that arrive together, from one send.
    pub burst: usize,
    /// Bursts a second of each allocation.
    pub bursts_per_second: f64,
    /// Which way.
    pub way: Way,
    /// For how long it is measured.
    pub duration: Duration,
}

/// What relaying cost.
#[derive(Clone, Debug, Serialize)]
pub struct TurnReport {
    /// "turn single" or "turn batch".
    pub floor: &'static str,
    /// Allocations.
    pub allocations: usize,
    /// Payload of each packet.
    pub bytes: usize,
    /// Packets that arrived together.
    pub burst: usize,
    /// "up", "down", "both".
    pub way: &'static str,
    /// For how long it was measured.
    pub seconds: f64,
    /// Packets that should have arrived.
    pub expected_packets: u64,
    /// Packets that did.
    pub forwarded_packets: u64,
    /// The difference in hundredths of what was expected.
    pub loss_percent: f64,
    /// As it was.
    pub mean_packets_per_send: f64,
    /// User and system time of the thread that relays.
    pub cpu_seconds: f64,
    /// The same in nanoseconds for each packet that arrived.
    pub cpu_nanoseconds_per_forwarded_packet: f64,
    /// User and system time of clients and peers, as a share of one core.
    pub generator_cpu_share: f64,
}

impl TurnPlan {
    fn check(&self) -> Result<(), Error> {
        if !(1..=ALLOCATIONS_MAX).contains(&self.allocations) {
            return Err(format!("1 to {ALLOCATIONS_MAX} allocations, not {}", self.allocations).into());
        }
        if !(PAYLOAD_MIN..=PAYLOAD_MAX).contains(&self.bytes) || !self.bytes.is_multiple_of(4) {
            return Err(format!(
                "a payload has {PAYLOAD_MIN} to {PAYLOAD_MAX} bytes, four at a time, not {}",
                self.bytes
            )
            .into());
        }
        if !(1..=BURST_MAX).contains(&self.burst) {
            return Err(format!("a burst has 1 to {BURST_MAX} packets, not {}", self.burst).into());
        }
        if self.burst > 1 && !self.is_batched {
            return Err("a plain receive call cannot take a burst apart that the kernel coalesced".into());
        }
        if !(self.bursts_per_second > 0.0 && self.bursts_per_second <= 1e6) {
            return Err(format!("{} bursts a second cannot be kept", self.bursts_per_second).into());
        }
        Ok(())
    }
}

/// Relays as planned, over loopback, and says what it cost.
pub fn run(plan: &TurnPlan) -> Result<TurnReport, Error> {
    plan.check()?;
    allow_descriptors(plan.allocations as u64 * SOCKETS_PER_ALLOCATION + 64)?;
    let relay = Relay::bind(plan)?;
    let clients = Clients::bind(plan, relay.server_address(), relay.relayed_addresses())?;
    let relay = relay.with(clients.client_addresses(), clients.peer_addresses());
    let stop = &AtomicBool::new(false);
    let (sent, cost, received, others) = thread::scope(|scope| {
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        let relay = named("relay").spawn_scoped(scope, move || {
            pin(Place::Relay);
            relay.run(stop)
        })?;
        pin(Place::Clients);
        let used_before = process::usage(std::process::id()).unwrap_or_default().cpu_seconds;
        let outcome = clients.run(plan);
        let cost = wait_for_relay(relay, stop);
        let used = process::usage(std::process::id()).unwrap_or_default().cpu_seconds - used_before;
        thread::sleep(GRACE);
        stop.store(true, Ordering::Relaxed);
        let (sent, received) = outcome?;
        let cost = cost?;
        let others = (used - cost.cpu_ever.as_secs_f64()).max(0.0);
        Ok::<_, Error>((sent, cost, received, others))
    })?;
    let cpu_seconds = cost.cpu.as_secs_f64();
    Ok(TurnReport {
        floor: if plan.is_batched {
            "turn batch"
        } else {
            "turn single"
        },
        allocations: plan.allocations,
        bytes: plan.bytes,
        burst: plan.burst,
        way: match plan.way {
            Way::Up => "up",
            Way::Down => "down",
            Way::Both => "both",
        },
        seconds: sent.seconds,
        expected_packets: sent.packets,
        forwarded_packets: received,
        loss_percent: sent.packets.saturating_sub(received) as f64 * 100.0 / sent.packets.max(1) as f64,
        mean_packets_per_send: cost.sent as f64 / cost.sends.max(1) as f64,
        cpu_seconds,
        cpu_nanoseconds_per_forwarded_packet: cpu_seconds * 1e9 / received.max(1) as f64,
        generator_cpu_share: others / (sent.seconds + WARM_UP.as_secs_f64()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(is_batched: bool, burst: usize, way: Way) -> TurnPlan {
        TurnPlan {
            is_batched,
            allocations: 3,
            bytes: 200,
            burst,
            bursts_per_second: 100.0,
            way,
            duration: Duration::from_millis(100),
        }
    }

    #[test]
    fn what_a_client_sends_reaches_its_peer_and_back_by_both_ways_through_the_kernel() {
        for way in [Way::Up, Way::Down, Way::Both] {
            let report = run(&plan(false, 1, way)).unwrap();
            assert!(
                report.forwarded_packets > 0 && report.cpu_seconds > 0.0,
                "{report:?}"
            );
            assert_eq!(report.mean_packets_per_send, 1.0);
            let report = run(&plan(true, 6, way)).unwrap();
            assert!(
                report.forwarded_packets > 0 && report.cpu_seconds > 0.0,
                "{report:?}"
            );
            assert!(report.mean_packets_per_send > 5.0, "{report:?}");
        }
    }

    #[test]
    fn what_cannot_be_relayed_is_refused_before_it_is_tried() {
        let well = plan(true, 6, Way::Both);
        for wrong in [
            plan(false, 2, Way::Both),
            plan(true, BURST_MAX + 1, Way::Both),
            TurnPlan {
                bytes: 6,
                ..well.clone()
            },
            TurnPlan {
                bytes: PAYLOAD_MAX + 4,
                ..well.clone()
            },
            TurnPlan {
                allocations: 0,
                ..well.clone()
            },
            TurnPlan {
                bursts_per_second: 0.0,
                ..well.clone()
            },
        ] {
            assert!(run(&wrong).is_err(), "{wrong:?}");
        }
    }
}
