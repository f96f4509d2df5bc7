//! Connect (RFC 6062 section 5.2), and connections that peers open (section 5.3): both end in a CONNECTION-ID that the
//! client fetches with ConnectionBind.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use rand::Rng;
use wire::stun::{Builder, Class, Message, Method, TransactionId};

use crate::allocation::{AllocationKey, Family, Protocol};
use crate::answer::Head;
use crate::client::Client;
use crate::credential::Credential;
use crate::data_connection::{CONNECT_TIMEOUT, Data, DataConnection, Stage};
use crate::discard::Discard;
use crate::egress::Transmit;
use crate::event::Event;
use crate::server::TurnServer;

const FAILURE: (u16, &str) = (447, "Connection Timeout or Failure");

impl TurnServer {
    /// `None` without an error: the peer is asked first.
    pub(crate) fn connect(
        &mut self,
        now: Instant,
        client: Client,
        message: &Message<'_>,
        credential: &Arc<Credential>,
    ) -> Option<usize> {
        let head = Head::of(message);
        match self.open_data(now, &client, message, credential) {
            Ok(()) => None,
            Err(error) => head.error(&mut self.reply, credential, error),
        }
    }

    fn open_data(
        &mut self,
        now: Instant,
        client: &Client,
        message: &Message<'_>,
        credential: &Arc<Credential>,
    ) -> Result<(), (u16, &'static str)> {
        let (key, allocation) = self.own_allocation(client, credential)?;
        if allocation.protocol != Protocol::Tcp {
            return Err((437, "Allocation Mismatch: not a TCP allocation"));
        }
        let peer = message.xor_peer_address().ok_or((400, "Bad Request"))?;
        allocation.may_spend()?;
        if !allocation.has_family(Family::of(peer.ip())) {
            return Err((443, "Peer Address Family Mismatch"));
        }
        self.config
            .policy
            .admit(peer, Protocol::Tcp, &self.census)
            .map_err(|_| (403, "Forbidden"))?;
        if self.data.of(key).any(|(_, data)| data.peer == peer) {
            return Err((446, "Connection Already Exists"));
        }
        if self.data.of(key).count() >= self.config.data_connections_per_allocation_max {
            return Err((508, "Too many connections"));
        }
        let data = Data {
            allocation: key,
            peer,
            stage: Stage::Connecting(Head::of(message)),
            deadline: now + CONNECT_TIMEOUT,
        };
        let data = self.data.insert(data, &mut self.rng);
        self.events.push_back(Event::Connect {
            data,
            allocation: key,
            peer,
        });
        Ok(())
    }

    /// The peer answered. The answer to the client, if it is still there.
    pub fn connected(&mut self, data: DataConnection, now: Instant) -> Option<Transmit<'_>> {
        let Some(found) = self.data.get_mut(data) else {
            self.events.push_back(Event::CloseData { data });
            return None;
        };
        let Stage::Connecting(head) = found.stage else {
            return None;
        };
        if now >= found.deadline {
            self.events.push_back(Event::CloseData { data });
            return self.connect_failed(data);
        }
        let allocation = found.allocation;
        self.data.wait(data, now + CONNECT_TIMEOUT);
        let allocation = self.allocations.get_mut(allocation)?;
        let (client, key) = (allocation.client, &allocation.credential);
        let len = head.success(&mut self.reply, key, |answer| answer.connection_id(data.get()))?;
        Some(self.answer(&client, len))
    }

    /// The peer did not answer, or refused. The answer to the client, if it is still there.
    pub fn connect_failed(&mut self, data: DataConnection) -> Option<Transmit<'_>> {
        let found = self.data.remove(data)?;
        let Stage::Connecting(head) = found.stage else {
            return None;
        };
        let allocation = self.allocations.get_mut(found.allocation)?;
        let (client, key) = (allocation.client, &allocation.credential);
        let len = head.error(&mut self.reply, key, FAILURE)?;
        Some(self.answer(&client, len))
    }

    /// A peer opened a connection to a relayed port. Its number and what the client is told, or nothing: then close it
    /// at once. What the peer sends stays unread until [`Event::Join`].
    pub fn accepted(
        &mut self,
        allocation: AllocationKey,
        peer: SocketAddr,
        now: Instant,
    ) -> Option<(DataConnection, Transmit<'_>)> {
        match self.accept(allocation, peer, now) {
            Ok((data, client, len)) => Some((data, self.answer(&client, len))),
            Err(discard) => {
                self.counters.discard(discard);
                None
            }
        }
    }

    fn accept(
        &mut self,
        key: AllocationKey,
        peer: SocketAddr,
        now: Instant,
    ) -> Result<(DataConnection, Client, usize), Discard> {
        let allocation = self
            .allocations
            .get_mut(key)
            .filter(|allocation| allocation.is_open() && allocation.protocol == Protocol::Tcp)
            .ok_or(Discard::NoAllocation)?;
        if !allocation.permissions.allows(peer.ip(), now) {
            return Err(Discard::NoPermission);
        }
        self.config
            .policy
            .admit_permitted(peer, Protocol::Tcp, &self.census)
            .map_err(|_| Discard::PeerDenied)?;
        allocation.may_spend().map_err(|_| Discard::Held)?;
        let client = allocation.client;
        if self.data.of(key).count() >= self.config.data_connections_per_allocation_max {
            return Err(Discard::ConnectionLimit);
        }
        let data = Data {
            allocation: key,
            peer,
            stage: Stage::Waiting,
            deadline: now + CONNECT_TIMEOUT,
        };
        let data = self.data.insert(data, &mut self.rng);
        let mut id = [0; 12];
        self.rng.fill_bytes(&mut id);
        let id = TransactionId(id);
        let len = Builder::new(&mut self.reply, Class::Indication, Method::CONNECTION_ATTEMPT, id)
            .xor_peer_address(peer)
            .connection_id(data.get())
            .finish()
            .map_err(|_| Discard::Oversize)?;
        Ok((data, client, len))
    }

    /// A data connection was closed by either of its sides.
    pub fn data_closed(&mut self, data: DataConnection) {
        self.data.remove(data);
    }
}
