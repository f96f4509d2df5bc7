//! Leases in the books: opened, renewed, reported on, released (DESIGN 4.5).

use super::{
    Cap, LedgerError, Open, Outcome, Refusal, Stop,
    account::AccountView,
    books::{Books, LeaseState, LeaseView, Rows, SessionRow},
    journal::{Entry, Kind},
};
use crate::{
    LeaseId, Msat, Rates, lease, meter,
    receipt::Terms,
    report::{Report, Usage},
};

/// Segments on a session's receipt past which it opens no further lease: a receipt is read and signed as a whole, by
/// the one thread that keeps the books, and a TURN username can make one lease after the other for a msat each.
const SEGMENTS_MAX: u32 = 1_000;

impl<R: Rows> Books<R> {
    pub(super) fn open_lease(&mut self, open: &Open) -> Result<Outcome, Stop> {
        // The voucher stays credited whatever becomes of the lease: its token was admitted.
        let credited = match &open.voucher {
            Some(voucher) => match self.credit(voucher, None, &open.conditions.bounds) {
                Ok(credited) => Some(credited),
                Err(Stop::Refused(Refusal::CeilingReached)) => None,
                Err(stop) => return Err(stop),
            },
            None => None,
        };
        let mut account = self.account(&open.account)?;
        // What costs nothing is nobody's to freeze.
        let is_free = open.conditions.free_instead_of.is_some();
        if account.frozen && !is_free {
            return Err(Refusal::Frozen.into());
        }
        // So does the line.
        if let Some(line) = &open.conditions.credit {
            self.set_line(&mut account, line)?;
        }
        let spendable = self.spendable(&account)?;
        if spendable < open.minimum {
            return Err(Refusal::BalanceExhausted {
                available: account.available,
            }
            .into());
        }
        let mut session = match self.rows.session(open.session)? {
            Some(session) if session.account != open.account => return Err(Refusal::OtherAccount.into()),
            Some(session) if session.segments >= SEGMENTS_MAX => return Err(Refusal::ReceiptFull.into()),
            Some(session) => session,
            None => SessionRow {
                account: open.account.clone(),
                terms: Vec::new(),
                segments: 0,
                open_leases: 0,
                started: self.now,
                ended: None,
                reason: None,
                recovered: false,
            },
        };
        let new_session = session.open_leases == 0;
        let live = account.live_sessions.saturating_add(u32::from(new_session));
        let granted = lease::grant(spendable, live, Msat::ZERO, open.want, open.minimum);
        let granted = self.take_from_cap(open.cap.as_ref(), granted)?;
        if granted < open.minimum {
            self.return_to_cap(open.cap.as_ref(), granted)?;
            return Err(Refusal::GrantUsedUp.into());
        }
        account.live_sessions = live;
        session.open_leases = session.open_leases.saturating_add(1);
        (session.ended, session.reason) = (None, None);
        let terms = terms(open);
        if !session.terms.contains(&terms) {
            session.terms.push(terms);
        }
        let id = self.rows.new_lease()?;
        let row = LeaseView {
            account: open.account.clone(),
            session: open.session,
            service: open.service,
            tariff: open.tariff.clone(),
            rates: open.rates.capped(),
            granted,
            settled: Msat::ZERO,
            segment: 0,
            reported: Usage::default(),
            sequence: 0,
            epoch: 0,
            state: LeaseState::Open,
            memo: Msat::ZERO,
            cap: open.cap.clone(),
            free_instead_of: open.conditions.free_instead_of.map(Rates::capped),
            touched_at: self.now,
        };
        self.reserve(&mut account, lease_entry(Kind::Reserve, id, &row, granted))?;
        self.put_account(&account)?;
        self.rows.put_session(open.session, &session)?;
        self.rows.put_lease(id, &row)?;
        self.rows.list_lease(id, true)?;
        Ok(Outcome::Opened {
            lease: id,
            granted,
            available: account.available,
            credited,
        })
    }

    pub(super) fn renew(&mut self, id: LeaseId, want: Msat, minimum: Msat) -> Result<Outcome, Stop> {
        let mut row = self.open_row(id)?;
        let mut account = self.account(&row.account)?;
        if account.frozen && row.free_instead_of.is_none() {
            return Err(Refusal::Frozen.into());
        }
        let spendable = self.spendable(&account)?;
        let more = lease::grant(spendable, account.live_sessions, row.unspent(), want, minimum);
        let more = self.take_from_cap(row.cap.as_ref(), more)?;
        row.granted = row.granted.checked_add(more).ok_or(Refusal::BalanceTooLarge)?;
        row.touched_at = self.now;
        if !more.is_zero() {
            self.reserve(&mut account, lease_entry(Kind::Reserve, id, &row, more))?;
            self.put_account(&account)?;
        }
        self.rows.put_lease(id, &row)?;
        Ok(Outcome::Renewed {
            granted: row.granted,
            available: spendable.saturating_sub(more),
        })
    }

    pub(super) fn report(&mut self, report: &Report) -> Result<Outcome, Stop> {
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
            // The close of the segment before never came: what was reported of it stands.
            self.settle_segment(report.lease, &mut row, true)?;
            row.segment = report.segment;
        }
        row.sequence = report.sequence;
        row.touched_at = self.now;
        row.reported = Usage {
            debit: meter::running(report.usage.owed(&row.rates)),
            ..report.usage
        };
        self.rows.put_lease(report.lease, &row)?;
        Ok(Outcome::Reported)
    }

    pub(super) fn release(&mut self, id: LeaseId) -> Result<Outcome, Stop> {
        let mut row = self.open_row(id)?;
        let mut account = self.account(&row.account)?;
        let unspent = row.unspent();
        self.release_part(id, &mut row, &mut account, unspent)?;
        self.put_account(&account)?;
        self.rows.put_lease(id, &row)?;
        Ok(Outcome::Released(unspent))
    }

    /// Gives `msat` of what a lease holds back to its account.
    pub(super) fn release_part(
        &mut self,
        id: LeaseId,
        row: &mut LeaseView,
        account: &mut AccountView,
        msat: Msat,
    ) -> Result<(), LedgerError> {
        row.granted = row.granted.saturating_sub(msat);
        self.unreserve(account, lease_entry(Kind::Release, id, row, msat))?;
        self.return_to_cap(row.cap.as_ref(), msat)
    }

    fn open_row(&mut self, id: LeaseId) -> Result<LeaseView, Stop> {
        match self.rows.lease(id)? {
            Some(row) if row.state == LeaseState::Open => Ok(row),
            _ => Err(Refusal::NoSuchLease.into()),
        }
    }

    /// As much of `msat` as the payer's ceiling still allows.
    fn take_from_cap(&mut self, cap: Option<&Cap>, msat: Msat) -> Result<Msat, LedgerError> {
        let Some(cap) = cap else { return Ok(msat) };
        let used = self.rows.grant_used(&cap.grant)?;
        let part = msat.min(cap.max.saturating_sub(used));
        self.rows.put_grant_used(&cap.grant, used.saturating_add(part))?;
        Ok(part)
    }

    fn return_to_cap(&mut self, cap: Option<&Cap>, msat: Msat) -> Result<(), LedgerError> {
        let Some(cap) = cap else { return Ok(()) };
        let used = self.rows.grant_used(&cap.grant)?;
        self.rows.put_grant_used(&cap.grant, used.saturating_sub(msat))
    }
}

/// Whether a report says anything that the row does not know. Segments count too: a report that was overtaken by
/// the close of its segment is old whatever its number.
pub(super) fn is_news(row: &LeaseView, report: &Report) -> bool {
    report.sequence > row.sequence && report.segment >= row.segment
}

pub(super) fn lease_entry(kind: Kind, id: LeaseId, row: &LeaseView, msat: Msat) -> Entry {
    Entry {
        session: Some(row.session),
        lease: Some(id),
        service: Some(row.service),
        ..Entry::new(kind, &row.account, msat)
    }
}

fn terms(open: &Open) -> Terms {
    let rates = open.rates.capped();
    Terms {
        service: open.service,
        tariff: open.tariff.clone(),
        msat_per_megabyte_out: rates.out,
        msat_per_megabyte_in: rates.in_,
        msat_per_second: rates.second,
    }
}
