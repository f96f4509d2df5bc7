//! What the control plane asks of a shard. One bounded queue a shard; a command never waits for an answer. What is meant
//! for an SFU session goes through the lobby, which knows its shard.

use std::sync::Arc;

use identity::Permit;
use metering::{Allowance, LeaseId, Msat, Rates, SessionId, Step};
use sfu::CloseReason;
use sfu::media::{Media, Mid, Transport};
use turn_server::Credential;

use super::turn::{Moved, Strayed};
use super::turn_stream::Accepted;

/// Everything a shard can be told.
pub(crate) enum Command {
    /// The whole negotiated media of a session, again after each offer and answer.
    SetMedia { session: SessionId, media: Box<Media> },
    /// New ICE credentials and fingerprint (ICE restart).
    SetTransport {
        session: SessionId,
        transport: Box<Transport>,
    },
    /// What a line towards a subscriber carries from now on.
    Route {
        subscriber: SessionId,
        mid: Mid,
        source: Option<sfu::Source>,
    },
    /// Ends an SFU session; its last report follows.
    CloseSfu {
        session: SessionId,
        reason: sfu::CloseReason,
    },
    /// A username that may make TURN allocations. Goes to every shard: a client's address decides where it lands.
    AddTurnCredential(Arc<Credential>),
    /// Ends every TURN username and allocation whose permit is denied now. Goes to every shard.
    Revoke(Arc<dyn Fn(&Permit) -> bool + Send + Sync>),
    /// The lease of a session has grown to this total over its life.
    Grant {
        session: SessionId,
        lease: LeaseId,
        granted_total: Msat,
    },
    /// A rung of the low-balance ladder. For TURN it goes to every shard.
    SetStep { session: SessionId, step: Step },
    /// What an SFU session that costs nothing is sent at most.
    LimitBytes {
        session: SessionId,
        bits_per_second: Option<u64>,
    },
    /// The money for a pending TURN allocation is there.
    TurnAdmitted {
        allocation: u64,
        session: SessionId,
        lease: LeaseId,
        granted: Msat,
        rates: Rates,
        step: Step,
    },
    /// A pending TURN allocation gets no money; the client is answered 486 with this reason.
    TurnRefused {
        allocation: u64,
        reason: turn_server::Refusal,
    },
    /// A TURN client's connection that another shard accepted.
    AdoptStream(Box<Accepted>),
    /// A TURN client's connection that turned out to be this shard's.
    MoveStream(Box<Moved>),
    /// A datagram of a TURN client whose allocation is here.
    TurnDatagram(Box<Strayed>),
    /// Ends a session, SFU or TURN, with all its allocations. For TURN it goes to every shard.
    End { session: SessionId, reason: EndReason },
    /// No new sessions from now on; live ones keep running.
    Drain,
    /// Ends every session with its last report, then the shard's thread.
    Stop,
}

/// The parts of a new SFU session.
pub(crate) struct OpenSfu {
    /// Its name.
    pub(crate) session: SessionId,
    /// Who is asking.
    pub(crate) permit: Arc<Permit>,
    /// ICE and DTLS as negotiated.
    pub(crate) transport: Transport,
    /// The m-lines as negotiated.
    pub(crate) media: Media,
    /// What it may spend.
    pub(crate) allowance: Allowance,
}

/// Why a session is ended from above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum EndReason {
    /// The account is empty and its hold is over.
    BalanceExhausted,
    /// The operator froze the account or denied its token.
    Denied,
    /// The cashier heard nothing of its lease for too long, and has taken it back.
    LeaseLost,
}

impl EndReason {
    /// The slug that clients see.
    pub(crate) fn slug(self) -> &'static str {
        match self {
            EndReason::BalanceExhausted => "balance-exhausted",
            EndReason::Denied => "denied",
            EndReason::LeaseLost => "lease-lost",
        }
    }
}

/// The core's word for it.
pub(super) fn close_reason(reason: EndReason) -> CloseReason {
    match reason {
        EndReason::BalanceExhausted => CloseReason::Balance,
        EndReason::Denied => CloseReason::Policy,
        EndReason::LeaseLost => CloseReason::Fault,
    }
}
