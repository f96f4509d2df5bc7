//! Who a client is to the server (RFC 8656 section 3.2): its 5-tuple, which is two transport addresses and the transport
//! between them. Of a transport that has connections the shard's name for the connection belongs to it, so that a new
//! connection from an old address is a new client.

use std::net::SocketAddr;

/// What is between a client and the server (RFC 8656 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// UDP: a message is a datagram.
    Udp,
    /// TCP: a message is framed (RFC 8489 section 6.2.2, RFC 8656 section 12.5).
    Tcp,
    /// TLS over TCP, framed likewise.
    Tls,
    /// DTLS over UDP (RFC 7350): a message is a record.
    Dtls,
}

impl Transport {
    /// Messages are framed in a stream, and arrive once and in order.
    pub const fn is_stream(self) -> bool {
        matches!(self, Transport::Tcp | Transport::Tls)
    }

    /// A handshake has shown that the client receives what is sent to its address, so that nothing can be reflected.
    pub const fn shows_address(self) -> bool {
        !matches!(self, Transport::Udp)
    }
}

/// A connection of one shard (TCP, TLS or DTLS). The shard gives these out, and none twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// The connection of this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// As a number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// A client's 5-tuple.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Client {
    /// The transport.
    pub transport: Transport,
    /// The client's transport address, as the server sees it.
    pub source: SocketAddr,
    /// The server's transport address: the one that the client hit. Where the kernel does not tell the address of a
    /// listener on the wildcard, the unspecified one.
    pub server: SocketAddr,
    /// The connection, of every transport but UDP.
    pub connection: Option<ConnectionId>,
}

impl Client {
    /// A client over UDP.
    pub const fn udp(source: SocketAddr, server: SocketAddr) -> Self {
        Self {
            transport: Transport::Udp,
            source,
            server,
            connection: None,
        }
    }

    /// A client over a connection.
    pub const fn connected(
        transport: Transport,
        source: SocketAddr,
        server: SocketAddr,
        connection: ConnectionId,
    ) -> Self {
        Self {
            transport,
            source,
            server,
            connection: Some(connection),
        }
    }
}

/// Addresses do not print.
impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({:?} {:?})", self.transport, self.connection)
    }
}
