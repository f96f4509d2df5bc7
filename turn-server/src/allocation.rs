//! Allocations (RFC 8656 section 6): a client's 5-tuple, its relayed address, and everything that hangs on them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use metering::{Allowance, Step};
use wire::stun::TransactionId;

use crate::bucket::Bucket;
use crate::channel::Channels;
use crate::credential::Credential;
use crate::permission::Permissions;

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

/// A client and the address of ours that it hit. The transport is UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FiveTuple {
    pub(crate) client: SocketAddr,
    pub(crate) local: Option<IpAddr>,
}

/// How far an allocation has come.
pub(crate) enum Stage {
    /// Money was asked for.
    Admitting,
    /// A port is being opened.
    Opening { port: u16, attempts: usize },
    /// It relays.
    Open { relayed: SocketAddr },
}

/// One allocation.
pub(crate) struct Allocation {
    pub(crate) five_tuple: FiveTuple,
    pub(crate) credential: Arc<Credential>,
    pub(crate) stage: Stage,
    /// Of the Allocate that made it, so that the same request is answered the same.
    pub(crate) transaction: TransactionId,
    pub(crate) lifetime: Duration,
    pub(crate) family: Family,
    pub(crate) even_port: bool,
    /// IPv6 was asked for in addition, which is not given.
    pub(crate) additional_family: bool,
    pub(crate) fingerprint: bool,
    pub(crate) expires: Instant,
    pub(crate) allowance: Option<Allowance>,
    pub(crate) permissions: Permissions,
    pub(crate) channels: Channels,
    pub(crate) step: Step,
    /// The account has a call in our SFU, so that traffic to it is not throttled here too.
    pub(crate) has_call: bool,
    pub(crate) to_client: Bucket,
    pub(crate) to_peer: Bucket,
}

impl Allocation {
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open { .. })
    }

    /// The port that it holds in the census.
    pub(crate) fn port(&self) -> Option<u16> {
        match self.stage {
            Stage::Admitting => None,
            Stage::Opening { port, .. } => Some(port),
            Stage::Open { relayed } => Some(relayed.port()),
        }
    }
}

/// All allocations of one shard.
#[derive(Default)]
pub(crate) struct Allocations {
    slots: Vec<Slot>,
    free: Vec<usize>,
    by_five_tuple: HashMap<FiveTuple, AllocationKey>,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    allocation: Option<Box<Allocation>>,
}

impl Allocations {
    pub(crate) fn len(&self) -> usize {
        self.by_five_tuple.len()
    }

    pub(crate) fn insert(&mut self, allocation: Allocation) -> AllocationKey {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        let place = &mut self.slots[slot];
        place.generation = place.generation.wrapping_add(1);
        let key = AllocationKey::of(slot, place.generation);
        self.by_five_tuple.insert(allocation.five_tuple, key);
        place.allocation = Some(Box::new(allocation));
        key
    }

    pub(crate) fn remove(&mut self, key: AllocationKey) -> Option<Box<Allocation>> {
        let slot = self.slots.get_mut(key.slot())?;
        if AllocationKey::of(key.slot(), slot.generation) != key {
            return None;
        }
        let allocation = slot.allocation.take()?;
        self.by_five_tuple.remove(&allocation.five_tuple);
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

    pub(crate) fn key_of(&self, five_tuple: &FiveTuple) -> Option<AllocationKey> {
        self.by_five_tuple.get(five_tuple).copied()
    }

    pub(crate) fn of_client(&mut self, five_tuple: &FiveTuple) -> Option<(AllocationKey, &mut Allocation)> {
        let key = self.key_of(five_tuple)?;
        Some((key, self.get_mut(key)?))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (AllocationKey, &mut Allocation)> {
        self.slots.iter_mut().enumerate().filter_map(|(index, slot)| {
            let key = AllocationKey::of(index, slot.generation);
            slot.allocation.as_deref_mut().map(|allocation| (key, allocation))
        })
    }
}
