//! Allocations (RFC 8656 section 6): a client's 5-tuple, its relayed address, and everything that hangs on them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::RandomState;
use metering::{Allowance, SessionId, Step};
use rand::Rng;
use rand::rngs::StdRng;

use crate::answer::Head;
use crate::bucket::Bucket;
use crate::channel::Channels;
use crate::client::Client;
use crate::credential::Credential;
use crate::mobility::Mobility;
use crate::permission::Permissions;
use crate::reservation::Token;

/// Names an allocation of one shard, and never another one later: a place and how often it has been used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AllocationKey(u64);

impl AllocationKey {
    /// The key that [`AllocationKey::get`] told.
    pub const fn new(key: u64) -> Self {
        Self(key)
    }

    /// As a number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Its place: below the number of allocations that were ever live together.
    pub const fn slot(self) -> usize {
        (self.0 & 0xFFFF_FFFF) as usize
    }

    fn of(slot: usize, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | slot as u64)
    }
}

/// The family of a relayed address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    pub(crate) const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// Its place where there is one of each.
    pub const fn index(self) -> usize {
        match self {
            Family::V4 => 0,
            Family::V6 => 1,
        }
    }

    /// As in REQUESTED-ADDRESS-FAMILY.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Family::V4 => 1,
            Family::V6 => 2,
        }
    }

    /// As in REQUESTED-ADDRESS-FAMILY (RFC 8656 section 18.6).
    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Family::V4),
            2 => Some(Family::V6),
            _ => None,
        }
    }

    /// Of this address.
    pub const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }
}

/// What is between a relayed port and its peers (RFC 8656 and RFC 6062).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// REQUESTED-TRANSPORT 17.
    Udp,
    /// REQUESTED-TRANSPORT 6.
    Tcp,
}

impl Protocol {
    /// As in REQUESTED-TRANSPORT.
    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Protocol::Tcp),
            17 => Some(Protocol::Udp),
            _ => None,
        }
    }
}

/// How far an allocation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Money was asked for.
    Admitting,
    /// Its ports are being opened, one after the other.
    Opening,
    /// It relays.
    Open,
}

/// A relayed port of an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// Nobody asked for one of this family.
    None,
    /// To be opened in its turn.
    Wanted,
    /// Likewise, and it is this port that a token stood for.
    Reserved(u16),
    /// It was asked for so many times.
    Opening { port: u16, attempts: usize },
    /// It is open under this address.
    Open(SocketAddr),
    /// It was asked for in addition and there is none: this error.
    Failed(u16),
}

impl Port {
    /// The port that it holds in the census.
    fn held(self) -> Option<u16> {
        match self {
            Port::None | Port::Wanted | Port::Failed(_) => None,
            Port::Reserved(port) => Some(port),
            Port::Opening { port, .. } => Some(port),
            Port::Open(relayed) => Some(relayed.port()),
        }
    }
}

/// One allocation.
pub(crate) struct Allocation {
    pub(crate) client: Client,
    pub(crate) credential: Arc<Credential>,
    pub(crate) stage: Stage,
    /// Of the Allocate that made it, so that the same request is answered the same.
    pub(crate) head: Head,
    pub(crate) lifetime: Duration,
    pub(crate) protocol: Protocol,
    /// By family.
    pub(crate) ports: [Port; 2],
    /// EVEN-PORT, and whether the next port is to be reserved.
    pub(crate) even_port: Option<bool>,
    /// What the reserved port is told as.
    pub(crate) reservation: Option<Token>,
    /// There is a ticket for it.
    pub(crate) mobility: Option<Mobility>,
    pub(crate) expires: Instant,
    /// When time is next to be looked at: for its end, or for a report ([`Allocations::plan`]).
    pub(crate) look: Option<Instant>,
    pub(crate) allowance: Option<Allowance>,
    pub(crate) permissions: Permissions,
    pub(crate) channels: Channels,
    pub(crate) step: Step,
    /// Since when its session is held.
    pub(crate) held: Option<Instant>,
    /// The account has a call in our SFU, so that traffic to it is not throttled here too.
    pub(crate) has_call: bool,
    pub(crate) to_client: Bucket,
    pub(crate) to_peer: Bucket,
}

impl Allocation {
    pub(crate) fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    pub(crate) fn port_mut(&mut self, family: Family) -> &mut Port {
        &mut self.ports[family.index()]
    }

    /// The relayed address of this family.
    pub(crate) fn relayed(&self, family: Family) -> Option<SocketAddr> {
        match self.ports[family.index()] {
            Port::Open(relayed) => Some(relayed),
            _ => None,
        }
    }

    /// Can it exchange data with peers of this family?
    pub(crate) fn has_family(&self, family: Family) -> bool {
        self.relayed(family).is_some()
    }

    /// The ports that it holds in the census.
    pub(crate) fn held_ports(&self) -> impl Iterator<Item = (Family, u16)> + use<> {
        let ports = self.ports;
        Family::ALL
            .into_iter()
            .filter_map(move |family| Some((family, ports[family.index()].held()?)))
    }
}

/// All allocations of one shard.
///
/// Clients choose their addresses, so the hash of a 5-tuple is keyed: nobody outside can look for addresses that collide.
pub(crate) struct Allocations {
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// One each, and two of those that are moving.
    by_client: HashMap<Client, AllocationKey, RandomState>,
    by_session: HashMap<SessionId, Vec<AllocationKey>, RandomState>,
    /// When each is to be looked at, the earliest first. An entry is out of date where the allocation says otherwise.
    looks: BinaryHeap<Reverse<(Instant, AllocationKey)>>,
    live: usize,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    allocation: Option<Box<Allocation>>,
}

impl Allocations {
    /// None yet.
    pub(crate) fn new(rng: &mut StdRng) -> Self {
        let mut seed = || rng.next_u64();
        let hasher = RandomState::with_seeds(seed(), seed(), seed(), seed());
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_client: HashMap::with_hasher(hasher.clone()),
            by_session: HashMap::with_hasher(hasher),
            looks: BinaryHeap::new(),
            live: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.live
    }

    pub(crate) fn insert(&mut self, allocation: Allocation) -> AllocationKey {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        let place = &mut self.slots[slot];
        place.generation = place.generation.wrapping_add(1);
        let key = AllocationKey::of(slot, place.generation);
        self.by_client.insert(allocation.client, key);
        let of_session = self.by_session.entry(allocation.credential.session());
        // Nearly always the only one.
        of_session.or_insert_with(|| Vec::with_capacity(1)).push(key);
        self.live += 1;
        place.allocation = Some(Box::new(allocation));
        key
    }

    pub(crate) fn remove(&mut self, key: AllocationKey) -> Option<Box<Allocation>> {
        let slot = self.slots.get_mut(key.slot())?;
        if AllocationKey::of(key.slot(), slot.generation) != key {
            return None;
        }
        let allocation = slot.allocation.take()?;
        self.by_client.remove(&allocation.client);
        if let Some(next) = allocation.mobility.and_then(|mobility| mobility.next) {
            self.by_client.remove(&next);
        }
        let session = allocation.credential.session();
        if let Some(of_session) = self.by_session.get_mut(&session) {
            of_session.retain(|other| *other != key);
            if of_session.is_empty() {
                self.by_session.remove(&session);
            }
        }
        self.live -= 1;
        self.free.push(key.slot());
        Some(allocation)
    }

    pub(crate) fn get_mut(&mut self, key: AllocationKey) -> Option<&mut Allocation> {
        let slot = self.slots.get_mut(key.slot())?;
        if AllocationKey::of(key.slot(), slot.generation) != key {
            return None;
        }
        slot.allocation.as_deref_mut()
    }

    /// A second 5-tuple that leads to an allocation.
    pub(crate) fn also(&mut self, client: Client, key: AllocationKey) {
        self.by_client.insert(client, key);
    }

    /// One of two.
    pub(crate) fn forget(&mut self, client: &Client) {
        self.by_client.remove(client);
    }

    pub(crate) fn key_of(&self, client: &Client) -> Option<AllocationKey> {
        self.by_client.get(client).copied()
    }

    pub(crate) fn of_client(&mut self, client: &Client) -> Option<(AllocationKey, &mut Allocation)> {
        let key = self.key_of(client)?;
        Some((key, self.get_mut(key)?))
    }

    /// Those of a session.
    pub(crate) fn of_session(&self, session: SessionId) -> Vec<AllocationKey> {
        self.by_session.get(&session).cloned().unwrap_or_default()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (AllocationKey, &mut Allocation)> {
        self.slots.iter_mut().enumerate().filter_map(|(index, slot)| {
            let key = AllocationKey::of(index, slot.generation);
            slot.allocation.as_deref_mut().map(|allocation| (key, allocation))
        })
    }

    /// This allocation is to be looked at then, or earlier if that was planned already.
    pub(crate) fn plan(&mut self, key: AllocationKey, at: Instant) {
        let Some(allocation) = self.get_mut(key) else {
            return;
        };
        if allocation.look.is_none_or(|planned| at < planned) {
            allocation.look = Some(at);
            self.looks.push(Reverse((at, key)));
        }
    }

    /// One that is to be looked at by `now`, each once. What is to come is planned again.
    pub(crate) fn next_look(&mut self, now: Instant) -> Option<AllocationKey> {
        while let Some(&Reverse((at, key))) = self.looks.peek() {
            if at > now {
                return None;
            }
            self.looks.pop();
            if let Some(allocation) = self.get_mut(key).filter(|a| a.look == Some(at)) {
                allocation.look = None;
                return Some(key);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
