//! The last stage: what leaves, and from which socket.

use std::net::SocketAddr;

use metering::Direction;
use wire::channel_data::{self, ChannelNumber};
use wire::stun::{Builder, Class, Method, TransactionId};

use crate::address_policy::PeerKind;
use crate::allocation::{AllocationKey, Family};
use crate::client::{Client, ConnectionId};
use crate::discard::Discard;

/// Bytes that a datagram from a peer must have before it, to be overwritten with the ChannelData header.
pub const HEADROOM: usize = channel_data::HEADER_LEN;

/// Which socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// A UDP listener of the server: the one with the port of [`Transmit::source`].
    Listener,
    /// A client's connection. In a stream, ChannelData is to be padded to a multiple of four (RFC 8656 section 12.5):
    /// [`wire::stream::padding`] says by how much.
    Connection(ConnectionId),
    /// The relayed port of an allocation.
    Relay {
        /// Which allocation.
        allocation: AllocationKey,
        /// Of its two ports, the one of this family.
        family: Family,
    },
}

/// One message to send.
#[derive(Clone, Copy, Debug)]
pub struct Transmit<'a> {
    /// Which socket.
    pub via: Via,
    /// Where to.
    pub destination: SocketAddr,
    /// To clients: the server's address to leave from. Its IP is unspecified where the client's datagram came without.
    pub source: Option<SocketAddr>,
    /// The message, without a stream's padding.
    pub contents: &'a [u8],
    /// What was charged for it, to give back when the kernel refuses.
    pub charged: Option<Charged>,
    /// To peers: what the peer is, so that what goes to our own SFU need not go through the kernel.
    pub peer: Option<PeerKind>,
    /// To peers: with the DF bit set (RFC 8656 section 18.9), or not.
    pub dont_fragment: bool,
}

impl<'a> Transmit<'a> {
    /// To a client, free of charge.
    pub(crate) fn to_client(client: &Client, contents: &'a [u8]) -> Self {
        Self {
            via: client.connection.map_or(Via::Listener, Via::Connection),
            destination: client.source,
            source: Some(client.server),
            contents,
            charged: None,
            peer: None,
            dont_fragment: false,
        }
    }
}

/// A charge that [`crate::TurnServer::give_back`] can undo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charged {
    /// Whose allowance.
    pub allocation: AllocationKey,
    /// Which way.
    pub direction: Direction,
    /// How many packets.
    pub packets: u64,
    /// Application bytes.
    pub bytes: u64,
}

/// Writes the ChannelData header into the headroom; the whole of `packet` is then the message.
pub(crate) fn channel_data(packet: &mut [u8], number: ChannelNumber) -> Result<(), Discard> {
    let len = packet
        .len()
        .checked_sub(HEADROOM)
        .and_then(|len| u16::try_from(len).ok())
        .ok_or(Discard::Oversize)?;
    let header = packet.first_chunk_mut().ok_or(Discard::Oversize)?;
    channel_data::write_header(header, number, len);
    Ok(())
}

/// A Data indication (RFC 8656 section 11.3), for a peer without a channel; its length. Copies the data: a client that
/// cares for speed binds a channel.
pub(crate) fn data_indication(
    buffer: &mut [u8],
    id: TransactionId,
    peer: SocketAddr,
    data: &[u8],
) -> Result<usize, Discard> {
    Builder::new(buffer, Class::Indication, Method::DATA, id)
        .xor_peer_address(peer)
        .data(data)
        .finish()
        .map_err(|_| Discard::Oversize)
}
