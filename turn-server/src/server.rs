//! The core of one shard: what goes in, what comes out, and when.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use metering::{LeaseId, Step};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use wire::stun::{Message, Method};

use crate::admit::{KNOWN, Unauthenticated};
use crate::allocation::{Allocation, AllocationKey, Allocations, FiveTuple};
use crate::answer::Head;
use crate::census::Census;
use crate::challenge::Challenges;
use crate::classify::{Classified, classify};
use crate::config::{Config, SWEEP_INTERVAL};
use crate::credential::{Credential, Credentials};
use crate::discard::{Counters, Discard};
use crate::egress::{Transmit, Via};
use crate::event::{CloseReason, Event};
use crate::nonce::Nonces;

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
    pub(crate) credentials: Credentials,
    pub(crate) allocations: Allocations,
    pub(crate) leases: HashMap<LeaseId, AllocationKey>,
    pub(crate) events: VecDeque<Event>,
    pub(crate) counters: Counters,
    pub(crate) rng: StdRng,
    pub(crate) reply: Box<[u8]>,
    pub(crate) draining: bool,
    next_sweep: Option<Instant>,
    /// Reused by each sweep.
    expired: Vec<AllocationKey>,
}

impl TurnServer {
    /// A server without allocations. `seed` feeds what must be unguessable: relayed ports, nonces, transaction ids.
    pub fn new(config: Config, census: Arc<Census>, seed: [u8; 32], now: Instant) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let (mut nonce_secret, mut meter_secret) = ([0; 32], [0; 32]);
        rng.fill_bytes(&mut nonce_secret);
        rng.fill_bytes(&mut meter_secret);
        Self {
            nonces: Nonces::new(&nonce_secret, now),
            challenges: Challenges::new(
                &meter_secret,
                config.challenges_per_second,
                config.challenges_burst,
            ),
            credentials: Credentials::new(config.credentials_max),
            allocations: Allocations::default(),
            leases: HashMap::new(),
            events: VecDeque::with_capacity(EVENTS),
            counters: Counters::new(),
            rng,
            reply: vec![0; REPLY_LEN].into_boxed_slice(),
            draining: false,
            next_sweep: None,
            expired: Vec::new(),
            config,
            census,
        }
    }

    /// A username that may allocate from now on. False if there are too many.
    pub fn add_credential(&mut self, credential: Arc<Credential>, now: Instant) -> bool {
        self.credentials.add(credential, now)
    }

    /// Takes one datagram that a client sent to the server's port; `local` is the address of ours that it hit. At most
    /// one datagram follows from it.
    pub fn handle_client<'a>(
        &'a mut self,
        now: Instant,
        client: SocketAddr,
        local: Option<IpAddr>,
        datagram: &'a [u8],
    ) -> Option<Transmit<'a>> {
        let five_tuple = FiveTuple { client, local };
        let classified = if client.port() == 0 {
            Err(Discard::SourcePortZero)
        } else {
            classify(datagram)
        };
        let outcome = match classified {
            Ok(Classified::ChannelData(message)) => self.channel_data(now, &five_tuple, message),
            Ok(Classified::Send(message)) => self.send_indication(now, &five_tuple, &message),
            Ok(Classified::Request(message)) => {
                let len = self.request(now, five_tuple, &message)?;
                return Some(self.answer(five_tuple, len));
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
            Ok(outgoing) => Some(Transmit {
                via: Via::Listener,
                destination: outgoing.five_tuple.client,
                source: outgoing.five_tuple.local,
                contents: outgoing.indication.map_or(packet, |len| &self.reply[..len]),
                charged: Some(outgoing.charged),
            }),
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

    /// When [`TurnServer::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next_sweep
    }

    /// Expires what has expired and reports what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.next_sweep.is_none_or(|due| now < due) {
            return;
        }
        let mut expired = std::mem::take(&mut self.expired);
        for (key, allocation) in self.allocations.iter_mut() {
            if now >= allocation.expires {
                expired.push(key);
                continue;
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
        }
        for key in expired.drain(..) {
            let Some(allocation) = self.allocations.get_mut(key) else {
                continue;
            };
            // Time that passed between the expiry and this look at the clock is not the client's.
            let (reason, at) = match allocation.is_open() {
                true => (CloseReason::Expired, allocation.expires),
                false => (CloseReason::Refused, now),
            };
            self.remove(key, reason, at);
        }
        self.expired = expired;
        self.next_sweep = (self.allocations.len() > 0).then(|| now + SWEEP_INTERVAL);
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

    /// What passed and what did not.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn request(&mut self, now: Instant, five_tuple: FiveTuple, message: &Message<'_>) -> Option<usize> {
        match message.method() {
            Method::BINDING => return self.binding(now, five_tuple, message),
            Method::ALLOCATE | Method::REFRESH | Method::CREATE_PERMISSION | Method::CHANNEL_BIND => {}
            _ => {
                self.counters.discard(Discard::UnexpectedStun);
                return None;
            }
        }
        let credential = match self.authenticate(now, &five_tuple, message) {
            Ok(credential) => credential,
            Err(refusal) => return self.challenge(now, five_tuple, message, refusal),
        };
        if message.unknown_required(KNOWN).next().is_some() {
            let unknown = message.unknown_required(KNOWN);
            return Head::of(message).unknown(&mut self.reply, credential.integrity(), unknown);
        }
        match message.method() {
            Method::ALLOCATE => self.allocate(now, five_tuple, message, &credential),
            Method::REFRESH => self.refresh(now, five_tuple, message, &credential),
            Method::CREATE_PERMISSION => self.create_permission(now, five_tuple, message, &credential),
            _ => self.channel_bind(now, five_tuple, message, &credential),
        }
    }

    /// Binding (RFC 8489 section 6): the address that the client is seen at, for who gathers candidates.
    fn binding(&mut self, now: Instant, five_tuple: FiveTuple, message: &Message<'_>) -> Option<usize> {
        let head = Head::of(message);
        let len = match message.unknown_required(KNOWN).next() {
            None => head.bare_success(&mut self.reply, |answer| {
                answer.xor_mapped_address(five_tuple.client)
            }),
            Some(_) => head.bare_error(&mut self.reply, 420),
        };
        self.within_limits(now, five_tuple, message, len)
    }

    fn challenge(
        &mut self,
        now: Instant,
        five_tuple: FiveTuple,
        message: &Message<'_>,
        refusal: Unauthenticated,
    ) -> Option<usize> {
        let nonce = self.nonces.issue(five_tuple.client, now);
        let nonce = str::from_utf8(&nonce).expect("a nonce is ASCII");
        let head = Head::of(message);
        let len = match refusal {
            Unauthenticated::Unauthorized => head.challenge(&mut self.reply, 401, nonce),
            Unauthenticated::StaleNonce => head.challenge(&mut self.reply, 438, nonce),
            Unauthenticated::BadRequest => head.bare_error(&mut self.reply, 400),
        };
        self.within_limits(now, five_tuple, message, len)
    }

    fn within_limits(
        &mut self,
        now: Instant,
        five_tuple: FiveTuple,
        message: &Message<'_>,
        len: Option<usize>,
    ) -> Option<usize> {
        let allowed = len.filter(|len| {
            self.challenges
                .allow(five_tuple.client, message.as_bytes().len(), *len, now)
        });
        if allowed.is_none() {
            self.counters.discard(Discard::ChallengeLimit);
        }
        allowed
    }

    /// What has been written into `reply`, to the client.
    pub(crate) fn answer(&self, five_tuple: FiveTuple, len: usize) -> Transmit<'_> {
        Transmit {
            via: Via::Listener,
            destination: five_tuple.client,
            source: five_tuple.local,
            contents: &self.reply[..len],
            charged: None,
        }
    }

    /// The allocation of this 5-tuple, if it is this credential's.
    pub(crate) fn own_allocation(
        &mut self,
        five_tuple: &FiveTuple,
        credential: &Credential,
    ) -> Result<(AllocationKey, &mut Allocation), (u16, &'static str)> {
        let found = self
            .allocations
            .of_client(five_tuple)
            .filter(|(_, allocation)| allocation.is_open());
        let (key, allocation) = found.ok_or((437, "Allocation Mismatch"))?;
        if allocation.credential.username() != credential.username() {
            self.counters
                .auth_failure(crate::discard::AuthFailure::WrongCredentials);
            return Err((441, "Wrong Credentials"));
        }
        Ok((key, allocation))
    }

    pub(crate) fn remove(&mut self, key: AllocationKey, reason: CloseReason, at: Instant) {
        let Some(mut allocation) = self.allocations.remove(key) else {
            return;
        };
        if let Some(port) = allocation.port() {
            self.events.push_back(Event::CloseRelay { allocation: key });
            self.census.free_port(port);
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

    pub(crate) fn schedule(&mut self, now: Instant) {
        self.next_sweep.get_or_insert(now + SWEEP_INTERVAL);
    }
}
