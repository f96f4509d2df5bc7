//! The way between TURN and the SFU of this node that does not leave the process.
//!
//! A TURN client whose peer is our own SFU would cost two more trips through the kernel for every packet: out of its
//! relayed port and into the SFU's, and back. Here its datagrams are handed over in memory instead. The SFU sees them
//! come from the relayed address, which is what the client's candidate says and what the SFU sends to; what it sends to
//! a relayed address of ours comes back the same way. Permissions, the address policy and both bills are the cores'
//! business and are as they would be on the wire.
//!
//! Who is no such client pays one comparison of an address for each send of the SFU ([`Directory::way`]). A session and
//! an allocation on different shards meet through the shards' bounded queues ([`super::handover`]).
//!
//! No packet can go round: only what the TURN core calls our own SFU goes this way, and a relayed port is never that.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use turn_server::{AllocationKey, Charged, Family, Transmit};

use super::turn_port::RelayAddresses;

/// What may wait for the SFU of the same shard, until the batch that is being taken is done: more than one receive call
/// brings (four buffers of 64 KiB), and what a round of streams brings besides.
const WAITING_BYTES_MAX: usize = 1 << 20;
const WAITING_MAX: usize = 4_096;

/// Streams are not read on once so much waits.
const WAITING_BYTES_HIGH: usize = WAITING_BYTES_MAX / 2;

const PORTS: usize = 1 << 16;

/// Where what the SFU sends to an address goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Out of the socket.
    Kernel,
    /// To a relayed port, which this shard holds.
    Shard(usize),
    /// Nowhere: it was a relayed port of ours, known under an address that is not this machine's.
    Gone,
}

/// Which shard holds each relayed UDP port. Shared by all shards: written when a port is opened or closed, read without
/// a lock.
pub(super) struct Directory {
    /// By port, the shard's number and one; 0 where there is none.
    shards: Box<[AtomicU16]>,
    /// The addresses that clients are told, by family.
    told: [Option<IpAddr>; 2],
    /// Addresses that lead to this machine and are not its own: a NAT's in front of it.
    outside: Vec<IpAddr>,
}

impl Directory {
    /// No ports yet. `local` are this machine's addresses.
    pub(super) fn new(relays: &RelayAddresses, advertised: &[IpAddr], local: &[IpAddr]) -> Directory {
        let outside = |ip: &&IpAddr| !ip.is_loopback() && !local.contains(ip);
        Directory {
            shards: (0..PORTS).map(|_| AtomicU16::new(0)).collect(),
            told: [relays.told(Family::V4), relays.told(Family::V6)],
            outside: advertised.iter().filter(outside).copied().collect(),
        }
    }

    fn enter(&self, port: u16, shard: usize) {
        let number = u16::try_from(shard + 1).unwrap_or_default();
        self.shards[usize::from(port)].store(number, Ordering::Release);
    }

    fn leave(&self, port: u16) {
        self.shards[usize::from(port)].store(0, Ordering::Release);
    }

    /// Where a send of the SFU from `source` to `destination` goes.
    pub(super) fn way(&self, destination: SocketAddr, source: Option<IpAddr>) -> Way {
        let told = self.told[Family::of(destination.ip()).index()];
        if told != Some(destination.ip()) {
            return Way::Kernel;
        }
        match self.shards[usize::from(destination.port())].load(Ordering::Acquire) {
            // No send can have such an address as its source.
            0 if source.is_some_and(|source| self.outside.contains(&source)) => Way::Gone,
            0 => Way::Kernel,
            number => Way::Shard(usize::from(number) - 1),
        }
    }
}

/// What went this way and what did not, of one shard.
#[derive(Default)]
pub(super) struct Counts {
    /// Datagrams of TURN clients that the SFU was given.
    pub(super) to_sfu: u64,
    /// Datagrams of the SFU that relayed ports were given.
    pub(super) to_clients: u64,
    /// Datagrams of the SFU that went to a relayed port of another shard.
    pub(super) crossed: u64,
    /// Lost: there was no room.
    pub(super) full: u64,
    /// Lost: the relayed port is closed.
    pub(super) gone: u64,
}

/// A datagram on its way to the SFU.
pub(super) struct Waiting {
    /// The relayed address.
    pub(super) relayed: SocketAddr,
    /// The SFU's, as the client named it.
    pub(super) sfu: SocketAddr,
    /// To be given back if it is lost.
    pub(super) charged: Option<Charged>,
    bytes: Range<usize>,
}

/// One shard's side of it.
pub(super) struct Hairpin {
    shard: usize,
    directory: Arc<Directory>,
    /// The relayed ports of this shard. A port is of one family only.
    ports: HashMap<u16, AllocationKey>,
    memory: Box<[u8]>,
    waiting: Vec<Waiting>,
    taken: usize,
    pub(super) counts: Counts,
}

impl Hairpin {
    pub(super) fn new(shard: usize, directory: Arc<Directory>) -> Hairpin {
        Hairpin {
            shard,
            directory,
            ports: HashMap::new(),
            memory: vec![0; WAITING_BYTES_MAX].into_boxed_slice(),
            waiting: Vec::with_capacity(WAITING_MAX),
            taken: 0,
            counts: Counts::default(),
        }
    }

    /// A relayed port is open.
    pub(super) fn opened(&mut self, port: u16, allocation: AllocationKey) {
        self.ports.insert(port, allocation);
        self.directory.enter(port, self.shard);
    }

    /// It is closed.
    pub(super) fn closed(&mut self, port: u16) {
        if self.ports.remove(&port).is_some() {
            self.directory.leave(port);
        }
    }

    /// The allocation of a relayed port.
    pub(super) fn allocation(&mut self, port: u16) -> Option<AllocationKey> {
        let found = self.ports.get(&port).copied();
        if found.is_none() {
            self.counts.gone += 1;
        }
        found
    }

    /// Where a send of the SFU goes.
    pub(super) fn way(&self, destination: SocketAddr, source: Option<IpAddr>) -> Way {
        self.directory.way(destination, source)
    }

    /// Keeps what a client sent to the SFU out of this relayed port. False if there is no room.
    pub(super) fn push(&mut self, port: u16, transmit: &Transmit<'_>) -> bool {
        let sfu = transmit.destination;
        let Some(told) = self.directory.told[Family::of(sfu.ip()).index()] else {
            return false;
        };
        if self.taken == self.waiting.len() {
            self.waiting.clear();
            self.taken = 0;
        }
        let start = self.waiting.last().map_or(0, |last| last.bytes.end);
        let bytes = start..start + transmit.contents.len();
        let room = self.memory.get_mut(bytes.clone());
        let Some(room) = room.filter(|_| self.waiting.len() < WAITING_MAX) else {
            self.counts.full += 1;
            return false;
        };
        room.copy_from_slice(transmit.contents);
        self.waiting.push(Waiting {
            relayed: SocketAddr::new(told, port),
            sfu,
            charged: transmit.charged,
            bytes,
        });
        true
    }

    /// The next datagram for the SFU.
    pub(super) fn next(&mut self) -> Option<(&Waiting, &mut [u8])> {
        let waiting = self.waiting.get(self.taken)?;
        self.taken += 1;
        self.counts.to_sfu += 1;
        Some((waiting, &mut self.memory[waiting.bytes.clone()]))
    }

    /// So much waits that no stream should be read until it is taken.
    pub(super) fn is_filling(&self) -> bool {
        let all = self.waiting.get(self.taken..).and_then(<[Waiting]>::last);
        all.is_some_and(|last| last.bytes.end > WAITING_BYTES_HIGH)
    }
}

#[cfg(test)]
mod tests;
