//! One client's session at this relay: how it asks to join, what it is told, why it ends.

use std::net::IpAddr;
use std::sync::Arc;

use identity::Permit;
use metering::SessionId;
use sfu::CloseReason;
use sfu::room::{Participant, Track};
use sfu::sdp::Purpose;
use tokio::sync::mpsc;

/// Messages that may wait for a client's socket. A client that lets this many pile up is gone or hostile, and is
/// closed: a room of 64 sends each member at most a few for each change.
pub(crate) const OUTBOX_MAX: usize = 256;

/// What a session is in its room: publisher and subscriber, or one of both.
pub(crate) type Mode = Purpose;

/// A request to join a room.
pub(crate) struct Join {
    /// Who asks, proved.
    pub(crate) permit: Arc<Permit>,
    /// The room.
    pub(crate) room: String,
    /// The participant's own name, or (`Subscribe`) the publisher's.
    pub(crate) name: String,
    /// What for.
    pub(crate) mode: Mode,
    /// The client's SDP offer.
    pub(crate) offer: String,
    /// The client's own cap on what it spends.
    pub(crate) max_msat_per_second: Option<u64>,
    /// The client says that it is an emergency.
    pub(crate) emergency: bool,
    /// Where it called from. Not for logs.
    pub(crate) source: IpAddr,
    /// Where to tell the client things, if it has a socket.
    pub(crate) outbox: Option<mpsc::Sender<Told>>,
}

/// A session that has begun.
#[derive(Debug, Clone)]
pub(crate) struct Joined {
    /// Its id.
    pub(crate) session: SessionId,
    /// The SDP answer.
    pub(crate) answer: String,
    /// The tag of its ICE session (RFC 9725 section 4.3.1), quoted.
    pub(crate) etag: String,
    /// What could not be served, in sentences.
    pub(crate) notes: Vec<String>,
    /// What it costs and what is left.
    pub(crate) economics: dsip::message::Economics,
}

/// New ICE credentials of the relay after a restart.
#[derive(Debug, Clone)]
pub(crate) struct Restarted {
    /// Them and the relay's candidates, as an `application/trickle-ice-sdpfrag` body.
    pub(crate) fragment: String,
    /// The new tag, quoted.
    pub(crate) etag: String,
}

/// What a client with a socket is told, in order.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    /// The client may need more m-lines: ask the room how many.
    NeedLines,
    /// Which line carries whom.
    Tracks(Vec<Track>),
    /// Who else is in the room.
    Participants(Vec<Participant>),
    /// The relay shuts down in this many seconds.
    Draining(u64),
    /// The session is over. Nothing follows.
    Ended(EndReason),
}

/// Why a session ended. The words are interface: the page shows a sentence for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum EndReason {
    /// The client said goodbye.
    Hangup,
    /// The same holder joined again under the same name.
    Replaced,
    /// The money is gone.
    BalanceExhausted,
    /// The operator froze the account or denied the token.
    Denied,
    /// It lacks credentials that the SFU asks for, and did not present them when asked.
    CredentialsMissing,
    /// The relay is shutting down.
    Draining,
    /// The client's socket closed without a goodbye, or its connectivity checks stopped.
    ConnectionLost,
    /// No transport came up in time.
    SetupTimeout,
    /// The DTLS handshake failed, or its certificate was not the announced one.
    Handshake,
    /// The client did not read what it was told.
    SlowClient,
    /// It has lasted as long as a session may.
    TimeLimit,
    /// The relay failed.
    Internal,
}

impl EndReason {
    /// The word clients get.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            EndReason::Hangup => "hangup",
            EndReason::Replaced => "replaced",
            EndReason::BalanceExhausted => "balance-exhausted",
            EndReason::Denied => "denied",
            EndReason::CredentialsMissing => "credentials-missing",
            EndReason::Draining => "draining",
            EndReason::ConnectionLost => "connection-lost",
            EndReason::SetupTimeout => "setup-timeout",
            EndReason::Handshake => "handshake-failed",
            EndReason::SlowClient => "slow-client",
            EndReason::TimeLimit => "time-limit",
            EndReason::Internal => "internal",
        }
    }

    /// The word the core uses for it.
    pub(crate) fn close_reason(self) -> CloseReason {
        match self {
            EndReason::Hangup => CloseReason::Bye,
            EndReason::Replaced => CloseReason::Replaced,
            EndReason::BalanceExhausted => CloseReason::Balance,
            EndReason::Draining => CloseReason::Drain,
            EndReason::ConnectionLost => CloseReason::Consent,
            EndReason::SetupTimeout => CloseReason::Setup,
            EndReason::Handshake => CloseReason::Handshake,
            EndReason::Internal => CloseReason::Fault,
            EndReason::Denied
            | EndReason::CredentialsMissing
            | EndReason::TimeLimit
            | EndReason::SlowClient => CloseReason::Policy,
        }
    }
}

impl From<CloseReason> for EndReason {
    fn from(reason: CloseReason) -> EndReason {
        match reason {
            CloseReason::Bye => EndReason::Hangup,
            CloseReason::Consent => EndReason::ConnectionLost,
            CloseReason::Setup => EndReason::SetupTimeout,
            CloseReason::Handshake | CloseReason::Fingerprint => EndReason::Handshake,
            CloseReason::Balance => EndReason::BalanceExhausted,
            CloseReason::Replaced => EndReason::Replaced,
            CloseReason::Policy => EndReason::Denied,
            CloseReason::Drain => EndReason::Draining,
            CloseReason::Fault => EndReason::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_shard_says_of_an_end_is_what_it_was_told() {
        for reason in [
            EndReason::Hangup,
            EndReason::Replaced,
            EndReason::BalanceExhausted,
            EndReason::Denied,
            EndReason::Draining,
            EndReason::ConnectionLost,
            EndReason::SetupTimeout,
            EndReason::Handshake,
            EndReason::Internal,
        ] {
            assert_eq!(EndReason::from(reason.close_reason()), reason);
        }
    }
}
