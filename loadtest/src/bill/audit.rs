//! The receipts beside the capture.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use identity::PublicKey;
use identity::jws::Jws;
use metering::receipt::Receipt;
use metering::{Rates, meter};
use serde::Serialize;

use super::capture::Seen;
use super::session::Session;
use crate::Error;
use crate::http;

/// A session's end is in the books within a second or so; a held one is ended after a minute.
const PATIENCE: Duration = Duration::from_secs(90);

/// A session's receipt.
#[derive(Clone, Debug)]
pub struct Bill {
    /// Its claims, once the session has ended.
    pub receipt: Receipt,
}

impl Bill {
    /// Waits for the receipt of a session's end and checks its signature. `relay`: the relay's DID, a did:key.
    pub fn fetch(session: &Session, relay: &str) -> Result<Option<Bill>, Error> {
        let key = relay.strip_prefix("did:key:").ok_or("the relay is no did:key")?;
        let key = PublicKey::from_multibase(key).map_err(|error| format!("the relay's key: {error}"))?;
        let authorization = format!("Bearer {}", session.token);
        let headers = [("authorization", &authorization[..])];
        let path = format!("/v1/receipts/{}", session.session);
        let end = Instant::now() + PATIENCE;
        loop {
            let answer = http::call(&session.base, "GET", &path, &headers, "")?;
            if answer.status == 404 {
                return Ok(None);
            }
            let answer = answer.expect(200, "a receipt")?;
            let jws =
                Jws::parse(&answer.body, "alg, kid, typ").map_err(|error| format!("a receipt: {error}"))?;
            jws.verify(&key).map_err(|error| format!("a receipt: {error}"))?;
            let receipt: Receipt = serde_json::from_slice(jws.payload())?;
            if receipt.ended.is_some() {
                return Ok(Some(Bill { receipt }));
            }
            if Instant::now() > end {
                return Err(format!("session {} does not end: {receipt:?}", session.number).into());
            }
            sleep(Duration::from_millis(200));
        }
    }

    /// What its own figures come to, segment by segment.
    pub fn recomputed(&self) -> u64 {
        let rated = self.receipt.segments.iter().map(|segment| {
            let terms = self
                .receipt
                .terms
                .iter()
                .find(|terms| terms.tariff == segment.tariff);
            terms.map_or(0, |terms| {
                let rates = Rates {
                    out: terms.msat_per_megabyte_out,
                    in_: terms.msat_per_megabyte_in,
                    second: terms.msat_per_second,
                };
                let owed = meter::owed(&rates, segment.bytes_out, segment.bytes_in, segment.nanoseconds);
                match segment.recovered {
                    true => meter::running(owed).get(),
                    false => meter::closing(owed).get(),
                }
            })
        });
        rated.sum()
    }
}

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Audit {
    /// Sessions with a receipt.
    pub sessions: u64,
    /// Of those, the ones that their client ended and that had not run out of money.
    pub in_order: u64,
    /// By the reason on the receipt.
    pub reasons: BTreeMap<String, u64>,
    /// Application bytes that the relay was seen to send.
    pub captured_bytes: u64,
    /// Bytes on the receipts.
    pub billed_bytes: u64,
    /// Sessions that were billed for other bytes than were seen.
    pub sessions_with_other_bytes: Vec<u32>,
    /// Paid, by the receipts.
    pub billed_msat: u64,
    /// Rated anew from the receipts' bytes and times.
    pub recomputed_msat: u64,
    /// The sum of the differences between these two, session by session.
    pub error_msat: u64,
    /// Sessions that cost more than was ever paid in for them.
    pub overdrawn: u64,
    /// The largest difference between a receipt's time and the wire's, of sessions that ended in order.
    pub time_error_max_ms: f64,
}

/// Compares them.
pub fn audit(bills: &[(&Session, Option<Bill>)], seen: &BTreeMap<u32, Seen>) -> Audit {
    let mut audit = Audit::default();
    for (session, bill) in bills {
        let seen = seen.get(&session.number).copied().unwrap_or_default();
        audit.captured_bytes += seen.to_client + seen.to_peer;
        let Some(bill) = bill else {
            // A session that never was: nothing may have been relayed for it.
            if seen.to_client + seen.to_peer > 0 {
                audit.sessions_with_other_bytes.push(session.number);
            }
            continue;
        };
        let receipt = &bill.receipt;
        audit.sessions += 1;
        let reason = receipt.reason.clone().unwrap_or_default();
        *audit.reasons.entry(reason).or_default() += 1;
        audit.billed_bytes += receipt.bytes_out + receipt.bytes_in;
        if (receipt.bytes_out, receipt.bytes_in) != (seen.to_client, seen.to_peer) {
            audit.sessions_with_other_bytes.push(session.number);
        }
        audit.billed_msat += receipt.msat.get();
        audit.recomputed_msat += bill.recomputed();
        audit.error_msat += receipt.msat.get().abs_diff(bill.recomputed());
        audit.overdrawn += u64::from(receipt.msat.get() > session.voucher);
        let paid_throughout = receipt.msat.get() + MARGIN_MSAT < session.voucher;
        if session.in_order
            && paid_throughout
            && let (Some(from), Some(to)) = (seen.allocated, seen.refreshed)
        {
            audit.in_order += 1;
            let error = receipt.nanoseconds.abs_diff(to.saturating_sub(from)) as f64 / 1e6;
            audit.time_error_max_ms = audit.time_error_max_ms.max(error);
        }
    }
    audit
}

/// A session that has spent all but this may have been held, and held time is free.
const MARGIN_MSAT: u64 = 1_000;
