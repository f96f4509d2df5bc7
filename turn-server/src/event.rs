//! What the core asks of the shard and tells the ledger.

use std::net::SocketAddr;
use std::sync::Arc;

use identity::Permit;
use metering::{Report, SessionId};

use crate::allocation::{AllocationKey, Family, Protocol};
use crate::client::{Client, ConnectionId};
use crate::data_connection::DataConnection;

/// Something to be done outside the core, polled with [`crate::TurnServer::poll_event`].
#[derive(Clone, Debug)]
pub enum Event {
    /// A client wants to allocate: ask for money, then call [`crate::TurnServer::admitted`] or
    /// [`crate::TurnServer::refused`].
    Admit {
        /// Which allocation.
        allocation: AllocationKey,
        /// Under which session.
        session: SessionId,
        /// On whose account.
        permit: Arc<Permit>,
    },
    /// The money is there: open this port (of TCP: to listen and to connect from), then call
    /// [`crate::TurnServer::relay_opened`] or [`crate::TurnServer::relay_failed`].
    OpenRelay {
        /// Which allocation.
        allocation: AllocationKey,
        /// Of UDP or TCP.
        protocol: Protocol,
        /// Of which family.
        family: Family,
        /// The port.
        port: u16,
    },
    /// One of the allocation's ports is to be closed.
    CloseRelay {
        /// Which allocation.
        allocation: AllocationKey,
        /// Which of its ports.
        family: Family,
    },
    /// Open a TCP connection from the allocation's relayed port to this peer (RFC 6062 section 5.2), then call
    /// [`crate::TurnServer::connected`] or [`crate::TurnServer::connect_failed`]. What the peer sends stays unread until
    /// [`Event::Join`].
    Connect {
        /// Its number.
        data: DataConnection,
        /// From whose port.
        allocation: AllocationKey,
        /// To whom.
        peer: SocketAddr,
    },
    /// A client came for its connection: once the answer to its ConnectionBind is sent, whatever follows on the client's
    /// connection goes to the peer as it is, and the other way round, each chunk after
    /// [`crate::TurnServer::spend`] has paid for it.
    Join {
        /// The peer's connection.
        data: DataConnection,
        /// The client's.
        client: ConnectionId,
    },
    /// This connection, and the client's that is joined to it, are to be closed. One that was still being opened is
    /// reported with [`crate::TurnServer::connect_failed`] all the same.
    CloseData {
        /// The peer's connection.
        data: DataConnection,
    },
    /// What was just handed in is for another shard, and so is whatever follows from this client: hand it over (of a
    /// connection, the connection itself, with that message first). A CONNECTION-ID and a mobility ticket name the shard
    /// that they are of. A CONNECTION-ID may name a shard that there is not: then close the connection.
    HandOver {
        /// The client.
        client: Client,
        /// The shard, as in [`crate::Config::shard`].
        shard: u8,
    },
    /// Usage for the ledger.
    Report(Report),
    /// The allocation is gone; its last report went before.
    Closed {
        /// Which allocation.
        allocation: AllocationKey,
        /// Under which session.
        session: SessionId,
        /// Why.
        reason: CloseReason,
    },
}

/// Why an allocation is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The client deleted it.
    Deleted,
    /// The client did not refresh it.
    Expired,
    /// The client's connection was closed.
    Disconnected,
    /// It never came to be: no money, no port, or neither in time.
    Refused,
    /// The session was ended from above.
    Ended,
}

/// Why there is no money for an allocation, and what its client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The balance does not cover an admission.
    BalanceExhausted,
    /// The operator froze the account.
    Frozen,
    /// The node can take no more.
    Capacity,
    /// The ledger cannot be asked.
    Unavailable,
}

impl Refusal {
    /// STUN error code and reason phrase.
    pub(crate) const fn answer(self) -> (u16, &'static str) {
        match self {
            Refusal::BalanceExhausted => (486, "Balance exhausted: top up"),
            Refusal::Frozen => (486, "Account frozen"),
            Refusal::Capacity => (508, "Insufficient Capacity"),
            Refusal::Unavailable => (500, "Ledger unavailable: try again"),
        }
    }
}
