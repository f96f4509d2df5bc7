//! Receipts, as a client checks them: signed by the relay, one after the other, and no more than what the client saw.
//!
//! The arithmetic is done again here rather than taken from `metering`: a sum that is checked by the code that made it is
//! not checked. `owed = 1000 * (bytes_out * rate_out + bytes_in * rate_in) + ns * rate_second`, in 10^-9 msat, rounded up
//! once a segment; down where the relay was killed and bills what had been reported.

use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use identity::jws::Jws;
use identity::{Did, Documents};
use serde::Deserialize;
use serde_json::Value;

/// The JWS `typ`.
pub const RECEIPT_TYP: &str = "milliway-receipt+jws";
/// Longest receipt: 12 hours of segments of 10 minutes, on some allocations, are far below it.
const LENGTH_MAX: usize = 1 << 20;
/// Units of a rating in one msat.
const UNITS_PER_MSAT: u128 = 1_000_000_000;
/// What the relay may bill beyond what was seen, in thousandths: packets are lost on the way.
const TOLERANCE_PERMILLE: u128 = 10;
/// And in bytes, for what was on its way at the end.
const SLACK_BYTES: u64 = 3_000;
/// And in time, for what it takes to say goodbye.
const SLACK_NS: u64 = 1_000_000_000;

/// What a receipt claims.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Receipt {
    /// The relay.
    pub iss: Did,
    /// Counts the session's receipts, from 0.
    pub number: u32,
    /// base64url(SHA-256) of the receipt before.
    pub prev: Option<String>,
    /// The session.
    pub session: String,
    /// Who paid.
    pub account: String,
    /// The prices.
    pub terms: Vec<Terms>,
    /// What was settled.
    pub segments: Vec<Segment>,
    /// What was paid.
    pub msat: u64,
    /// Unix nanoseconds of the end; none while a meter runs.
    pub ended: Option<u64>,
    /// Why it ended.
    #[serde(default)]
    pub reason: Option<String>,
}

impl Receipt {
    /// What its segments come to by their own figures, in msat; none where one names no terms, or past what a bill can
    /// come to.
    pub fn recomputed(&self) -> Option<u64> {
        let mut rated = self
            .segments
            .iter()
            .map(|segment| owed(segment, self.terms_of(segment)?));
        rated.try_fold(0, |sum: u64, msat| sum.checked_add(msat?))
    }

    fn terms_of(&self, segment: &Segment) -> Option<&Terms> {
        let of = |terms: &&Terms| terms.service == segment.service && terms.tariff == segment.tariff;
        self.terms.iter().find(of)
    }
}

/// A tariff as it applied.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Terms {
    /// "sfu" or "turn".
    pub service: String,
    /// Its id.
    pub tariff: String,
    /// msat for 1,000,000 bytes to the client.
    pub msat_per_megabyte_out: u64,
    /// msat for 1,000,000 bytes from the client.
    pub msat_per_megabyte_in: u64,
    /// msat for a second.
    pub msat_per_second: u64,
}

/// One settled segment.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Segment {
    /// "sfu" or "turn".
    pub service: String,
    /// Which of the terms.
    pub tariff: String,
    /// Which meter.
    pub lease: Value,
    /// Counts the meter's segments.
    pub segment: u32,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Nanoseconds.
    pub nanoseconds: u64,
    /// What was paid.
    pub msat: u64,
    /// Rounded down: the relay did not see its end.
    pub recovered: bool,
    /// Counts the account's settlements.
    #[serde(default)]
    pub settlement: u64,
}

/// What the client counted itself, of one service, over the whole session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Seen {
    /// What came from the relay: for the SFU whole SRTP packets, for TURN the payloads.
    pub bytes_out: u64,
    /// What was sent to it.
    pub bytes_in: u64,
    /// How long it lasted.
    pub nanoseconds: u64,
}

/// What a receipt is held against.
#[derive(Clone, Debug, Default)]
pub struct Expected<'a> {
    /// The session.
    pub session: &'a str,
    /// The receipt of it that came before, verified.
    pub before: Option<&'a str>,
    /// What was seen of a service.
    pub seen: Option<(&'a str, Seen)>,
    /// The tariffs that the relay signed in its challenge.
    pub quoted: &'a [Terms],
}

/// Why a receipt is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptFault {
    /// Not a compact JWS over the claims of a receipt.
    #[error("it is no receipt")]
    Malformed,
    /// The relay did not sign it.
    #[error("the relay's signature does not hold")]
    Signature,
    /// It is of another session.
    #[error("it is about another session")]
    Session,
    /// A segment costs other than its terms say, or the sum is another.
    #[error("it does not add up")]
    Arithmetic,
    /// It does not follow the one before, or takes back what that one said.
    #[error("it does not follow the receipt before")]
    Chain,
}

impl ReceiptFault {
    /// Stable, for programs.
    pub fn slug(self) -> &'static str {
        match self {
            ReceiptFault::Malformed => "malformed",
            ReceiptFault::Signature => "signature",
            ReceiptFault::Session => "session",
            ReceiptFault::Arithmetic => "arithmetic",
            ReceiptFault::Chain => "chain",
        }
    }
}

/// What a receipt that is one still says against the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warning {
    /// More than 1 % more bytes to the client than arrived.
    BytesOut,
    /// More than 1 % more bytes from the client than were sent.
    BytesIn,
    /// It lasted longer than the client was there.
    Seconds,
    /// Other prices than were quoted.
    Terms,
}

impl Warning {
    /// Stable, for programs.
    pub fn slug(self) -> &'static str {
        match self {
            Warning::BytesOut => "bytes-out",
            Warning::BytesIn => "bytes-in",
            Warning::Seconds => "seconds",
            Warning::Terms => "terms",
        }
    }
}

/// Checks a receipt of `relay`, whose document is among `documents` where it takes a network.
///
/// # Errors
/// As [`ReceiptFault`] says: it proves nothing then. Warnings are for a person to judge: packets are lost on the way.
pub fn verify(
    jws: &str,
    relay: &Did,
    documents: &Documents,
    expected: &Expected<'_>,
) -> Result<(Receipt, Vec<Warning>), ReceiptFault> {
    let receipt = signed(jws, relay, documents)?;
    if receipt.session != expected.session {
        return Err(ReceiptFault::Session);
    }
    add_up(&receipt)?;
    follows(&receipt, jws, relay, documents, expected)?;
    let mut warnings = Vec::new();
    if let Some((service, seen)) = &expected.seen {
        compare(&receipt, service, seen, &mut warnings);
    }
    let unquoted = |terms: &&Terms| !expected.quoted.is_empty() && !expected.quoted.contains(terms);
    if receipt.terms.iter().any(|terms| unquoted(&terms)) {
        warnings.push(Warning::Terms);
    }
    Ok((receipt, warnings))
}

/// A receipt that `relay` signed, whatever it claims.
///
/// # Errors
/// [`ReceiptFault::Malformed`] and [`ReceiptFault::Signature`].
pub fn signed(jws: &str, relay: &Did, documents: &Documents) -> Result<Receipt, ReceiptFault> {
    if jws.len() > LENGTH_MAX {
        return Err(ReceiptFault::Malformed);
    }
    let parsed = Jws::parse(jws, "alg, kid, typ").map_err(|_| ReceiptFault::Malformed)?;
    // Unix nanoseconds are beyond what `Jws::claims` takes.
    let claims: Receipt = serde_json::from_slice(parsed.payload()).map_err(|_| ReceiptFault::Malformed)?;
    let key = parsed.header("kid").and_then(|kid| {
        let document = documents.resolve(relay).ok()?;
        document.key(kid).cloned()
    });
    let key = key.ok_or(ReceiptFault::Signature)?;
    let holds = parsed.verify(&key).is_ok() && parsed.header("typ") == Some(RECEIPT_TYP);
    if holds && claims.iss == *relay {
        Ok(claims)
    } else {
        Err(ReceiptFault::Signature)
    }
}

fn add_up(receipt: &Receipt) -> Result<(), ReceiptFault> {
    let mut sum: u64 = 0;
    for segment in &receipt.segments {
        let terms = receipt.terms_of(segment).ok_or(ReceiptFault::Arithmetic)?;
        if owed(segment, terms) != Some(segment.msat) {
            return Err(ReceiptFault::Arithmetic);
        }
        sum = sum.checked_add(segment.msat).ok_or(ReceiptFault::Arithmetic)?;
    }
    let settlements: Vec<u64> = receipt
        .segments
        .iter()
        .map(|segment| segment.settlement)
        .collect();
    let rising = settlements
        .windows(2)
        .all(|pair| pair[0] < pair[1] || pair[1] == 0);
    if sum == receipt.msat && rising {
        Ok(())
    } else {
        Err(ReceiptFault::Arithmetic)
    }
}

/// In msat; none past what a bill can come to.
fn owed(segment: &Segment, terms: &Terms) -> Option<u64> {
    let bytes = |count: u64, rate: u64| u128::from(count).checked_mul(u128::from(rate));
    let bytes_owed = bytes(segment.bytes_out, terms.msat_per_megabyte_out)?
        .checked_add(bytes(segment.bytes_in, terms.msat_per_megabyte_in)?)?;
    let time_owed = bytes(segment.nanoseconds, terms.msat_per_second)?;
    let units = bytes_owed.checked_mul(1000)?.checked_add(time_owed)?;
    let msat = match segment.recovered {
        true => units / UNITS_PER_MSAT,
        false => units.div_ceil(UNITS_PER_MSAT),
    };
    u64::try_from(msat).ok()
}

fn follows(
    receipt: &Receipt,
    jws: &str,
    relay: &Did,
    documents: &Documents,
    expected: &Expected<'_>,
) -> Result<(), ReceiptFault> {
    // Only the first follows nothing.
    if (receipt.number == 0) != receipt.prev.is_none() {
        return Err(ReceiptFault::Chain);
    }
    let Some(before_jws) = expected.before else {
        return Ok(());
    };
    if before_jws == jws {
        return Ok(());
    }
    let before = signed(before_jws, relay, documents).map_err(|_| ReceiptFault::Chain)?;
    let grows = before.session == receipt.session
        && receipt.number > before.number
        && receipt.segments.starts_with(&before.segments);
    // Of a receipt in between that was not fetched only the hash is known.
    let next = before.number.checked_add(1) == Some(receipt.number);
    if grows && (!next || receipt.prev.as_deref() == Some(&hash(before_jws)[..])) {
        Ok(())
    } else {
        Err(ReceiptFault::Chain)
    }
}

fn hash(jws: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, jws.as_bytes()))
}

fn compare(receipt: &Receipt, service: &str, seen: &Seen, warnings: &mut Vec<Warning>) {
    let of = || {
        receipt
            .segments
            .iter()
            .filter(|segment| segment.service == service)
    };
    let total = |count: fn(&Segment) -> u64| of().map(count).fold(0, u64::saturating_add);
    let rates = || receipt.terms.iter().filter(|terms| terms.service == service);
    let above = |billed: u64, seen: u64, slack: u64| {
        let allowed = u128::from(seen) * (1000 + TOLERANCE_PERMILLE) / 1000 + u128::from(slack);
        u128::from(billed) > allowed
    };
    if above(total(|segment| segment.bytes_out), seen.bytes_out, SLACK_BYTES) {
        warnings.push(Warning::BytesOut);
    }
    // What is free need not have been counted.
    if rates().any(|terms| terms.msat_per_megabyte_in > 0)
        && above(total(|segment| segment.bytes_in), seen.bytes_in, SLACK_BYTES)
    {
        warnings.push(Warning::BytesIn);
    }
    // Meters that run side by side (allocations of one TURN session) each count their own time.
    let mut meters: HashMap<String, u64> = HashMap::new();
    for segment in of() {
        let time = meters.entry(segment.lease.to_string()).or_default();
        *time = time.saturating_add(segment.nanoseconds);
    }
    if above(
        meters.into_values().max().unwrap_or(0),
        seen.nanoseconds,
        SLACK_NS,
    ) {
        warnings.push(Warning::Seconds);
    }
}
