//! The subscribers: one socket each, all drained by one thread, as loadtest's clients are.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use rustix::net::sockopt::set_socket_recv_buffer_size;

use super::departures::Kind;
use super::generator::{MARKER, is_measured, microseconds};
use crate::Error;

/// A few hundred packets: a sink that waits for its core loses none.
const KERNEL_BUFFER: usize = 1 << 20;

/// Readiness events taken at once.
const EVENTS_MAX: usize = 256;

/// How long until a look at `stop`.
const IDLE: Duration = Duration::from_millis(50);

/// All sockets.
pub(super) struct Sinks {
    poll: Poll,
    sockets: Vec<UdpSocket>,
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
            let mut socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0).into())?;
            // What the kernel does not grant is not worth failing for.
            let _ = set_socket_recv_buffer_size(&socket, KERNEL_BUFFER);
            poll.registry()
                .register(&mut socket, Token(index), Interest::READABLE)?;
            addresses.push(socket.local_addr()?);
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
        while !stop.load(Ordering::Relaxed) {
            match self.poll.poll(&mut events, Some(IDLE)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            for event in events.iter() {
                drain(
                    &self.sockets[event.token().0],
                    &self.lengths,
                    epoch,
                    &mut reception,
                )?;
            }
        }
        Ok(reception)
    }
}

fn drain(
    socket: &UdpSocket,
    lengths: &RangeInclusive<usize>,
    epoch: Instant,
    reception: &mut Reception,
) -> io::Result<()> {
    let mut buffer = [0; 2_048];
    loop {
        let packet = match socket.recv(&mut buffer) {
            Ok(len) => &buffer[..len],
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        // Anything of another length is not what should have arrived, and so counts as lost.
        if !lengths.contains(&packet.len()) || !is_measured(packet) {
            continue;
        }
        if let Some(kind) = Kind::of(packet[1] & !MARKER) {
            let sent = u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]);
            reception.packets += 1;
            reception.latencies[kind as usize].push(microseconds(epoch).wrapping_sub(sent));
        }
    }
}
