//! The sockets of TURN: the listener that clients know, and a relayed port for each allocation.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use datagram::{Fragmentation, Socket};
use mio::{Interest, Registry, Token};
use turn_server::{AllocationKey, Client, Family, Via};

use super::family;
use super::gauges::Gauges;

/// The poll's token of the first relayed port; those of the listeners are below.
pub(super) const FIRST_RELAY: usize = 16;

/// That of the first UDP listener: four at most.
pub(super) const FIRST_LISTENER: usize = 2;

/// Where relayed ports are opened, and under which address they are told.
#[derive(Clone)]
pub(super) struct RelayAddresses {
    v4: Option<RelayAddress>,
    v6: Option<RelayAddress>,
}

#[derive(Clone, Copy)]
struct RelayAddress {
    told: IpAddr,
    bound: IpAddr,
}

impl RelayAddresses {
    /// The first address of each family that is told. One that is not this machine's own is a NAT's in front of it; the
    /// port is then opened on every address.
    pub(super) fn new(told: &[IpAddr], local: &[IpAddr]) -> Self {
        let first = |wanted: Family| {
            let told = *told.iter().find(|ip| family(**ip) == wanted)?;
            let unspecified = match wanted {
                Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            };
            let bound = if told.is_loopback() || local.contains(&told) {
                told
            } else {
                unspecified
            };
            Some(RelayAddress { told, bound })
        };
        Self {
            v4: first(Family::V4),
            v6: first(Family::V6),
        }
    }

    pub(super) fn families(&self) -> Vec<Family> {
        [self.v4.map(|_| Family::V4), self.v6.map(|_| Family::V6)]
            .into_iter()
            .flatten()
            .collect()
    }

    /// The addresses that the ports are opened on.
    pub(super) fn bound(&self) -> Vec<IpAddr> {
        let relays = [self.v4, self.v6].into_iter().flatten();
        relays.map(|relay| relay.bound).collect()
    }

    /// The address of this family that clients are told.
    pub(super) fn told(&self, family: Family) -> Option<IpAddr> {
        self.of(family).map(|relay| relay.told)
    }

    fn of(&self, family: Family) -> Option<RelayAddress> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

/// All sockets of TURN on one shard.
pub(super) struct TurnSockets {
    /// The one that clients know, and those for NAT behaviour discovery (RFC 5780).
    listeners: Vec<Socket>,
    addresses: RelayAddresses,
    /// By [`place`]. Boxed, since half of the places are for a second family that hardly anybody asks for.
    relays: Vec<Option<Box<Relay>>>,
}

struct Relay {
    allocation: AllocationKey,
    socket: Socket,
}

impl TurnSockets {
    pub(super) fn new(listeners: Vec<Socket>, addresses: RelayAddresses) -> Self {
        Self {
            listeners,
            addresses,
            relays: Vec::new(),
        }
    }

    /// Opens a relayed port; the address that the client is told.
    pub(super) fn open(
        &mut self,
        registry: &Registry,
        allocation: AllocationKey,
        family: Family,
        port: u16,
    ) -> io::Result<SocketAddr> {
        let address = self.addresses.of(family).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let mut socket = Socket::bind(SocketAddr::new(address.bound, port), Fragmentation::Allowed)?;
        socket.keep_errors()?;
        let slot = place(allocation, family);
        registry.register(&mut socket, Token(FIRST_RELAY + slot), Interest::READABLE)?;
        if self.relays.len() <= slot {
            self.relays.resize_with(slot + 1, || None);
        }
        self.relays[slot] = Some(Box::new(Relay { allocation, socket }));
        Ok(SocketAddr::new(address.told, port))
    }

    /// Closes an allocation's port, if it is open.
    pub(super) fn close(&mut self, registry: &Registry, allocation: AllocationKey, family: Family) {
        let Some(place) = self.relays.get_mut(place(allocation, family)) else {
            return;
        };
        if let Some(mut relay) = place.take_if(|relay| relay.allocation == allocation) {
            // Closing the descriptor takes it out of the poll anyway.
            let _ = registry.deregister(&mut relay.socket);
        }
    }

    /// The relayed port of this family, if it is open.
    pub(super) fn relayed_port(&self, allocation: AllocationKey, family: Family) -> Option<u16> {
        let relay = self.relays.get(place(allocation, family))?.as_ref()?;
        (relay.allocation == allocation).then(|| relay.socket.local_addr().port())
    }

    /// Registers the listeners.
    pub(super) fn register(&mut self, registry: &Registry) -> io::Result<()> {
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            registry.register(listener, Token(FIRST_LISTENER + index), Interest::READABLE)?;
        }
        Ok(())
    }

    /// Where a relayed port of this family is bound, and the address that the client is told.
    pub(super) fn addresses_of(&self, family: Family, port: u16) -> io::Result<(SocketAddr, SocketAddr)> {
        let RelayAddress { bound, told } =
            self.addresses.of(family).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok((SocketAddr::new(bound, port), SocketAddr::new(told, port)))
    }

    /// The socket of this token.
    pub(super) fn socket(&self, Token(token): Token) -> Option<&Socket> {
        match token.checked_sub(FIRST_RELAY) {
            Some(slot) => Some(&self.relays.get(slot)?.as_ref()?.socket),
            None => self.listeners.get(token.checked_sub(FIRST_LISTENER)?),
        }
    }

    /// The relayed port of this token.
    pub(super) fn relay_mut(&mut self, Token(token): Token) -> Option<&mut Socket> {
        let relay = self.relays.get_mut(token.checked_sub(FIRST_RELAY)?)?.as_mut()?;
        Some(&mut relay.socket)
    }

    /// The allocation of the relayed port of this token; none if it is a listener's.
    pub(super) fn allocation(&self, Token(token): Token) -> Option<AllocationKey> {
        let relay = self.relays.get(token.checked_sub(FIRST_RELAY)?)?.as_ref()?;
        Some(relay.allocation)
    }

    /// Sends a datagram that is not the core's to a client. False if it did not leave.
    pub(super) fn send_to_client(&mut self, client: &Client, contents: &[u8], gauges: &mut Gauges) -> bool {
        let Some(socket) = self.via(Via::Listener, Some(client.server)) else {
            return false;
        };
        gauges.batch(1);
        let sent = socket.send(&datagram::Transmit {
            destination: client.source,
            source: Some(client.server.ip()).filter(|ip| !ip.is_unspecified()),
            segment_size: None,
            ecn: None,
            contents,
        });
        sent.map_err(|refused| gauges.refused(refused.datagrams, refused.kind))
            .is_ok()
    }

    /// The socket that something leaves through; of the listeners, the one with this address.
    pub(super) fn via(&mut self, via: Via, source: Option<SocketAddr>) -> Option<&mut Socket> {
        match via {
            Via::Listener => {
                let bound = |address: SocketAddr, to: SocketAddr| {
                    address.port() == to.port() && (address.ip() == to.ip() || address.ip().is_unspecified())
                };
                let found = match (self.listeners.len(), source) {
                    (0 | 1, _) | (_, None) => None,
                    (_, Some(source)) => self
                        .listeners
                        .iter()
                        .position(|socket| bound(socket.local_addr(), source)),
                };
                self.listeners.get_mut(found.unwrap_or_default())
            }
            // Connections are not sockets of this kind.
            Via::Connection(_) => None,
            Via::Relay { allocation, family } => {
                let relay = self.relays.get_mut(place(allocation, family))?.as_mut()?;
                (relay.allocation == allocation).then_some(&mut relay.socket)
            }
        }
    }
}

/// Where the port of this family is kept: each allocation has room for two.
fn place(allocation: AllocationKey, family: Family) -> usize {
    2 * allocation.slot() + family.index()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_address_is_bound_and_one_of_a_nat_is_only_told() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let addresses = RelayAddresses::new(&[ip("203.0.113.5"), ip("2001:db8::5")], &[ip("2001:db8::5")]);
        assert_eq!(addresses.families(), [Family::V4, Family::V6]);
        let v4 = addresses.of(Family::V4).unwrap();
        assert_eq!((v4.told, v4.bound), (ip("203.0.113.5"), ip("0.0.0.0")));
        let v6 = addresses.of(Family::V6).unwrap();
        assert_eq!((v6.told, v6.bound), (ip("2001:db8::5"), ip("2001:db8::5")));
        assert_eq!(addresses.bound(), [ip("0.0.0.0"), ip("2001:db8::5")]);
        assert_eq!(
            RelayAddresses::new(&[ip("127.0.0.1")], &[]).families(),
            [Family::V4]
        );
    }
}
