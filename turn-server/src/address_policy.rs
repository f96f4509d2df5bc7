//! Which peers may be reached (RFC 8656 section 21.1.5, server-side request forgery): what is not on the public
//! Internet is denied, and of our own addresses only the SFU's port and relayed ports are open.
//!
//! The same rules hold for CreatePermission, ChannelBind, Send and what arrives at a relayed port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::allocation::Protocol;
use crate::census::Census;

/// Not on the public Internet (IANA special-purpose registries), or a cloud's control plane.
const DENIED_V4: &[(Ipv4Addr, u8)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8),        // "this network"
    (Ipv4Addr::new(10, 0, 0, 0), 8),       // private
    (Ipv4Addr::new(100, 64, 0, 0), 10),    // carrier-grade NAT
    (Ipv4Addr::new(127, 0, 0, 0), 8),      // loopback
    (Ipv4Addr::new(168, 63, 129, 16), 32), // Azure's wire server
    (Ipv4Addr::new(169, 254, 0, 0), 16),   // link-local, and most clouds' metadata
    (Ipv4Addr::new(172, 16, 0, 0), 12),    // private
    (Ipv4Addr::new(192, 0, 0, 0), 24),     // protocol assignments, Oracle's metadata
    (Ipv4Addr::new(192, 0, 2, 0), 24),     // documentation
    (Ipv4Addr::new(192, 88, 99, 0), 24),   // 6to4 relays
    (Ipv4Addr::new(192, 168, 0, 0), 16),   // private
    (Ipv4Addr::new(198, 18, 0, 0), 15),    // benchmarking
    (Ipv4Addr::new(198, 51, 100, 0), 24),  // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24),   // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 4),      // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4),      // reserved, broadcast
];

const DENIED_V6: &[(Ipv6Addr, u8)] = &[
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 0), 96), // ::, ::1, IPv4-compatible
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xFFFF, 0, 0), 96), // IPv4-mapped
    (Ipv6Addr::new(0, 0, 0, 0, 0xFFFF, 0, 0, 0), 96), // IPv4-translated
    (Ipv6Addr::new(0x64, 0xFF9B, 0, 0, 0, 0, 0, 0), 96), // NAT64
    (Ipv6Addr::new(0x64, 0xFF9B, 1, 0, 0, 0, 0, 0), 48), // local-use NAT64
    (Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0), 64), // discard
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocol assignments, Teredo, ORCHID
    (Ipv6Addr::new(0x2001, 0xDB8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), // 6to4
    (Ipv6Addr::new(0x3FFF, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
    (Ipv6Addr::new(0x5F00, 0, 0, 0, 0, 0, 0, 0), 16), // segment routing
    (Ipv6Addr::new(0xFC00, 0, 0, 0, 0, 0, 0, 0), 7), // unique-local, some clouds' metadata
    (Ipv6Addr::new(0xFE80, 0, 0, 0, 0, 0, 0, 0), 10), // link-local
    (Ipv6Addr::new(0xFEC0, 0, 0, 0, 0, 0, 0, 0), 10), // site-local
    (Ipv6Addr::new(0xFF00, 0, 0, 0, 0, 0, 0, 0), 8), // multicast
];

/// An address and how many of its leading bits count, written like `10.1.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    address: IpAddr,
    bits: u8,
}

impl Prefix {
    /// `None` for more bits than the address has.
    pub fn new(address: IpAddr, bits: u8) -> Option<Self> {
        let most = if address.is_ipv4() { 32 } else { 128 };
        (bits <= most).then_some(Self { address, bits })
    }

    /// Is this address within?
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address, ip) {
            (IpAddr::V4(prefix), IpAddr::V4(ip)) => within_v4(ip, prefix, self.bits),
            (IpAddr::V6(prefix), IpAddr::V6(ip)) => within_v6(ip, prefix, self.bits),
            _ => false,
        }
    }
}

impl FromStr for Prefix {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WANTED: &str = "a prefix is an address and its bits, like 10.1.0.0/16";
        let (address, bits) = text.split_once('/').ok_or(WANTED)?;
        Prefix::new(
            address.parse().map_err(|_| WANTED)?,
            bits.parse().map_err(|_| WANTED)?,
        )
        .ok_or(WANTED)
    }
}

/// The rules of one node.
#[derive(Clone, Debug, Default)]
pub struct AddressPolicy {
    /// Every local and every advertised address of this node. Loopback is always our own.
    pub own_addresses: Vec<IpAddr>,
    /// The SFU: the only listener of ours that is a peer. An unspecified address means each of our own.
    pub sfu: Vec<SocketAddr>,
    /// Where the SFU takes TCP (ICE-TCP), likewise.
    pub sfu_tcp: Vec<SocketAddr>,
    /// Where relayed ports are open: another service may have the same port on another address of ours. An unspecified
    /// address means each of our own of its family; none at all means each of our own.
    pub relays: Vec<IpAddr>,
    /// Ports of our other listeners, denied even where loopback is allowed.
    pub own_listeners: Vec<u16>,
    /// Peers on loopback may be reached: for trying things out on one machine.
    pub allow_loopback: bool,
    /// What the operator permits although it would be denied.
    pub exceptions: Vec<Prefix>,
}

/// What a permitted peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerKind {
    /// Somebody else.
    Foreign,
    /// Our SFU.
    OwnSfu,
    /// A relayed port of ours: another client's, delivered only through its own permission.
    OwnRelay,
}

/// The policy denies this peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied;

impl AddressPolicy {
    /// May a permission name this address? Ports are looked at when something is sent.
    pub fn admit_address(&self, ip: IpAddr) -> Result<(), Denied> {
        let permitted = match (ip.is_loopback(), self.is_own(ip)) {
            // Our own too, but only where something of ours that may be reached is there.
            (true, _) => self.allow_loopback || self.sfu.iter().any(|sfu| sfu.ip() == ip),
            (false, true) => true,
            (false, false) => !denied(ip),
        };
        if permitted || self.exceptions.iter().any(|prefix| prefix.contains(ip)) {
            Ok(())
        } else {
            Err(Denied)
        }
    }

    /// May this peer be sent to, and heard from?
    pub fn admit(&self, peer: SocketAddr, protocol: Protocol, census: &Census) -> Result<PeerKind, Denied> {
        let (ip, port) = (peer.ip(), peer.port());
        // Every send to port 0 fails, and a failing send costs more than one that does not.
        if port == 0 {
            return Err(Denied);
        }
        self.admit_address(ip)?;
        if self.is_own(ip) {
            self.admit_own(peer, protocol, census)
        } else {
            Ok(PeerKind::Foreign)
        }
    }

    /// [`AddressPolicy::admit`] for a peer whose address has a permission, which the ranges were checked for already:
    /// what is left is the port, and whether a relayed port is still one.
    pub(crate) fn admit_permitted(
        &self,
        peer: SocketAddr,
        protocol: Protocol,
        census: &Census,
    ) -> Result<PeerKind, Denied> {
        match (peer.port(), self.is_own(peer.ip())) {
            (0, _) => Err(Denied),
            (_, true) => self.admit_own(peer, protocol, census),
            (_, false) => Ok(PeerKind::Foreign),
        }
    }

    /// Is this one of our relayed ports? A client there would be a loop.
    pub(crate) fn is_own_relay(&self, address: SocketAddr, protocol: Protocol, census: &Census) -> bool {
        self.is_own(address.ip()) && census.is_relayed(protocol, address.port())
    }

    fn admit_own(&self, peer: SocketAddr, protocol: Protocol, census: &Census) -> Result<PeerKind, Denied> {
        let (ip, port) = (peer.ip(), peer.port());
        let is_sfu = |sfu: &SocketAddr| sfu.port() == port && (sfu.ip() == ip || sfu.ip().is_unspecified());
        let sfu = match protocol {
            Protocol::Udp => &self.sfu,
            Protocol::Tcp => &self.sfu_tcp,
        };
        if sfu.iter().any(is_sfu) {
            return Ok(PeerKind::OwnSfu);
        }
        if census.is_relayed(protocol, port) && self.has_relays(ip) {
            return Ok(PeerKind::OwnRelay);
        }
        if ip.is_loopback() && self.allow_loopback && !self.own_listeners.contains(&port) {
            return Ok(PeerKind::Foreign);
        }
        Err(Denied)
    }

    /// Are relayed ports open on this address of ours?
    fn has_relays(&self, ip: IpAddr) -> bool {
        let here = |at: &IpAddr| *at == ip || at.is_unspecified() && at.is_ipv4() == ip.is_ipv4();
        self.relays.is_empty() || self.relays.iter().any(here)
    }

    fn is_own(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.own_addresses.contains(&ip)
    }
}

fn denied(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => DENIED_V4
            .iter()
            .any(|(prefix, bits)| within_v4(ip, *prefix, *bits)),
        IpAddr::V6(ip) => DENIED_V6
            .iter()
            .any(|(prefix, bits)| within_v6(ip, *prefix, *bits)),
    }
}

fn within_v4(ip: Ipv4Addr, prefix: Ipv4Addr, bits: u8) -> bool {
    let shift = 32 - u32::from(bits);
    let top = |ip: Ipv4Addr| u32::from(ip).checked_shr(shift).unwrap_or_default();
    top(ip) == top(prefix)
}

fn within_v6(ip: Ipv6Addr, prefix: Ipv6Addr, bits: u8) -> bool {
    let shift = 128 - u32::from(bits);
    let top = |ip: Ipv6Addr| u128::from(ip).checked_shr(shift).unwrap_or_default();
    top(ip) == top(prefix)
}

#[cfg(test)]
mod tests;
