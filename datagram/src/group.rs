//! Several sockets on one port (SO_REUSEPORT): one a shard, so that the kernel spreads clients over the cores.
//!
//! The group's size is fixed when it is made: the kernel picks a socket by a hash of the four addresses modulo the
//! size, so adding one later would move clients between shards.

use std::io;
use std::net::SocketAddr;

use crate::socket::{Fragmentation, Socket};

/// The sockets of one public port.
pub struct Group {
    /// What the sockets are bound to, port 0 resolved.
    pub address: SocketAddr,
    /// One a shard.
    pub sockets: Vec<Socket>,
}

/// How often a free port is tried for where another program takes it between two steps.
const ATTEMPTS: usize = 8;

/// Binds `size` sockets to one address. Port 0 becomes any free port, the same for all.
///
/// A port that another program holds is refused even if that program shares it too: otherwise two relays started by
/// mistake would each get half of the clients.
pub fn bind_group(address: SocketAddr, size: usize, fragmentation: Fragmentation) -> io::Result<Group> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..ATTEMPTS {
        let resolved = Socket::probe(address)?;
        let sockets: io::Result<Vec<Socket>> = (0..size.max(1))
            .map(|_| Socket::bind_shared(resolved, fragmentation))
            .collect();
        match sockets {
            Ok(sockets) => {
                return Ok(Group {
                    address: resolved,
                    sockets,
                });
            }
            Err(error) if address.port() == 0 => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_0_is_resolved_once_and_shared_by_the_group() {
        let group = bind_group("127.0.0.1:0".parse().unwrap(), 3, Fragmentation::Forbidden).unwrap();
        assert_ne!(group.address.port(), 0);
        assert_eq!(group.sockets.len(), 3);
        for socket in &group.sockets {
            assert_eq!(socket.local_addr(), group.address);
        }
    }

    #[test]
    fn a_port_that_another_group_holds_is_refused() {
        let group = bind_group("127.0.0.1:0".parse().unwrap(), 2, Fragmentation::Forbidden).unwrap();
        let error = bind_group(group.address, 2, Fragmentation::Forbidden)
            .err()
            .unwrap();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
