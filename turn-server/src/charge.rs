//! The fourth stage: what a packet costs, before it leaves. And what follows from a lack of money: a slower rung, a
//! pause, the end.

use std::collections::VecDeque;
use std::time::Instant;

use identity::Permit;
use metering::{Direction, LeaseId, Msat, SessionId, Step};

use crate::address_policy::PeerKind;
use crate::allocation::Allocation;
use crate::bucket::Rate;
use crate::config::Config;
use crate::discard::Discard;
use crate::egress::Charged;
use crate::event::{CloseReason, Event};
use crate::server::TurnServer;

impl Allocation {
    /// Pays for application bytes, or says why they are not relayed.
    pub(crate) fn charge(
        &mut self,
        config: &Config,
        peer: PeerKind,
        direction: Direction,
        bytes: u64,
        now: Instant,
        events: &mut VecDeque<Event>,
    ) -> Result<(), Discard> {
        let bits_per_second = match self.step {
            Step::Full | Step::Warned => None,
            Step::Reduced => Some(config.reduced_bits_per_second),
            Step::AudioOnly => Some(config.audio_only_bits_per_second),
            Step::Held | Step::Ended => return Err(Discard::Held),
        };
        // Where the SFU is the peer it drops video by the frame, which a bucket cannot.
        let sfu_limits = peer == PeerKind::OwnSfu && self.has_call;
        if let Some(bits_per_second) = bits_per_second.filter(|_| !sfu_limits) {
            let bucket = match direction {
                Direction::ToClient => &mut self.to_client,
                Direction::FromClient => &mut self.to_peer,
            };
            if !bucket.take(
                Rate {
                    bits_per_second,
                    burst_bytes: config.burst_bytes,
                },
                bytes,
                now,
            ) {
                return Err(Discard::Throttled);
            }
        }
        let allowance = self.allowance.as_mut().ok_or(Discard::Exhausted)?;
        let outcome = allowance.charge(direction, bytes, now);
        if allowance.next_report().is_some_and(|due| due <= now) {
            events.extend(allowance.poll_report(now).map(Event::Report));
        }
        outcome.map_err(|_| Discard::Exhausted)
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
        for (_, allocation) in self.allocations.iter_mut() {
            if allocation.credential.session() != session {
                continue;
            }
            allocation.step = step;
            allocation.has_call = self.census.has_call(allocation.credential.permit().account());
            let (true, Some(allowance)) = (allocation.is_open(), allocation.allowance.as_mut()) else {
                continue;
            };
            // Asked of the meter, not of the step before: one that was opened on this step was never paused by it.
            if step == Step::Held {
                self.events.extend(allowance.pause(now).map(Event::Report));
            } else if allowance.is_paused() {
                allowance.resume();
                allowance.start(now);
                self.events.extend(allowance.poll_report(now).map(Event::Report));
            }
        }
    }

    /// Ends a session: its username and its allocations. Unknown sessions are ignored.
    pub fn end(&mut self, session: SessionId, now: Instant) {
        self.credentials.end(session);
        let of_session = |allocation: &Allocation| allocation.credential.session() == session;
        self.remove_where(of_session, CloseReason::Ended, now);
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
        let (packets, bytes) = match charged.direction {
            Direction::ToClient => (
                &mut self.counters.packets_to_client,
                &mut self.counters.bytes_to_client,
            ),
            Direction::FromClient => (
                &mut self.counters.packets_from_client,
                &mut self.counters.bytes_from_client,
            ),
        };
        *packets = packets.saturating_sub(charged.packets);
        *bytes = bytes.saturating_sub(charged.bytes);
    }
}
