//! Allocate (RFC 8656 section 7): money first, then a port, then the answer. Until then the request's retransmissions
//! are absorbed, and afterwards they get the same answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metering::{Allowance, Step};
use wire::stun::{AttributeType, Message, Method};

use crate::allocation::{Allocation, AllocationKey, Family, FiveTuple, Stage};
use crate::answer::Head;
use crate::bucket::Bucket;
use crate::census::Full;
use crate::channel::Channels;
use crate::config::{LIFETIME_DEFAULT, LIFETIME_MAX, PENDING_MAX, RELAYED_PORTS};
use crate::credential::Credential;
use crate::discard::Discard;
use crate::egress::Transmit;
use crate::event::{CloseReason, Event, Refusal};
use crate::permission::Permissions;
use crate::server::TurnServer;

/// REQUESTED-TRANSPORT for UDP.
const UDP: u8 = 17;

/// Ports tried in the census before the range counts as full, and in the kernel before the node does.
const PORT_DRAWS: usize = 64;
const PORT_ATTEMPTS: usize = 8;

const INSUFFICIENT_CAPACITY: (u16, &str) = (508, "Insufficient Capacity");

/// What an Allocate asks for.
struct Wanted {
    lifetime: Duration,
    family: Family,
    even_port: bool,
    additional_family: bool,
}

impl TurnServer {
    pub(crate) fn allocate(
        &mut self,
        now: Instant,
        five_tuple: FiveTuple,
        message: &Message<'_>,
        credential: &Arc<Credential>,
    ) -> Option<usize> {
        let head = Head::of(message);
        if let Some((key, allocation)) = self.allocations.of_client(&five_tuple) {
            let same = allocation.transaction == head.id
                && allocation.credential.username() == credential.username();
            return match (same, allocation.is_open()) {
                (true, true) => self.allocate_success(key),
                (true, false) => {
                    self.counters.discard(Discard::Pending);
                    None
                }
                (false, _) => head.error(
                    &mut self.reply,
                    credential.integrity(),
                    (437, "Allocation Mismatch"),
                ),
            };
        }
        match self.new_allocation(now, five_tuple, message, credential) {
            Ok(()) => None,
            Err(error) => head.error(&mut self.reply, credential.integrity(), error),
        }
    }

    fn new_allocation(
        &mut self,
        now: Instant,
        five_tuple: FiveTuple,
        message: &Message<'_>,
        credential: &Arc<Credential>,
    ) -> Result<(), (u16, &'static str)> {
        // A client behind one of our relayed ports would make a packet go round: relayed port to relayed port to client.
        if self.config.policy.is_own_relay(five_tuple.client, &self.census) {
            return Err((403, "Forbidden: a relayed address is no client"));
        }
        let wanted = self.wanted(message)?;
        if self.draining {
            return Err((508, "Draining"));
        }
        let (account_max, total_max) = (
            self.config.allocations_per_account_max,
            self.config.allocations_max,
        );
        self.census
            .enter(credential.permit().account(), account_max, total_max)
            .map_err(|full| match full {
                Full::Account => (486, "Allocation Quota Reached"),
                Full::Node => INSUFFICIENT_CAPACITY,
            })?;
        let head = Head::of(message);
        let allocation = self.allocations.insert(Allocation {
            five_tuple,
            credential: credential.clone(),
            stage: Stage::Admitting,
            transaction: head.id,
            lifetime: wanted.lifetime,
            family: wanted.family,
            even_port: wanted.even_port,
            additional_family: wanted.additional_family,
            fingerprint: head.fingerprint,
            expires: now + PENDING_MAX,
            allowance: None,
            permissions: Permissions::new(self.config.permissions_per_allocation_max),
            channels: Channels::new(self.config.channels_per_allocation_max),
            step: Step::Full,
            has_call: false,
            to_client: Bucket::default(),
            to_peer: Bucket::default(),
        });
        self.schedule(now);
        let (session, permit) = (credential.session(), credential.permit().clone());
        self.events.push_back(Event::Admit {
            allocation,
            session,
            permit,
        });
        Ok(())
    }

    /// RFC 8656 section 7.2, in its order.
    fn wanted(&self, message: &Message<'_>) -> Result<Wanted, (u16, &'static str)> {
        const BAD_REQUEST: (u16, &str) = (400, "Bad Request");
        match message.requested_transport() {
            Some(UDP) => {}
            Some(_) => return Err((442, "Unsupported Transport Protocol")),
            None => return Err(BAD_REQUEST),
        }
        let reserve = message.even_port();
        let has = |kind| message.has(kind);
        if has(AttributeType::EVEN_PORT) && reserve.is_none()
            || has(AttributeType::LIFETIME) && message.lifetime().is_none()
        {
            return Err(BAD_REQUEST);
        }
        let requested_family = has(AttributeType::REQUESTED_ADDRESS_FAMILY);
        let additional_family = has(AttributeType::ADDITIONAL_ADDRESS_FAMILY);
        if has(AttributeType::RESERVATION_TOKEN) {
            // We never gave one out.
            let alone = reserve.is_none() && !requested_family && !additional_family;
            return Err(if alone { INSUFFICIENT_CAPACITY } else { BAD_REQUEST });
        }
        if additional_family {
            let ipv6 = message.additional_address_family().and_then(Family::from_number) == Some(Family::V6);
            if !ipv6 || requested_family || reserve == Some(true) {
                return Err(BAD_REQUEST);
            }
        }
        if reserve == Some(true) {
            return Err((508, "No port reservations"));
        }
        let family = match (requested_family, message.requested_address_family()) {
            (false, _) => Some(Family::V4),
            (true, Some(number)) => Family::from_number(number),
            (true, None) => return Err(BAD_REQUEST),
        };
        let family = family.filter(|family| self.config.families.contains(family));
        let family = family.ok_or((440, "Address Family not Supported"))?;
        let even_port = reserve.is_some();
        Ok(Wanted {
            lifetime: lifetime(message),
            family,
            even_port,
            additional_family,
        })
    }

    /// The money for a pending allocation is there; its port comes next. An answer to its client if there is none.
    pub fn admitted(
        &mut self,
        key: AllocationKey,
        mut allowance: Allowance,
        step: Step,
        now: Instant,
    ) -> Option<Transmit<'_>> {
        let pending = self
            .allocations
            .get_mut(key)
            .filter(|allocation| matches!(allocation.stage, Stage::Admitting));
        let Some(allocation) = pending else {
            // The client went away meanwhile: nothing was used, and the money goes back.
            self.events.push_back(Event::Report(allowance.close(now)));
            return None;
        };
        self.leases.insert(allowance.lease(), key);
        allocation.allowance = Some(allowance);
        allocation.step = step;
        if self.open_port(key, 0) {
            None
        } else {
            self.fail(key, INSUFFICIENT_CAPACITY, now)
        }
    }

    /// There is no money for a pending allocation. The answer to its client, if it still waits.
    pub fn refused(&mut self, key: AllocationKey, refusal: Refusal, now: Instant) -> Option<Transmit<'_>> {
        let pending = self
            .allocations
            .get_mut(key)
            .filter(|allocation| matches!(allocation.stage, Stage::Admitting));
        pending.is_some().then_some(())?;
        self.fail(key, refusal.answer(), now)
    }

    /// The port of an allocation is open, under this address to the outside. The answer to its client.
    pub fn relay_opened(
        &mut self,
        key: AllocationKey,
        relayed: SocketAddr,
        now: Instant,
    ) -> Option<Transmit<'_>> {
        let opening = self
            .allocations
            .get_mut(key)
            .filter(|allocation| matches!(allocation.stage, Stage::Opening { .. }));
        let Some(allocation) = opening else {
            self.events.push_back(Event::CloseRelay { allocation: key });
            return None;
        };
        allocation.stage = Stage::Open { relayed };
        allocation.expires = now + allocation.lifetime;
        let held = allocation.step == Step::Held;
        if let Some(allowance) = &mut allocation.allowance {
            // An account may be held between the admission and the port: held time is free from the first moment on.
            let report = if held {
                allowance.pause(now)
            } else {
                allowance.start(now);
                allowance.poll_report(now)
            };
            self.events.extend(report.map(Event::Report));
        }
        let five_tuple = allocation.five_tuple;
        let len = self.allocate_success(key)?;
        Some(self.answer(five_tuple, len))
    }

    /// The port of an allocation could not be opened. Another is asked for, or its client answered.
    pub fn relay_failed(&mut self, key: AllocationKey, now: Instant) -> Option<Transmit<'_>> {
        let &Stage::Opening { port, attempts } = &self.allocations.get_mut(key)?.stage else {
            return None;
        };
        self.census.free_port(port);
        if attempts < PORT_ATTEMPTS && self.open_port(key, attempts) {
            return None;
        }
        if let Some(allocation) = self.allocations.get_mut(key) {
            // The port is given back already.
            allocation.stage = Stage::Admitting;
        }
        self.fail(key, INSUFFICIENT_CAPACITY, now)
    }

    /// Draws a port that nobody can predict and asks for it. False if there is none.
    fn open_port(&mut self, key: AllocationKey, attempts: usize) -> bool {
        let Some((family, even)) = self.allocations.get_mut(key).map(|a| (a.family, a.even_port)) else {
            return false;
        };
        let mut drawn = None;
        for _ in 0..PORT_DRAWS {
            let port = self.draw_port(even);
            if self.census.take_port(port) {
                drawn = Some(port);
                break;
            }
        }
        let Some(port) = drawn else { return false };
        if let Some(allocation) = self.allocations.get_mut(key) {
            allocation.stage = Stage::Opening {
                port,
                attempts: attempts + 1,
            };
        }
        self.events.push_back(Event::OpenRelay {
            allocation: key,
            family,
            port,
        });
        true
    }

    fn draw_port(&mut self, even: bool) -> u16 {
        use rand::Rng;
        let (first, last) = (*RELAYED_PORTS.start(), *RELAYED_PORTS.end());
        // The range is a power of two, so that the remainder is uniform.
        const {
            assert!(
                (*RELAYED_PORTS.end() - *RELAYED_PORTS.start())
                    & (*RELAYED_PORTS.end() - *RELAYED_PORTS.start() + 1)
                    == 0
            )
        };
        let port = first + (self.rng.next_u32() as u16 & (last - first));
        if even { port & !1 } else { port }
    }

    fn fail(&mut self, key: AllocationKey, error: (u16, &str), now: Instant) -> Option<Transmit<'_>> {
        let allocation = self.allocations.get_mut(key)?;
        let head = Head {
            method: Method::ALLOCATE,
            id: allocation.transaction,
            fingerprint: allocation.fingerprint,
        };
        let (five_tuple, credential) = (allocation.five_tuple, allocation.credential.clone());
        self.remove(key, CloseReason::Refused, now);
        let len = head.error(&mut self.reply, credential.integrity(), error)?;
        Some(self.answer(five_tuple, len))
    }

    fn allocate_success(&mut self, key: AllocationKey) -> Option<usize> {
        let allocation = self.allocations.get_mut(key)?;
        let Stage::Open { relayed } = allocation.stage else {
            return None;
        };
        let head = Head {
            method: Method::ALLOCATE,
            id: allocation.transaction,
            fingerprint: allocation.fingerprint,
        };
        head.success(&mut self.reply, allocation.credential.integrity(), |answer| {
            let answer = answer
                .xor_relayed_address(relayed)
                .lifetime(seconds(allocation.lifetime))
                .xor_mapped_address(allocation.five_tuple.client);
            if allocation.additional_family {
                answer.address_error_code(2, 440, "One family each")
            } else {
                answer
            }
        })
    }
}

/// What a client gets of the lifetime it asks for.
pub(crate) fn lifetime(message: &Message<'_>) -> Duration {
    let requested = message
        .lifetime()
        .map_or(LIFETIME_DEFAULT, |seconds| Duration::from_secs(seconds.into()));
    requested.clamp(LIFETIME_DEFAULT, LIFETIME_MAX)
}

/// As in LIFETIME.
pub(crate) fn seconds(lifetime: Duration) -> u32 {
    u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX)
}
