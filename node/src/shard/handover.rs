//! SFU ingress that the kernel gave to the wrong shard. A connectivity check names its shard in its ufrag; everything
//! else goes by its source address, which the owner announces to the others once a check from there has proved itself:
//! a Binding success leaves only for an authenticated check. A source address can be forged, so an address stays with
//! the shard that has it for as long as that one confirms it: nobody can divert the media of somebody who is there.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use sfu::media::shard_of;
use wire::demux::{self, Kind};
use wire::stun::{Class, Message, Method};

use super::mailbox::ShardHandle;

/// The longest datagram that is handed over: the SFU's packets fit an Ethernet frame.
const PARCEL_MAX: usize = 2_000;

/// Addresses known of other shards.
const ADDRESSES_MAX: usize = 65_536;

/// An address that was not announced for so long is forgotten; the SFU's own patience is 30 s.
const FORGET_AFTER: Duration = Duration::from_secs(60);

/// Checks come every 2.5 to 6 s; an announcement in so many is enough.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(5);

/// An address that its shard has not confirmed for so long may become another shard's.
const YIELD_AFTER: Duration = Duration::from_secs(15);

const _: () = assert!(
    YIELD_AFTER.as_secs() > 2 * ANNOUNCE_EVERY.as_secs(),
    "who is there confirms it in time"
);
const _: () = assert!(
    FORGET_AFTER.as_secs() > 3 * ANNOUNCE_EVERY.as_secs(),
    "two announcements may be lost"
);

/// What shards post to each other.
// Large by intent: a parcel lies in its queue's slot, so that handing one over allocates nothing.
#[allow(clippy::large_enum_variant)]
pub(super) enum Parcel {
    /// A datagram of one of your sessions.
    Datagram(Datagram),
    /// Datagrams from this address are mine.
    Owner {
        /// The client's address.
        address: SocketAddr,
        /// Whose it is.
        shard: usize,
    },
}

/// A datagram on its way to another shard, by value: the queue's own slots hold it.
pub(super) struct Datagram {
    pub(super) source: SocketAddr,
    pub(super) local_ip: Option<IpAddr>,
    len: u16,
    bytes: [u8; PARCEL_MAX],
}

impl Datagram {
    fn new(source: SocketAddr, local_ip: Option<IpAddr>, datagram: &[u8]) -> Option<Self> {
        let mut bytes = [0; PARCEL_MAX];
        bytes.get_mut(..datagram.len())?.copy_from_slice(datagram);
        Some(Self {
            source,
            local_ip,
            len: u16::try_from(datagram.len()).ok()?,
            bytes,
        })
    }

    pub(super) fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[..usize::from(self.len)]
    }
}

/// The other shards, as one of them sees them.
pub(super) struct Peers {
    own: usize,
    /// One a shard, this one included.
    handles: Vec<ShardHandle>,
    /// Who was posted to since the bells were rung.
    posted: Vec<bool>,
    owners: HashMap<SocketAddr, (usize, Instant)>,
    announced: HashMap<SocketAddr, Instant>,
    tidied: Option<Instant>,
    /// Parcels that found a full queue.
    pub(super) lost: u64,
}

impl Peers {
    /// One for each of these shards.
    pub(super) fn among(handles: &[ShardHandle]) -> Vec<Peers> {
        let peers = |own| Peers {
            own,
            handles: handles.to_vec(),
            posted: vec![false; handles.len()],
            owners: HashMap::new(),
            announced: HashMap::new(),
            tidied: None,
            lost: 0,
        };
        (0..handles.len()).map(peers).collect()
    }

    /// Posts a datagram to its shard, if that is another one. True if it was, or should have been.
    pub(super) fn hand_over(
        &mut self,
        source: SocketAddr,
        local_ip: Option<IpAddr>,
        datagram: &[u8],
    ) -> bool {
        if self.handles.len() == 1 {
            return false;
        }
        let Some(shard) = self.owner(source, datagram).filter(|shard| *shard != self.own) else {
            return false;
        };
        match Datagram::new(source, local_ip, datagram) {
            Some(parcel) => self.post(shard, Parcel::Datagram(parcel)),
            None => self.lost += 1,
        }
        true
    }

    fn owner(&self, source: SocketAddr, datagram: &[u8]) -> Option<usize> {
        if demux::classify(datagram) == Kind::Stun {
            let message = Message::parse(datagram).ok()?;
            if message.class() == Class::Request {
                let shard = shard_of(message.username()?.split(':').next()?).map(usize::from)?;
                return (shard < self.handles.len()).then_some(shard);
            }
        }
        self.owners.get(&source).map(|(shard, _)| *shard)
    }

    /// Notes what is sent to a client: a Binding success says that its address is one of ours.
    pub(super) fn sent(&mut self, destination: SocketAddr, datagram: &[u8], now: Instant) {
        if self.handles.len() == 1 || demux::classify(datagram) != Kind::Stun {
            return;
        }
        let success =
            |message: Message<'_>| (message.class(), message.method()) == (Class::Success, Method::BINDING);
        if !Message::parse(datagram).is_ok_and(success) {
            return;
        }
        if self
            .announced
            .get(&destination)
            .is_some_and(|at| now.saturating_duration_since(*at) < ANNOUNCE_EVERY)
        {
            return;
        }
        self.tidy(now);
        if self.is_of_another(destination, self.own, now) {
            return;
        }
        if self.announced.len() < ADDRESSES_MAX {
            self.announced.insert(destination, now);
        }
        self.owners.remove(&destination);
        for shard in (0..self.handles.len())
            .filter(|shard| *shard != self.own)
            .collect::<Vec<_>>()
        {
            self.post(
                shard,
                Parcel::Owner {
                    address: destination,
                    shard: self.own,
                },
            );
        }
    }

    /// Another shard says that an address is its own.
    pub(super) fn learn(&mut self, address: SocketAddr, shard: usize, now: Instant) {
        self.tidy(now);
        if self.is_of_another(address, shard, now) {
            return;
        }
        if self.owners.len() < ADDRESSES_MAX || self.owners.contains_key(&address) {
            self.owners.insert(address, (shard, now));
        }
        self.announced.remove(&address);
    }

    /// Whether a shard other than `shard` confirmed this address a short while ago.
    fn is_of_another(&self, address: SocketAddr, shard: usize, now: Instant) -> bool {
        let fresh = |at: &Instant| now.saturating_duration_since(*at) < YIELD_AFTER;
        let own = shard != self.own && self.announced.get(&address).is_some_and(fresh);
        own || self
            .owners
            .get(&address)
            .is_some_and(|(owner, at)| *owner != shard && fresh(at))
    }

    /// Rings the bells of those who were posted to: once a batch, not once a datagram.
    pub(super) fn ring(&mut self) {
        for (posted, handle) in self.posted.iter_mut().zip(&self.handles) {
            if std::mem::take(posted) {
                handle.ring();
            }
        }
    }

    fn post(&mut self, shard: usize, parcel: Parcel) {
        if self.handles[shard].post(parcel) {
            self.posted[shard] = true;
        } else {
            self.lost += 1;
        }
    }

    fn tidy(&mut self, now: Instant) {
        let tidied = *self.tidied.get_or_insert(now);
        if now.saturating_duration_since(tidied) < FORGET_AFTER {
            return;
        }
        self.tidied = Some(now);
        let fresh = |at: Instant| now.saturating_duration_since(at) < FORGET_AFTER;
        self.owners.retain(|_, (_, at)| fresh(*at));
        self.announced.retain(|_, at| fresh(*at));
    }
}

#[cfg(test)]
mod tests;
