//! What the core tells the control plane.

use metering::{Report, SessionId};

use crate::media::{Kind, Mid};

/// Something that happened to a session, polled with [`crate::Sfu::poll_event`].
#[derive(Debug, Clone)]
pub enum Event {
    /// DTLS is up: media can flow.
    Connected {
        /// Which session.
        session: SessionId,
    },
    /// The first authentic packet of a published m-line arrived.
    Publishing {
        /// Which session.
        session: SessionId,
        /// Its m-line.
        mid: Mid,
        /// Audio or video.
        kind: Kind,
    },
    /// Usage for the ledger.
    Report {
        /// Which session.
        session: SessionId,
        /// Cumulative figures of the lease.
        report: Report,
    },
    /// The session is over; nothing more will be sent to it.
    Closed {
        /// Which session.
        session: SessionId,
        /// Why.
        reason: CloseReason,
        /// The closing report of its lease.
        report: Report,
    },
}

/// Why a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The client said goodbye, over signalling, DTLS or RTCP.
    Bye,
    /// No authenticated connectivity check for the consent time (RFC 7675).
    Consent,
    /// The transport never came up in time.
    Setup,
    /// The DTLS handshake failed.
    Handshake,
    /// The client's certificate is not the one its SDP announced.
    Fingerprint,
    /// The balance is used up.
    Balance,
    /// The same holder replaced it.
    Replaced,
    /// The operator or a policy ended it.
    Policy,
    /// The relay is draining.
    Drain,
    /// The relay failed the session: none of the client's doing.
    Fault,
}

impl CloseReason {
    /// The reason as the protocol's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            CloseReason::Bye => "bye",
            CloseReason::Consent => "consent-expired",
            CloseReason::Setup => "setup-timeout",
            CloseReason::Handshake => "handshake-failed",
            CloseReason::Fingerprint => "fingerprint-mismatch",
            CloseReason::Balance => "balance-exhausted",
            CloseReason::Replaced => "replaced",
            CloseReason::Policy => "policy",
            CloseReason::Drain => "drain",
            CloseReason::Fault => "fault",
        }
    }

    /// Whether the time billed ends at the client's last sign of life rather than now.
    pub(crate) const fn bills_to_last_sign_of_life(self) -> bool {
        matches!(
            self,
            CloseReason::Consent | CloseReason::Setup | CloseReason::Handshake
        )
    }
}

/// Why a session was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The permit does not cover the SFU.
    #[error("the permit does not cover the SFU")]
    NotPermitted,
    /// A session with this id is open already.
    #[error("the session is open already")]
    Duplicate,
    /// Another session has this local ufrag.
    #[error("the local ufrag is taken")]
    UfragTaken,
    /// The shard is full.
    #[error("the shard is full")]
    Capacity,
}
