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

/// The channels of one allocation.
pub(crate) struct Channels {
    entries: Vec<Channel>,
    max: usize,
}

impl Channels {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            entries: Vec::new(),
            max,
        }
    }

    pub(crate) fn peer(&self, number: ChannelNumber, now: Instant) -> Option<SocketAddr> {
        self.entries
            .iter()
            .find(|channel| channel.number == number && now < channel.expires)
            .map(|c| c.peer)
    }

    pub(crate) fn number(&self, peer: SocketAddr, now: Instant) -> Option<ChannelNumber> {
        self.entries
            .iter()
            .find(|channel| channel.peer == peer && now < channel.expires)
            .map(|c| c.number)
    }

    /// May this number be bound to this peer? An expired channel keeps both for five more minutes.
    pub(crate) fn check(
        &mut self,
        number: ChannelNumber,
        peer: SocketAddr,
        now: Instant,
    ) -> Result<(), Conflict> {
        self.entries
            .retain(|channel| now < channel.expires + CHANNEL_QUARANTINE);
        for channel in &self.entries {
            match (channel.number == number, channel.peer == peer) {
                (true, true) => return Ok(()),
                (false, false) => {}
                _ => return Err(Conflict::Taken),
            }
        }
        if self.entries.len() >= self.max {
            Err(Conflict::Full)
        } else {
            Ok(())
        }
    }

    /// Removes those of one family.
    pub(crate) fn remove_family(&mut self, family: Family) {
        self.entries
            .retain(|channel| Family::of(channel.peer.ip()) != family);
    }

    /// Binds or refreshes. Call [`Channels::check`] first.
    pub(crate) fn bind(&mut self, number: ChannelNumber, peer: SocketAddr, now: Instant) {
        let expires = now + CHANNEL_LIFETIME;
        match self.entries.iter_mut().find(|channel| channel.number == number) {
            Some(channel) => channel.expires = expires,
            None => self.entries.push(Channel {
                number,
                peer,
                expires,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
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
