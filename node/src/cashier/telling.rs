//! What shards are ordered, clients are told and operators can see.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use metering::{AccountId, Service, SessionId, Step};

use super::desk::Desk;
use super::live::Account;
use super::{Notice, NoticeReason, Order};

/// Clients hear their balance this often.
const BALANCE_INTERVAL: Duration = Duration::from_secs(2);

/// Orders that wait for a shard whose queue is full. Past this the shard is stuck, and its leases will be reclaimed.
const BACKLOG_MAX: usize = 65_536;

impl Desk {
    /// Tells every session of an account how it stands.
    pub(super) fn tell(&mut self, name: &AccountId, reason: NoticeReason, now: Instant) {
        if let Some(account) = self.live.accounts.get_mut(name) {
            account.told_at = Some(now);
        }
        for session in self.live.sessions_of(name) {
            if self.subscribers.contains_key(&session)
                && let Some(notice) = self.notice(name, session, reason, now)
            {
                self.send(notice);
            }
        }
    }

    pub(super) fn tell_balances(&mut self, now: Instant) {
        let due: Vec<AccountId> = self
            .live
            .accounts
            .iter()
            .filter(|(_, account)| {
                !account.leases.is_empty()
                    && account
                        .told_at
                        .is_none_or(|told| now.duration_since(told) >= BALANCE_INTERVAL)
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            self.tell(&name, NoticeReason::Balance, now);
        }
    }

    pub(super) fn notice(
        &self,
        name: &AccountId,
        session: SessionId,
        reason: NoticeReason,
        now: Instant,
    ) -> Option<Notice> {
        let account = self.live.accounts.get(name)?;
        let available_msat = self.live.spendable_msat(account);
        Some(Notice {
            session,
            step: account.step(),
            available_msat,
            runway_seconds: account
                .ladder
                .runway(available_msat, now)
                .map(|runway| runway.as_secs_f64()),
            burn_msat_per_second: metering::meter::closing(account.ladder.full_burn(now)).get(),
            reason,
        })
    }

    pub(super) fn send(&mut self, notice: Notice) {
        if let Some(subscriber) = self.subscribers.get(&notice.session) {
            // A client that does not read misses this one; the next says where it stands.
            let _ = subscriber.try_send(notice);
        }
    }

    /// An order to the shard of an SFU session, or to every shard where a TURN session's allocations may be.
    pub(super) fn order_session(&mut self, id: SessionId, order: impl Fn(SessionId) -> Order) {
        let Some(session) = self.live.sessions.get(&id) else {
            return;
        };
        match session.service {
            Service::Sfu => self.order(session.shard, order(id)),
            Service::Turn => (0..self.shards.len()).for_each(|shard| self.order(shard, order(id))),
        }
    }

    /// Queues an order behind those that wait, so that they arrive in their order.
    pub(super) fn order(&mut self, shard: usize, order: Order) {
        let Some((send, backlog)) = self.shards.get_mut(shard) else {
            return;
        };
        if (backlog.is_empty() && send(order)) || backlog.len() >= BACKLOG_MAX {
            return;
        }
        backlog.push_back(order);
    }

    pub(super) fn flush_orders(&mut self) {
        for (send, backlog) in &mut self.shards {
            while let Some(order) = backlog.front()
                && send(*order)
            {
                backlog.pop_front();
            }
        }
    }

    /// Figures for operators. None of them is about one account.
    pub(super) fn publish(&self) {
        metrics::gauge!("milliway_ledger_up").set(if self.is_up() { 1.0 } else { 0.0 });
        metrics::gauge!("milliway_leases_active").set(self.live.leases.len() as f64);
        let mut throttled: BTreeMap<Step, u32> = [Step::Warned, Step::Reduced, Step::AudioOnly, Step::Held]
            .map(|step| (step, 0))
            .into();
        for session in self.live.sessions.values() {
            let step = self
                .live
                .accounts
                .get(&session.account)
                .map_or(Step::Full, Account::step);
            throttled.entry(step).and_modify(|count| *count += 1);
        }
        for (step, count) in throttled {
            metrics::gauge!("milliway_throttled_sessions", "step" => step.as_str()).set(f64::from(count));
        }
    }
}
