//! The third stage: from a client's channel or indication to a peer, and from a peer to its client's channel or
//! indication. A packet that comes from a relayed port of ours is relayed like any other, to a client, and clients are
//! never at relayed ports: so it passes at most one more.

use std::net::SocketAddr;
use std::time::Instant;

use metering::Direction;
use rand::Rng;
use wire::channel_data::ChannelData;
use wire::stun::{AttributeType, Builder, Class, Icmp, Message, Method, TransactionId};

use crate::allocation::{AllocationKey, Family, Protocol};
use crate::charge::Charge;
use crate::client::Client;
use crate::discard::Discard;
use crate::egress::{self, Charged, HEADROOM, Transmit, Via};
use crate::server::TurnServer;

/// A packet on its way to a client.
pub(crate) struct Outgoing {
    pub(crate) client: Client,
    /// The length of the Data indication written for it; none where it goes out as it lies, behind a ChannelData header.
    pub(crate) indication: Option<usize>,
    pub(crate) charged: Charged,
}

impl TurnServer {
    /// ChannelData from a client (RFC 8656 section 12.5).
    pub(crate) fn channel_data<'a>(
        &mut self,
        now: Instant,
        client: &Client,
        message: ChannelData<'a>,
    ) -> Result<Transmit<'a>, Discard> {
        let (key, allocation) = self.allocations.of_client(client).ok_or(Discard::NoAllocation)?;
        let peer = allocation
            .channels
            .peer(message.number, now)
            .ok_or(Discard::NoChannel)?;
        if allocation.is_moving() {
            self.arrived(key, client);
        }
        self.relay_to_peer(now, key, peer, message.data, false)
    }

    /// A Send indication from a client (RFC 8656 section 11.2).
    pub(crate) fn send_indication<'a>(
        &mut self,
        now: Instant,
        client: &Client,
        message: &Message<'a>,
    ) -> Result<Transmit<'a>, Discard> {
        let (key, allocation) = self.allocations.of_client(client).ok_or(Discard::NoAllocation)?;
        if allocation.is_moving() {
            self.arrived(key, client);
        }
        // An indication with what is unknown is discarded, DONT-FRAGMENT without the means to set it included.
        if self.unknown_required(message, false).next().is_some() {
            return Err(Discard::UnexpectedStun);
        }
        let peer = message.xor_peer_address().ok_or(Discard::MalformedStun)?;
        let data = message
            .attribute(AttributeType::DATA)
            .ok_or(Discard::MalformedStun)?;
        self.relay_to_peer(now, key, peer, data, message.dont_fragment())
    }

    /// The payload goes out as it came in: not even looked at.
    fn relay_to_peer<'a>(
        &mut self,
        now: Instant,
        key: AllocationKey,
        peer: SocketAddr,
        data: &'a [u8],
        dont_fragment: bool,
    ) -> Result<Transmit<'a>, Discard> {
        let allocation = self
            .allocations
            .get_mut(key)
            .filter(|a| a.is_open() && a.protocol == Protocol::Udp)
            .ok_or(Discard::NoAllocation)?;
        if !allocation.permissions.allows(peer.ip(), now) {
            return Err(Discard::NoPermission);
        }
        let kind = self
            .config
            .policy
            .admit_permitted(peer, Protocol::Udp, &self.census)
            .map_err(|_| Discard::PeerDenied)?;
        let (direction, bytes) = (Direction::FromClient, data.len() as u64);
        let charge = Charge {
            peer: kind,
            direction,
            bytes,
        };
        allocation.charge(&self.config, charge, now, &mut self.events)?;
        self.counters.relayed(direction, 1, bytes);
        let charged = Some(Charged {
            allocation: key,
            direction,
            packets: 1,
            bytes,
        });
        Ok(Transmit {
            via: Via::Relay {
                allocation: key,
                family: Family::of(peer.ip()),
            },
            destination: peer,
            source: None,
            contents: data,
            charged,
            peer: Some(kind),
            dont_fragment,
        })
    }

    /// `packet` is [`HEADROOM`] bytes and then what a peer sent.
    pub(crate) fn relay_to_client(
        &mut self,
        now: Instant,
        key: AllocationKey,
        peer: SocketAddr,
        packet: &mut [u8],
    ) -> Result<Outgoing, Discard> {
        if peer.port() == 0 {
            return Err(Discard::SourcePortZero);
        }
        let data = packet.get(HEADROOM..).ok_or(Discard::Oversize)?;
        let allocation = self
            .allocations
            .get_mut(key)
            .filter(|a| a.is_open() && a.protocol == Protocol::Udp)
            .ok_or(Discard::NoAllocation)?;
        if !allocation.permissions.allows(peer.ip(), now) {
            return Err(Discard::NoPermission);
        }
        let kind = self
            .config
            .policy
            .admit_permitted(peer, Protocol::Udp, &self.census)
            .map_err(|_| Discard::PeerDenied)?;
        let (direction, bytes) = (Direction::ToClient, data.len() as u64);
        // Headers before money: what cannot be sent is not paid for.
        let indication = match allocation.channels.number(peer, now) {
            Some(number) => egress::channel_data(packet, number).map(|()| None)?,
            None => {
                let mut id = [0; 12];
                self.rng.fill_bytes(&mut id);
                Some(egress::data_indication(
                    &mut self.reply,
                    TransactionId(id),
                    peer,
                    data,
                )?)
            }
        };
        let charge = Charge {
            peer: kind,
            direction,
            bytes,
        };
        allocation.charge(&self.config, charge, now, &mut self.events)?;
        self.counters.relayed(direction, 1, bytes);
        let charged = Charged {
            allocation: key,
            direction,
            packets: 1,
            bytes,
        };
        Ok(Outgoing {
            client: allocation.client,
            indication,
            charged,
        })
    }

    /// The network answered to a datagram that was relayed to this peer (RFC 8656 section 11.5). What the client is told,
    /// free of charge.
    pub fn peer_unreachable(
        &mut self,
        now: Instant,
        allocation: AllocationKey,
        peer: SocketAddr,
        icmp: Icmp,
    ) -> Option<Transmit<'_>> {
        match self.icmp_indication(now, allocation, peer, icmp) {
            Ok((client, len)) => Some(self.answer(&client, len)),
            Err(discard) => {
                self.counters.discard(discard);
                None
            }
        }
    }

    fn icmp_indication(
        &mut self,
        now: Instant,
        key: AllocationKey,
        peer: SocketAddr,
        icmp: Icmp,
    ) -> Result<(Client, usize), Discard> {
        let (told, too_big) = match Family::of(peer.ip()) {
            Family::V4 => (matches!(icmp.kind, 3 | 11), (icmp.kind, icmp.code) == (3, 4)),
            Family::V6 => (matches!(icmp.kind, 1..=3), icmp.kind == 2),
        };
        if !told {
            return Err(Discard::UnexpectedIcmp);
        }
        let allocation = self
            .allocations
            .get_mut(key)
            .filter(|a| a.is_open())
            .ok_or(Discard::NoAllocation)?;
        if !allocation.permissions.allows(peer.ip(), now) {
            return Err(Discard::NoPermission);
        }
        let icmp = Icmp {
            data: if too_big { icmp.data } else { 0 },
            ..icmp
        };
        let mut id = [0; 12];
        self.rng.fill_bytes(&mut id);
        Builder::new(
            &mut self.reply,
            Class::Indication,
            Method::DATA,
            TransactionId(id),
        )
        .xor_peer_address(peer)
        .icmp(icmp)
        .finish()
        .map(|len| (allocation.client, len))
        .map_err(|_| Discard::Oversize)
    }
}
