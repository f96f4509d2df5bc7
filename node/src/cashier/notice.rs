//! What a client is told about its money.

use metering::{Msat, SessionId, Step};

/// Notices that may wait for one client. A client that does not read misses some; the next says where it stands.
pub(super) const NOTICES_MAX: usize = 32;

/// How an account stands, told to one of its sessions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Notice {
    /// The session that is told.
    pub(crate) session: SessionId,
    /// How it is served from now on.
    pub(crate) step: Step,
    /// What the account can still spend: free, or granted and not used.
    pub(crate) available_msat: Msat,
    /// How long that lasts at full quality; none while nothing is spent.
    pub(crate) runway_seconds: Option<f64>,
    /// What the account's sessions burn at full quality.
    pub(crate) burn_msat_per_second: u64,
    /// Why it is told.
    pub(crate) reason: NoticeReason,
}

/// What caused a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoticeReason {
    /// The balance, as it goes.
    Balance,
    /// A voucher was credited.
    TopUp,
    /// The account took another step.
    Step,
    /// The ledger does not answer, and the lease is spent.
    LedgerUnavailable,
    /// The operator froze the account.
    Denied,
    /// The relay had lost sight of the session.
    LeaseLost,
}
