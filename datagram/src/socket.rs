//! One UDP socket: batches in, batches out, the address that was hit, congestion marks, fragmentation.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use mio::event::Source;
use mio::{Interest, Registry, Token};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{
    Ipv4PacketInfo, Ipv4RecvErr, Ipv6DontFrag, Ipv6RecvErr, Ipv6RecvPacketInfo, ReceiveTimestampns,
};
use quinn_udp::{UdpSockRef, UdpSocketState};
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use socket2::{Domain, Protocol, Type};

use crate::Ecn;
use crate::inbox::Inbox;
use crate::network_error::{self, NetworkError};
use crate::segmentation::Segmentation;

/// The kernel's buffers, as far as it grants them: 4 MiB hold 30 ms of 1 Gbit/s.
const KERNEL_BUFFER: usize = 4 << 20;

/// The most that one send can carry: what fits in an IPv4 packet's 16-bit length after its headers.
const BATCH_BYTES_MAX: usize = 65_507;

/// Datagrams that were too large whose destination is remembered until the error is read, which is soon.
const TOO_LARGE_MAX: usize = 64;

/// EINVAL and EIO, the two errors by which offload is refused.
const EINVAL: i32 = 22;
const EIO: i32 = 5;

/// May what this socket sends be fragmented on its way?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragmentation {
    /// Don't Fragment is set: for media of our own making, which is small enough.
    Forbidden,
    /// Not set: a TURN relay does not choose the size of what it relays (RFC 8656 section 15).
    Allowed,
}

/// One send: one datagram, or several equal ones of which the last may be shorter.
#[derive(Clone, Copy)]
pub struct Transmit<'a> {
    /// Where to.
    pub destination: SocketAddr,
    /// The local address to leave from.
    pub source: Option<IpAddr>,
    /// Length of each datagram but the last, where there are several.
    pub segment_size: Option<usize>,
    /// Congestion marks.
    pub ecn: Option<Ecn>,
    /// The datagrams, end to end.
    pub contents: &'a [u8],
}

/// Some of a send did not leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// UDP payload bytes that did not leave.
    pub bytes: u64,
    /// Datagrams that did not leave.
    pub datagrams: u64,
    /// The last of the errors.
    pub kind: io::ErrorKind,
}

/// A UDP socket that is not blocking.
pub struct Socket {
    io: mio::net::UdpSocket,
    state: UdpSocketState,
    address: SocketAddr,
    fragmentation: Fragmentation,
    /// Don't Fragment is set at present although fragmentation is allowed, and whether it ever was.
    whole: bool,
    probed: bool,
    keeps_errors: bool,
    /// Where datagrams that were too large were to go: the kernel's own word on IPv4 names no port.
    too_large: VecDeque<SocketAddr>,
    segmentation: Segmentation,
}

impl Socket {
    /// A socket with a port of its own.
    pub fn bind(address: SocketAddr, fragmentation: Fragmentation) -> io::Result<Self> {
        Self::from_raw(raw(address, false)?, fragmentation)
    }

    /// A socket that shares its port with others of its group.
    pub(crate) fn bind_shared(address: SocketAddr, fragmentation: Fragmentation) -> io::Result<Self> {
        Self::from_raw(raw(address, true)?, fragmentation)
    }

    /// The address with its port resolved, if nobody holds that port.
    pub(crate) fn probe(address: SocketAddr) -> io::Result<SocketAddr> {
        raw(address, false)?
            .local_addr()?
            .as_socket()
            .ok_or(io::ErrorKind::AddrNotAvailable.into())
    }

    fn from_raw(raw: socket2::Socket, fragmentation: Fragmentation) -> io::Result<Self> {
        // What the kernel does not grant is not worth failing for.
        let _ = raw.set_recv_buffer_size(KERNEL_BUFFER);
        let _ = raw.set_send_buffer_size(KERNEL_BUFFER);
        let io = mio::net::UdpSocket::from_std(raw.into());
        let address = io.local_addr()?;
        let state = UdpSocketState::new(UdpSockRef::from(&io))?;
        let socket = Self {
            io,
            state,
            address,
            fragmentation,
            whole: false,
            probed: false,
            keeps_errors: false,
            too_large: VecDeque::new(),
            segmentation: Segmentation::default(),
        };
        socket.set_options()?;
        Ok(socket)
    }

    /// What it is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// True if it is bound to every address of the machine.
    pub fn is_wildcard(&self) -> bool {
        self.address.ip().is_unspecified()
    }

    /// Fills `inbox` with what has arrived. `WouldBlock` is no error here: it is 0 buffers.
    ///
    /// The socket is drained once [`Inbox::drained`] says so; until then the poll does not report it again.
    pub fn receive(&self, inbox: &mut Inbox) -> io::Result<usize> {
        let received = inbox.fill(|buffers, meta| {
            let filled = self.state.recv(UdpSockRef::from(&self.io), buffers, meta)?;
            if !self.is_wildcard() {
                let local = Some(self.address.ip());
                meta.iter_mut().take(filled).for_each(|meta| meta.dst_ip = local);
            }
            Ok(filled)
        });
        match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    }

    /// From now on what the network answers to this socket's datagrams is kept for [`Socket::next_error`].
    pub fn keep_errors(&mut self) -> io::Result<()> {
        if self.address.is_ipv6() {
            setsockopt(&self.io, Ipv6RecvErr, &true)?;
        }
        // The wildcard of IPv6 sends IPv4 too.
        if self.address.is_ipv4() || self.is_wildcard() {
            setsockopt(&self.io, Ipv4RecvErr, &true)?;
        }
        self.keeps_errors = true;
        Ok(())
    }

    /// The oldest of them, if there is one. The poll says when there may be (`is_error`), and once.
    pub fn next_error(&mut self) -> io::Result<Option<NetworkError>> {
        while let Some(error) = network_error::next(self.io.as_raw_fd())? {
            if error.destination.port() != 0 {
                return Ok(Some(error));
            }
            if let Some(destination) = self.too_large.pop_front()
                && destination.ip() == error.destination.ip()
            {
                return Ok(Some(NetworkError { destination, ..error }));
            }
        }
        self.too_large.clear();
        Ok(None)
    }

    /// Sends one datagram with Don't Fragment set, on a socket that allows fragmentation otherwise. One that is larger
    /// than the path takes is refused, and kept as an error if errors are.
    pub fn send_whole(&mut self, transmit: &Transmit<'_>) -> Result<(), Refused> {
        let len = transmit.contents.len();
        let sent = self
            .forbid_fragments(true)
            .and_then(|()| self.send_datagram(transmit));
        sent.map_err(|error| {
            let destination = transmit.destination;
            if network_error::is_too_large(&error)
                && destination.is_ipv4()
                && self.too_large.len() < TOO_LARGE_MAX
            {
                self.too_large.push_back(destination);
            }
            refused(len, len, &error)
        })
    }

    /// Two system calls for who alternates, and none for who does not.
    fn forbid_fragments(&mut self, whole: bool) -> io::Result<()> {
        if self.whole == whole || self.fragmentation == Fragmentation::Forbidden {
            return Ok(());
        }
        self.whole = whole;
        self.probed |= whole;
        self.set_fragmentation()
    }

    /// Sends, several datagrams in one go where that is possible. What the kernel refuses is gone.
    pub fn send(&mut self, transmit: &Transmit<'_>) -> Result<(), Refused> {
        if self.whole {
            // Sent all the same where it fails: that was possible a moment ago.
            let _ = self.forbid_fragments(false);
        }
        let len = transmit.contents.len();
        let size = transmit.segment_size.unwrap_or(len).max(1);
        if len <= size {
            return self
                .send_datagram(transmit)
                .map_err(|error| refused(len, size, &error));
        }
        let per_batch = self.state.max_gso_segments().min(BATCH_BYTES_MAX / size).max(1);
        let mut outcome = Ok(());
        for contents in transmit.contents.chunks(size * per_batch) {
            merge(
                &mut outcome,
                self.send_batch(
                    &Transmit {
                        contents,
                        ..*transmit
                    },
                    size,
                ),
            );
        }
        outcome
    }

    fn send_batch(&mut self, batch: &Transmit<'_>, size: usize) -> Result<(), Refused> {
        let destination = batch.destination.ip();
        let several = batch.contents.len() > size;
        if several && self.segmentation.allowed(destination) {
            let offload_before = self.state.max_gso_segments();
            let mut result = self.try_send(batch, Some(size));
            if self.failed_for_another(&result) {
                result = self.try_send(batch, Some(size));
            }
            let tripped = self.state.max_gso_segments() < offload_before;
            match result {
                Ok(()) if !tripped => {
                    self.segmentation.taken();
                    return Ok(());
                }
                // It left after all, without its congestion mark.
                Ok(()) => {
                    self.rebuild();
                    return Ok(());
                }
                Err(error) if offload_refused(&error) => {
                    self.rebuild();
                    let outcome = self.send_singly(batch, size);
                    if outcome.is_ok() {
                        self.segmentation.refused(destination);
                    }
                    return outcome;
                }
                Err(error) => return Err(refused(batch.contents.len(), size, &error)),
            }
        }
        self.send_singly(batch, size)
    }

    fn send_singly(&mut self, batch: &Transmit<'_>, size: usize) -> Result<(), Refused> {
        let mut outcome = Ok(());
        for contents in batch.contents.chunks(size) {
            let sent = self.send_datagram(&Transmit { contents, ..*batch });
            merge(
                &mut outcome,
                sent.map_err(|error| refused(contents.len(), size, &error)),
            );
        }
        outcome
    }

    fn send_datagram(&mut self, datagram: &Transmit<'_>) -> io::Result<()> {
        let mut result = self.try_send(datagram, None);
        if self.failed_for_another(&result) {
            result = self.try_send(datagram, None);
        }
        if result.as_ref().is_err_and(offload_refused) {
            self.rebuild();
        }
        result
    }

    /// An error of an earlier datagram is told once, by whichever send comes next.
    fn failed_for_another(&self, result: &io::Result<()>) -> bool {
        let may_be = |error: &io::Error| {
            // One that must leave whole is too large itself, more likely than not.
            network_error::is_of_an_earlier_send(error) && !(self.whole && network_error::is_too_large(error))
        };
        self.keeps_errors && result.as_ref().is_err_and(may_be)
    }

    fn try_send(&self, transmit: &Transmit<'_>, segment_size: Option<usize>) -> io::Result<()> {
        let dual = self.address.is_ipv6();
        let destination = match transmit.destination {
            // A socket for both families names IPv4 its own way.
            SocketAddr::V4(v4) if dual => SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port())),
            other => other,
        };
        let by_itself = transmit.source.is_none_or(|ip| ip == self.address.ip());
        if segment_size.is_none() && transmit.ecn.is_none() && by_itself {
            // The kernel need not look for control messages that would say what it does anyway.
            return self.io.send_to(transmit.contents, destination).map(drop);
        }
        let src_ip = transmit.source.map(|ip| match ip {
            IpAddr::V4(v4) if dual => IpAddr::V6(v4.to_ipv6_mapped()),
            other => other,
        });
        let quinn = quinn_udp::Transmit {
            destination,
            ecn: transmit.ecn,
            contents: transmit.contents,
            segment_size,
            src_ip,
        };
        self.state.try_send(UdpSockRef::from(&self.io), &quinn)
    }

    /// quinn-udp has lost its faith in this socket; a fresh state has not.
    fn rebuild(&mut self) {
        if let Ok(state) = UdpSocketState::new(UdpSockRef::from(&self.io)) {
            self.state = state;
            let _ = self.set_options();
        }
    }

    /// What quinn-udp sets otherwise, on every new state.
    fn set_options(&self) -> io::Result<()> {
        // Nobody reads the kernel's time stamps, and beside them the 96 bytes that quinn-udp has for control messages
        // do not hold the congestion marks of a coalesced receive.
        setsockopt(&self.io, ReceiveTimestampns, &false)?;
        // Nor the address that was hit where there is only one.
        match self.address {
            _ if self.is_wildcard() => {}
            SocketAddr::V4(_) => setsockopt(&self.io, Ipv4PacketInfo, &false)?,
            SocketAddr::V6(_) => setsockopt(&self.io, Ipv6RecvPacketInfo, &false)?,
        }
        if self.fragmentation == Fragmentation::Forbidden {
            return Ok(());
        }
        self.set_fragmentation()?;
        if self.address.is_ipv6() {
            setsockopt(&self.io, Ipv6DontFrag, &false)?;
        }
        Ok(())
    }

    fn set_fragmentation(&self) -> io::Result<()> {
        let (v4, v6) = match (self.whole, self.probed) {
            (true, _) => (Ipv4PathMtuDiscovery::DO, Ipv6PathMtuDiscovery::DO),
            // Without DF too, but where DONT is set a router's "fragmentation needed" to what was sent with it is not
            // told any more.
            (false, true) => (Ipv4PathMtuDiscovery::OMIT, Ipv6PathMtuDiscovery::DONT),
            (false, false) => (Ipv4PathMtuDiscovery::DONT, Ipv6PathMtuDiscovery::DONT),
        };
        sockopt::set_ip_mtu_discover(&self.io, v4)?;
        if self.address.is_ipv6() {
            sockopt::set_ipv6_mtu_discover(&self.io, v6)?;
        }
        Ok(())
    }

    #[cfg(test)]
    fn offload(&self) -> usize {
        self.state.max_gso_segments()
    }
}

impl Source for Socket {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.io.register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.io.reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.io.deregister(registry)
    }
}

fn raw(address: SocketAddr, shared: bool) -> io::Result<socket2::Socket> {
    let raw = socket2::Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // The wildcard serves both families, as `[::]` does elsewhere; an address of its own serves its family.
        raw.set_only_v6(address.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED))?;
    }
    if shared {
        raw.set_reuse_port(true)?;
    }
    raw.set_nonblocking(true)?;
    raw.bind(&address.into())?;
    Ok(raw)
}

fn offload_refused(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EINVAL | EIO))
}

fn refused(bytes: usize, size: usize, error: &io::Error) -> Refused {
    Refused {
        bytes: bytes as u64,
        datagrams: bytes.div_ceil(size.max(1)).max(1) as u64,
        kind: error.kind(),
    }
}

fn merge(outcome: &mut Result<(), Refused>, part: Result<(), Refused>) {
    match (outcome.as_mut(), part) {
        (_, Ok(())) => {}
        (Ok(()), Err(more)) => *outcome = Err(more),
        (Err(so_far), Err(more)) => {
            so_far.bytes += more.bytes;
            so_far.datagrams += more.datagrams;
            so_far.kind = more.kind;
        }
    }
}

#[cfg(test)]
mod tests;
