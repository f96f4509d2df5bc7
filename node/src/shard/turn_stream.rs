//! TURN clients over TCP and TLS: listeners, and the connections that live on this shard.
//!
//! Every shard listens on the same ports (SO_REUSEPORT), and passes a connection it accepts on to the shard that its
//! source's address stands for: so what one source holds is counted in one place, and a data connection (RFC 6062)
//! nearly always arrives where its allocation is.

mod accept;
pub(super) mod connection;
mod pool;

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Interest, Registry, Token};
use turn_server::{Client, ConnectionId, Transport};

use super::mailbox::ShardHandle;
use crate::http::source_limit::source_of;
use crate::turn_keys::TurnKeys;
pub(super) use accept::{Accepted, Listener, listen};
pub(in crate::shard) use connection::Scratch;
use connection::{Connection, Ended, IDLE_MAX, Queued};
use pool::Pool;

/// The poll's tokens of listeners and of connections, above those of every other socket.
pub(super) const FIRST_STREAM_LISTENER: usize = 1 << 33;
pub(super) const FIRST_STREAM: usize = 1 << 34;

/// How often silent connections are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Limits of the node, and how far they are used.
pub(super) struct StreamLimits {
    pub(super) connections_max: usize,
    pub(super) per_source_max: u32,
    /// Connections of all shards.
    open: AtomicUsize,
    /// All shards place a source alike.
    placing: RandomState,
}

impl StreamLimits {
    pub(super) fn new(connections_max: usize, per_source_max: u32) -> Self {
        Self {
            connections_max,
            per_source_max,
            open: AtomicUsize::new(0),
            placing: RandomState::new(),
        }
    }

    /// The shard that holds what comes from this address.
    pub(super) fn shard_of(&self, address: IpAddr, shards: usize) -> usize {
        let place = self.placing.hash_one(source_of(address)) % shards.max(1) as u64;
        usize::try_from(place).unwrap_or_default()
    }
}

/// What did not come in or go out, by reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamDiscard {
    /// The node, or the source, has as many connections as it may have.
    ConnectionLimit,
    /// Neither STUN, ChannelData nor TLS.
    Garbage,
    /// A TLS handshake that failed, or none was possible.
    TlsHandshake,
    /// A connection on which nothing came for too long.
    Silent,
    /// A message for a client that does not read.
    SlowReader,
    /// Every buffer was lent.
    NoBuffers,
}

impl StreamDiscard {
    pub(super) const ALL: [StreamDiscard; 6] = [
        StreamDiscard::ConnectionLimit,
        StreamDiscard::Garbage,
        StreamDiscard::TlsHandshake,
        StreamDiscard::Silent,
        StreamDiscard::SlowReader,
        StreamDiscard::NoBuffers,
    ];

    /// Its name in the metrics.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            StreamDiscard::ConnectionLimit => "connection-limit",
            StreamDiscard::Garbage => "stream-garbage",
            StreamDiscard::TlsHandshake => "tls-handshake",
            StreamDiscard::Silent => "connection-silent",
            StreamDiscard::SlowReader => "slow-reader",
            StreamDiscard::NoBuffers => "no-buffers",
        }
    }
}

#[derive(Default)]
struct Slot {
    generation: u32,
    connection: Option<Box<Connection>>,
}

/// The listeners and connections of one shard.
pub(super) struct Streams {
    own: usize,
    shards: Vec<ShardHandle>,
    listeners: Vec<Listener>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// Connections that may have more to read; the poll does not say so again.
    readable: VecDeque<usize>,
    /// Connections whose kernel takes more again.
    writable: Vec<ConnectionId>,
    /// Connections with something to send.
    dirty: Vec<usize>,
    per_source: HashMap<IpAddr, u32>,
    pool: Pool,
    keys: Option<Arc<TurnKeys>>,
    limits: Arc<StreamLimits>,
    next_sweep: Option<Instant>,
    pub(super) discards: [u64; StreamDiscard::ALL.len()],
}

impl Streams {
    pub(super) fn new(
        own: usize,
        shards: Vec<ShardHandle>,
        listeners: Vec<Listener>,
        keys: Option<Arc<TurnKeys>>,
        limits: Arc<StreamLimits>,
    ) -> Self {
        Self {
            own,
            shards,
            listeners,
            slots: Vec::new(),
            free: Vec::new(),
            readable: VecDeque::new(),
            writable: Vec::new(),
            dirty: Vec::new(),
            per_source: HashMap::new(),
            pool: Pool::default(),
            keys,
            limits,
            next_sweep: None,
            discards: [0; StreamDiscard::ALL.len()],
        }
    }

    /// Registers the listeners.
    pub(super) fn register(&mut self, registry: &Registry) -> std::io::Result<()> {
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            registry.register(
                &mut listener.io,
                Token(FIRST_STREAM_LISTENER + index),
                Interest::READABLE,
            )?;
        }
        Ok(())
    }

    /// True if there is something to do without another event.
    pub(super) fn has_work(&self) -> bool {
        !self.readable.is_empty() || self.listeners.iter().any(|listener| listener.waiting)
    }

    /// When [`Streams::silent`] is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.next_sweep
    }

    /// Notes what the poll said; false if the token is none of ours.
    pub(super) fn note(&mut self, event: &Event) -> bool {
        let Token(token) = event.token();
        if let Some(slot) = token.checked_sub(FIRST_STREAM) {
            let Some(place) = self.slots.get_mut(slot) else {
                return true;
            };
            let id = id_of(slot, place.generation);
            let Some(connection) = place.connection.as_mut() else {
                return true;
            };
            if event.is_writable() {
                if connection.unblock() {
                    self.writable.push(id);
                }
                mark_dirty(&mut self.dirty, connection, slot);
            }
            if (event.is_readable() || event.is_read_closed() || event.is_error()) && !connection.queued {
                connection.queued = true;
                self.readable.push_back(slot);
            }
            return true;
        }
        match token.checked_sub(FIRST_STREAM_LISTENER) {
            Some(index) => {
                if let Some(listener) = self.listeners.get_mut(index) {
                    listener.waiting = true;
                }
                true
            }
            None => false,
        }
    }

    /// Takes a connection in; none if there are too many.
    pub(super) fn adopt(&mut self, accepted: Accepted, registry: &Registry, now: Instant) {
        let connection = Connection::new(accepted.io, accepted.client, accepted.local, now);
        self.adopt_connection(connection, registry, now);
    }

    /// Takes a connection in that was another shard's. Its name here.
    pub(super) fn adopt_connection(
        &mut self,
        mut connection: Connection,
        registry: &Registry,
        now: Instant,
    ) -> Option<ConnectionId> {
        let source = source_of(connection.client().ip());
        let held = self.per_source.entry(source).or_default();
        let open = self.limits.open.fetch_add(1, Ordering::Relaxed);
        if *held >= self.limits.per_source_max || open >= self.limits.connections_max {
            self.limits.open.fetch_sub(1, Ordering::Relaxed);
            if *held == 0 {
                self.per_source.remove(&source);
            }
            self.count(StreamDiscard::ConnectionLimit);
            return None;
        }
        *held += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = registry.register(connection.io(), Token(FIRST_STREAM + slot), interest) {
            tracing::warn!(%error, "a connection cannot be watched");
            self.free.push(slot);
            self.left(source);
            return None;
        }
        let place = &mut self.slots[slot];
        place.generation = place.generation.wrapping_add(1) & (u32::MAX >> 1);
        connection.queued = true;
        connection.dirty = false;
        self.readable.push_back(slot);
        mark_dirty(&mut self.dirty, &mut connection, slot);
        place.connection = Some(Box::new(connection));
        self.next_sweep.get_or_insert(now + SWEEP_INTERVAL);
        Some(id_of(slot, self.slots[slot].generation))
    }

    /// The next connection that may have something to read.
    pub(super) fn next_readable(&mut self) -> Option<ConnectionId> {
        let slot = self.readable.pop_front()?;
        let place = self.slots.get_mut(slot)?;
        let id = id_of(slot, place.generation);
        let Some(connection) = place.connection.as_mut() else {
            return self.next_readable();
        };
        connection.queued = false;
        Some(id)
    }

    /// How many connections wait to be read.
    pub(super) fn readable(&self) -> usize {
        self.readable.len()
    }

    /// Looks at a connection again in the next round.
    pub(super) fn read_again(&mut self, id: ConnectionId) {
        let slot = slot_of(id);
        if let Some(connection) = self.get_mut(id).filter(|connection| !connection.queued) {
            connection.queued = true;
            self.readable.push_back(slot);
        }
    }

    /// Who is at the other end, as the core knows it.
    pub(super) fn client(&self, id: ConnectionId) -> Option<Client> {
        let connection = self.get(id)?;
        let transport = if connection.is_tls() {
            Transport::Tls
        } else {
            Transport::Tcp
        };
        Some(Client::connected(
            transport,
            connection.client(),
            connection.local(),
            id,
        ))
    }

    /// What has come on a connection: see [`Connection::read`].
    pub(super) fn read(&mut self, id: ConnectionId, scratch: &mut Scratch) -> Result<(usize, bool), Ended> {
        let slot = slot_of(id);
        let Self {
            slots,
            pool,
            keys,
            dirty,
            ..
        } = self;
        let Some(connection) = find(slots, id) else {
            return Ok((0, false));
        };
        let read = connection.read(scratch, pool, keys.as_ref().map(|keys| keys.tls()));
        if connection.dirty {
            dirty.push(slot);
        }
        read
    }

    /// See [`Connection::message_len`]. A whole message shows that somebody is there.
    pub(super) fn message_len(
        &mut self,
        id: ConnectionId,
        bytes: &[u8],
        now: Instant,
    ) -> Result<Option<usize>, Ended> {
        let Some(connection) = self.get_mut(id) else {
            return Ok(None);
        };
        let len = connection.message_len(bytes)?;
        if len.is_some() {
            connection.deadline = now + IDLE_MAX;
        }
        Ok(len)
    }

    /// Keeps the start of a message.
    pub(super) fn keep(&mut self, id: ConnectionId, rest: &[u8]) -> Result<(), Ended> {
        match find(&mut self.slots, id) {
            Some(connection) => connection.keep(rest, &mut self.pool),
            None => Ok(()),
        }
    }

    /// A client with an allocation may send and be sent long messages.
    pub(super) fn set_known(&mut self, id: ConnectionId) {
        if let Some(connection) = self.get_mut(id) {
            connection.known = true;
        }
    }

    /// Sends a message with the next flush. False if it is dropped.
    pub(super) fn push(&mut self, id: ConnectionId, message: &[u8], answer: bool) -> bool {
        let Self {
            slots, pool, dirty, ..
        } = self;
        let Some(connection) = find(slots, id) else {
            return false;
        };
        let queued = connection.push(message, answer, pool);
        mark_dirty(dirty, connection, slot_of(id));
        if queued == Queued::Dropped {
            self.count(StreamDiscard::SlowReader);
        }
        queued == Queued::Yes
    }

    /// Sends bytes of a data connection as they are; how many there was room for.
    pub(super) fn push_bytes(&mut self, id: ConnectionId, bytes: &[u8]) -> usize {
        let Self {
            slots, pool, dirty, ..
        } = self;
        let Some(connection) = find(slots, id) else {
            return 0;
        };
        let taken = connection.push_bytes(bytes, pool);
        mark_dirty(dirty, connection, slot_of(id));
        taken
    }

    /// Is there room for so many bytes?
    pub(super) fn has_room(&self, id: ConnectionId, bytes: usize) -> bool {
        self.get(id).is_some_and(|connection| connection.room() >= bytes)
    }

    /// The kernel takes no more for now.
    pub(super) fn is_blocked(&self, id: ConnectionId) -> bool {
        self.get(id).is_none_or(Connection::is_blocked)
    }

    /// A connection whose kernel takes more again.
    pub(super) fn next_writable(&mut self) -> Option<ConnectionId> {
        self.writable.pop()
    }

    /// Nothing of it waits to be sent; true as well for one that is gone.
    pub(super) fn is_flushed(&self, id: ConnectionId) -> bool {
        self.get(id).is_none_or(Connection::is_flushed)
    }

    /// Sends what the kernel takes; the next connection that broke meanwhile.
    pub(super) fn flush(&mut self) -> Option<(ConnectionId, Ended)> {
        while let Some(slot) = self.dirty.pop() {
            let place = &mut self.slots[slot];
            let Some(connection) = place.connection.as_mut() else {
                continue;
            };
            connection.dirty = false;
            if let Err(ended) = connection.flush(&mut self.pool) {
                return Some((id_of(slot, place.generation), ended));
            }
        }
        None
    }

    /// Closes a connection.
    pub(super) fn close(&mut self, id: ConnectionId, ended: Ended, registry: &Registry) {
        let reason = match ended {
            Ended::ByClient | Ended::Broken => None,
            Ended::Garbage => Some(StreamDiscard::Garbage),
            Ended::Tls => Some(StreamDiscard::TlsHandshake),
            Ended::Silent => Some(StreamDiscard::Silent),
            Ended::NoBuffers => Some(StreamDiscard::NoBuffers),
        };
        if let Some(connection) = self.take(id, registry) {
            reason.into_iter().for_each(|reason| self.count(reason));
            drop(connection.close(&mut self.pool));
        }
    }

    /// Takes a connection out, for another shard.
    pub(super) fn take(&mut self, id: ConnectionId, registry: &Registry) -> Option<Connection> {
        let slot = slot_of(id);
        find(&mut self.slots, id)?;
        let mut connection = self.slots[slot].connection.take()?;
        // Closing the descriptor takes it out of the poll anyway.
        let _ = registry.deregister(connection.io());
        self.free.push(slot);
        self.left(source_of(connection.client().ip()));
        Some(*connection)
    }

    /// The connections on which nothing has come for too long. `is_used` says of one whether it has an allocation or
    /// carries data, and may be silent for as long as it likes.
    pub(super) fn silent(&mut self, now: Instant, is_used: impl Fn(&Client) -> bool) -> Vec<ConnectionId> {
        if self.next_sweep.is_none_or(|due| now < due) {
            return Vec::new();
        }
        let mut silent = Vec::new();
        let mut any = false;
        for slot in 0..self.slots.len() {
            let id = id_of(slot, self.slots[slot].generation);
            let Some(connection) = &self.slots[slot].connection else {
                continue;
            };
            any = true;
            if now < connection.deadline {
                continue;
            }
            if self.client(id).is_some_and(|client| is_used(&client)) {
                self.slots[slot]
                    .connection
                    .as_mut()
                    .expect("looked at above")
                    .deadline = now + IDLE_MAX;
            } else {
                silent.push(id);
            }
        }
        self.next_sweep = any.then(|| now + SWEEP_INTERVAL);
        silent
    }

    fn left(&mut self, source: IpAddr) {
        self.limits.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(held) = self.per_source.get_mut(&source) {
            *held -= 1;
            if *held == 0 {
                self.per_source.remove(&source);
            }
        }
    }

    fn get(&self, id: ConnectionId) -> Option<&Connection> {
        let place = self.slots.get(slot_of(id))?;
        place
            .connection
            .as_deref()
            .filter(|_| id_of(slot_of(id), place.generation) == id)
    }

    fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        find(&mut self.slots, id)
    }

    pub(super) fn count(&mut self, reason: StreamDiscard) {
        self.discards[reason as usize] += 1;
    }
}

fn find(slots: &mut [Slot], id: ConnectionId) -> Option<&mut Connection> {
    let place = slots.get_mut(slot_of(id))?;
    let same = id_of(slot_of(id), place.generation) == id;
    place.connection.as_deref_mut().filter(|_| same)
}

fn mark_dirty(dirty: &mut Vec<usize>, connection: &mut Connection, slot: usize) {
    if !connection.dirty {
        connection.dirty = true;
        dirty.push(slot);
    }
}

/// Names of streams have the highest bit clear; those of DTLS associations have it set.
fn id_of(slot: usize, generation: u32) -> ConnectionId {
    ConnectionId::new(u64::from(generation) << 32 | slot as u64)
}

fn slot_of(id: ConnectionId) -> usize {
    (id.get() & 0xFFFF_FFFF) as usize
}
