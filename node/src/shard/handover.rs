//! SFU ingress and whose it is: this shard's, another's, or a session's that waits in the lobby.
//!
//! A connectivity check names its session by ufrag. Everything else goes by its source address: the kernel always gives
//! an address's datagrams to the same shard, so it is this shard that must know whose they are. It learns that from its
//! own answers to checks, and where it handed a check over, from the shard that answered it. A source address can be
//! forged, so an address stays with whoever has it for as long as that one confirms it: nobody can divert the media of
//! somebody who is there.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sfu::doorstep::ANSWER_BYTES_MAX;
use sfu::{Discard, Sfu};
use wire::demux::{self, Kind};
use wire::stun::{Class, Message, Method};

use super::lobby::{Claim, Guest, Knock, Lobby, Waiting};
use super::mailbox::ShardHandle;

/// The longest datagram that is handed over: the SFU's packets fit an Ethernet frame.
const PARCEL_MAX: usize = 2_000;

/// Addresses that a shard knows the holder of.
const ADDRESSES_MAX: usize = 65_536;

/// An address that was not confirmed for so long is forgotten; the SFU's own patience is 30 s.
const FORGET_AFTER: Duration = Duration::from_secs(60);

/// Checks come every 2.5 to 6 s; a confirmation in so many is enough.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(5);

/// An address that its holder has not confirmed for so long may become somebody else's.
const YIELD_AFTER: Duration = Duration::from_secs(15);

/// A table that is full is looked through for what can go, but not for every packet.
const TIDY_AGAIN_AFTER: Duration = Duration::from_secs(1);

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
    /// A datagram that the SFU, here as its source, sent to this relayed port of yours.
    Relayed {
        /// The relayed port.
        port: u16,
        /// What it sent.
        datagram: Datagram,
    },
    /// A datagram of one of your TURN clients, and the listener's address that it was sent to.
    Turn(Datagram, SocketAddr),
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
    /// The shard that it landed on.
    pub(super) from: usize,
    len: u16,
    bytes: [u8; PARCEL_MAX],
}

impl Datagram {
    /// None where it is too long for a queue's slot.
    pub(super) fn new(
        source: SocketAddr,
        local_ip: Option<IpAddr>,
        from: usize,
        datagram: &[u8],
    ) -> Option<Self> {
        let mut bytes = [0; PARCEL_MAX];
        bytes.get_mut(..datagram.len())?.copy_from_slice(datagram);
        Some(Self {
            source,
            local_ip,
            from,
            len: u16::try_from(datagram.len()).ok()?,
            bytes,
        })
    }

    pub(super) fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[..usize::from(self.len)]
    }
}

/// Whose an address is.
enum Holder {
    /// A session's of this shard.
    Own,
    /// A session's of that shard.
    Shard(usize),
    /// Of one that waits in the lobby, or did.
    Guest(Arc<Guest>),
}

struct Held {
    holder: Holder,
    /// Last confirmed.
    at: Instant,
}

/// What is to be done with a datagram.
pub(super) enum Sorted {
    /// It is this shard's core's.
    Here,
    /// It is taken care of.
    Done,
    /// It is another shard's, whose queue has no room for it.
    Lost,
    /// An answer of this length is to be sent back.
    Answer(usize),
    /// First the session is to be opened here, then the datagram is its.
    Adopt(Box<Waiting>),
}

/// The other shards and the lobby, as one shard sees them.
pub(super) struct Peers {
    own: usize,
    /// One a shard, this one included.
    handles: Vec<ShardHandle>,
    lobby: Arc<Lobby>,
    /// Who was posted to since the bells were rung.
    posted: Vec<bool>,
    /// The addresses whose datagrams land here, and whose those are.
    held: HashMap<SocketAddr, Held>,
    /// The addresses of this shard's sessions whose datagrams land elsewhere: where, and when that shard was told.
    landing: HashMap<SocketAddr, (usize, Option<Instant>)>,
    tidied: Option<Instant>,
    /// The answer that was written last.
    pub(super) answer: Box<[u8; ANSWER_BYTES_MAX]>,
    /// Parcels that found a full queue.
    pub(super) lost: u64,
}

impl Peers {
    /// One for each of these shards.
    pub(super) fn among(handles: &[ShardHandle], lobby: &Arc<Lobby>) -> Vec<Peers> {
        let peers = |own| Peers {
            own,
            handles: handles.to_vec(),
            lobby: lobby.clone(),
            posted: vec![false; handles.len()],
            held: HashMap::new(),
            landing: HashMap::new(),
            tidied: None,
            answer: Box::new([0; ANSWER_BYTES_MAX]),
            lost: 0,
        };
        (0..handles.len()).map(peers).collect()
    }

    /// Sorts a datagram that landed here.
    pub(super) fn sort(
        &mut self,
        sfu: &mut Sfu,
        source: SocketAddr,
        local_ip: Option<IpAddr>,
        datagram: &[u8],
        now: Instant,
    ) -> Sorted {
        let kind = demux::classify(datagram);
        if kind == Kind::Stun
            && let Ok(message) = Message::parse(datagram)
            && message.class() == Class::Request
        {
            return self.sort_check(sfu, &message, source, local_ip, datagram, now);
        }
        let shard = match self.held.get_mut(&source) {
            None
            | Some(Held {
                holder: Holder::Own, ..
            }) => return Sorted::Here,
            Some(Held {
                holder: Holder::Shard(shard),
                ..
            }) => *shard,
            Some(held) => {
                let Holder::Guest(guest) = &held.holder else {
                    return Sorted::Here;
                };
                let shard = match guest.shard() {
                    Some(shard) => shard,
                    // Only a handshake makes a shard adopt, and only one that it has room for: else the client tries
                    // again.
                    None if kind != Kind::Dtls => return Sorted::Here,
                    None if !sfu.has_room() => {
                        sfu.discard(Discard::TooManyHandshakes);
                        return Sorted::Done;
                    }
                    None => match guest.claim(self.own) {
                        Claim::Taken(waiting) => {
                            held.holder = Holder::Own;
                            return Sorted::Adopt(waiting);
                        }
                        Claim::With(shard) => shard,
                        Claim::Gone => {
                            self.held.remove(&source);
                            return Sorted::Here;
                        }
                    },
                };
                // Its holder is the same; where it lives is known now.
                held.holder = if shard == self.own {
                    Holder::Own
                } else {
                    Holder::Shard(shard)
                };
                if shard == self.own {
                    return Sorted::Here;
                }
                shard
            }
        };
        self.hand_over(shard, source, local_ip, datagram)
    }

    /// A connectivity check names its session.
    fn sort_check(
        &mut self,
        sfu: &mut Sfu,
        message: &Message<'_>,
        source: SocketAddr,
        local_ip: Option<IpAddr>,
        datagram: &[u8],
        now: Instant,
    ) -> Sorted {
        let ufrag = message.username().and_then(|username| username.split(':').next());
        let Some(ufrag) = ufrag.filter(|ufrag| !sfu.has_ufrag(ufrag)) else {
            return Sorted::Here;
        };
        let Some(guest) = self.lobby.find(ufrag) else {
            return Sorted::Here;
        };
        let free = self.is_free(sfu, source, &guest, now);
        let path = (source, local_ip);
        match guest.knock(
            self.own,
            datagram,
            path,
            free,
            sfu.has_room(),
            now,
            &mut self.answer,
        ) {
            Knock::Answered { length, proved } => {
                if proved {
                    self.hold(source, Holder::Guest(guest), now);
                }
                Sorted::Answer(length)
            }
            Knock::Claimed(waiting) => Sorted::Adopt(waiting),
            Knock::With(shard) if shard != self.own => self.hand_over(shard, source, local_ip, datagram),
            // The core counts what it does not know.
            Knock::With(_) | Knock::Gone => Sorted::Here,
            Knock::Refused(reason) => {
                sfu.discard(reason);
                Sorted::Done
            }
        }
    }

    /// Whether an address is nobody's, or this guest's already.
    fn is_free(&self, sfu: &Sfu, source: SocketAddr, guest: &Arc<Guest>, now: Instant) -> bool {
        let Some(held) = self.held.get(&source) else {
            return true;
        };
        match &held.holder {
            Holder::Guest(other) if Arc::ptr_eq(other, guest) => true,
            // Who closed its session here may open the next one from where it is.
            Holder::Own => !sfu.has_address(source) || !is_fresh(held.at, now),
            Holder::Guest(other) if !other.is_waiting() && other.shard().is_none() => true,
            Holder::Shard(_) | Holder::Guest(_) => !is_fresh(held.at, now),
        }
    }

    fn hold(&mut self, source: SocketAddr, holder: Holder, at: Instant) {
        self.tidy(at);
        if self.held.len() < ADDRESSES_MAX || self.held.contains_key(&source) {
            self.held.insert(source, Held { holder, at });
        }
    }

    fn hand_over(
        &mut self,
        shard: usize,
        source: SocketAddr,
        local_ip: Option<IpAddr>,
        datagram: &[u8],
    ) -> Sorted {
        let parcel = Datagram::new(source, local_ip, self.own, datagram).map(Parcel::Datagram);
        match self.post_if_any(shard, parcel) {
            true => Sorted::Done,
            false => Sorted::Lost,
        }
    }

    /// Hands what our SFU sent to a relayed port to the shard that holds the port. False if it is lost.
    pub(super) fn hand_to_relay(
        &mut self,
        shard: usize,
        port: u16,
        sfu: SocketAddr,
        datagram: &[u8],
    ) -> bool {
        let datagram = Datagram::new(sfu, None, self.own, datagram);
        self.post_if_any(shard, datagram.map(|datagram| Parcel::Relayed { port, datagram }))
    }

    fn post_if_any(&mut self, shard: usize, parcel: Option<Parcel>) -> bool {
        match parcel {
            Some(parcel) => self.post(shard, parcel),
            None => {
                self.lost += 1;
                false
            }
        }
    }

    /// A datagram that was handed over: if it is answered, its shard is to know whose the address is.
    pub(super) fn received(&mut self, source: SocketAddr, from: usize, datagram: &[u8], now: Instant) {
        if demux::classify(datagram) != Kind::Stun {
            return;
        }
        self.tidy(now);
        let full = self.landing.len() >= ADDRESSES_MAX;
        match self.landing.get_mut(&source) {
            Some((landing, _)) if *landing == from => {}
            Some(known) => *known = (from, None),
            None if full => {}
            None => drop(self.landing.insert(source, (from, None))),
        }
    }

    /// Notes what is sent to a client: a Binding success says that its address is one of ours.
    pub(super) fn sent(&mut self, destination: SocketAddr, datagram: &[u8], now: Instant) {
        if demux::classify(datagram) != Kind::Stun {
            return;
        }
        let success =
            |message: Message<'_>| (message.class(), message.method()) == (Class::Success, Method::BINDING);
        if !Message::parse(datagram).is_ok_and(success) {
            return;
        }
        let Some((shard, told)) = self.landing.get_mut(&destination) else {
            if !self.is_of_another(destination, &Holder::Own, now) {
                self.hold(destination, Holder::Own, now);
            }
            return;
        };
        if told.is_some_and(|told| now.saturating_duration_since(told) < ANNOUNCE_EVERY) {
            return;
        }
        *told = Some(now);
        let (shard, own) = (*shard, self.own);
        self.post(
            shard,
            Parcel::Owner {
                address: destination,
                shard: own,
            },
        );
    }

    /// Another shard says that an address whose datagrams land here is its own.
    pub(super) fn learn(&mut self, address: SocketAddr, shard: usize, now: Instant) {
        let holder = Holder::Shard(shard);
        if !self.is_of_another(address, &holder, now) {
            self.hold(address, holder, now);
        }
    }

    /// Whether somebody else confirmed this address a short while ago.
    fn is_of_another(&self, address: SocketAddr, holder: &Holder, now: Instant) -> bool {
        let Some(held) = self.held.get(&address) else {
            return false;
        };
        let claimed = match holder {
            Holder::Own => Some(self.own),
            Holder::Shard(shard) => Some(*shard),
            Holder::Guest(_) => None,
        };
        let same = match &held.holder {
            Holder::Own => claimed == Some(self.own),
            Holder::Shard(shard) => claimed == Some(*shard),
            // Adopted by whoever claims it now, or over.
            Holder::Guest(guest) => {
                !guest.is_waiting() && (guest.shard().is_none() || guest.shard() == claimed)
            }
        };
        !same && is_fresh(held.at, now)
    }

    /// Rings the bells of those who were posted to: once a batch, not once a datagram.
    pub(super) fn ring(&mut self) {
        for (posted, handle) in self.posted.iter_mut().zip(&self.handles) {
            if std::mem::take(posted) {
                handle.ring();
            }
        }
    }

    /// Something else was posted to a shard: its bell is to be rung with the others.
    pub(super) fn wake(&mut self, shard: usize) {
        self.posted[shard] = true;
    }

    fn post(&mut self, shard: usize, parcel: Parcel) -> bool {
        let posted = self.handles[shard].post(parcel);
        match posted {
            true => self.posted[shard] = true,
            false => self.lost += 1,
        }
        posted
    }

    /// This shard.
    pub(super) fn own(&self) -> usize {
        self.own
    }

    fn tidy(&mut self, now: Instant) {
        let full = self.held.len().max(self.landing.len()) >= ADDRESSES_MAX;
        let pause = if full { TIDY_AGAIN_AFTER } else { FORGET_AFTER };
        let tidied = *self.tidied.get_or_insert(now);
        if now.saturating_duration_since(tidied) < pause {
            return;
        }
        self.tidied = Some(now);
        let fresh = |at: Instant| now.saturating_duration_since(at) < FORGET_AFTER;
        let over = |holder: &Holder| matches!(holder, Holder::Guest(guest) if !guest.is_waiting() && guest.shard().is_none());
        self.held.retain(|_, held| fresh(held.at) && !over(&held.holder));
        self.landing.retain(|_, (_, told)| told.is_some_and(fresh));
    }
}

fn is_fresh(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < YIELD_AFTER
}

#[cfg(test)]
mod tests;
