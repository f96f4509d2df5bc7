//! What a shard may still spend: asked before every egress, so that nothing is relayed that is not paid for.
//!
//! An allowance is the shard's side of one lease, and of the meter that spends it (one SFU session, one TURN
//! allocation). It counts cumulatively, keeps one second of time reserved ahead and refuses a packet rather than
//! overshoot; the ledger's side settles what it reports. Reports are the update requests of RFC 8506 section 5.2:
//! cumulative and numbered, so that a lost or repeated one changes nothing.
//!
//! No allocation, no lock, no clock: `now` is an argument, and a charge is a handful of multiplications.

use crate::{
    LeaseId, Msat, Rates, SessionId,
    meter::{self, UNITS_PER_BYTE, UNITS_PER_MSAT},
    rate_limit::RateLimit,
    report::{Report, Usage},
};
use std::time::{Duration, Instant};

/// How often usage is reported while the meter runs: what a killed node can lose of its revenue.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// How often a meter that does not run says that it still exists, well before the ledger would reclaim its lease.
pub const IDLE_REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Time that must be paid for ahead of every packet: the longest that time can pass unseen between two reports.
pub const TIME_AHEAD: Duration = Duration::from_secs(1);

/// After this long a segment closes and is settled, so that a receipt never waits for a session's end.
pub const SEGMENT_DURATION: Duration = Duration::from_secs(600);

/// A node stops spending this long after it sent the last report that was answered.
pub const SPENDING_LIFETIME: Duration = Duration::from_secs(30);

const _: () = assert!(
    SPENDING_LIFETIME.as_secs() > 2 * IDLE_REPORT_INTERVAL.as_secs(),
    "an idle meter must be answered at least twice before it stops"
);
const _: () = assert!(
    TIME_AHEAD.as_nanos() >= REPORT_INTERVAL.as_nanos(),
    "time is seen at every report"
);

/// Which way bytes went, seen from the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// To the client: `out`.
    ToClient,
    /// From the client (TURN: to the peer): `in`.
    FromClient,
}

/// Why a charge was refused. Whatever the cause, the packet is dropped and nothing was charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Exhausted {
    /// The lease does not cover these bytes and a second of time.
    #[error("the lease is spent")]
    Spent,
    /// No report was answered for [`SPENDING_LIFETIME`]: the ledger may have taken the lease back.
    #[error("the lease was not renewed in time")]
    Stale,
    /// The client's own `max_msat_per_second`.
    #[error("the client's own limit is reached")]
    RateLimited,
    /// The session is held, or the allowance was closed.
    #[error("the session is held")]
    Held,
}

/// One meter and what it may spend.
#[derive(Clone, Debug)]
pub struct Allowance {
    lease: LeaseId,
    session: SessionId,
    rates: Rates,
    epoch: u32,
    /// Cumulative over the lease's life.
    granted: Msat,
    /// What the closed segments cost.
    settled: Msat,
    /// What was used when the last grant came, and the use at which the next one is asked for: in exact units.
    renew_at: u128,
    segment: u32,
    bytes_out: u64,
    bytes_in: u64,
    nanoseconds: u64,
    /// Up to when time was counted; none while the clock does not run.
    counted_to: Option<Instant>,
    segment_opened: Option<Instant>,
    state: State,
    /// Spending stops here.
    deadline: Option<Instant>,
    /// When the oldest report that no grant has answered was sent.
    unanswered: Option<Instant>,
    reported_at: Option<Instant>,
    sequence: u64,
    exhausted: bool,
    exhausted_told: bool,
    renew_told: bool,
    /// A report is due before its interval.
    urgent: bool,
    limit: Option<RateLimit>,
    /// The bucket is of bytes, not of what they cost.
    limit_is_of_bytes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Paused,
    Closed,
}

impl Allowance {
    /// A meter that may spend `granted`; its clock does not run yet. Poll it for a report once when it is put to use.
    pub fn new(lease: LeaseId, session: SessionId, rates: Rates, granted: Msat) -> Self {
        let mut allowance = Self {
            lease,
            session,
            rates: rates.capped(),
            epoch: 0,
            granted,
            settled: Msat::ZERO,
            renew_at: 0,
            segment: 0,
            bytes_out: 0,
            bytes_in: 0,
            nanoseconds: 0,
            counted_to: None,
            segment_opened: None,
            state: State::Open,
            deadline: None,
            unanswered: None,
            reported_at: None,
            sequence: 0,
            exhausted: false,
            exhausted_told: false,
            renew_told: false,
            urgent: false,
            limit: None,
            limit_is_of_bytes: false,
        };
        allowance.expect_renewal();
        allowance
    }

    /// The lease.
    pub const fn lease(&self) -> LeaseId {
        self.lease
    }

    /// True where bytes from the client cost something. Where they do not, they are not counted either.
    pub const fn charges_ingress(&self) -> bool {
        self.rates.in_ > 0
    }

    /// The session.
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// True while the session is held.
    pub fn is_paused(&self) -> bool {
        self.state == State::Paused
    }

    /// Starts the clock without a byte: a TURN allocation costs from its first moment.
    pub fn start(&mut self, now: Instant) {
        self.notice(now);
        if self.state == State::Open && self.counted_to.is_none() {
            self.counted_to = Some(now);
            self.segment_opened = Some(now);
        }
    }

    /// Pays for `bytes` that are about to be sent, or refuses and changes nothing. The first paid byte starts the clock.
    pub fn charge(&mut self, direction: Direction, bytes: u64, now: Instant) -> Result<(), Exhausted> {
        if self.state != State::Open {
            return Err(Exhausted::Held);
        }
        self.notice(now);
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            return Err(Exhausted::Stale);
        }
        self.count_time(now);
        let (bytes_out, bytes_in) = match direction {
            Direction::ToClient => (self.bytes_out.saturating_add(bytes), self.bytes_in),
            Direction::FromClient => (self.bytes_out, self.bytes_in.saturating_add(bytes)),
        };
        let owed = meter::owed(&self.rates, bytes_out, bytes_in, self.nanoseconds);
        if owed + self.second_ahead() > self.budget() {
            self.exhausted = true;
            self.urgent |= !self.exhausted_told;
            return Err(Exhausted::Spent);
        }
        if let Some(limit) = &mut self.limit {
            limit.take(units(&self.rates, self.limit_is_of_bytes, direction, bytes), now)?;
        }
        (self.bytes_out, self.bytes_in) = (bytes_out, bytes_in);
        if self.counted_to.is_none() {
            self.counted_to = Some(now);
            self.segment_opened = Some(now);
        }
        self.urgent |= !self.renew_told && self.used_at(owed) >= self.renew_at;
        Ok(())
    }

    /// Whether a charge of up to `bytes` at `now` would pass for certain: then a whole batch can be charged at once,
    /// for exactly what a charge for each of its packets would come to. Never with a ceiling of the client's own,
    /// whose bucket is asked packet by packet.
    pub fn covers(&mut self, direction: Direction, bytes: u64, now: Instant) -> bool {
        if self.state != State::Open || self.limit.is_some() {
            return false;
        }
        self.notice(now);
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            return false;
        }
        self.count_time(now);
        self.owed() + cost(&self.rates, direction, bytes) + self.second_ahead() <= self.budget()
    }

    /// Takes back bytes that were charged and that the kernel then refused to send.
    pub fn give_back(&mut self, direction: Direction, bytes: u64) {
        match direction {
            Direction::ToClient => self.bytes_out = self.bytes_out.saturating_sub(bytes),
            Direction::FromClient => self.bytes_in = self.bytes_in.saturating_sub(bytes),
        }
        if let Some(limit) = &mut self.limit {
            limit.give_back(units(&self.rates, self.limit_is_of_bytes, direction, bytes));
        }
    }

    /// The ledger's answer: the total granted over the lease's life. It never lowers what was granted, and even an
    /// unchanged total says that the ledger still knows the lease.
    pub fn grant(&mut self, granted_total: Msat) {
        // The oldest unanswered report is the earliest that this can be the answer to.
        if let Some(sent) = self.unanswered.take() {
            self.deadline = Some(sent + SPENDING_LIFETIME);
        }
        if granted_total > self.granted {
            self.granted = granted_total;
            self.exhausted = false;
            self.exhausted_told = false;
            self.expect_renewal();
        }
    }

    /// Holds the meter: the segment closes at `at`, time stops, and what was not spent goes back to the account. None
    /// where it was held or closed already.
    pub fn pause(&mut self, at: Instant) -> Option<Report> {
        if self.state != State::Open {
            return None;
        }
        self.notice(at);
        self.count_time(at);
        let report = Report {
            held: true,
            ..self.close_segment(at, false)
        };
        self.state = State::Paused;
        self.granted = self.settled;
        self.expect_renewal();
        Some(report)
    }

    /// Ends a hold. The next charged byte, or `start`, opens a segment.
    pub fn resume(&mut self) {
        if self.state == State::Paused {
            self.state = State::Open;
            self.exhausted = false;
            self.exhausted_told = false;
            // Asking at once costs nothing and is what the session waits for.
            self.urgent = true;
        }
    }

    /// The client's own ceiling on what it spends, as a bucket of one second. None lifts it.
    pub fn set_rate_limit(&mut self, max_msat_per_second: Option<u64>) {
        self.limit = max_msat_per_second.map(|most| RateLimit::new(most, self.rates.second));
        self.limit_is_of_bytes = false;
    }

    /// A ceiling on bytes instead, both ways together, for a meter that costs nothing. None lifts it.
    pub fn set_byte_limit(&mut self, bits_per_second: Option<u64>) {
        self.limit = bits_per_second.map(|most| RateLimit::new(most / 8, 0));
        self.limit_is_of_bytes = true;
    }

    /// The report that is due by `now`, if one is.
    pub fn poll_report(&mut self, now: Instant) -> Option<Report> {
        if self.state == State::Closed {
            return None;
        }
        self.notice(now);
        self.count_time(now);
        let running = self.counted_to.is_some();
        let owed = self.owed();
        if running && owed + self.second_ahead() > self.budget() {
            self.exhausted = true;
        }
        let renew = self.state == State::Open && self.used_at(owed) >= self.renew_at;
        let ends = self
            .segment_opened
            .is_some_and(|opened| now.duration_since(opened) >= SEGMENT_DURATION);
        let interval = if running {
            REPORT_INTERVAL
        } else {
            IDLE_REPORT_INTERVAL
        };
        let elapsed = self
            .reported_at
            .is_some_and(|reported| now.duration_since(reported) >= interval);
        let news =
            self.urgent || (self.exhausted && !self.exhausted_told) || (renew && !self.renew_told && running);
        if !(ends || elapsed || news) {
            return None;
        }
        if ends {
            let report = self.close_segment(now, false);
            self.counted_to = Some(now);
            self.segment_opened = Some(now);
            return Some(report);
        }
        let usage = self.usage_owing(meter::running(owed));
        Some(self.report(now, usage, renew, false, false))
    }

    /// When the next report is due; none before the allowance has been polled once, and after it was closed. An
    /// instant in the past means at once.
    pub fn next_report(&self) -> Option<Instant> {
        if self.state == State::Closed {
            return None;
        }
        let reported = self.reported_at?;
        if self.urgent {
            return Some(reported);
        }
        Some(
            reported
                + if self.counted_to.is_some() {
                    REPORT_INTERVAL
                } else {
                    IDLE_REPORT_INTERVAL
                },
        )
    }

    /// Ends the lease. Time counts up to `at`, which may be before what was counted already: the last time that the
    /// client was known to be there.
    pub fn close(&mut self, at: Instant) -> Report {
        self.count_time(at);
        if let Some(counted_to) = self.counted_to {
            let unseen = counted_to.saturating_duration_since(at);
            self.nanoseconds = self.nanoseconds.saturating_sub(nanoseconds(unseen));
        }
        let report = self.close_segment(at, true);
        self.state = State::Closed;
        report
    }

    /// What the current segment has used by `now`.
    pub fn usage(&self, now: Instant) -> Usage {
        let mut at_now = self.clone();
        at_now.count_time(now);
        at_now.usage_owing(meter::running(at_now.owed()))
    }

    /// First sight of a clock: the reports' rhythm and the lifetime of what was granted start here.
    fn notice(&mut self, now: Instant) {
        self.reported_at.get_or_insert(now);
        self.deadline.get_or_insert(now + SPENDING_LIFETIME);
    }

    /// Counts the time since the last look, but none that was not paid for: past the grant or the deadline nothing is
    /// relayed, and what is not relayed is free.
    fn count_time(&mut self, now: Instant) {
        let Some(counted_to) = self.counted_to else { return };
        if now <= counted_to {
            return;
        }
        let until = self.deadline.map_or(now, |deadline| now.min(deadline));
        let passed = nanoseconds(until.saturating_duration_since(counted_to));
        self.counted_to = Some(now);
        let total = self.nanoseconds.saturating_add(passed);
        let budget = self.budget();
        if meter::owed(&self.rates, self.bytes_out, self.bytes_in, total) <= budget {
            self.nanoseconds = total;
        } else if let Some(left) = budget
            .saturating_sub(self.owed())
            .checked_div(u128::from(self.rates.second))
        {
            let left = u64::try_from(left).unwrap_or(u64::MAX);
            self.nanoseconds = total.min(self.nanoseconds.saturating_add(left));
        }
    }

    fn close_segment(&mut self, now: Instant, last: bool) -> Report {
        let usage = self.usage_owing(meter::closing(self.owed()));
        let report = self.report(now, usage, false, true, last);
        self.settled = self.settled.saturating_add(usage.debit);
        self.segment = self.segment.saturating_add(1);
        (self.bytes_out, self.bytes_in, self.nanoseconds) = (0, 0, 0);
        (self.counted_to, self.segment_opened) = (None, None);
        report
    }

    fn report(&mut self, now: Instant, usage: Usage, renew: bool, closed: bool, last: bool) -> Report {
        self.sequence += 1;
        let exhausted = self.exhausted;
        self.exhausted_told |= exhausted;
        self.renew_told |= renew;
        self.exhausted = false;
        self.urgent = false;
        // A close may carry an instant in the past; the rhythm does not go back.
        self.reported_at = self
            .reported_at
            .map_or(Some(now), |reported| Some(reported.max(now)));
        self.unanswered.get_or_insert(now);
        Report {
            lease: self.lease,
            session: self.session,
            epoch: self.epoch,
            sequence: self.sequence,
            segment: self.segment,
            usage,
            granted: self.granted,
            exhausted,
            renew,
            closed,
            held: self.state == State::Paused,
            last,
        }
    }

    fn usage_owing(&self, debit: Msat) -> Usage {
        Usage {
            bytes_out: self.bytes_out,
            bytes_in: self.bytes_in,
            nanoseconds: self.nanoseconds,
            debit,
        }
    }

    fn owed(&self) -> u128 {
        meter::owed(&self.rates, self.bytes_out, self.bytes_in, self.nanoseconds)
    }

    fn second_ahead(&self) -> u128 {
        TIME_AHEAD.as_nanos() * u128::from(self.rates.second)
    }

    /// What this segment may cost, in exact units. Staying within a whole number of msat keeps the rounding up of its
    /// close within the grant too.
    fn budget(&self) -> u128 {
        u128::from(self.granted.saturating_sub(self.settled).get()) * UNITS_PER_MSAT
    }

    fn used_at(&self, owed: u128) -> u128 {
        u128::from(self.settled.get()) * UNITS_PER_MSAT + owed
    }

    /// The next renewal is asked for when half of what there is now is used.
    fn expect_renewal(&mut self) {
        let used = self.used_at(self.owed());
        let granted = u128::from(self.granted.get()) * UNITS_PER_MSAT;
        self.renew_at = used + granted.saturating_sub(used) / 2;
        self.renew_told = false;
    }
}

/// What a charge takes from a bucket.
fn units(rates: &Rates, of_bytes: bool, direction: Direction, bytes: u64) -> u128 {
    if of_bytes {
        u128::from(bytes) * UNITS_PER_MSAT
    } else {
        cost(rates, direction, bytes)
    }
}

fn cost(rates: &Rates, direction: Direction, bytes: u64) -> u128 {
    let rate = match direction {
        Direction::ToClient => rates.out,
        Direction::FromClient => rates.in_,
    };
    UNITS_PER_BYTE * u128::from(bytes) * u128::from(rate)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
