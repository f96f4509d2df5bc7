//! What the network answered to datagrams of a socket: ICMP errors, and sends that are larger than the path takes
//! (IP_RECVERR, IPV6_RECVERR and the socket's error queue).
//!
//! A socket that keeps such errors also fails the next send with each of them, once, although that send has nothing to
//! do with it: [`crate::Socket::send`] tries again.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::libc::{EMSGSIZE, SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6, SO_EE_ORIGIN_LOCAL, sock_extended_err};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};

/// Room for the control messages of one error: the error with an IPv6 address, and the packet's own information.
const CONTROL_MAX: usize = 512;

/// Destination unreachable, fragmentation needed (RFC 792), and packet too big (RFC 4443).
const TOO_BIG_V4: (u8, u8) = (3, 4);
const TOO_BIG_V6: (u8, u8) = (2, 0);

/// One answer of the network, or of this machine's own layer below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkError {
    /// Where the datagram was to go. The kernel's own word on what is too large names no port for IPv4: it is then 0.
    pub destination: SocketAddr,
    /// The type of ICMP, or of ICMPv6 where the destination is IPv6. A send that was larger than the path takes is told
    /// as the router would have told it.
    pub kind: u8,
    /// The code.
    pub code: u8,
    /// Where a packet was too big: what the next link takes.
    pub mtu: u32,
}

/// The oldest error that is kept, if there is one; it is then gone.
pub(crate) fn next(socket: RawFd) -> io::Result<Option<NetworkError>> {
    let (mut control, mut payload) = ([0; CONTROL_MAX], [0; 1]);
    let mut slices = [IoSliceMut::new(&mut payload)];
    loop {
        let message = match recvmsg::<SockaddrStorage>(
            socket,
            &mut slices,
            Some(&mut control),
            MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT,
        ) {
            Ok(message) => message,
            Err(Errno::EAGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let destination = message.address.as_ref().and_then(address);
        let error = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _) => {
                Some(error)
            }
            _ => None,
        });
        // What is neither from the network nor about size is nobody's business; the next one may be.
        if let Some(told) = destination.zip(error).and_then(|(to, error)| told(to, &error)) {
            return Ok(Some(told));
        }
    }
}

fn told(destination: SocketAddr, error: &sock_extended_err) -> Option<NetworkError> {
    let (kind, code) = match error.ee_origin {
        SO_EE_ORIGIN_ICMP if destination.is_ipv4() => (error.ee_type, error.ee_code),
        SO_EE_ORIGIN_ICMP6 if destination.is_ipv6() => (error.ee_type, error.ee_code),
        SO_EE_ORIGIN_LOCAL if i32::try_from(error.ee_errno) == Ok(EMSGSIZE) => match destination.ip() {
            IpAddr::V4(_) => TOO_BIG_V4,
            IpAddr::V6(_) => TOO_BIG_V6,
        },
        _ => return None,
    };
    Some(NetworkError {
        destination,
        kind,
        code,
        mtu: error.ee_info,
    })
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage
        .as_sockaddr_in()
        .map(|v4| SocketAddr::new(v4.ip().into(), v4.port()));
    let v6 = || {
        let v6 = storage.as_sockaddr_in6()?;
        Some(SocketAddr::new(IpAddr::V6(v6.ip()).to_canonical(), v6.port()))
    };
    v4.or_else(v6)
}

/// Whether a send may have failed for what happened to an earlier one.
pub(crate) fn is_of_an_earlier_send(error: &io::Error) -> bool {
    let of_the_network = [
        Errno::ECONNREFUSED,
        Errno::EHOSTUNREACH,
        Errno::ENETUNREACH,
        Errno::EHOSTDOWN,
        Errno::ENOPROTOOPT,
        Errno::EOPNOTSUPP,
        Errno::EPROTO,
        Errno::EACCES,
        Errno::EMSGSIZE,
    ];
    error
        .raw_os_error()
        .is_some_and(|code| of_the_network.contains(&Errno::from_raw(code)))
}

/// Whether a send was larger than its path takes.
pub(crate) fn is_too_large(error: &io::Error) -> bool {
    error.raw_os_error() == Some(EMSGSIZE)
}
