//! The fourth stage: what a packet costs, before it leaves. And what follows from a lack of money: a slower rung, a
//! pause, the end.

use std::collections::VecDeque;
use std::time::Instant;

use identity::Permit;
use metering::{Direction, Exhausted, LeaseId, Msat, SessionId, Step};

use crate::address_policy::PeerKind;
use crate::allocation::Allocation;
use crate::bucket::{Bucket, Rate};
use crate::config::Config;
use crate::data_connection::ASK_AGAIN;
use crate::discard::Discard;
use crate::egress::Charged;
use crate::event::{CloseReason, Event};
use crate::server::TurnServer;

/// Application bytes on their way.
#[derive(Clone, Copy)]
pub(crate) struct Charge {
    pub(crate) peer: PeerKind,
    pub(crate) direction: Direction,
    pub(crate) bytes: u64,
}

impl Allocation {
    /// Pays for a datagram, or says why it is dropped.
    pub(crate) fn charge(
        &mut self,
        config: &Config,
        charge: Charge,
        now: Instant,
        events: &mut VecDeque<Event>,
    ) -> Result<(), Discard> {
        if self.step >= Step::Held {
            return Err(Discard::Held);
        }
        if let Some(rate) = self.rate(config, charge.peer)
            && !self.bucket(charge.direction).take(rate, charge.bytes, now)
        {
            return Err(Discard::Throttled);
        }
        self.pay(charge, now, events).map_err(|_| Discard::Exhausted)
    }

    /// Pays for a part of a stream, or says when to ask again.
    pub(crate) fn charge_stream(
        &mut self,
        config: &Config,
        charge: Charge,
        now: Instant,
        events: &mut VecDeque<Event>,
    ) -> Result<(), Instant> {
        if self.step >= Step::Held {
            return Err(now + ASK_AGAIN);
        }
        let rate = self.rate(config, charge.peer);
        let (direction, bytes) = (charge.direction, charge.bytes);
        if let Some(until) = rate.and_then(|rate| self.bucket(direction).wait(rate, bytes, now)) {
            return Err(until);
        }
        // More money comes, or the end.
        self.pay(charge, now, events).map_err(|_| now + ASK_AGAIN)?;
        if let Some(rate) = rate {
            self.bucket(direction).owe(rate, bytes, now);
        }
        Ok(())
    }

    /// What the ladder's rung allows.
    fn rate(&self, config: &Config, peer: PeerKind) -> Option<Rate> {
        let bits_per_second = match self.step {
            Step::Reduced => config.reduced_bits_per_second,
            Step::AudioOnly => config.audio_only_bits_per_second,
            _ => return None,
        };
        // Where the SFU is the peer it drops video by the frame, which a bucket cannot.
        let sfu_limits = peer == PeerKind::OwnSfu && self.has_call;
        (!sfu_limits).then_some(Rate {
            bits_per_second,
            burst_bytes: config.burst_bytes,
        })
    }

    fn bucket(&mut self, direction: Direction) -> &mut Bucket {
        match direction {
            Direction::ToClient => &mut self.to_client,
            Direction::FromClient => &mut self.to_peer,
        }
    }

    fn pay(&mut self, charge: Charge, now: Instant, events: &mut VecDeque<Event>) -> Result<(), Exhausted> {
        let allowance = self.allowance.as_mut().ok_or(Exhausted::Spent)?;
        let outcome = allowance.charge(charge.direction, charge.bytes, now);
        if allowance.next_report().is_some_and(|due| due <= now) {
            events.extend(allowance.poll_report(now).map(Event::Report));
        }
        outcome
    }

    /// Requests that keep an allocation alive are refused while it cannot pay.
    pub(crate) fn may_spend(&self) -> Result<(), (u16, &'static str)> {
        if self.step >= Step::Held {
            Err((486, "Balance exhausted: top up"))
        } else {
            Ok(())
        }
    }
}

impl TurnServer {
    /// The ledger's answer to a report: the total granted over the lease's life.
    pub fn grant(&mut self, lease: LeaseId, granted_total: Msat) {
        let allocation = self
            .leases
            .get(&lease)
            .and_then(|key| self.allocations.get_mut(*key));
        if let Some(allowance) = allocation.and_then(|allocation| allocation.allowance.as_mut()) {
            allowance.grant(granted_total);
        }
    }

    /// A rung of the ladder, for all allocations of a session. Unknown sessions are ignored.
    pub fn set_step(&mut self, session: SessionId, step: Step, now: Instant) {
        if step == Step::Ended {
            return self.end(session, now);
        }
        for key in self.allocations.of_session(session) {
            let Some(allocation) = self.allocations.get_mut(key) else {
                continue;
            };
            allocation.step = step;
            allocation.held = (step == Step::Held).then(|| allocation.held.unwrap_or(now));
            allocation.has_call = self.census.has_call(allocation.credential.permit().account());
            if let (true, Some(allowance)) = (allocation.is_open(), allocation.allowance.as_mut()) {
                // Asked of the meter, not of the step before: one that was opened on this step was never paused by it.
                if step == Step::Held {
                    self.events.extend(allowance.pause(now).map(Event::Report));
                } else if allowance.is_paused() {
                    allowance.resume();
                    allowance.start(now);
                    self.events.extend(allowance.poll_report(now).map(Event::Report));
                }
            }
            self.schedule(key, now);
        }
    }

    /// Ends a session: its username and its allocations. Unknown sessions are ignored.
    pub fn end(&mut self, session: SessionId, now: Instant) {
        self.credentials.end(session);
        for key in self.allocations.of_session(session) {
            self.remove(key, CloseReason::Ended, now);
        }
    }

    /// Ends whoever is denied: usernames are forgotten, allocations closed, each with its last report.
    pub fn revoke(&mut self, denied: &dyn Fn(&Permit) -> bool, now: Instant) {
        self.credentials.revoke(denied);
        let of_denied = |allocation: &Allocation| denied(allocation.credential.permit());
        self.remove_where(of_denied, CloseReason::Ended, now);
    }

    /// The kernel refused bytes that were paid for.
    pub fn give_back(&mut self, charged: Charged) {
        let Some(allocation) = self.allocations.get_mut(charged.allocation) else {
            return;
        };
        if let Some(allowance) = &mut allocation.allowance {
            allowance.give_back(charged.direction, charged.bytes);
        }
        self.counters
            .unrelayed(charged.direction, charged.packets, charged.bytes);
    }
}
