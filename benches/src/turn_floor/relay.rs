//! The thread whose CPU time is the floor: from a client to its peer without the header, from the peer to the client
//! with one.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use datagram::{Fragmentation, Inbox, Socket, Transmit};
use mio::{Events, Interest, Poll, Token};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use super::clients::{CHANNEL, is_end, is_measured};
use super::{BURST_MAX, CHANNEL_HEADER_LEN, TurnPlan, sockets};
use crate::Error;
use crate::floor::{Cost, IDLE, thread_cpu};

/// The server's socket among the others' numbers.
const SERVER: usize = usize::MAX - 1;

/// Readiness events taken at once.
const EVENTS_MAX: usize = 256;

/// Packets of one socket before the others have their turn.
const TURN_MAX: usize = 64;

/// No allocation has this port.
const NOBODY: u32 = u32::MAX;

/// The relay before it knows its clients.
pub(super) struct Relay {
    sockets: Sockets,
    routes: Routes,
    count: Count,
}

enum Sockets {
    Single {
        server: UdpSocket,
        relays: Vec<UdpSocket>,
    },
    Batch {
        server: Box<Socket>,
        relays: Vec<Socket>,
    },
}

/// Who belongs to whom.
struct Routes {
    /// The allocation of each client's port: all clients have one address here.
    by_port: Vec<u32>,
    clients: Vec<SocketAddr>,
    peers: Vec<SocketAddr>,
}

#[derive(Default)]
struct Count {
    is_measuring: bool,
    cpu_before: Duration,
    sent: u64,
    sends: u64,
}

impl Relay {
    pub(super) fn bind(plan: &TurnPlan) -> Result<Relay, Error> {
        let socket = || Socket::bind((Ipv4Addr::LOCALHOST, 0).into(), Fragmentation::Allowed);
        let sockets = if plan.is_batched {
            Sockets::Batch {
                server: Box::new(socket()?),
                relays: (0..plan.allocations)
                    .map(|_| socket())
                    .collect::<Result<_, _>>()?,
            }
        } else {
            Sockets::Single {
                server: sockets::bind()?,
                relays: (0..plan.allocations)
                    .map(|_| sockets::bind())
                    .collect::<Result<_, _>>()?,
            }
        };
        Ok(Relay {
            sockets,
            routes: Routes {
                by_port: vec![NOBODY; 1 << 16],
                clients: Vec::new(),
                peers: Vec::new(),
            },
            count: Count::default(),
        })
    }

    /// Where clients send to.
    pub(super) fn server_address(&self) -> SocketAddr {
        match &self.sockets {
            Sockets::Single { server, .. } => address(server),
            Sockets::Batch { server, .. } => server.local_addr(),
        }
    }

    /// Where the peer of each allocation sends to.
    pub(super) fn relayed_addresses(&self) -> Vec<SocketAddr> {
        match &self.sockets {
            Sockets::Single { relays, .. } => relays.iter().map(address).collect(),
            Sockets::Batch { relays, .. } => relays.iter().map(Socket::local_addr).collect(),
        }
    }

    /// The same relay with its allocations made.
    pub(super) fn with(mut self, clients: &[SocketAddr], peers: &[SocketAddr]) -> Relay {
        for (number, client) in clients.iter().enumerate() {
            self.routes.by_port[usize::from(client.port())] = number as u32;
        }
        self.routes.clients = clients.to_vec();
        self.routes.peers = peers.to_vec();
        self
    }

    /// Until a client says that it is over, or `stop` does.
    pub(super) fn run(self, stop: &AtomicBool) -> Result<Cost, Error> {
        let (mut count, routes) = (self.count, &self.routes);
        match self.sockets {
            Sockets::Single { server, relays } => single(&server, &relays, routes, &mut count, stop)?,
            Sockets::Batch { server, relays } => batch(*server, relays, routes, &mut count, stop)?,
        }
        let cpu_ever = thread_cpu();
        Ok(Cost {
            cpu: cpu_ever - count.cpu_before,
            cpu_ever,
            sent: count.sent,
            sends: count.sends,
        })
    }
}

fn address(socket: &UdpSocket) -> SocketAddr {
    socket
        .local_addr()
        .unwrap_or_else(|_| (Ipv4Addr::UNSPECIFIED, 0).into())
}

/// Level-triggered: a socket with one packet needs no second call that finds nothing.
fn single(
    server: &UdpSocket,
    relays: &[UdpSocket],
    routes: &Routes,
    count: &mut Count,
    stop: &AtomicBool,
) -> Result<(), Error> {
    let poll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&poll, server, EventData::new_u64(SERVER as u64), EventFlags::IN)?;
    for (number, relay) in relays.iter().enumerate() {
        epoll::add(&poll, relay, EventData::new_u64(number as u64), EventFlags::IN)?;
    }
    let idle = IDLE.try_into()?;
    let mut events = Vec::with_capacity(EVENTS_MAX);
    let mut buffer = vec![0; 1 << 16];
    while !stop.load(Ordering::Relaxed) {
        events.clear();
        match epoll::wait(&poll, spare_capacity(&mut events), Some(&idle)) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        for event in &events {
            let number = event.data.u64() as usize;
            match relays.get(number) {
                Some(relay) => {
                    if let Some((len, source)) = receive(relay, &mut buffer[CHANNEL_HEADER_LEN..])? {
                        routes.single_to_client(number, source, server, &mut buffer, len, count);
                    }
                }
                None => {
                    for _ in 0..TURN_MAX {
                        let Some((len, source)) = receive(server, &mut buffer)? else {
                            break;
                        };
                        if is_end(&buffer[..len]) {
                            return Ok(());
                        }
                        routes.single_to_peer(source, relays, &buffer[..len], count);
                    }
                }
            }
        }
    }
    Ok(())
}

fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Option<(usize, SocketAddr)>> {
    match socket.recv_from(buffer) {
        Ok(received) => Ok(Some(received)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}

fn batch(
    mut server: Socket,
    mut relays: Vec<Socket>,
    routes: &Routes,
    count: &mut Count,
    stop: &AtomicBool,
) -> Result<(), Error> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(EVENTS_MAX);
    poll.registry()
        .register(&mut server, Token(SERVER), Interest::READABLE)?;
    for (number, relay) in relays.iter_mut().enumerate() {
        poll.registry()
            .register(relay, Token(number), Interest::READABLE)?;
    }
    let mut inbox = Inbox::new();
    let mut out = vec![0; super::BURST_MAX * (CHANNEL_HEADER_LEN + super::PAYLOAD_MAX)];
    while !stop.load(Ordering::Relaxed) {
        match poll.poll(&mut events, Some(IDLE)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            let number = event.token().0;
            loop {
                let from = relays.get(number).unwrap_or(&server);
                for buffer in 0..from.receive(&mut inbox)? {
                    let is_over = if number == SERVER {
                        routes.batch_to_peer(&mut relays, &mut inbox, buffer, &mut out, count)
                    } else {
                        routes.batch_to_client(number, &mut server, &mut inbox, buffer, &mut out, count);
                        false
                    };
                    if is_over {
                        return Ok(());
                    }
                }
                if inbox.drained() {
                    break;
                }
            }
        }
    }
    Ok(())
}

impl Routes {
    /// The allocation of a client, where the datagram is ChannelData on its channel; the payload's length.
    fn of_client(&self, source: SocketAddr, datagram: &[u8]) -> Option<(usize, usize)> {
        let header = datagram.first_chunk::<CHANNEL_HEADER_LEN>()?;
        let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let number = self.by_port[usize::from(source.port())];
        let is_whole = header[..2] == CHANNEL && datagram.len() - CHANNEL_HEADER_LEN == len;
        (number != NOBODY && is_whole).then_some((number as usize, len))
    }

    fn is_peer(&self, number: usize, source: SocketAddr) -> bool {
        self.peers.get(number) == Some(&source)
    }

    fn single_to_peer(&self, source: SocketAddr, relays: &[UdpSocket], datagram: &[u8], count: &mut Count) {
        if let Some((number, _)) = self.of_client(source, datagram) {
            let payload = &datagram[CHANNEL_HEADER_LEN..];
            count.look_at(payload);
            let is_sent = relays[number].send_to(payload, self.peers[number]).is_ok();
            count.add(1, u64::from(!is_sent));
        }
    }

    /// The payload lies behind room for the header.
    fn single_to_client(
        &self,
        number: usize,
        source: SocketAddr,
        server: &UdpSocket,
        buffer: &mut [u8],
        len: usize,
        count: &mut Count,
    ) {
        if self.is_peer(number, source) {
            let datagram = &mut buffer[..CHANNEL_HEADER_LEN + len];
            count.look_at(&datagram[CHANNEL_HEADER_LEN..]);
            write_header(datagram, len);
            let is_sent = server.send_to(datagram, self.clients[number]).is_ok();
            count.add(1, u64::from(!is_sent));
        }
    }

    /// True once a client says that it is over.
    fn batch_to_peer(
        &self,
        relays: &mut [Socket],
        inbox: &mut Inbox,
        buffer: usize,
        out: &mut [u8],
        count: &mut Count,
    ) -> bool {
        let Some((meta, mut datagrams)) = inbox.datagrams(buffer) else {
            return false;
        };
        let (mut at, mut size, mut to) = (0, 0, None);
        for _ in 0..BURST_MAX {
            let Some(datagram) = datagrams.next_datagram() else {
                break;
            };
            if is_end(datagram) {
                return true;
            }
            if let Some((number, len)) = self.of_client(meta.source, datagram) {
                let payload = &datagram[CHANNEL_HEADER_LEN..];
                count.look_at(payload);
                out[at..at + len].copy_from_slice(payload);
                (at, size, to) = (at + len, len, Some(number));
            }
        }
        if let Some(number) = to {
            count.send(&mut relays[number], self.peers[number], &out[..at], size);
        }
        false
    }

    fn batch_to_client(
        &self,
        number: usize,
        server: &mut Socket,
        inbox: &mut Inbox,
        buffer: usize,
        out: &mut [u8],
        count: &mut Count,
    ) {
        let Some((meta, mut datagrams)) = inbox.datagrams(buffer) else {
            return;
        };
        if !self.is_peer(number, meta.source) {
            return;
        }
        let (mut at, mut size) = (0, 0);
        for _ in 0..BURST_MAX {
            let Some(payload) = datagrams.next_datagram() else {
                break;
            };
            count.look_at(payload);
            size = CHANNEL_HEADER_LEN + payload.len();
            let Some(datagram) = out.get_mut(at..at + size) else {
                break;
            };
            datagram[CHANNEL_HEADER_LEN..].copy_from_slice(payload);
            write_header(datagram, payload.len());
            at += size;
        }
        if at > 0 {
            count.send(server, self.clients[number], &out[..at], size);
        }
    }
}

fn write_header(datagram: &mut [u8], len: usize) {
    datagram[..2].copy_from_slice(&CHANNEL);
    datagram[2..CHANNEL_HEADER_LEN].copy_from_slice(&(len as u16).to_be_bytes());
}

impl Count {
    /// The clock counts from the first packet that is measured.
    fn look_at(&mut self, payload: &[u8]) {
        if !self.is_measuring && is_measured(payload) {
            self.is_measuring = true;
            self.cpu_before = thread_cpu();
            (self.sent, self.sends) = (0, 0);
        }
    }

    fn send(&mut self, socket: &mut Socket, destination: SocketAddr, contents: &[u8], size: usize) {
        let packets = contents.len().div_ceil(size) as u64;
        let sent = socket.send(&Transmit {
            destination,
            source: None,
            segment_size: (packets > 1).then_some(size),
            ecn: None,
            contents,
        });
        self.add(packets, sent.map_or_else(|refused| refused.datagrams, |()| 0));
    }

    fn add(&mut self, packets: u64, refused: u64) {
        self.sends += 1;
        self.sent += packets - refused;
    }
}
