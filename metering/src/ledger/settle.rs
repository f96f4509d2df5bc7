//! Settlement: a closed segment is billed, goes into the journal and onto the session's receipt.

use super::{
    LedgerError, Outcome, Refusal, Stop,
    books::{Books, LeaseState, LeaseView, Rows, SessionRow},
    journal::{Entry, Kind},
    leases::{is_news, lease_entry},
};
use crate::{
    AccountId, LeaseId, Msat, SessionId, meter,
    receipt::{Receipt, Segment},
    report::{Report, Usage},
};

impl<R: Rows> Books<R> {
    /// Bills the segment that a report closes. The bill is reckoned here, from the counts and the lease's own rates.
    pub(super) fn settle(&mut self, report: &Report, reason: &str) -> Result<Outcome, Stop> {
        let Some(mut row) = self.rows.lease(report.lease)? else {
            return Err(Refusal::NoSuchLease.into());
        };
        if !is_news(&row, report) {
            return Ok(Outcome::Ignored);
        }
        if row.state != LeaseState::Open || report.epoch != row.epoch {
            return self.remember_old_epoch(row, report).map_err(Stop::from);
        }
        if report.segment > row.segment {
            self.settle_segment(report.lease, &mut row, true)?;
        }
        row.segment = report.segment;
        row.reported = report.usage;
        row.sequence = report.sequence;
        row.touched_at = self.now;
        let (earned, uncollected) = self.settle_segment(report.lease, &mut row, false)?;
        if report.last {
            self.end_lease(report.lease, &mut row, LeaseState::Closed, reason, self.now)?;
        }
        self.rows.put_lease(report.lease, &row)?;
        Ok(Outcome::Settled { earned, uncollected })
    }

    /// Ends a lease whose node went silent: what it reported is earned, the rest goes back.
    pub(super) fn reclaim(&mut self, id: LeaseId, reason: &str) -> Result<Outcome, Stop> {
        let Some(mut row) = self.rows.lease(id)?.filter(|row| row.state == LeaseState::Open) else {
            return Err(Refusal::NoSuchLease.into());
        };
        let last_seen = row.touched_at;
        let (earned, uncollected) = self.settle_segment(id, &mut row, true)?;
        row.epoch = row.epoch.saturating_add(1);
        row.memo = earned;
        self.end_lease(id, &mut row, LeaseState::Reclaimed, reason, last_seen)?;
        self.rows.put_lease(id, &row)?;
        Ok(Outcome::Settled { earned, uncollected })
    }

    /// Settles and takes back every open lease of an account, whoever spends from it.
    pub(super) fn close_account(&mut self, account: &AccountId, reason: &str) -> Result<Outcome, Stop> {
        let mut sum = (Msat::ZERO, Msat::ZERO);
        for lease in self.rows.open_leases_of(account)? {
            if let Outcome::Settled { earned, uncollected } = self.reclaim(lease, reason)? {
                sum = (sum.0.saturating_add(earned), sum.1.saturating_add(uncollected));
            }
        }
        Ok(Outcome::Settled {
            earned: sum.0,
            uncollected: sum.1,
        })
    }

    /// Bills what the row has as reported of its segment, within what the lease holds, and begins the next one.
    /// `recovered`: its end was not seen, so that it is rounded down.
    pub(super) fn settle_segment(
        &mut self,
        id: LeaseId,
        row: &mut LeaseView,
        recovered: bool,
    ) -> Result<(Msat, Msat), LedgerError> {
        let used = row.reported;
        let number = row.segment;
        row.reported = Usage::default();
        // A recovered lease keeps its segment's number, so that a late report is recognised as the same one.
        row.segment = if recovered {
            number
        } else {
            number.saturating_add(1)
        };
        if used.is_empty() {
            return Ok((Msat::ZERO, Msat::ZERO));
        }
        let owed = used.owed(&row.rates);
        let debit = if recovered {
            meter::running(owed)
        } else {
            meter::closing(owed)
        };
        let earned = debit.min(row.reserved());
        let uncollected = debit.saturating_sub(earned);
        let usage = Usage {
            debit: earned,
            ..used
        };
        let mut account = self.account(&row.account)?;
        row.settled = row.settled.saturating_add(earned);
        let entry = Entry {
            segment: Some(number),
            usage: Some(usage),
            ..lease_entry(Kind::Settle, id, row, earned)
        };
        let (entry, settlement) = self.earn(&mut account, entry)?;
        self.put_account(&account)?;
        self.memo(Kind::Uncollected, row, id, uncollected)?;
        if let Some(rates) = row.free_instead_of {
            self.memo(Kind::Emergency, row, id, meter::closing(used.owed(&rates)))?;
        }
        let Some(mut session) = self.rows.session(row.session)? else {
            return Err(LedgerError::Corrupt("a lease without its session".to_owned()));
        };
        let segment = Segment {
            service: row.service,
            tariff: row.tariff.clone(),
            lease: id,
            segment: number,
            bytes_out: used.bytes_out,
            bytes_in: used.bytes_in,
            nanoseconds: used.nanoseconds,
            msat: earned,
            settled_at: self.now,
            recovered,
            settlement,
            entry: Some(entry),
        };
        self.rows.put_segment(row.session, session.segments, &segment)?;
        session.segments = session.segments.saturating_add(1);
        session.recovered |= recovered;
        self.rows.put_session(row.session, &session)?;
        Ok((earned, uncollected))
    }

    fn end_lease(
        &mut self,
        id: LeaseId,
        row: &mut LeaseView,
        state: LeaseState,
        reason: &str,
        at: u64,
    ) -> Result<(), LedgerError> {
        let mut account = self.account(&row.account)?;
        let rest = row.reserved();
        self.release_part(id, row, &mut account, rest)?;
        row.state = state;
        self.rows.list_lease(id, false)?;
        if let Some(mut session) = self.rows.session(row.session)? {
            session.open_leases = session.open_leases.saturating_sub(1);
            session.recovered |= state == LeaseState::Reclaimed;
            if session.open_leases == 0 {
                session.ended = Some(at);
                session.reason = Some(reason.to_owned());
                account.live_sessions = account.live_sessions.saturating_sub(1);
            }
            self.rows.put_session(row.session, &session)?;
        }
        self.put_account(&account)
    }

    /// A report for a lease that has ended: the money is gone back to its owner, so only the memo account hears.
    pub(super) fn remember_old_epoch(
        &mut self,
        mut row: LeaseView,
        report: &Report,
    ) -> Result<Outcome, LedgerError> {
        let debit = meter::closing(report.usage.owed(&row.rates));
        let known = if report.segment == row.segment {
            row.memo
        } else {
            Msat::ZERO
        };
        self.memo(Kind::OldEpoch, &row, report.lease, debit.saturating_sub(known))?;
        row.segment = report.segment;
        row.memo = known.max(debit);
        row.sequence = report.sequence;
        self.rows.put_lease(report.lease, &row)?;
        Ok(Outcome::Ignored)
    }
}

/// A receipt, from the rows that it consists of.
pub fn receipt(session: SessionId, row: SessionRow, segments: Vec<Segment>) -> Receipt {
    let sum = |of: fn(&Segment) -> u64| {
        segments
            .iter()
            .fold(0, |sum: u64, segment| sum.saturating_add(of(segment)))
    };
    Receipt {
        session,
        account: row.account,
        terms: row.terms,
        bytes_out: sum(|segment| segment.bytes_out),
        bytes_in: sum(|segment| segment.bytes_in),
        nanoseconds: sum(|segment| segment.nanoseconds),
        msat: Msat::new(sum(|segment| segment.msat.get())),
        started: row.started,
        ended: row.ended,
        reason: row.reason,
        recovered: row.recovered,
        segments,
    }
}
