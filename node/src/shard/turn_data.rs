//! The sockets of TCP allocations (RFC 6062): relayed ports that listen, connections with peers, and the joining of each
//! with a client's connection. Every chunk is paid for before it is passed on; what cannot be paid for yet waits, and
//! so does its sender, since a TCP connection must not lose bytes.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use metering::Direction;
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};
use turn_server::{AllocationKey, ConnectionId, DATA_CHUNK, DataConnection, Family, Spend, TurnServer};

use super::turn_stream::Streams;

/// The poll's tokens of peers' connections and of relayed ports that listen, above those of every other socket.
pub(super) const FIRST_DATA: usize = 1 << 35;
pub(super) const FIRST_TCP_RELAY: usize = 1 << 36;

/// Peers that may wait in the kernel for us to look.
const BACKLOG: i32 = 32;

/// Peers taken from one port, and chunks passed on each way, before others get their turn.
const ACCEPTS_A_ROUND: usize = 16;
const CHUNKS_A_ROUND: usize = 8;

struct TcpRelay {
    allocation: AllocationKey,
    io: TcpListener,
    bound: SocketAddr,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    /// For its client to come.
    Waiting,
    Joined(ConnectionId),
}

/// A connection with a peer.
struct DataSocket {
    io: TcpStream,
    data: DataConnection,
    stage: Stage,
    readable: bool,
    writable: bool,
    /// Read and not paid for.
    from_peer: Vec<u8>,
    from_client: Vec<u8>,
    /// Paid for and not taken by the kernel.
    to_peer: Vec<u8>,
    wait: Option<Instant>,
    peer_ended: bool,
    client_ended: bool,
    queued: bool,
}

/// What has come of sockets, for the core.
pub(super) enum Happened {
    Connected(DataConnection),
    Failed(DataConnection),
}

/// All of them on one shard.
pub(super) struct DataSockets {
    relays: HashMap<(AllocationKey, usize), usize>,
    listeners: Vec<Option<TcpRelay>>,
    accepting: VecDeque<usize>,
    slots: Vec<Option<Box<DataSocket>>>,
    by_data: HashMap<DataConnection, usize>,
    by_client: HashMap<ConnectionId, usize>,
    queue: VecDeque<usize>,
    pub(super) happened: VecDeque<Happened>,
    buffer: Box<[u8]>,
}

impl DataSockets {
    pub(super) fn new() -> Self {
        Self {
            relays: HashMap::new(),
            listeners: Vec::new(),
            accepting: VecDeque::new(),
            slots: Vec::new(),
            by_data: HashMap::new(),
            by_client: HashMap::new(),
            queue: VecDeque::new(),
            happened: VecDeque::new(),
            buffer: vec![0; DATA_CHUNK].into_boxed_slice(),
        }
    }

    /// Opens a relayed port that listens.
    pub(super) fn listen(
        &mut self,
        registry: &Registry,
        allocation: AllocationKey,
        family: Family,
        bound: SocketAddr,
    ) -> io::Result<()> {
        let raw = raw(bound)?;
        raw.listen(BACKLOG)?;
        let mut io = TcpListener::from_std(raw.into());
        let slot = free(&mut self.listeners);
        registry.register(&mut io, Token(FIRST_TCP_RELAY + slot), Interest::READABLE)?;
        self.listeners[slot] = Some(TcpRelay {
            allocation,
            io,
            bound,
        });
        self.relays.insert((allocation, family.index()), slot);
        Ok(())
    }

    /// Closes a relayed port, if it is one of these.
    pub(super) fn close_relay(&mut self, allocation: AllocationKey, family: Family) {
        if let Some(slot) = self.relays.remove(&(allocation, family.index())) {
            self.listeners[slot] = None;
        }
    }

    /// Connects from a relayed port to a peer. What comes of it is in `happened`.
    pub(super) fn connect(
        &mut self,
        registry: &Registry,
        data: DataConnection,
        allocation: AllocationKey,
        peer: SocketAddr,
    ) {
        let bound = self
            .relays
            .get(&(allocation, Family::of(peer.ip()).index()))
            .and_then(|slot| self.listeners[*slot].as_ref())
            .map(|relay| relay.bound);
        let opened = bound
            .ok_or_else(|| io::Error::from(ErrorKind::AddrNotAvailable))
            .and_then(|bound| connecting(bound, peer))
            .and_then(|io| self.insert(registry, io, data, Stage::Connecting));
        if let Err(error) = opened {
            tracing::debug!(%error, "a peer cannot be connected to");
            self.happened.push_back(Happened::Failed(data));
        }
    }

    /// A peer that waits at a relayed port, and whose port it is.
    pub(super) fn next_accepted(&mut self) -> Option<(AllocationKey, TcpStream, SocketAddr)> {
        while let Some(&slot) = self.accepting.front() {
            if let Some(relay) = self.listeners.get(slot).and_then(Option::as_ref)
                && let Ok((io, peer)) = relay.io.accept()
            {
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                return Some((relay.allocation, io, peer));
            }
            self.accepting.pop_front();
        }
        None
    }

    /// How many peers may be taken in one round.
    pub(super) const fn accepts_a_round() -> usize {
        ACCEPTS_A_ROUND
    }

    /// Keeps an accepted peer until its client comes.
    pub(super) fn keep(
        &mut self,
        registry: &Registry,
        io: TcpStream,
        data: DataConnection,
    ) -> io::Result<()> {
        self.insert(registry, io, data, Stage::Waiting)
    }

    fn insert(
        &mut self,
        registry: &Registry,
        mut io: TcpStream,
        data: DataConnection,
        stage: Stage,
    ) -> io::Result<()> {
        let slot = free(&mut self.slots);
        registry.register(
            &mut io,
            Token(FIRST_DATA + slot),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        let _ = io.set_nodelay(true);
        self.by_data.insert(data, slot);
        self.slots[slot] = Some(Box::new(DataSocket {
            io,
            data,
            stage,
            readable: true,
            writable: stage != Stage::Connecting,
            from_peer: Vec::new(),
            from_client: Vec::new(),
            to_peer: Vec::new(),
            wait: None,
            peer_ended: false,
            client_ended: false,
            queued: false,
        }));
        Ok(())
    }

    /// A client came for its connection.
    pub(super) fn join(&mut self, data: DataConnection, client: ConnectionId) {
        if let Some(&slot) = self.by_data.get(&data)
            && let Some(socket) = &mut self.slots[slot]
        {
            socket.stage = Stage::Joined(client);
            self.by_client.insert(client, slot);
            self.enqueue(slot);
        }
    }

    /// Does this connection carry data? It is then not read for messages.
    pub(super) fn carries(&self, client: ConnectionId) -> bool {
        !self.by_client.is_empty() && self.by_client.contains_key(&client)
    }

    /// True if a client's bytes can be taken: those before them are on their way.
    pub(super) fn takes(&self, client: ConnectionId) -> bool {
        let socket = self
            .by_client
            .get(&client)
            .and_then(|slot| self.slots[*slot].as_ref());
        socket.is_some_and(|socket| socket.from_client.is_empty() && socket.to_peer.is_empty())
    }

    /// Bytes that a client sent.
    pub(super) fn take_from_client(&mut self, client: ConnectionId, bytes: &[u8]) {
        if let Some(&slot) = self.by_client.get(&client)
            && let Some(socket) = &mut self.slots[slot]
        {
            socket.from_client.extend_from_slice(bytes);
            self.enqueue(slot);
        }
    }

    /// The client's connection ended: what it sent still reaches the peer.
    pub(super) fn client_ended(&mut self, client: ConnectionId) {
        if let Some(&slot) = self.by_client.get(&client)
            && let Some(socket) = &mut self.slots[slot]
        {
            socket.client_ended = true;
            self.enqueue(slot);
        }
    }

    /// The client's connection takes more again.
    pub(super) fn client_writable(&mut self, client: ConnectionId) {
        if let Some(&slot) = self.by_client.get(&client) {
            self.enqueue(slot);
        }
    }

    /// Notes what the poll said; false if the token is none of these.
    pub(super) fn note(&mut self, event: &Event) -> bool {
        let Token(token) = event.token();
        if let Some(slot) = token.checked_sub(FIRST_TCP_RELAY) {
            self.accepting.push_back(slot);
            return true;
        }
        let Some(slot) = token.checked_sub(FIRST_DATA) else {
            return false;
        };
        if let Some(socket) = self.slots.get_mut(slot).and_then(Option::as_mut) {
            socket.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
            socket.writable |= event.is_writable();
            if socket.stage == Stage::Connecting && (event.is_writable() || event.is_error()) {
                let up = matches!(socket.io.take_error(), Ok(None)) && socket.io.peer_addr().is_ok();
                let data = socket.data;
                if up {
                    socket.stage = Stage::Waiting;
                    self.happened.push_back(Happened::Connected(data));
                } else {
                    self.remove(data);
                    self.happened.push_back(Happened::Failed(data));
                }
                return true;
            }
            self.enqueue(slot);
        }
        true
    }

    /// Is there something to do without another event?
    pub(super) fn has_work(&self) -> bool {
        !self.queue.is_empty() || !self.accepting.is_empty() || !self.happened.is_empty()
    }

    /// When who waits for money or its turn is to be looked at again.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.by_client.is_empty() {
            true => None,
            false => self.slots.iter().flatten().filter_map(|socket| socket.wait).min(),
        }
    }

    /// Looks at those whose wait is over.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.by_client.is_empty() {
            return;
        }
        for slot in 0..self.slots.len() {
            if let Some(socket) = &mut self.slots[slot]
                && socket.wait.is_some_and(|wait| wait <= now)
            {
                socket.wait = None;
                self.enqueue(slot);
            }
        }
    }

    /// Closes a connection; true if it was still being opened. The client's that was joined to it is returned.
    pub(super) fn close(&mut self, data: DataConnection) -> (bool, Option<ConnectionId>) {
        match self.remove(data) {
            Some(Stage::Connecting) => (true, None),
            Some(Stage::Joined(client)) => (false, Some(client)),
            _ => (false, None),
        }
    }

    fn remove(&mut self, data: DataConnection) -> Option<Stage> {
        let socket = self.slots[self.by_data.remove(&data)?].take()?;
        if let Stage::Joined(client) = socket.stage {
            self.by_client.remove(&client);
        }
        Some(socket.stage)
    }

    fn enqueue(&mut self, slot: usize) {
        if let Some(socket) = &mut self.slots[slot]
            && !socket.queued
        {
            socket.queued = true;
            self.queue.push_back(slot);
        }
    }

    /// Passes on what can be, each connection in its turn. Those that are over are returned.
    pub(super) fn pump(
        &mut self,
        core: &mut TurnServer,
        streams: &mut Streams,
        now: Instant,
    ) -> Vec<DataConnection> {
        let mut over = Vec::new();
        for _ in 0..self.queue.len() {
            let Some(slot) = self.queue.pop_front() else { break };
            let Some(socket) = &mut self.slots[slot] else {
                continue;
            };
            socket.queued = false;
            let Stage::Joined(client) = socket.stage else {
                continue;
            };
            let flow = socket
                .pump_to_client(client, core, streams, &mut self.buffer, now)
                .and_then(|more| Ok(more | socket.pump_to_peer(core, now)?));
            if socket.from_client.is_empty() && socket.to_peer.is_empty() {
                streams.read_again(client);
            }
            match flow {
                Ok(true) => self.enqueue(slot),
                Ok(false) => {}
                Err(Over) => over.push(socket.data),
            }
        }
        over
    }
}

/// Both sides have had all there is, or one has failed.
struct Over;

impl DataSocket {
    /// True if there is more for the next round.
    fn pump_to_client(
        &mut self,
        client: ConnectionId,
        core: &mut TurnServer,
        streams: &mut Streams,
        buffer: &mut [u8],
        now: Instant,
    ) -> Result<bool, Over> {
        for _ in 0..CHUNKS_A_ROUND {
            if self.from_peer.is_empty() {
                if self.peer_ended {
                    return if streams.is_flushed(client) {
                        Err(Over)
                    } else {
                        Ok(false)
                    };
                }
                if !self.readable || self.wait.is_some() {
                    return Ok(false);
                }
                if !streams.has_room(client, DATA_CHUNK) {
                    // What was put there leaves at the end of this round, unless the client does not read.
                    return Ok(!streams.is_blocked(client));
                }
                match self.io.read(buffer) {
                    Ok(0) => self.peer_ended = true,
                    Ok(read) => self.from_peer.extend_from_slice(&buffer[..read]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => return Err(Over),
                }
                continue;
            }
            if !self.pay(core, Direction::ToClient, self.from_peer.len(), now)? {
                return Ok(false);
            }
            if streams.push_bytes(client, &self.from_peer) < self.from_peer.len() {
                return Err(Over);
            }
            self.from_peer.clear();
        }
        Ok(true)
    }

    fn pump_to_peer(&mut self, core: &mut TurnServer, now: Instant) -> Result<bool, Over> {
        loop {
            if !self.to_peer.is_empty() {
                if !self.writable {
                    return Ok(false);
                }
                match self.io.write(&self.to_peer) {
                    Ok(0) => return Err(Over),
                    Ok(gone) => drop(self.to_peer.drain(..gone)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => return Err(Over),
                }
                continue;
            }
            if self.from_client.is_empty() {
                return if self.client_ended { Err(Over) } else { Ok(false) };
            }
            let chunk = self.from_client.len().min(DATA_CHUNK);
            if !self.pay(core, Direction::FromClient, chunk, now)? {
                return Ok(false);
            }
            self.to_peer.extend(self.from_client.drain(..chunk));
        }
    }

    /// True once it is paid for.
    fn pay(
        &mut self,
        core: &mut TurnServer,
        direction: Direction,
        bytes: usize,
        now: Instant,
    ) -> Result<bool, Over> {
        match core.spend(self.data, direction, bytes as u64, now) {
            Spend::Paid(_) => Ok(true),
            Spend::Wait(until) => {
                self.wait = Some(self.wait.map_or(until, |wait| wait.min(until)));
                Ok(false)
            }
            Spend::Gone => Err(Over),
        }
    }
}

/// A place that is free.
fn free<T>(places: &mut Vec<Option<T>>) -> usize {
    match places.iter().position(Option::is_none) {
        Some(free) => free,
        None => {
            places.push(None);
            places.len() - 1
        }
    }
}

/// A socket on a relayed port: listening and connecting share it (RFC 6062 section 5.2).
fn raw(bound: SocketAddr) -> io::Result<Socket> {
    let raw = Socket::new(Domain::for_address(bound), Type::STREAM, Some(Protocol::TCP))?;
    if bound.is_ipv6() {
        raw.set_only_v6(true)?;
    }
    raw.set_reuse_address(true)?;
    raw.set_reuse_port(true)?;
    raw.set_nonblocking(true)?;
    raw.bind(&bound.into())?;
    Ok(raw)
}

fn connecting(bound: SocketAddr, peer: SocketAddr) -> io::Result<TcpStream> {
    const EINPROGRESS: i32 = 115;
    let raw = raw(bound)?;
    match raw.connect(&peer.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(raw.into()))
}
