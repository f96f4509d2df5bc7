//! The receipts beside the capture. They are checked and rated by the client's library, whose arithmetic is not the relay's.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use dsip::receipt::{self, Receipt};
use identity::{Did, Documents};
use serde::Serialize;

use super::capture::Seen;
use super::session::Session;
use crate::Error;
use crate::http;

/// A session's end is in the books within a second or so; a held one is ended after a minute.
const PATIENCE: Duration = Duration::from_secs(90);

/// Waits for the receipt of a session's end, and checks that `relay`, a did:key, signed it. None where the relay knows no
/// such session.
pub fn receipt(session: &Session, relay: &Did) -> Result<Option<Receipt>, Error> {
    let authorization = format!("Bearer {}", session.token);
    let headers = [("authorization", &authorization[..])];
    let path = format!("/v1/receipts/{}", session.session);
    let documents = Documents::default();
    let end = Instant::now() + PATIENCE;
    loop {
        let answer = http::call(&session.base, "GET", &path, &headers, "")?;
        if answer.status == 404 {
            return Ok(None);
        }
        let answer = answer.expect(200, "a receipt")?;
        let receipt = receipt::signed(&answer.body, relay, &documents)?;
        if receipt.ended.is_some() {
            return Ok(Some(receipt));
        }
        if Instant::now() > end {
            return Err(format!("session {} does not end: {receipt:?}", session.number).into());
        }
        sleep(Duration::from_millis(200));
    }
}

/// What it bills in all its segments, as the wire's: to the client, and to the peer.
pub fn bytes(receipt: &Receipt) -> (u64, u64) {
    let segments = receipt.segments.iter();
    segments.fold((0, 0), |sum, segment| {
        (sum.0 + segment.bytes_out, sum.1 + segment.bytes_in)
    })
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
pub fn audit(bills: &[(&Session, Option<Receipt>)], seen: &BTreeMap<u32, Seen>) -> Audit {
    let mut audit = Audit::default();
    for (session, receipt) in bills {
        let seen = seen.get(&session.number).copied().unwrap_or_default();
        audit.captured_bytes += seen.to_client + seen.to_peer;
        let Some(receipt) = receipt else {
            // A session that never was: nothing may have been relayed for it.
            if seen.to_client + seen.to_peer > 0 {
                audit.sessions_with_other_bytes.push(session.number);
            }
            continue;
        };
        audit.sessions += 1;
        let reason = receipt.reason.clone().unwrap_or_default();
        *audit.reasons.entry(reason).or_default() += 1;
        let billed = bytes(receipt);
        audit.billed_bytes += billed.0 + billed.1;
        if billed != (seen.to_client, seen.to_peer) {
            audit.sessions_with_other_bytes.push(session.number);
        }
        // What cannot be rated at all is wrong by all of it.
        let recomputed = receipt.recomputed().unwrap_or(0);
        audit.billed_msat += receipt.msat;
        audit.recomputed_msat += recomputed;
        audit.error_msat += receipt.msat.abs_diff(recomputed);
        audit.overdrawn += u64::from(receipt.msat > session.voucher);
        let paid_throughout = receipt.msat + MARGIN_MSAT < session.voucher;
        if session.in_order
            && paid_throughout
            && let (Some(from), Some(to)) = (seen.allocated, seen.refreshed)
        {
            audit.in_order += 1;
            let billed: u64 = receipt.segments.iter().map(|segment| segment.nanoseconds).sum();
            let error = billed.abs_diff(to.saturating_sub(from)) as f64 / 1e6;
            audit.time_error_max_ms = audit.time_error_max_ms.max(error);
        }
    }
    audit
}

/// A session that has spent all but this may have been held, and held time is free.
const MARGIN_MSAT: u64 = 1_000;
