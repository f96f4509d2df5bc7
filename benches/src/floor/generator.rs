//! The publisher: bursts of equal RTP packets at a steady rate, each burst one send.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use datagram::{Fragmentation, Socket, Transmit};

use super::departures::Kind;
use super::{HEADER_LEN, Plan, WARM_UP};
use crate::Error;

/// The marker bit says that a packet is measured; those before it are warm-up.
pub(super) const MARKER: u8 = 0x80;

/// Shorter than any header: nothing follows.
pub(super) const END: &[u8] = &[0];

/// Sends one stream to the relay.
pub(super) struct Generator {
    socket: Socket,
    relay: SocketAddr,
    packet_len: usize,
    burst: Vec<u8>,
    interval: Duration,
    sequence_number: u16,
}

/// What was sent with a marker.
pub(super) struct Published {
    pub(super) packets: u64,
    pub(super) seconds: f64,
}

impl Generator {
    pub(super) fn bind(relay: SocketAddr, plan: &Plan) -> Result<Generator, Error> {
        let packet_len = HEADER_LEN + plan.bytes;
        let packets = plan.trips.packets();
        Ok(Generator {
            socket: Socket::bind((Ipv4Addr::LOCALHOST, 0).into(), Fragmentation::Forbidden)?,
            relay,
            packet_len,
            burst: vec![0x5A; packet_len * packets],
            interval: Duration::from_secs_f64(packets as f64 / plan.rate),
            sequence_number: 0,
        })
    }

    /// Warms up, sends for `duration`, says that it is over.
    pub(super) fn run(mut self, epoch: Instant, duration: Duration) -> Result<Published, Error> {
        let sent = self
            .send_for(WARM_UP, 0, epoch)
            .and_then(|_| self.send_for(duration, MARKER, epoch));
        // Even after a failure: the relay waits for it.
        let _ = self.send(END, None);
        sent
    }

    fn send_for(&mut self, duration: Duration, marker: u8, epoch: Instant) -> Result<Published, Error> {
        let start = Instant::now();
        let mut packets = 0;
        let mut next = start;
        // At least one burst, however short the time.
        while packets == 0 || next - start < duration {
            thread::sleep(next.saturating_duration_since(Instant::now()));
            self.fill(marker, epoch);
            let burst = std::mem::take(&mut self.burst);
            let sent = self.send(&burst, Some(self.packet_len));
            packets += (burst.len() / self.packet_len) as u64;
            self.burst = burst;
            sent?;
            // A generator that was not given its core in time does not catch up with a flood.
            next = (next + self.interval).max(Instant::now() - self.interval);
        }
        Ok(Published {
            packets,
            seconds: start.elapsed().as_secs_f64(),
        })
    }

    /// New headers; the payloads stay.
    fn fill(&mut self, marker: u8, epoch: Instant) {
        let timestamp = microseconds(epoch);
        for packet in self.burst.chunks_mut(self.packet_len) {
            packet[0] = 0x80;
            packet[1] = marker | Kind::Delta.payload_type();
            packet[2..4].copy_from_slice(&self.sequence_number.to_be_bytes());
            packet[4..8].copy_from_slice(&timestamp.to_be_bytes());
            packet[8..12].copy_from_slice(&1_u32.to_be_bytes());
            self.sequence_number = self.sequence_number.wrapping_add(1);
        }
    }

    fn send(&mut self, contents: &[u8], segment_size: Option<usize>) -> Result<(), Error> {
        let transmit = Transmit {
            destination: self.relay,
            source: None,
            segment_size,
            ecn: None,
            contents,
        };
        self.socket
            .send(&transmit)
            .map_err(|refused| format!("the generator cannot send: {}", refused.kind).into())
    }
}

/// The RTP timestamp here is a 1 MHz clock since the epoch that generator and sinks share: it travels in the clear,
/// so that a sink needs no key to measure the way.
pub(super) fn microseconds(epoch: Instant) -> u32 {
    epoch.elapsed().as_micros() as u32
}

/// Is this packet measured?
pub(super) fn is_measured(packet: &[u8]) -> bool {
    packet.get(1).is_some_and(|byte| byte & MARKER != 0)
}

/// Does this datagram say that nothing follows?
pub(super) fn is_end(datagram: &[u8]) -> bool {
    datagram == END
}
