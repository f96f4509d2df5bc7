//! Everything that is live and billed, for an operator who looks on (`milliway top`).

use std::time::Instant;

use metering::{Msat, SessionId};
use serde::Serialize;

use super::desk::Desk;

/// One live session.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LiveSession {
    /// Its id.
    pub(crate) session: SessionId,
    /// Which relay.
    pub(crate) service: &'static str,
    /// Who pays.
    pub(crate) account: String,
    /// How its account is served.
    pub(crate) step: &'static str,
    /// What its account can still spend.
    pub(crate) available_msat: Msat,
    /// How long that lasts at full quality; none while nothing burns.
    pub(crate) runway_seconds: Option<f64>,
    /// What its whole account burns.
    pub(crate) burn_msat_per_second: u64,
    /// What it has used.
    pub(crate) used_msat: Msat,
    /// Of the running segments: bytes to the client.
    pub(crate) bytes_out: u64,
    /// Of the running segments: bytes from the client.
    pub(crate) bytes_in: u64,
    /// How long its longest running segment has run.
    pub(crate) seconds: u64,
}

impl Desk {
    /// Every live session, in the order of their ids.
    pub(super) fn overview(&self, now: Instant) -> Vec<LiveSession> {
        let sessions = self.live.sessions.iter().filter_map(|(id, session)| {
            let account = self.live.accounts.get(&session.account)?;
            let spendable = self.live.spendable_msat(account);
            let runway = account.ladder.runway(spendable, now);
            let leases = || {
                session
                    .leases
                    .iter()
                    .filter_map(|lease| self.live.leases.get(lease))
            };
            Some(LiveSession {
                session: *id,
                service: session.service.as_str(),
                account: session.account.as_str().to_owned(),
                step: account.step().as_str(),
                available_msat: spendable,
                runway_seconds: runway.map(|runway| runway.as_secs_f64()),
                burn_msat_per_second: metering::meter::closing(account.ladder.full_burn(now)).get(),
                used_msat: leases().fold(Msat::ZERO, |sum, lease| sum.saturating_add(lease.used_msat())),
                bytes_out: leases().map(|lease| lease.usage.bytes_out).sum(),
                bytes_in: leases().map(|lease| lease.usage.bytes_in).sum(),
                seconds: leases()
                    .map(|lease| lease.segment_age().as_secs())
                    .max()
                    .unwrap_or_default(),
            })
        });
        sessions.collect()
    }
}
