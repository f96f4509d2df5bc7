//! What a session cost, segment by segment: the claims of the receipt that the relay signs.

use crate::{AccountId, LeaseId, Msat, Rates, Service, SessionId, ledger::EntryId};
use serde::{Deserialize, Serialize};

/// The claims of a receipt. Its `msat` is the sum over its segments, and each segment's is the formula of its terms
/// over its own bytes and nanoseconds, rounded up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The session.
    pub session: SessionId,
    /// The account that paid.
    pub account: AccountId,
    /// The tariffs it ran under; a segment names one of them.
    pub terms: Vec<Terms>,
    /// What was settled, in the order it was.
    pub segments: Vec<Segment>,
    /// Bytes to the client, in all segments.
    pub bytes_out: u64,
    /// Bytes from the client, in all segments.
    pub bytes_in: u64,
    /// Nanoseconds, in all segments. Meters that ran side by side both count.
    pub nanoseconds: u64,
    /// What was paid.
    pub msat: Msat,
    /// Unix nanoseconds of the admission.
    pub started: u64,
    /// Unix nanoseconds of the end; none while a meter runs.
    pub ended: Option<u64>,
    /// Why it ended.
    pub reason: Option<String>,
    /// The relay stopped without settling, and billed only what had been reported.
    pub recovered: bool,
}

/// A tariff as it applied to a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Which relay.
    pub service: Service,
    /// The tariff's id.
    pub tariff: String,
    /// msat for 1,000,000 bytes to the client.
    pub msat_per_megabyte_out: u64,
    /// msat for 1,000,000 bytes from the client.
    pub msat_per_megabyte_in: u64,
    /// msat for a second.
    pub msat_per_second: u64,
}

impl Terms {
    /// Its prices alone.
    pub fn rates(&self) -> Rates {
        Rates {
            out: self.msat_per_megabyte_out,
            in_: self.msat_per_megabyte_in,
            second: self.msat_per_second,
        }
    }
}

/// One settled segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Which relay.
    pub service: Service,
    /// The tariff's id.
    pub tariff: String,
    /// Which of the session's leases: one for an SFU session, one for each allocation of a TURN session.
    pub lease: LeaseId,
    /// Counts the lease's segments from 0.
    pub segment: u32,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Nanoseconds.
    pub nanoseconds: u64,
    /// What was paid for it.
    pub msat: Msat,
    /// Unix nanoseconds of the settlement.
    pub settled_at: u64,
    /// The relay did not see its end, so that it is rounded down and may miss the last second.
    pub recovered: bool,
    /// Counts the account's settlements, from 1 and without gaps. 0 in books older than the count.
    #[serde(default)]
    pub settlement: u64,
    /// The entry of the usage journal that this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<EntryId>,
}
