//! Data connections (RFC 6062 sections 5.2 to 5.4): of a TCP allocation, one TCP connection to each peer, joined to one
//! of the client's own. The core says who may be connected with whom, and pays for every byte; the bytes themselves flow
//! outside of it, from socket to socket.
//!
//! A TCP connection must not lose bytes, so that where a datagram would be dropped these wait (see [`Spend`]).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;

use crate::allocation::AllocationKey;
use crate::answer::Head;
use crate::client::ConnectionId;
use crate::egress::Charged;

/// How long a peer may take to answer, and a client to fetch its connection (RFC 6062 sections 5.2 and 5.3: at least and
/// exactly 30 s).
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes that a shard should charge and pass on at a time: no more than a throttled session's burst, and enough for the
/// system calls not to matter.
pub const DATA_CHUNK: usize = 16 * 1024;

/// How soon to ask again where it is not known when money comes.
pub(crate) const ASK_AGAIN: Duration = Duration::from_millis(100);

/// The CONNECTION-ID of a peer data connection. Its first byte is the shard's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DataConnection(u32);

impl DataConnection {
    /// As in CONNECTION-ID.
    pub const fn new(id: u32) -> Self {
        Self(id)
    }

    /// As in CONNECTION-ID.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The shard that it belongs to.
    pub(crate) const fn shard(self) -> u8 {
        (self.0 >> 24) as u8
    }
}

/// May bytes of a data connection be passed on?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spend {
    /// They are paid for: pass them on.
    Paid(Charged),
    /// Keep them, read no more from that side, and ask again at this time.
    Wait(Instant),
    /// The connection is gone: so are they.
    Gone,
}

/// How far a data connection has come.
pub(crate) enum Stage {
    /// To be answered once the peer answers.
    Connecting(Head),
    /// A client that has not come for it yet.
    Waiting,
    /// Joined.
    Joined(ConnectionId),
}

pub(crate) struct Data {
    pub(crate) allocation: AllocationKey,
    pub(crate) peer: SocketAddr,
    pub(crate) stage: Stage,
    /// Of the stages before it is joined.
    pub(crate) deadline: Instant,
}

/// All data connections of one shard.
pub(crate) struct DataConnections {
    shard: u8,
    by_id: HashMap<DataConnection, Data>,
    by_allocation: HashMap<AllocationKey, Vec<DataConnection>>,
    joined: HashMap<ConnectionId, DataConnection>,
    /// No deadline is before this.
    next_deadline: Option<Instant>,
}

impl DataConnections {
    pub(crate) fn new(shard: u8) -> Self {
        Self {
            shard,
            by_id: HashMap::new(),
            by_allocation: HashMap::new(),
            joined: HashMap::new(),
            next_deadline: None,
        }
    }

    /// Draws a number that is free and cannot be guessed.
    pub(crate) fn insert(&mut self, data: Data, rng: &mut StdRng) -> DataConnection {
        loop {
            let id = DataConnection(u32::from(self.shard) << 24 | rng.next_u32() >> 8);
            // 0 is what a client without a connection would say.
            if id.0 != 0 && !self.by_id.contains_key(&id) {
                self.expect(data.deadline);
                self.by_allocation.entry(data.allocation).or_default().push(id);
                self.by_id.insert(id, data);
                return id;
            }
        }
    }

    pub(crate) fn get_mut(&mut self, id: DataConnection) -> Option<&mut Data> {
        self.by_id.get_mut(&id)
    }

    /// The peer answered: from now on it waits for the client, until then.
    pub(crate) fn wait(&mut self, id: DataConnection, deadline: Instant) {
        if let Some(data) = self.by_id.get_mut(&id) {
            (data.stage, data.deadline) = (Stage::Waiting, deadline);
            self.expect(deadline);
        }
    }

    /// The client came for it.
    pub(crate) fn join(&mut self, id: DataConnection, client: ConnectionId) {
        if let Some(data) = self.by_id.get_mut(&id) {
            data.stage = Stage::Joined(client);
            self.joined.insert(client, id);
        }
    }

    pub(crate) fn remove(&mut self, id: DataConnection) -> Option<Data> {
        let data = self.by_id.remove(&id)?;
        if let Stage::Joined(client) = data.stage {
            self.joined.remove(&client);
        }
        if let Some(of_allocation) = self.by_allocation.get_mut(&data.allocation) {
            of_allocation.retain(|other| *other != id);
            if of_allocation.is_empty() {
                self.by_allocation.remove(&data.allocation);
            }
        }
        Some(data)
    }

    pub(crate) fn of(&self, allocation: AllocationKey) -> impl Iterator<Item = (DataConnection, &Data)> {
        let ids = self.by_allocation.get(&allocation).into_iter().flatten();
        ids.filter_map(|id| Some((*id, self.by_id.get(id)?)))
    }

    pub(crate) fn of_client(&self, connection: ConnectionId) -> Option<DataConnection> {
        self.joined.get(&connection).copied()
    }

    /// Those whose time is up, each once; true for those that were still being opened, which the shard reports back.
    pub(crate) fn overdue(&mut self, now: Instant) -> Vec<(DataConnection, bool)> {
        let mut overdue = Vec::new();
        if self.next_deadline.is_none_or(|next| now < next) {
            return overdue;
        }
        self.next_deadline = None;
        for (id, data) in &mut self.by_id {
            let opening = match data.stage {
                Stage::Connecting(_) => true,
                Stage::Waiting => false,
                Stage::Joined(_) => continue,
            };
            if now >= data.deadline {
                data.deadline = now + CONNECT_TIMEOUT;
                overdue.push((*id, opening));
            }
            let next = self.next_deadline.get_or_insert(data.deadline);
            *next = data.deadline.min(*next);
        }
        overdue
    }

    fn expect(&mut self, deadline: Instant) {
        let next = self.next_deadline.get_or_insert(deadline);
        *next = deadline.min(*next);
    }
}
