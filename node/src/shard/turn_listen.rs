//! The listeners of TURN, for all shards at once: UDP and TCP on one port, further TCP addresses for TLS, and the three
//! more UDP sockets of NAT behaviour discovery (RFC 5780).

use std::io;
use std::net::SocketAddr;

use datagram::{Fragmentation, Group, Socket, bind_group};
use turn_server::Discovery;

use super::turn_stream::{Listener, listen};

/// How often a free port is tried for where only UDP or only TCP has it.
const ATTEMPTS: usize = 16;

/// What is to be listened on.
pub(super) struct Wanted<'a> {
    pub(super) listen: SocketAddr,
    pub(super) tcp: bool,
    pub(super) tls: &'a [SocketAddr],
    pub(super) discovery: &'a [SocketAddr],
}

/// What one shard listens on.
#[derive(Default)]
pub(super) struct OfShard {
    pub(super) udp: Vec<Socket>,
    pub(super) tcp: Vec<Listener>,
}

/// What all listen on.
pub(super) struct TurnListeners {
    /// UDP, and TCP if that is wanted.
    pub(super) address: SocketAddr,
    /// Further addresses for TCP and TLS.
    pub(super) tls: Vec<SocketAddr>,
    pub(super) discovery: Vec<Discovery>,
    pub(super) shards: Vec<OfShard>,
}

/// Opens them. Ports 0 become free ports.
pub(super) fn open(wanted: &Wanted<'_>, size: usize) -> io::Result<TurnListeners> {
    let (Group { address, sockets }, streams) = main_port(wanted, size)?;
    let mut shards: Vec<OfShard> = sockets
        .into_iter()
        .map(|socket| OfShard {
            udp: vec![socket],
            tcp: Vec::new(),
        })
        .collect();
    let mut add_streams = |listeners: Vec<Listener>| {
        for (shard, listener) in shards.iter_mut().zip(listeners) {
            shard.tcp.push(listener);
        }
    };
    streams.into_iter().for_each(&mut add_streams);
    let mut tls = Vec::new();
    for wish in wanted.tls {
        let (at, listeners) = listen(*wish, size)?;
        tls.push(at);
        add_streams(listeners);
    }
    let mut discovery = Vec::new();
    for alternate in wanted.discovery {
        let pair = Discovery::new(address, *alternate).ok_or_else(|| {
            let why = "turn.discovery_alternate needs another address and another port than turn.listen, and neither may be a wildcard";
            io::Error::new(io::ErrorKind::InvalidInput, why)
        })?;
        for further in pair.addresses().into_iter().filter(|further| *further != address) {
            let group = bind_group(further, size, Fragmentation::Allowed)?;
            for (shard, socket) in shards.iter_mut().zip(group.sockets) {
                shard.udp.push(socket);
            }
        }
        discovery.push(pair);
    }
    Ok(TurnListeners {
        address,
        tls,
        discovery,
        shards,
    })
}

/// The port that clients know, free for UDP and for TCP.
fn main_port(wanted: &Wanted<'_>, size: usize) -> io::Result<(Group, Option<Vec<Listener>>)> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..ATTEMPTS {
        let group = bind_group(wanted.listen, size, Fragmentation::Allowed)?;
        if !wanted.tcp {
            return Ok((group, None));
        }
        match listen(group.address, size) {
            Ok((_, listeners)) => return Ok((group, Some(listeners))),
            Err(error) if wanted.listen.port() == 0 => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}
