//! Listening on TCP, on every shard at once, and passing what is accepted to its shard.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use mio::Registry;
use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, Socket, Type};

use super::{StreamDiscard, Streams};
use crate::shard::command::Command;

/// Connections that may wait in the kernel for us to look.
const BACKLOG: i32 = 1024;

/// Connections taken from one listener before packets get their turn again.
const ACCEPTS_A_ROUND: usize = 64;

/// A listener of one shard.
pub(in crate::shard) struct Listener {
    pub(super) io: TcpListener,
    address: SocketAddr,
    /// There may be more to accept.
    pub(super) waiting: bool,
}

/// A connection on its way to its shard.
pub(crate) struct Accepted {
    pub(super) io: TcpStream,
    pub(super) client: SocketAddr,
    pub(super) local: SocketAddr,
}

/// Listens on one address, `size` times. Port 0 becomes any free port, the same for all. A port that another program
/// holds is refused even if that program shares it too.
pub(in crate::shard) fn listen(address: SocketAddr, size: usize) -> io::Result<(SocketAddr, Vec<Listener>)> {
    let probe = raw(address, false)?;
    let resolved = probe
        .local_addr()?
        .as_socket()
        .ok_or(io::ErrorKind::AddrNotAvailable)?;
    drop(probe);
    let listener = |_| {
        let raw = raw(resolved, true)?;
        raw.listen(BACKLOG)?;
        Ok(Listener {
            io: TcpListener::from_std(raw.into()),
            address: resolved,
            waiting: true,
        })
    };
    let listeners: io::Result<Vec<Listener>> = (0..size.max(1)).map(listener).collect();
    Ok((resolved, listeners?))
}

fn raw(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let raw = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // The wildcard serves both families, as UDP does.
        raw.set_only_v6(!address.ip().is_unspecified())?;
    }
    // A port whose last connections are still in TIME_WAIT is free.
    raw.set_reuse_address(true)?;
    raw.set_reuse_port(shared)?;
    raw.set_nonblocking(true)?;
    raw.bind(&address.into())?;
    Ok(raw)
}

impl Streams {
    /// Takes what waits at the listeners.
    pub(in crate::shard) fn accept(&mut self, registry: &Registry, now: Instant) {
        for index in 0..self.listeners.len() {
            if !self.listeners[index].waiting {
                continue;
            }
            for _ in 0..ACCEPTS_A_ROUND {
                match self.listeners[index].io.accept() {
                    Ok((io, client)) => self.place(io, client, index, registry, now),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.listeners[index].waiting = false;
                        break;
                    }
                    // A client that has gone again, or no descriptor left: the next look comes with the next event.
                    Err(error) => {
                        tracing::debug!(%error, "accepting failed");
                        self.listeners[index].waiting = error.kind() == io::ErrorKind::Interrupted;
                        break;
                    }
                }
            }
        }
    }

    fn place(&mut self, io: TcpStream, client: SocketAddr, index: usize, registry: &Registry, now: Instant) {
        // Media waits for nothing; what leaves together is put together here.
        let _ = io.set_nodelay(true);
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let local = io.local_addr().unwrap_or(self.listeners[index].address);
        let accepted = Accepted {
            io,
            client: canonical(client),
            local: canonical(local),
        };
        let shard = self.limits.shard_of(accepted.client.ip(), self.shards.len());
        if shard == self.own {
            self.adopt(accepted, registry, now);
        } else if self.shards[shard]
            .send(Command::AdoptStream(Box::new(accepted)))
            .is_err()
        {
            self.count(StreamDiscard::ConnectionLimit);
        }
    }
}
