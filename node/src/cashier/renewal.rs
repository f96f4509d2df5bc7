//! Leases that go on: renewed when half is used, confirmed now and then, resumed after a hold, taken back.

use std::time::{Duration, Instant};

use metering::allowance::SPENDING_LIFETIME;
use metering::ledger::Command;
use metering::{AccountId, LeaseId, Msat, Step, lease};

use super::desk::Desk;
use super::live::{Account, Hold, Lease};
use super::rounds::Then;
use super::{NoticeReason, Order};
use crate::shard::EndReason;

/// A lease that is renewed again this soon burns faster than it is known to: the next grant is twice the last.
const RAMP: Duration = Duration::from_secs(2);

/// A shard hears that its report was committed this often, well within what stops its spending.
pub(super) const ANSWER_INTERVAL: Duration = Duration::from_secs(5);

const _: () = assert!(
    ANSWER_INTERVAL.as_secs() * 2 < SPENDING_LIFETIME.as_secs(),
    "a shard may miss an answer and go on"
);

impl Desk {
    /// Queues a renewal for every lease that wants one and may have it. The others want it still, and are queued
    /// again when they are resumed.
    pub(super) fn queue_renewals(&mut self, now: Instant) {
        for id in std::mem::take(&mut self.wanting) {
            if !self
                .live
                .leases
                .get(&id)
                .is_some_and(|lease| self.may_renew(lease))
            {
                continue;
            }
            let Some(lease) = self.live.leases.get_mut(&id) else {
                continue;
            };
            let burn = self
                .live
                .accounts
                .get(&lease.account)
                .map_or(0, |account| account.ladder.lease_burn(id, now));
            let ramp = now.duration_since(lease.renewed_at) < RAMP;
            let faster = if ramp {
                lease.last_want.saturating_add(lease.last_want)
            } else {
                Msat::ZERO
            };
            let limit = Msat::new(
                lease
                    .limit
                    .unwrap_or(u64::MAX)
                    .saturating_mul(lease::LEASE_SECONDS),
            );
            let minimum = lease::minimum(&lease.rates, burn);
            let mut want = lease::renewal_want(burn).max(faster).min(limit);
            if lease.exhausted {
                // What it has does not pay for one packet, however little it burned so far.
                want = want.max(lease.unspent().saturating_add(minimum));
            }
            lease.wants = false;
            lease.renewed_at = now;
            lease.last_want = want;
            self.renewals.push((
                Command::Renew {
                    lease: id,
                    want,
                    minimum,
                },
                Then::Renew { lease: id },
            ));
        }
    }

    /// Whether a lease that wants more may have it now.
    pub(super) fn may_renew(&self, lease: &Lease) -> bool {
        let step = self
            .live
            .accounts
            .get(&lease.account)
            .map_or(Step::Ended, Account::step);
        let ending = self
            .live
            .sessions
            .get(&lease.session)
            .is_none_or(|session| session.ending.is_some());
        let may = step < Step::Held || lease.free;
        lease.wants && lease.hold == Hold::No && may && !ending && self.is_up()
    }

    pub(super) fn note_renewed(&mut self, id: LeaseId, granted: Msat, available: Msat, now: Instant) {
        let Some(lease) = self.live.leases.get_mut(&id) else {
            return;
        };
        let more = granted > lease.granted;
        let exhausted = lease.exhausted && !more;
        if more {
            lease.exhausted = false;
        }
        lease.granted = granted;
        lease.answered_at = now;
        lease.committed_at = now;
        let (session, shard) = (lease.session, lease.shard);
        let grant_used_up = exhausted && available >= lease::minimum(&lease.rates, 0);
        self.moved.insert(lease.account.clone());
        if grant_used_up {
            // The account could pay, and its payer's grant to this session does not let it: the payer's own sessions
            // are none the worse for it.
            self.end_session(session, EndReason::BalanceExhausted, NoticeReason::Step, now);
            return;
        }
        if exhausted && let Some(account) = self.live.accounts.get_mut(&lease.account) {
            account.exhausted = true;
        }
        self.order(
            shard,
            Order::Grant {
                session,
                lease: id,
                granted_total: granted,
            },
        );
    }

    /// A report of this lease is in the books; now and then its shard is told so.
    pub(super) fn confirm(&mut self, id: LeaseId, now: Instant) {
        let Some(lease) = self.live.leases.get_mut(&id) else {
            return;
        };
        lease.committed_at = now;
        // Between the order to hold and its report, a shard must not hear of a grant that is about to be taken back.
        if now.duration_since(lease.answered_at) >= ANSWER_INTERVAL && lease.hold != Hold::Asked {
            lease.answered_at = now;
            let (session, shard, granted_total) = (lease.session, lease.shard, lease.granted);
            self.order(
                shard,
                Order::Grant {
                    session,
                    lease: id,
                    granted_total,
                },
            );
        }
    }

    /// A held lease is to run again. One that its shard has not yet paused goes on when it says that it has.
    pub(super) fn resume(&mut self, id: LeaseId) {
        if let Some(lease) = self.live.leases.get_mut(&id)
            && lease.hold == Hold::Yes
        {
            lease.hold = Hold::No;
            lease.wants = true;
            lease.exhausted = false;
            self.wanting.insert(id);
        }
    }

    /// After a top-up nobody waits for the next report: who had run out is renewed in this very round.
    pub(super) fn want_more(&mut self, name: &AccountId) {
        let Some(account) = self.live.accounts.get(name) else {
            return;
        };
        for id in &account.leases {
            if let Some(lease) = self.live.leases.get_mut(id) {
                lease.wants |= lease.exhausted || lease.unspent() < lease.last_want;
                if lease.wants {
                    self.wanting.insert(*id);
                }
            }
        }
    }

    pub(super) fn reclaim(&mut self, lease: LeaseId, reason: &str) {
        if let Some(report) = self.reports.remove(&lease) {
            self.batch.push((Command::Report(report), Then::Report { lease }));
        }
        self.batch.push((
            Command::Reclaim {
                lease,
                reason: reason.to_owned(),
            },
            Then::Reclaim { lease },
        ));
    }
}
