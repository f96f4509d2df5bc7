//! Relayed ports (RFC 8656 section 7.2): drawn so that nobody can predict them, opened by the shard one after the other,
//! and for EVEN-PORT with the one above kept.

use std::net::SocketAddr;
use std::time::Instant;

use metering::Step;
use rand::Rng;

use crate::allocate::INSUFFICIENT_CAPACITY;
use crate::allocation::{AllocationKey, Family, Port, Protocol, Stage};
use crate::config::RELAYED_PORTS;
use crate::credential::Credential;
use crate::egress::Transmit;
use crate::event::Event;
use crate::reservation::{RESERVATION_LIFETIME, Reservation, Token};
use crate::server::TurnServer;

/// Ports tried in the census before the range counts as full, and in the kernel before the node does.
const PORT_DRAWS: usize = 64;
const PORT_ATTEMPTS: usize = 8;

impl TurnServer {
    /// A port of an allocation is open, under this address to the outside. The answer to its client, once it has all
    /// that it asked for.
    pub fn relay_opened(
        &mut self,
        key: AllocationKey,
        relayed: SocketAddr,
        now: Instant,
    ) -> Option<Transmit<'_>> {
        let family = Family::of(relayed.ip());
        let opening = self.allocations.get_mut(key).map(|a| a.port_mut(family));
        match opening {
            Some(port @ Port::Opening { .. }) => *port = Port::Open(relayed),
            _ => {
                self.events.push_back(Event::CloseRelay {
                    allocation: key,
                    family,
                });
                return None;
            }
        }
        self.open_next(key, now)
    }

    /// A port of an allocation could not be opened. Another is asked for, or its client answered.
    pub fn relay_failed(&mut self, key: AllocationKey, family: Family, now: Instant) -> Option<Transmit<'_>> {
        let allocation = self.allocations.get_mut(key)?;
        let protocol = allocation.protocol;
        let place = allocation.port_mut(family);
        let Port::Opening { port, attempts } = *place else {
            return None;
        };
        *place = Port::Failed(508);
        let (credential, reservation) = (allocation.credential.clone(), allocation.reservation.take());
        self.census.free_port(protocol, port);
        if let Some(token) = reservation {
            self.unreserve(&token, &credential, now);
        }
        if attempts < PORT_ATTEMPTS && self.open_port(key, family, attempts, now) {
            return None;
        }
        self.open_next(key, now)
    }

    /// Opens the next port that an allocation still lacks, or the allocation itself.
    pub(crate) fn open_next(&mut self, key: AllocationKey, now: Instant) -> Option<Transmit<'_>> {
        for family in Family::ALL {
            let wanted = self.allocations.get_mut(key)?.port_mut(family);
            match *wanted {
                Port::Wanted => {
                    *wanted = Port::Failed(508);
                    if self.open_port(key, family, 0, now) {
                        return None;
                    }
                }
                Port::Reserved(port) => {
                    // No other will do.
                    let attempts = PORT_ATTEMPTS;
                    *wanted = Port::Opening { port, attempts };
                    self.ask_for(key, family, port);
                    return None;
                }
                _ => {}
            }
        }
        let allocation = self.allocations.get_mut(key)?;
        if !Family::ALL
            .into_iter()
            .any(|family| allocation.has_family(family))
        {
            return self.fail(key, INSUFFICIENT_CAPACITY, now);
        }
        allocation.stage = Stage::Open;
        allocation.expires = now + allocation.lifetime;
        let held = allocation.step == Step::Held;
        allocation.held = held.then_some(now);
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
        let client = allocation.client;
        self.schedule(key, now);
        let len = self.allocate_success(key)?;
        Some(self.answer(&client, len))
    }

    /// Draws a port that nobody can predict and asks for it. False if there is none.
    fn open_port(&mut self, key: AllocationKey, family: Family, attempts: usize, now: Instant) -> bool {
        let Some(allocation) = self.allocations.get_mut(key) else {
            return false;
        };
        let (protocol, even) = (allocation.protocol, allocation.even_port);
        let credential = allocation.credential.clone();
        for _ in 0..PORT_DRAWS {
            let port = self.draw_port(even.is_some());
            if !self.census.take_port(protocol, port) {
                continue;
            }
            let reservation = match even {
                Some(true) => self.reserve(family, port + 1, &credential, now),
                _ => None,
            };
            if even == Some(true) && reservation.is_none() {
                self.census.free_port(protocol, port);
                continue;
            }
            if let Some(allocation) = self.allocations.get_mut(key) {
                let attempts = attempts + 1;
                *allocation.port_mut(family) = Port::Opening { port, attempts };
                allocation.reservation = reservation;
            }
            self.ask_for(key, family, port);
            return true;
        }
        false
    }

    fn ask_for(&mut self, key: AllocationKey, family: Family, port: u16) {
        if let Some(allocation) = self.allocations.get_mut(key) {
            self.events.push_back(Event::OpenRelay {
                allocation: key,
                protocol: allocation.protocol,
                family,
                port,
            });
        }
    }

    /// Keeps the port after an even one.
    fn reserve(&mut self, family: Family, port: u16, credential: &Credential, now: Instant) -> Option<Token> {
        let mut token = Token::default();
        self.rng.fill_bytes(&mut token);
        let reservation = Reservation {
            account: credential.permit().account().into(),
            family,
            port,
            expires: now + RESERVATION_LIFETIME,
        };
        let account_max = self.config.allocations_per_account_max;
        self.census
            .reserve(token, reservation, account_max, now)
            .then_some(token)
    }

    /// Gives a reserved port back that nobody was told of.
    fn unreserve(&self, token: &Token, credential: &Credential, now: Instant) {
        let account = credential.permit().account();
        if let Some((_, port)) = self.census.redeem(token, account, now) {
            self.census.free_port(Protocol::Udp, port);
        }
    }

    fn draw_port(&mut self, even: bool) -> u16 {
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
}
