//! The subscribers: one socket each, all drained by one thread. The sockets are those of loadtest's clients, with their
//! receive offload: whether the kernel cuts a batch apart before it delivers it, at the sender's cost, is up to the
//! receiver. They are read in rounds, as loadtest reads its own: how often a reader is woken is the sender's cost too.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use datagram::{Fragmentation, Inbox, Socket};
use loadtest::pace::{Pace, ROUND};
use mio::{Events, Interest, Poll, Token};

use super::departures::Kind;
use super::generator::{MARKER, is_measured, microseconds};
use crate::Error;

/// Readiness events taken at once.
const EVENTS_MAX: usize = 256;

/// How long until a look at `stop`.
const IDLE: Duration = Duration::from_millis(50);

/// All sockets.
pub(super) struct Sinks {
    poll: Poll,
    sockets: Vec<Socket>,
    addresses: Vec<SocketAddr>,
    lengths: RangeInclusive<usize>,
}

/// What arrived and is measured.
#[derive(Default)]
pub(super) struct Reception {
    pub(super) packets: u64,
    /// In microseconds, by the packets' kind.
    pub(super) latencies: [Vec<u32>; Kind::ALL.len()],
}

impl Sinks {
    /// Sockets on free ports, for packets of these lengths.
    pub(super) fn bind(count: usize, lengths: RangeInclusive<usize>) -> Result<Sinks, Error> {
        let poll = Poll::new()?;
        let mut sockets = Vec::with_capacity(count);
        let mut addresses = Vec::with_capacity(count);
        for index in 0..count {
            let mut socket = Socket::bind((Ipv4Addr::LOCALHOST, 0).into(), Fragmentation::Forbidden)?;
            poll.registry()
                .register(&mut socket, Token(index), Interest::READABLE)?;
            addresses.push(socket.local_addr());
            sockets.push(socket);
        }
        Ok(Sinks {
            poll,
            sockets,
            addresses,
            lengths,
        })
    }

    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Drains until told to stop.
    pub(super) fn run(mut self, epoch: Instant, stop: &AtomicBool) -> Result<Reception, Error> {
        let mut reception = Reception::default();
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut inbox = Inbox::new();
        let mut pace = Pace::default();
        while !stop.load(Ordering::Relaxed) {
            let now = epoch.elapsed().as_nanos() as u64;
            pace.wait(now, now + ROUND, reception.packets);
            match self.poll.poll(&mut events, Some(IDLE)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            for event in events.iter() {
                drain(
                    &self.sockets[event.token().0],
                    &mut inbox,
                    &self.lengths,
                    epoch,
                    &mut reception,
                )?;
            }
        }
        Ok(reception)
    }
}

impl Reception {
    fn take(&mut self, packet: &[u8], lengths: &RangeInclusive<usize>, now: u32) {
        // Anything of another length is not what should have arrived, and so counts as lost.
        if !lengths.contains(&packet.len()) || !is_measured(packet) {
            return;
        }
        if let Some(kind) = Kind::of(packet[1] & !MARKER) {
            let sent = u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]);
            self.packets += 1;
            self.latencies[kind as usize].push(now.wrapping_sub(sent));
        }
    }
}

fn drain(
    socket: &Socket,
    inbox: &mut Inbox,
    lengths: &RangeInclusive<usize>,
    epoch: Instant,
    reception: &mut Reception,
) -> io::Result<()> {
    loop {
        let filled = socket.receive(inbox)?;
        let now = microseconds(epoch);
        for buffer in 0..filled {
            let Some((_, mut datagrams)) = inbox.datagrams(buffer) else {
                continue;
            };
            while let Some(packet) = datagrams.next_datagram() {
                reception.take(packet, lengths, now);
            }
        }
        if inbox.drained() {
            return Ok(());
        }
    }
}
