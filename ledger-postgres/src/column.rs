//! How what the books hold is written into columns, and read out of them.

use metering::ledger::{LeaseState, LeaseView, LedgerError, TopUpState};
use metering::{AccountId, LeaseId, Msat, Rates, Service, Usage, meter};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;

/// A lease's number says which node opened it: this many bits are the node's own count, so that with 8,191 nodes the
/// number still fits what every JSON reader keeps exact.
pub(crate) const LEASE_BITS: u32 = 40;

/// The part of a lease that never changes.
#[derive(Serialize, Deserialize)]
pub(crate) struct Terms {
    pub(crate) service: Service,
    pub(crate) tariff: String,
    pub(crate) rates: Rates,
    pub(crate) cap_max: Option<Msat>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) free_instead_of: Option<Rates>,
}

macro_rules! lease_columns {
    ($rest:literal) => {
        concat!(
            "SELECT id, account, session, payer_grant, terms::text, granted, settled, segment, bytes_out, bytes_in, ",
            "nanoseconds, sequence, epoch, state, memo, touched_at FROM leases ",
            $rest
        )
    };
}
/// Some of them, locked in their order.
pub(crate) const LEASES_FOR_UPDATE: &str = lease_columns!("WHERE id = ANY($1) ORDER BY id FOR UPDATE");
/// One lease.
pub(crate) const LEASE: &str = lease_columns!("WHERE id = $1");
/// All of them.
pub(crate) const LEASES: &str = lease_columns!("ORDER BY id");

/// A lease, from the columns of the statements above.
pub(crate) fn lease(row: &Row) -> Result<LeaseView, LedgerError> {
    let terms: Terms = parse(row.get(4))?;
    let grant: Option<String> = row.get(3);
    let count = |column: usize| row.get::<_, i64>(column) as u64;
    let short = |column: usize| u32::try_from(row.get::<_, i64>(column)).unwrap_or(u32::MAX);
    let state = match row.get(13) {
        "open" => LeaseState::Open,
        "closed" => LeaseState::Closed,
        "reclaimed" => LeaseState::Reclaimed,
        other => return Err(LedgerError::Corrupt(format!("a lease is in the state {other:?}"))),
    };
    let session: &str = row.get(2);
    let mut reported = Usage {
        bytes_out: count(8),
        bytes_in: count(9),
        nanoseconds: count(10),
        debit: Msat::ZERO,
    };
    reported.debit = meter::running(reported.owed(&terms.rates));
    Ok(LeaseView {
        account: AccountId::new(row.get::<_, &str>(1)),
        session: session
            .parse()
            .map_err(|_| LedgerError::Corrupt(format!("a session is called {session:?}")))?,
        service: terms.service,
        tariff: terms.tariff,
        rates: terms.rates,
        granted: msat(row.get(5)),
        settled: msat(row.get(6)),
        segment: short(7),
        reported,
        sequence: count(11),
        epoch: short(12),
        state,
        memo: msat(row.get(14)),
        cap: grant
            .zip(terms.cap_max)
            .map(|(grant, max)| metering::ledger::Cap { grant, max }),
        free_instead_of: terms.free_instead_of,
        touched_at: count(15),
    })
}

pub(crate) fn state(state: LeaseState) -> &'static str {
    match state {
        LeaseState::Open => "open",
        LeaseState::Closed => "closed",
        LeaseState::Reclaimed => "reclaimed",
    }
}

pub(crate) fn top_up_state(state: TopUpState) -> &'static str {
    match state {
        TopUpState::Open => "open",
        TopUpState::Settled => "settled",
        TopUpState::Failed => "failed",
    }
}

/// A lease's key.
pub(crate) fn id(lease: LeaseId) -> i64 {
    lease.get() as i64
}

pub(crate) fn number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// The database has no unsigned numbers: the 64 bits are kept as they are.
pub(crate) fn amount(msat: Msat) -> i64 {
    msat.get() as i64
}

pub(crate) fn msat(amount: i64) -> Msat {
    Msat::new(amount as u64)
}

pub(crate) fn parse<T: DeserializeOwned>(row: &str) -> Result<T, LedgerError> {
    serde_json::from_str(row).map_err(|error| LedgerError::Corrupt(format!("a row does not read: {error}")))
}

pub(crate) fn store<T: Serialize>(row: &T) -> String {
    serde_json::to_string(row).expect("rows have string keys and no fallible fields")
}
