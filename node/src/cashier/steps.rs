//! The ladder's steps, carried out: shards are ordered, leases held and resumed, sessions ended.

use std::time::Instant;

use metering::allowance::SPENDING_LIFETIME;
use metering::{AccountId, LeaseId, SessionId, Step};

use super::desk::Desk;
use super::live::Hold;
use super::{Notice, NoticeReason, Order};
use crate::shard::EndReason;

impl Desk {
    /// Lets every ladder that was touched take its step, and carries it out.
    pub(super) fn decide(&mut self, now: Instant) {
        for name in std::mem::take(&mut self.touched) {
            let Some(account) = self.live.accounts.get(&name) else {
                continue;
            };
            let spendable = self.live.spendable(account);
            let before = account.step();
            let long_down = self
                .down
                .is_some_and(|(since, _)| now.duration_since(since) >= SPENDING_LIFETIME);
            let spent = account
                .leases
                .iter()
                .any(|lease| self.live.leases.get(lease).is_some_and(|lease| lease.exhausted));
            let outage = self.ledger.is_none() && (account.outage || spent || long_down);
            let account = self.live.accounts.get_mut(&name).expect("looked up above");
            // Without a ledger nobody knows the balance: the ladder waits, and so does the client.
            if self.ledger.is_some() {
                account.ladder.decide(spendable, now);
            }
            account.outage = outage;
            account.exhausted = false;
            let topped_up = std::mem::take(&mut account.topped_up);
            let step = account.step();
            if step != before {
                let reason = if outage {
                    NoticeReason::LedgerUnavailable
                } else {
                    NoticeReason::Step
                };
                self.take_step(&name, before, step, reason, now);
            } else if topped_up {
                self.tell(&name, NoticeReason::TopUp, now);
            }
            if topped_up {
                self.want_more(&name);
            }
        }
    }

    pub(super) fn take_step(
        &mut self,
        name: &AccountId,
        before: Step,
        step: Step,
        reason: NoticeReason,
        now: Instant,
    ) {
        tracing::info!(account = ?name, %before, %step, "step");
        let sessions = self.live.sessions_of(name);
        if step == Step::Ended {
            for session in sessions {
                self.end_session(session, EndReason::BalanceExhausted, reason, now);
            }
            // They are on their way out; whoever comes next starts on a ladder of its own.
            if let Some(account) = self.live.accounts.get_mut(name) {
                let leases: Vec<LeaseId> = account.leases.iter().copied().collect();
                leases.into_iter().for_each(|lease| account.ladder.leave(lease));
            }
            return;
        }
        if before == Step::Held {
            // First the money, then the word to go on.
            let leases = self
                .live
                .accounts
                .get(name)
                .map(|account| account.leases.clone())
                .unwrap_or_default();
            leases.into_iter().for_each(|lease| self.resume(lease));
        }
        for session in sessions {
            self.order_session(session, |session| Order::SetStep { session, step });
        }
        if step == Step::Held
            && let Some(account) = self.live.accounts.get(name)
        {
            for lease in &account.leases {
                if let Some(lease) = self.live.leases.get_mut(lease)
                    && lease.hold == Hold::No
                {
                    lease.hold = Hold::Asked;
                }
            }
        }
        self.tell(name, reason, now);
    }

    pub(super) fn end_session(&mut self, id: SessionId, end: EndReason, reason: NoticeReason, now: Instant) {
        let Some(session) = self.live.sessions.get_mut(&id) else {
            return;
        };
        if session.ending.is_some() {
            return;
        }
        session.ending = Some(end.slug());
        let account = session.account.clone();
        self.order_session(id, |session| Order::End { session, reason: end });
        if let Some(notice) = self.notice(&account, id, reason, now) {
            self.send(Notice {
                step: Step::Ended,
                ..notice
            });
        }
    }
}
