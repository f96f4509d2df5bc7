//! A socket for plain calls, with the options that the relay's sockets have (`datagram::Socket`): the kernel does the
//! same for each packet, whatever call it is fetched with.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::UdpGroSegment;
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover, set_ip_recvtos};
use socket2::SockRef;

/// As `datagram` asks for.
const KERNEL_BUFFER: usize = 4 << 20;

/// On a free port of loopback, not blocking.
pub(super) fn bind() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    socket.set_nonblocking(true)?;
    let reference = SockRef::from(&socket);
    // What the kernel does not grant is not worth failing for.
    let _ = reference.set_recv_buffer_size(KERNEL_BUFFER);
    let _ = reference.set_send_buffer_size(KERNEL_BUFFER);
    set_ip_recvtos(&socket, true)?;
    set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DONT)?;
    setsockopt(&socket, UdpGroSegment, &true)?;
    Ok(socket)
}
