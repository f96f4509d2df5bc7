//! Clients and peers: a socket each for every allocation, all on one thread, with a schedule that spreads the
//! allocations' bursts evenly over time.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use datagram::{Fragmentation, Inbox, Socket, Transmit};
use loadtest::pace::{Pace, ROUND};
use mio::{Events, Interest, Poll, Token};

use super::{CHANNEL_HEADER_LEN, TurnPlan, Way};
use crate::Error;
use crate::floor::{GRACE, WARM_UP};

/// The one channel that every client has (RFC 8656 section 12: 0x4000 to 0x4FFF).
pub(super) const CHANNEL: [u8; 2] = [0x40, 0x00];

/// The first byte of a payload that is measured.
const MEASURED: u8 = 1;

/// Shorter than any ChannelData: nothing follows.
const END: &[u8] = &[0];

/// Readiness events taken at once.
const EVENTS_MAX: usize = 256;

/// Bursts sent before sockets are read again.
const SENDS_MAX: usize = 64;

/// Does this datagram say that nothing follows?
pub(super) fn is_end(datagram: &[u8]) -> bool {
    datagram == END
}

/// Is this packet measured?
pub(super) fn is_measured(payload: &[u8]) -> bool {
    payload.first() == Some(&MEASURED)
}

/// All sockets but the relay's.
pub(super) struct Clients {
    server: SocketAddr,
    relayed: Vec<SocketAddr>,
    /// First all clients, then all peers.
    sockets: Vec<Socket>,
    addresses: Vec<SocketAddr>,
    poll: Poll,
    to_peer: Vec<u8>,
    to_client: Vec<u8>,
}

/// What was sent to be measured.
#[derive(Default)]
pub(super) struct Sent {
    pub(super) packets: u64,
    pub(super) seconds: f64,
}

impl Clients {
    pub(super) fn bind(
        plan: &TurnPlan,
        server: SocketAddr,
        relayed: Vec<SocketAddr>,
    ) -> Result<Clients, Error> {
        let poll = Poll::new()?;
        let (mut sockets, mut addresses) = (Vec::new(), Vec::new());
        for index in 0..2 * plan.allocations {
            let mut socket = Socket::bind((Ipv4Addr::LOCALHOST, 0).into(), Fragmentation::Allowed)?;
            poll.registry()
                .register(&mut socket, Token(index), Interest::READABLE)?;
            addresses.push(socket.local_addr());
            sockets.push(socket);
        }
        let mut to_peer = vec![0x5A; (CHANNEL_HEADER_LEN + plan.bytes) * plan.burst];
        for datagram in to_peer.chunks_mut(CHANNEL_HEADER_LEN + plan.bytes) {
            datagram[..2].copy_from_slice(&CHANNEL);
            datagram[2..CHANNEL_HEADER_LEN].copy_from_slice(&(plan.bytes as u16).to_be_bytes());
        }
        Ok(Clients {
            server,
            relayed,
            sockets,
            addresses,
            poll,
            to_peer,
            to_client: vec![0x5A; plan.bytes * plan.burst],
        })
    }

    pub(super) fn client_addresses(&self) -> &[SocketAddr] {
        &self.addresses[..self.relayed.len()]
    }

    pub(super) fn peer_addresses(&self) -> &[SocketAddr] {
        &self.addresses[self.relayed.len()..]
    }

    /// Warms up, sends what the plan says, waits for what is under way, says that it is over. What was sent, and how
    /// many measured packets arrived.
    pub(super) fn run(mut self, plan: &TurnPlan) -> Result<(Sent, u64), Error> {
        let outcome = self.send_and_receive(plan);
        // Even after a failure: the relay waits for it.
        let _ = send(&mut self.sockets[0], self.server, END, END.len());
        outcome
    }

    fn send_and_receive(&mut self, plan: &TurnPlan) -> Result<(Sent, u64), Error> {
        let interval = 1.0 / (plan.bursts_per_second * plan.allocations as f64);
        let (mut inbox, mut events) = (Inbox::new(), Events::with_capacity(EVENTS_MAX));
        let (mut received, mut bursts, mut measured) = (0, 0_u64, 0_u64);
        let mut pace = Pace::default();
        let start = Instant::now();
        let end = WARM_UP + plan.duration;
        while start.elapsed() < end {
            let now = start.elapsed();
            self.mark(now >= WARM_UP, plan.bytes);
            let due = (now.as_secs_f64() / interval) as u64 + 1;
            for _ in 0..SENDS_MAX.min(due.saturating_sub(bursts) as usize) {
                self.burst(bursts as usize, plan)?;
                bursts += 1;
                measured += u64::from(now >= WARM_UP);
            }
            // As loadtest does: under load in rounds, in which several packets are sent and several are read.
            let next = Duration::from_secs_f64(bursts as f64 * interval).min(end);
            let now = start.elapsed().as_nanos() as u64;
            let due = next.as_nanos() as u64;
            let round = if pace.is_busy() { due.max(now + ROUND) } else { due };
            pace.wait(now, round, received + bursts * plan.burst as u64);
            let wait = next.saturating_sub(start.elapsed());
            received += self.receive(&mut events, &mut inbox, wait)?;
        }
        let seconds = (start.elapsed() - WARM_UP).as_secs_f64();
        let (packets, deadline) = (measured * plan.burst as u64, Instant::now() + GRACE);
        while received < packets && Instant::now() < deadline {
            received += self.receive(&mut events, &mut inbox, GRACE)?;
        }
        Ok((Sent { packets, seconds }, received))
    }

    fn mark(&mut self, measured: bool, bytes: usize) {
        let mark = if measured { MEASURED } else { 0 };
        let with_header = CHANNEL_HEADER_LEN + bytes;
        for datagram in self.to_peer.chunks_mut(with_header) {
            datagram[CHANNEL_HEADER_LEN] = mark;
        }
        self.to_client
            .chunks_mut(bytes)
            .for_each(|payload| payload[0] = mark);
    }

    /// The allocations have their turns one after the other.
    fn burst(&mut self, turn: usize, plan: &TurnPlan) -> Result<(), Error> {
        let number = turn % plan.allocations;
        let is_up = match plan.way {
            Way::Up => true,
            Way::Down => false,
            Way::Both => number.is_multiple_of(2),
        };
        if is_up {
            let size = CHANNEL_HEADER_LEN + plan.bytes;
            send(&mut self.sockets[number], self.server, &self.to_peer, size)
        } else {
            let peer = &mut self.sockets[plan.allocations + number];
            send(peer, self.relayed[number], &self.to_client, plan.bytes)
        }
    }

    fn receive(&mut self, events: &mut Events, inbox: &mut Inbox, wait: Duration) -> Result<u64, Error> {
        match self.poll.poll(events, Some(wait)) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        let mut received = 0;
        for event in events.iter() {
            let index = event.token().0;
            let header = if index < self.relayed.len() {
                CHANNEL_HEADER_LEN
            } else {
                0
            };
            loop {
                for buffer in 0..self.sockets[index].receive(inbox)? {
                    let Some((_, mut datagrams)) = inbox.datagrams(buffer) else {
                        continue;
                    };
                    while let Some(datagram) = datagrams.next_datagram() {
                        received += u64::from(datagram.get(header..).is_some_and(is_measured));
                    }
                }
                if inbox.drained() {
                    break;
                }
            }
        }
        Ok(received)
    }
}

fn send(socket: &mut Socket, destination: SocketAddr, contents: &[u8], size: usize) -> Result<(), Error> {
    socket
        .send(&Transmit {
            destination,
            source: None,
            segment_size: (contents.len() > size).then_some(size),
            ecn: None,
            contents,
        })
        .map_err(|refused| format!("the generator cannot send: {}", refused.kind).into())
}
