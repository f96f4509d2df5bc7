//! Allocate (RFC 8656 section 7): money first, then a port (see `relayed_port`), then the answer. Until then the request's retransmissions
//! are absorbed, and afterwards they get the same answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metering::{Allowance, Step};
use rand::Rng;
use wire::stun::{AttributeType, Message};

use crate::allocation::{Allocation, AllocationKey, Family, Port, Protocol, Stage};
use crate::answer::Head;
use crate::bucket::Bucket;
use crate::census::Full;
use crate::channel::Channels;
use crate::client::{Client, Transport};
use crate::config::{LIFETIME_DEFAULT, LIFETIME_MAX, PENDING_MAX};
use crate::credential::Credential;
use crate::discard::Discard;
use crate::egress::Transmit;
use crate::event::{CloseReason, Event, Refusal};
use crate::mobility::Mobility;
use crate::permission::Permissions;
use crate::reservation::Token;
use crate::server::TurnServer;

pub(crate) const INSUFFICIENT_CAPACITY: (u16, &str) = (508, "Insufficient Capacity");

/// What an Allocate asks for.
struct Wanted {
    lifetime: Duration,
    protocol: Protocol,
    ports: [Port; 2],
    even_port: Option<bool>,
    token: Option<Token>,
    mobile: bool,
}

impl TurnServer {
    pub(crate) fn allocate(
        &mut self,
        now: Instant,
        client: Client,
        message: &Message<'_>,
        credential: &Arc<Credential>,
    ) -> Option<usize> {
        let head = Head::of(message);
        if let Some((key, allocation)) = self.allocations.of_client(&client) {
            let same =
                allocation.head.id == head.id && allocation.credential.username() == credential.username();
            return match (same, allocation.is_open()) {
                (true, true) => self.allocate_success(key),
                (true, false) => {
                    self.counters.discard(Discard::Pending);
                    None
                }
                (false, _) => head.error(&mut self.reply, credential, (437, "Allocation Mismatch")),
            };
        }
        if let Some(server) = self.alternate(&client) {
            let error = (300, "Try Alternate");
            return head.error_with(&mut self.reply, credential, error, |answer| {
                answer.alternate_server(server)
            });
        }
        match self.new_allocation(now, client, message, credential) {
            Ok(()) => None,
            Err(error) => head.error(&mut self.reply, credential, error),
        }
    }

    /// Another server for this client, while this one drains or is full (RFC 8489 section 10).
    fn alternate(&mut self, client: &Client) -> Option<SocketAddr> {
        let full = || self.census.allocations() >= self.config.redirect_above;
        if self.config.alternate_servers.is_empty() || !self.draining && !full() {
            return None;
        }
        let of_family = |server: &&SocketAddr| server.is_ipv4() == client.source.is_ipv4();
        let count = self.config.alternate_servers.iter().filter(of_family).count();
        let chosen = (self.rng.next_u32() as usize).checked_rem(count)?;
        self.config
            .alternate_servers
            .iter()
            .filter(of_family)
            .nth(chosen)
            .copied()
    }

    fn new_allocation(
        &mut self,
        now: Instant,
        client: Client,
        message: &Message<'_>,
        credential: &Arc<Credential>,
    ) -> Result<(), (u16, &'static str)> {
        // A client behind one of our relayed ports would make a packet go round: relayed port to relayed port to client.
        let protocol = match client.transport {
            Transport::Udp | Transport::Dtls => Protocol::Udp,
            Transport::Tcp | Transport::Tls => Protocol::Tcp,
        };
        let policy = &self.config.policy;
        if policy.is_own_relay(client.source, protocol, &self.census) {
            return Err((403, "Forbidden: a relayed address is no client"));
        }
        let mut wanted = self.wanted(&client, message)?;
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
        if let Some(token) = wanted.token {
            let account = credential.permit().account();
            let Some((family, port)) = self.census.redeem(&token, account, now) else {
                self.census.leave(account);
                return Err((508, "No such reservation"));
            };
            wanted.ports[family.index()] = Port::Reserved(port);
        }
        let allocation = self.allocations.insert(Allocation {
            client,
            credential: credential.clone(),
            stage: Stage::Admitting,
            head: Head::of(message),
            lifetime: wanted.lifetime,
            protocol: wanted.protocol,
            ports: wanted.ports,
            even_port: wanted.even_port,
            reservation: None,
            mobility: wanted.mobile.then(Mobility::default),
            expires: now + PENDING_MAX,
            look: None,
            allowance: None,
            permissions: Permissions::new(self.config.permissions_per_allocation_max),
            channels: Channels::new(self.config.channels_per_allocation_max),
            step: Step::Full,
            held: None,
            has_call: false,
            to_client: Bucket::default(),
            to_peer: Bucket::default(),
        });
        self.schedule(allocation, now);
        let (session, permit) = (credential.session(), credential.permit().clone());
        self.events.push_back(Event::Admit {
            allocation,
            session,
            permit,
        });
        Ok(())
    }

    /// RFC 8656 section 7.2 and RFC 6062 section 5.1, in their order.
    fn wanted(&self, client: &Client, message: &Message<'_>) -> Result<Wanted, (u16, &'static str)> {
        const BAD_REQUEST: (u16, &str) = (400, "Bad Request");
        const UNSUPPORTED_FAMILY: (u16, &str) = (440, "Address Family not Supported");
        let has = |kind| message.has(kind);
        let protocol = match message.requested_transport().map(Protocol::from_number) {
            Some(Some(Protocol::Tcp)) if !self.config.tcp_relay => None,
            Some(protocol) => protocol,
            None => return Err(BAD_REQUEST),
        };
        let protocol = protocol.ok_or((442, "Unsupported Transport Protocol"))?;
        if protocol == Protocol::Tcp {
            if !client.transport.is_stream() {
                return Err((400, "A TCP allocation needs a TCP connection"));
            }
            let datagrams_only = [
                AttributeType::DONT_FRAGMENT,
                AttributeType::EVEN_PORT,
                AttributeType::RESERVATION_TOKEN,
            ];
            if datagrams_only.into_iter().any(has) {
                return Err(BAD_REQUEST);
            }
        }
        let reserve = message.even_port();
        if has(AttributeType::EVEN_PORT) && reserve.is_none()
            || has(AttributeType::LIFETIME) && message.lifetime().is_none()
        {
            return Err(BAD_REQUEST);
        }
        let mobile = match message.mobility_ticket() {
            None => false,
            Some(_) if !self.config.mobility => return Err((405, "Mobility Forbidden")),
            Some([]) => true,
            Some(_) => return Err((400, "A ticket is asked for with an empty one")),
        };
        let requested_family = has(AttributeType::REQUESTED_ADDRESS_FAMILY);
        let additional_family = has(AttributeType::ADDITIONAL_ADDRESS_FAMILY)
            || has(AttributeType::ADDITIONAL_ADDRESS_FAMILY_DRAFT);
        if has(AttributeType::RESERVATION_TOKEN) {
            let alone = reserve.is_none() && !requested_family && !additional_family;
            let token = message.reservation_token().filter(|_| alone).ok_or(BAD_REQUEST)?;
            return Ok(Wanted {
                lifetime: lifetime(message),
                protocol,
                ports: [Port::None; 2],
                even_port: None,
                token: Some(token),
                mobile,
            });
        }
        if additional_family {
            let ipv6 = message.additional_address_family().and_then(Family::from_number) == Some(Family::V6);
            if !ipv6 || requested_family || reserve == Some(true) {
                return Err(BAD_REQUEST);
            }
        }
        let family = match (requested_family, message.requested_address_family()) {
            (false, _) => Family::V4,
            (true, Some(number)) => Family::from_number(number).ok_or(UNSUPPORTED_FAMILY)?,
            (true, None) => return Err(BAD_REQUEST),
        };
        let mut ports = [Port::None; 2];
        let offered = |family| match self.config.families.contains(&family) {
            true => Port::Wanted,
            false => Port::Failed(440),
        };
        ports[family.index()] = offered(family);
        if additional_family {
            ports[Family::V6.index()] = offered(Family::V6);
        }
        // Of two families one is enough: what is missing is told in ADDRESS-ERROR-CODE.
        if !ports.contains(&Port::Wanted) {
            return Err(UNSUPPORTED_FAMILY);
        }
        Ok(Wanted {
            lifetime: lifetime(message),
            protocol,
            ports,
            even_port: reserve,
            token: None,
            mobile,
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
            .filter(|allocation| allocation.stage == Stage::Admitting);
        let Some(allocation) = pending else {
            // The client went away meanwhile: nothing was used, and the money goes back.
            self.events.push_back(Event::Report(allowance.close(now)));
            return None;
        };
        self.leases.insert(allowance.lease(), key);
        allocation.allowance = Some(allowance);
        allocation.step = step;
        allocation.stage = Stage::Opening;
        self.open_next(key, now)
    }

    /// There is no money for a pending allocation. The answer to its client, if it still waits.
    pub fn refused(&mut self, key: AllocationKey, refusal: Refusal, now: Instant) -> Option<Transmit<'_>> {
        let pending = self
            .allocations
            .get_mut(key)
            .filter(|allocation| allocation.stage == Stage::Admitting);
        pending.is_some().then_some(())?;
        self.fail(key, refusal.answer(), now)
    }

    /// Ends an allocation before it has begun; the answer to its client.
    pub(crate) fn fail(
        &mut self,
        key: AllocationKey,
        error: (u16, &str),
        now: Instant,
    ) -> Option<Transmit<'_>> {
        let allocation = self.allocations.get_mut(key)?;
        let (head, client) = (allocation.head, allocation.client);
        let credential = allocation.credential.clone();
        self.remove(key, CloseReason::Refused, now);
        let len = head.error(&mut self.reply, &credential, error)?;
        Some(self.answer(&client, len))
    }

    /// The answer to an Allocate, as often as it is asked for.
    pub(crate) fn allocate_success(&mut self, key: AllocationKey) -> Option<usize> {
        let allocation = self.allocations.get_mut(key)?;
        let ticket = allocation
            .mobility
            .map(|mobility| self.tickets.issue(key, mobility.moves, &mut self.rng));
        let credential = &allocation.credential;
        allocation
            .head
            .success(&mut self.reply, credential, |mut answer| {
                for family in Family::ALL {
                    answer = match allocation.ports[family.index()] {
                        Port::Open(relayed) => answer.xor_relayed_address(relayed),
                        Port::Failed(code) => answer.address_error_code(family.number(), code, missing(code)),
                        _ => answer,
                    };
                }
                answer = answer
                    .lifetime(seconds(allocation.lifetime))
                    .xor_mapped_address(allocation.client.source);
                if let Some(token) = allocation.reservation {
                    answer = answer.reservation_token(token);
                }
                ticket
                    .iter()
                    .fold(answer, |answer, ticket| answer.mobility_ticket(ticket))
            })
    }
}

/// The reason for people in an ADDRESS-ERROR-CODE.
const fn missing(code: u16) -> &'static str {
    match code {
        440 => "Address Family not Supported",
        _ => "Insufficient Capacity",
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
