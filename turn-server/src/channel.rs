//! Channels (RFC 8656 section 12): a number for a peer, for ten minutes, so that data travels behind four bytes.

use std::net::SocketAddr;
use std::time::Instant;

use wire::channel_data::ChannelNumber;

use crate::allocation::Family;
use crate::config::{CHANNEL_LIFETIME, CHANNEL_QUARANTINE};

#[derive(Clone, Copy)]
struct Channel {
    number: ChannelNumber,
    peer: SocketAddr,
    expires: Instant,
}

/// Why a channel was not bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conflict {
    /// The number belongs to another peer, or the peer has another number.
    Taken,
    /// Too many channels.
    Full,
}

/// The channels of one allocation, in the order of their numbers, and where each peer's is. Usually there is one, and at
/// most a few dozen: a search by halves is faster than a hash and takes no more memory than they need.
pub(crate) struct Channels {
    entries: Vec<Channel>,
    /// Places in `entries`, in the order of the peers.
    by_peer: Vec<u16>,
    max: usize,
}

impl Channels {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            entries: Vec::new(),
            by_peer: Vec::new(),
            // There are no more numbers (RFC 8656 section 12), so that a place fits 16 bits.
            max: max.min(1 << 14),
        }
    }

    pub(crate) fn peer(&self, number: ChannelNumber, now: Instant) -> Option<SocketAddr> {
        let channel = &self.entries[self.place(number).ok()?];
        (now < channel.expires).then_some(channel.peer)
    }

    pub(crate) fn number(&self, peer: SocketAddr, now: Instant) -> Option<ChannelNumber> {
        let channel = &self.entries[self.place_of(peer)?];
        (now < channel.expires).then_some(channel.number)
    }

    /// May this number be bound to this peer? An expired channel keeps both for five more minutes.
    pub(crate) fn check(
        &mut self,
        number: ChannelNumber,
        peer: SocketAddr,
        now: Instant,
    ) -> Result<(), Conflict> {
        self.retain(|channel| now < channel.expires + CHANNEL_QUARANTINE);
        match (self.place(number).ok(), self.place_of(peer)) {
            (None, None) => {}
            (of_number, of_peer) if of_number == of_peer => return Ok(()),
            _ => return Err(Conflict::Taken),
        }
        if self.entries.len() >= self.max {
            Err(Conflict::Full)
        } else {
            Ok(())
        }
    }

    /// Removes those of one family.
    pub(crate) fn remove_family(&mut self, family: Family) {
        self.retain(|channel| Family::of(channel.peer.ip()) != family);
    }

    /// Binds or refreshes. Call [`Channels::check`] first.
    pub(crate) fn bind(&mut self, number: ChannelNumber, peer: SocketAddr, now: Instant) {
        let expires = now + CHANNEL_LIFETIME;
        match self.place(number) {
            Ok(place) => self.entries[place].expires = expires,
            Err(place) => {
                // Twice as many as before, and one at first: an idle allocation has no room to spare.
                if self.entries.len() == self.entries.capacity() {
                    let more = self.entries.len().max(1);
                    self.entries.reserve_exact(more);
                    self.by_peer.reserve_exact(more);
                }
                let channel = Channel {
                    number,
                    peer,
                    expires,
                };
                self.entries.insert(place, channel);
                self.order();
            }
        }
    }

    fn retain(&mut self, keeps: impl Fn(&Channel) -> bool) {
        let before = self.entries.len();
        self.entries.retain(keeps);
        if self.entries.len() < before {
            self.order();
        }
    }

    /// What is found by its peer is found where it is now.
    fn order(&mut self) {
        let entries = &self.entries;
        self.by_peer.clear();
        self.by_peer.extend(0..entries.len() as u16);
        self.by_peer
            .sort_unstable_by_key(|place| entries[usize::from(*place)].peer);
    }

    fn place(&self, number: ChannelNumber) -> Result<usize, usize> {
        self.entries
            .binary_search_by_key(&number.get(), |channel| channel.number.get())
    }

    fn place_of(&self, peer: SocketAddr) -> Option<usize> {
        let of = |place: &u16| usize::from(*place);
        let found = self
            .by_peer
            .binary_search_by(|place| self.entries[of(place)].peer.cmp(&peer));
        Some(of(&self.by_peer[found.ok()?]))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn number(number: u16) -> ChannelNumber {
        ChannelNumber::new(number).unwrap()
    }

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([8, 8, 8, 8], port))
    }

    #[test]
    fn a_number_has_one_peer_and_a_peer_one_number() {
        let start = Instant::now();
        let mut channels = Channels::new(8);
        assert_eq!(channels.check(number(0x4000), peer(1), start), Ok(()));
        channels.bind(number(0x4000), peer(1), start);
        assert_eq!(
            channels.check(number(0x4000), peer(1), start),
            Ok(()),
            "a refresh"
        );
        assert_eq!(
            channels.check(number(0x4000), peer(2), start),
            Err(Conflict::Taken)
        );
        assert_eq!(
            channels.check(number(0x4001), peer(1), start),
            Err(Conflict::Taken)
        );
        assert_eq!(channels.check(number(0x4001), peer(2), start), Ok(()));
    }

    #[test]
    fn an_expired_channel_is_bound_to_another_peer_only_five_minutes_later() {
        let start = Instant::now();
        let mut channels = Channels::new(1);
        channels.bind(number(0x4000), peer(1), start);
        let expired = start + CHANNEL_LIFETIME;
        assert_eq!(channels.peer(number(0x4000), expired), None);
        assert_eq!(channels.number(peer(1), expired), None);
        assert_eq!(
            channels.check(number(0x4000), peer(2), expired),
            Err(Conflict::Taken)
        );
        assert_eq!(
            channels.check(number(0x4001), peer(1), expired),
            Err(Conflict::Taken)
        );
        assert_eq!(
            channels.check(number(0x4000), peer(1), expired),
            Ok(()),
            "the same pair may come back"
        );
        assert_eq!(
            channels.check(number(0x4000), peer(2), expired + CHANNEL_QUARANTINE),
            Ok(())
        );
    }

    #[test]
    fn channels_are_found_both_ways_in_whatever_order_they_came() {
        let start = Instant::now();
        let mut channels = Channels::new(64);
        // 37 has no factor in common with 64: every number comes once.
        let pair = |n: u16| (number(0x4000 + n * 37 % 64), peer(1 + n * 11 % 64));
        for n in 0..64 {
            let (number, peer) = pair(n);
            assert_eq!(channels.check(number, peer, start), Ok(()));
            channels.bind(number, peer, start + Duration::from_secs(n.into()));
        }
        let found = |channels: &Channels, n, now| {
            let (number, peer) = pair(n);
            (
                channels.peer(number, now) == Some(peer),
                channels.number(peer, now) == Some(number),
            )
        };
        assert!((0..64).all(|n| found(&channels, n, start) == (true, true)));
        // The first half expires and makes room.
        let later = start + CHANNEL_LIFETIME + CHANNEL_QUARANTINE + Duration::from_secs(31);
        assert_eq!(channels.check(number(0x5000 - 1), peer(1_000), later), Ok(()));
        channels.bind(number(0x5000 - 1), peer(1_000), later);
        let before = start + CHANNEL_LIFETIME;
        assert!((0..32).all(|n| found(&channels, n, before) == (false, false)));
        assert!((32..64).all(|n| found(&channels, n, before) == (true, true)));
        assert_eq!(channels.peer(number(0x5000 - 1), later), Some(peer(1_000)));
    }

    #[test]
    fn channels_have_a_limit() {
        let start = Instant::now();
        let mut channels = Channels::new(1);
        channels.bind(number(0x4000), peer(1), start);
        assert_eq!(
            channels.check(number(0x4001), peer(2), start),
            Err(Conflict::Full)
        );
    }
}
