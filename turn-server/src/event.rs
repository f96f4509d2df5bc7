//! What the core asks of the shard and tells the ledger.

use std::sync::Arc;

use identity::Permit;
use metering::{Report, SessionId};

use crate::allocation::{AllocationKey, Family};

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
    /// The money is there: open this port, then call [`crate::TurnServer::relay_opened`] or
    /// [`crate::TurnServer::relay_failed`].
    OpenRelay {
        /// Which allocation.
        allocation: AllocationKey,
        /// Of which family.
        family: Family,
        /// The port.
        port: u16,
    },
    /// The allocation's port is to be closed.
    CloseRelay {
        /// Which allocation.
        allocation: AllocationKey,
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
