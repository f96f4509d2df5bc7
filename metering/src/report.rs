//! What a shard says it used: cumulative, numbered, for one segment of one lease.

use crate::{LeaseId, Msat, Rates, SessionId, meter};
use serde::{Deserialize, Serialize};

/// What was used within one segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes to the client.
    pub bytes_out: u64,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Time that counted.
    pub nanoseconds: u64,
    /// What it costs: rounded down while the segment runs, up once it closed.
    pub debit: Msat,
}

impl Usage {
    /// True when nothing was used at all.
    pub const fn is_empty(&self) -> bool {
        self.bytes_out == 0 && self.bytes_in == 0 && self.nanoseconds == 0
    }

    /// What it owes at `rates`, exactly.
    pub fn owed(&self, rates: &Rates) -> u128 {
        meter::owed(rates, self.bytes_out, self.bytes_in, self.nanoseconds)
    }
}

/// What a shard tells the ledger about one lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The lease that was spent from.
    pub lease: LeaseId,
    /// The session that spent it.
    pub session: SessionId,
    /// The epoch of the lease that the shard knows.
    pub epoch: u32,
    /// Counts this lease's reports, from 1.
    pub sequence: u64,
    /// Counts this lease's segments, from 0.
    pub segment: u32,
    /// Used so far within the segment.
    pub usage: Usage,
    /// The cumulative grant that the shard knows.
    pub granted: Msat,
    /// A packet or the next second did not fit since the last report.
    pub exhausted: bool,
    /// Half of the last grant is used.
    pub renew: bool,
    /// The segment ends with this report; `usage.debit` is rounded up.
    pub closed: bool,
    /// The session is held from this report on; the shard spends nothing of what it was granted before.
    pub held: bool,
    /// The lease ends with this report.
    pub last: bool,
}
