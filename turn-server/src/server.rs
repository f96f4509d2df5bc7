//! The core of one shard: what goes in, what comes out, and when.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use metering::{Allowance, LeaseId, Step};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use wire::stun::{Message, Method};

use crate::admit::{PASSWORD_ALGORITHMS, Unauthenticated};
use crate::allocation::{Allocation, AllocationKey, Allocations, Protocol};
use crate::answer::Head;
use crate::census::Census;
use crate::challenge::Challenges;
use crate::classify::{Classified, classify};
use crate::client::Client;
use crate::config::{Config, SWEEP_INTERVAL};
use crate::credential::{Credential, Credentials};
use crate::data_connection::{DataConnection, DataConnections};
use crate::discard::{Counters, Discard};
use crate::egress::Transmit;
use crate::event::{CloseReason, Event};
use crate::mobility::Tickets;
use crate::nonce::{Features, Nonces};

/// Room for the largest Data indication: a UDP payload and the attributes around it.
const REPLY_LEN: usize = (1 << 16) + 256;

/// Events that fit without growing the queue; the shard drains it after each batch.
const EVENTS: usize = 4096;

/// The TURN server of one shard.
pub struct TurnServer {
    pub(crate) config: Config,
    pub(crate) census: Arc<Census>,
    pub(crate) nonces: Nonces,
    pub(crate) challenges: Challenges,
    pub(crate) tickets: Tickets,
    pub(crate) credentials: Credentials,
    pub(crate) allocations: Allocations,
    pub(crate) data: DataConnections,
    pub(crate) leases: HashMap<LeaseId, AllocationKey>,
    pub(crate) events: VecDeque<Event>,
    pub(crate) counters: Counters,
    pub(crate) rng: StdRng,
    pub(crate) reply: Box<[u8]>,
    pub(crate) draining: bool,
    next_sweep: Option<Instant>,
}

impl TurnServer {
    /// A server without allocations. `seed` feeds what must be unguessable: relayed ports, nonces, transaction ids.
    pub fn new(config: Config, census: Arc<Census>, seed: [u8; 32], now: Instant) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let (mut own_secret, mut meter_secret) = ([0; 32], [0; 32]);
        rng.fill_bytes(&mut own_secret);
        rng.fill_bytes(&mut meter_secret);
        let secret = config.secret.unwrap_or(own_secret);
        let (nonce_secret, ticket_secret) = (derive(&secret, b"nonces"), derive(&secret, b"tickets"));
        Self {
            nonces: Nonces::new(&nonce_secret, now),
            challenges: Challenges::new(
                &meter_secret,
                config.challenges_per_second,
                config.challenges_burst,
            ),
            tickets: Tickets::new(&ticket_secret, config.shard),
            credentials: Credentials::new(config.credentials_max),
            allocations: Allocations::new(&mut rng),
            data: DataConnections::new(config.shard),
            leases: HashMap::new(),
            events: VecDeque::with_capacity(EVENTS),
            counters: Counters::new(),
            rng,
            reply: vec![0; REPLY_LEN].into_boxed_slice(),
            draining: false,
            next_sweep: None,
            config,
            census,
        }
    }

    /// A username that may allocate from now on. False if there are too many.
    pub fn add_credential(&mut self, credential: Arc<Credential>, now: Instant) -> bool {
        self.credentials.add(credential, now)
    }

    /// Takes one message that a client sent: a datagram, or what was framed in a stream. At most one message follows
    /// from it. Whoever reads a stream polls the events before it reads on, since what comes next may be for another
    /// shard ([`Event::HandOver`]) or no message at all ([`Event::Join`]).
    pub fn handle_client<'a>(
        &'a mut self,
        now: Instant,
        client: Client,
        message: &'a [u8],
    ) -> Option<Transmit<'a>> {
        let classified = if client.source.port() == 0 {
            Err(Discard::SourcePortZero)
        } else {
            classify(message)
        };
        let outcome = match classified {
            Ok(Classified::ChannelData(message)) => self.channel_data(now, &client, message),
            Ok(Classified::Send(message)) => self.send_indication(now, &client, &message),
            Ok(Classified::Request(message)) => {
                let (client, len) = self.request(now, client, &message)?;
                return Some(self.answer(&client, len));
            }
            Err(discard) => Err(discard),
        };
        outcome.map_err(|discard| self.counters.discard(discard)).ok()
    }

    /// Takes one datagram that a peer sent to a relayed port. `packet` is [`crate::HEADROOM`] bytes and then the
    /// datagram.
    pub fn handle_peer<'a>(
        &'a mut self,
        now: Instant,
        allocation: AllocationKey,
        peer: SocketAddr,
        packet: &'a mut [u8],
    ) -> Option<Transmit<'a>> {
        match self.relay_to_client(now, allocation, peer, packet) {
            Ok(outgoing) => {
                let contents = outgoing.indication.map_or(packet, |len| &mut self.reply[..len]);
                Some(Transmit {
                    charged: Some(outgoing.charged),
                    ..Transmit::to_client(&outgoing.client, contents)
                })
            }
            Err(discard) => {
                self.counters.discard(discard);
                None
            }
        }
    }

    /// What is to be done outside, if anything.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The shard that the message which was just handed in is for, if it is another one: [`Event::HandOver`] for whoever
    /// has the message still in hand.
    pub fn take_hand_over(&mut self, client: &Client) -> Option<u8> {
        let &Event::HandOver { client: whose, shard } = self.events.back()? else {
            return None;
        };
        (whose == *client).then(|| self.events.pop_back())?;
        Some(shard)
    }

    /// When [`TurnServer::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next_sweep
    }

    /// Expires what has expired and reports what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.next_sweep.is_none_or(|due| now < due) {
            return;
        }
        while let Some(key) = self.allocations.next_look(now) {
            self.look(key, now);
        }
        self.census.expire_reservations(now);
        for (data, opening) in self.data.overdue(now) {
            match opening {
                true => self.events.push_back(Event::CloseData { data }),
                false => self.close_data(data),
            }
        }
        self.next_sweep = (self.allocations.len() > 0).then(|| now + SWEEP_INTERVAL);
    }

    /// What time does to one allocation: its end, or a report, and when to look again.
    fn look(&mut self, key: AllocationKey, now: Instant) {
        let held_max = self.config.held_max;
        let Some(allocation) = self.allocations.get_mut(key) else {
            return;
        };
        let expired = now >= allocation.expires;
        if expired || allocation.held.is_some_and(|since| now >= since + held_max) {
            // Time that passed between the expiry and this look at the clock is not the client's.
            let (reason, at) = match (allocation.is_open(), expired) {
                (true, true) => (CloseReason::Expired, allocation.expires),
                (true, false) => (CloseReason::Ended, now),
                (false, _) => (CloseReason::Refused, now),
            };
            return self.remove(key, reason, at);
        }
        if allocation.step >= Step::Reduced {
            allocation.has_call = self.census.has_call(allocation.credential.permit().account());
        }
        if let Some(allowance) = allocation
            .allowance
            .as_mut()
            .filter(|a| a.next_report().is_some_and(|at| at <= now))
        {
            self.events.extend(allowance.poll_report(now).map(Event::Report));
        }
        self.schedule(key, now);
    }

    /// No new allocations from now on.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Ends every allocation, each with its last report.
    pub fn end_all(&mut self, now: Instant) {
        self.remove_where(|_| true, CloseReason::Ended, now);
    }

    /// How many allocations there are, pending ones included.
    pub fn allocations(&self) -> usize {
        self.allocations.len()
    }

    /// True if this client has an allocation, or carries data of one (RFC 6062): its connection is in use.
    pub fn serves(&self, client: &Client) -> bool {
        let joined = |connection| self.data.of_client(connection).is_some();
        self.allocations.key_of(client).is_some() || client.connection.is_some_and(joined)
    }

    /// What passed and what did not.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The answer's length, and the 5-tuple that it goes out on.
    fn request(&mut self, now: Instant, client: Client, message: &Message<'_>) -> Option<(Client, usize)> {
        match message.method() {
            Method::BINDING => self.binding(now, client, message),
            Method::ALLOCATE
            | Method::REFRESH
            | Method::CREATE_PERMISSION
            | Method::CHANNEL_BIND
            | Method::CONNECT
            | Method::CONNECTION_BIND => Some((client, self.authenticated(now, client, message)?)),
            _ => {
                self.counters.discard(Discard::UnexpectedStun);
                None
            }
        }
    }

    fn authenticated(&mut self, now: Instant, client: Client, message: &Message<'_>) -> Option<usize> {
        if let Some(shard) = self.elsewhere(now, &client, message) {
            self.events.push_back(Event::HandOver { client, shard });
            return None;
        }
        let credential = match self.authenticate(now, &client, message) {
            Ok(credential) => credential,
            Err(refusal) => return self.challenge(now, client, message, refusal),
        };
        let unknown = self.unknown_required(message, false);
        if unknown.clone().next().is_some() {
            let error = (420, "Unknown Attribute");
            return Head::of(message).error_with(&mut self.reply, &credential, error, |answer| {
                answer.unknown_attributes(unknown)
            });
        }
        match message.method() {
            Method::ALLOCATE => self.allocate(now, client, message, &credential),
            Method::REFRESH => self.refresh(now, client, message, &credential),
            Method::CREATE_PERMISSION => self.create_permission(now, client, message, &credential),
            Method::CHANNEL_BIND => self.channel_bind(now, client, message, &credential),
            Method::CONNECT => self.connect(now, client, message, &credential),
            _ => self.connection_bind(now, client, message, &credential),
        }
    }

    /// The shard that a request is for, if that is another: the one that knows its username past its expiry, and its
    /// allocation. Nothing is handed over for who might not have the address that it shows.
    fn elsewhere(&self, now: Instant, client: &Client, message: &Message<'_>) -> Option<u8> {
        let shard = match message.method() {
            Method::CONNECTION_BIND if client.transport.is_stream() => {
                DataConnection::new(message.connection_id()?).shard()
            }
            Method::REFRESH => {
                let ticket = self.tickets.open(message.mobility_ticket()?)?;
                self.nonces.check(message.nonce()?, client.source, now)?;
                ticket.shard
            }
            _ => return None,
        };
        (shard != self.config.shard && usize::from(shard) < self.config.shards).then_some(shard)
    }

    fn challenge(
        &mut self,
        now: Instant,
        client: Client,
        message: &Message<'_>,
        refusal: Unauthenticated,
    ) -> Option<usize> {
        let head = Head::of(message);
        let code = match refusal {
            Unauthenticated::Unauthorized => 401,
            Unauthenticated::StaleNonce => 438,
            Unauthenticated::BadRequest => {
                let len = head.bare_error(&mut self.reply, 400, |answer| answer);
                return self.within_limits(now, client, message, len);
            }
        };
        // All that we can do, if there is room for it.
        let nonce = self.nonces.issue(client.source, Features::Cookie, now);
        let full = head.challenge(&mut self.reply, code, nonce.as_str(), |answer| {
            let answer = answer.password_algorithms(PASSWORD_ALGORITHMS);
            match &self.config.access_tokens {
                Some(tokens) => answer.third_party_authorization(tokens.server_name()),
                None => answer,
            }
        });
        let request = message.as_bytes().len();
        let len = match full.filter(|len| Challenges::fits(&client, request, *len)) {
            Some(len) => Some(len),
            None => {
                let nonce = self.nonces.issue(client.source, Features::None, now);
                head.challenge(&mut self.reply, code, nonce.as_str(), |answer| answer)
            }
        };
        self.within_limits(now, client, message, len)
    }

    pub(crate) fn within_limits(
        &mut self,
        now: Instant,
        client: Client,
        message: &Message<'_>,
        len: Option<usize>,
    ) -> Option<usize> {
        let fits = |len: &usize| Challenges::fits(&client, message.as_bytes().len(), *len);
        // A connection reflects nothing, and over a stream nobody asks twice: an answer that is kept back is waited for.
        let allowed = len
            .filter(fits)
            .filter(|_| client.transport.shows_address() || self.challenges.allow(client.source.ip(), now));
        if allowed.is_none() {
            self.counters.discard(Discard::ChallengeLimit);
        }
        allowed
    }

    /// What has been written into `reply`, to the client.
    pub(crate) fn answer(&self, client: &Client, len: usize) -> Transmit<'_> {
        Transmit::to_client(client, &self.reply[..len])
    }

    /// The allocation of this 5-tuple, if it is this credential's.
    pub(crate) fn own_allocation(
        &mut self,
        client: &Client,
        credential: &Credential,
    ) -> Result<(AllocationKey, &mut Allocation), (u16, &'static str)> {
        const MISMATCH: (u16, &str) = (437, "Allocation Mismatch");
        let key = self.allocations.key_of(client).ok_or(MISMATCH)?;
        let allocation = self
            .allocations
            .get_mut(key)
            .filter(|allocation| allocation.is_open())
            .ok_or(MISMATCH)?;
        if allocation.credential.username() != credential.username() {
            self.counters
                .auth_failure(crate::discard::AuthFailure::WrongCredentials);
            return Err((441, "Wrong Credentials"));
        }
        if allocation.is_moving() {
            self.arrived(key, client);
        }
        Ok((key, self.allocations.get_mut(key).ok_or(MISMATCH)?))
    }

    pub(crate) fn remove(&mut self, key: AllocationKey, reason: CloseReason, at: Instant) {
        let Some(mut allocation) = self.allocations.remove(key) else {
            return;
        };
        if allocation.protocol == Protocol::Tcp {
            let data: Vec<_> = self.data.of(key).map(|(data, _)| data).collect();
            data.into_iter().for_each(|data| self.close_data(data));
        }
        for (family, port) in allocation.held_ports() {
            self.events.push_back(Event::CloseRelay {
                allocation: key,
                family,
            });
            self.census.free_port(allocation.protocol, port);
        }
        self.census.leave(allocation.credential.permit().account());
        if let Some(allowance) = &mut allocation.allowance {
            self.leases.remove(&allowance.lease());
            self.events.push_back(Event::Report(allowance.close(at)));
        }
        let session = allocation.credential.session();
        self.events.push_back(Event::Closed {
            allocation: key,
            session,
            reason,
        });
    }

    pub(crate) fn remove_where(
        &mut self,
        which: impl Fn(&Allocation) -> bool,
        reason: CloseReason,
        at: Instant,
    ) {
        let ending = self
            .allocations
            .iter_mut()
            .filter(|(_, allocation)| which(allocation))
            .map(|(key, _)| key);
        for key in ending.collect::<Vec<_>>() {
            self.remove(key, reason, at);
        }
    }

    /// Plans when time is next to be looked at for this allocation.
    pub(crate) fn schedule(&mut self, key: AllocationKey, now: Instant) {
        self.next_sweep.get_or_insert(now + SWEEP_INTERVAL);
        let Some(allocation) = self.allocations.get_mut(key) else {
            return;
        };
        let due = [
            Some(allocation.expires),
            allocation.held.map(|since| since + self.config.held_max),
            allocation.allowance.as_ref().and_then(Allowance::next_report),
            // Below full quality it matters whether the account is in a call.
            (allocation.step >= Step::Reduced).then(|| now + SWEEP_INTERVAL),
        ];
        if let Some(at) = due.into_iter().flatten().min() {
            // Whoever is looked at now is not looked at again in the same sweep.
            self.allocations.plan(key, at.max(now + Duration::from_nanos(1)));
        }
    }
}

/// A key of its own for each purpose.
fn derive(secret: &[u8; 32], purpose: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), purpose);
    std::array::from_fn(|index| tag.as_ref()[index])
}
