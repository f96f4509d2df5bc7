//! A small world around one core: clients that speak TURN, the shard's part (money, ports) played in full, time by hand.

#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use identity::token::{Issue, TokenPolicy, issue, verify};
use identity::{Permit, SigningKey};
use metering::{Allowance, LeaseId, Msat, Rates, Report, SessionId, Step};
use turn_server::{
    AddressPolicy, AllocationKey, Census, Client, CloseReason, Config, ConnectionId, Credential, Event,
    Family, HEADROOM, REALM, Refusal, Transmit, Transport, TurnServer, Via,
};
use wire::channel_data::{self, ChannelNumber};
use wire::stun::{AttributeType, Builder, Class, Message, Method, TransactionId, long_term_key};

/// The address of ours that clients hit, and under which relayed ports are.
pub const SERVER: &str = "9.9.9.9";
pub const PASSWORD: &str = "a password";
pub const RATES: Rates = Rates {
    out: 50,
    in_: 50,
    second: 2,
};

/// A permit as the front door makes one: from a token that was really issued and verified. Each has its own account.
pub fn permit() -> Arc<Permit> {
    let (operator, issuer, holder) = (
        SigningKey::generate(),
        SigningKey::generate(),
        SigningKey::generate(),
    );
    let mut claims = Issue::new(holder.did().clone(), operator.did().clone(), 1_000_000, 1_000);
    claims.bearer = true;
    let jwt = issue(&issuer, &claims);
    let mut policy = TokenPolicy::new(operator.did().clone(), vec![issuer.did().clone()]);
    policy.allow_bearer = true;
    Arc::new(Permit::from_bearer(verify(&jwt, &policy, 1_000).unwrap()).unwrap())
}

pub fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub fn config() -> Config {
    let policy = AddressPolicy {
        own_addresses: vec![SERVER.parse().unwrap(), "2a00::9".parse().unwrap()],
        sfu: vec![address("9.9.9.9:5004")],
        own_listeners: vec![3478, 8080],
        ..AddressPolicy::default()
    };
    Config {
        families: vec![Family::V4, Family::V6],
        ..Config::new(policy)
    }
}

/// A datagram that left the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub via: Via,
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
}

impl Sent {
    pub fn message(&self) -> Message<'_> {
        Message::parse(&self.bytes).unwrap()
    }

    /// The error code, or 0 for a success.
    pub fn code(&self) -> u16 {
        let message = self.message();
        match message.class() {
            Class::Success => 0,
            Class::Error => message.error_code().unwrap().code,
            other => panic!("{other:?} is no answer"),
        }
    }
}

impl From<Transmit<'_>> for Sent {
    fn from(transmit: Transmit<'_>) -> Self {
        Self {
            via: transmit.via,
            to: transmit.destination,
            bytes: transmit.contents.to_vec(),
        }
    }
}

/// A client over UDP, as the server sees it.
pub fn udp(source: SocketAddr) -> Client {
    Client::udp(source, server())
}

/// A client over a connection of its own.
pub fn connected(transport: Transport, source: SocketAddr, connection: u64) -> Client {
    Client::connected(transport, source, server(), ConnectionId::new(connection))
}

/// The server's transport address.
pub fn server() -> SocketAddr {
    SocketAddr::new(SERVER.parse().unwrap(), 3478)
}

/// One core and what surrounds it.
pub struct World {
    pub turn: TurnServer,
    pub census: Arc<Census>,
    pub now: Instant,
    /// What each new lease is granted; none refuses.
    pub grant: Result<Msat, Refusal>,
    pub step: Step,
    /// Admissions wait until this is true.
    pub cashier_answers: bool,
    /// Ports that the kernel does not give.
    pub ports_fail: usize,
    pub reports: Vec<Report>,
    pub closed: Vec<(AllocationKey, SessionId, CloseReason)>,
    pub opened: HashMap<(AllocationKey, Family), u16>,
    /// What was asked of the sockets of TCP allocations.
    pub data: Vec<Event>,
    pub admissions: Vec<AllocationKey>,
    pub sent: Vec<Sent>,
    next_lease: u64,
    next_session: u64,
    next_id: u64,
}

impl World {
    pub fn new() -> Self {
        Self::with(config())
    }

    pub fn with(config: Config) -> Self {
        let (now, census) = (Instant::now(), Arc::new(Census::new()));
        Self {
            turn: TurnServer::new(config, census.clone(), [7; 32], now),
            census,
            now,
            grant: Ok(Msat::new(1_000_000)),
            step: Step::Full,
            cashier_answers: true,
            ports_fail: 0,
            reports: Vec::new(),
            closed: Vec::new(),
            opened: HashMap::new(),
            data: Vec::new(),
            admissions: Vec::new(),
            sent: Vec::new(),
            next_lease: 0,
            next_session: 0,
            next_id: 0,
        }
    }

    /// A username of an account of its own.
    pub fn user(&mut self) -> User {
        self.user_of(permit())
    }

    pub fn user_of(&mut self, permit: Arc<Permit>) -> User {
        self.next_session += 1;
        let session = SessionId::new(self.next_session);
        let name = session.to_string();
        let expires = self.now + Duration::from_secs(600);
        let credential = Credential::new(name.clone(), PASSWORD, session, permit.clone(), expires);
        assert!(self.turn.add_credential(Arc::new(credential), self.now));
        User {
            key: long_term_key(&name, REALM, PASSWORD),
            name,
            session,
            permit,
        }
    }

    pub fn id(&mut self) -> TransactionId {
        self.next_id += 1;
        let mut id = [0; 12];
        id[4..].copy_from_slice(&self.next_id.to_be_bytes());
        TransactionId(id)
    }

    pub fn pass(&mut self, duration: Duration) {
        // In the shard's rhythm, so that reports come as they would.
        let end = self.now + duration;
        while self.now < end {
            self.now = end.min(self.now + Duration::from_millis(500));
            self.turn.handle_timeout(self.now);
            self.events();
        }
    }

    /// From a client to the server's port; what comes back or goes on.
    pub fn client_sends(&mut self, from: SocketAddr, datagram: &[u8]) -> Vec<Sent> {
        self.sends(udp(from), datagram)
    }

    /// From a client over any transport.
    pub fn sends(&mut self, from: Client, message: &[u8]) -> Vec<Sent> {
        let transmit = self.turn.handle_client(self.now, from, message);
        let sent = transmit.map(Sent::from);
        self.sent.extend(sent);
        self.events();
        std::mem::take(&mut self.sent)
    }

    pub fn peer_sends(&mut self, to: AllocationKey, from: SocketAddr, data: &[u8]) -> Vec<Sent> {
        let mut packet = vec![0; HEADROOM + data.len()];
        packet[HEADROOM..].copy_from_slice(data);
        let transmit = self.turn.handle_peer(self.now, to, from, &mut packet);
        let sent = transmit.map(Sent::from);
        self.sent.extend(sent);
        self.events();
        std::mem::take(&mut self.sent)
    }

    /// The shard's part.
    pub fn events(&mut self) {
        while let Some(event) = self.turn.poll_event() {
            match event {
                Event::Admit {
                    allocation, session, ..
                } => {
                    self.admissions.push(allocation);
                    if self.cashier_answers {
                        self.answer_admission(allocation, session);
                    }
                }
                Event::OpenRelay {
                    allocation,
                    family,
                    port,
                    ..
                } => {
                    let answer = if self.ports_fail > 0 {
                        self.ports_fail -= 1;
                        self.turn.relay_failed(allocation, family, self.now)
                    } else {
                        self.opened.insert((allocation, family), port);
                        let ip: IpAddr = match family {
                            Family::V4 => SERVER.parse().unwrap(),
                            Family::V6 => "2a00::9".parse().unwrap(),
                        };
                        self.turn
                            .relay_opened(allocation, SocketAddr::new(ip, port), self.now)
                    };
                    self.sent.extend(answer.map(Sent::from));
                }
                Event::CloseRelay { allocation, family } => {
                    self.opened.remove(&(allocation, family));
                }
                event @ (Event::Connect { .. }
                | Event::Join { .. }
                | Event::CloseData { .. }
                | Event::HandOver { .. }) => self.data.push(event),
                Event::Report(report) => {
                    self.reports.push(report);
                    if !report.last
                        && let Ok(granted) = self.grant
                    {
                        self.turn.grant(report.lease, granted);
                    }
                }
                Event::Closed {
                    allocation,
                    session,
                    reason,
                } => self.closed.push((allocation, session, reason)),
            }
        }
    }

    pub fn answer_admission(&mut self, allocation: AllocationKey, session: SessionId) {
        let answer = match self.grant {
            Ok(granted) => {
                self.next_lease += 1;
                let allowance = Allowance::new(LeaseId::new(self.next_lease), session, RATES, granted);
                self.turn.admitted(allocation, allowance, self.step, self.now)
            }
            Err(refusal) => self.turn.refused(allocation, refusal, self.now),
        };
        self.sent.extend(answer.map(Sent::from));
    }

    /// The nonce that the server gives this client.
    pub fn nonce(&mut self, from: SocketAddr) -> String {
        self.nonce_of(udp(from))
    }

    /// Likewise over any transport.
    pub fn nonce_of(&mut self, from: Client) -> String {
        let id = self.id();
        let request = build(Method::ALLOCATE, id, |b| {
            b.requested_transport(17).lifetime(600).software("a test client")
        });
        let answers = self.sends(from, &request);
        assert_eq!(answers.len(), 1, "a challenge");
        assert_eq!(answers[0].code(), 401);
        answers[0].message().nonce().unwrap().to_owned()
    }

    /// An authenticated request.
    pub fn request(
        &mut self,
        user: &User,
        from: SocketAddr,
        method: Method,
        attributes: impl FnOnce(Builder<'_>) -> Builder<'_>,
    ) -> Vec<Sent> {
        self.ask(user, udp(from), method, attributes)
    }

    /// An authenticated request over any transport.
    pub fn ask(
        &mut self,
        user: &User,
        from: Client,
        method: Method,
        attributes: impl FnOnce(Builder<'_>) -> Builder<'_>,
    ) -> Vec<Sent> {
        let nonce = self.nonce_of(from);
        let id = self.id();
        let request = user.sign(method, id, &nonce, attributes);
        self.sends(from, &request)
    }

    /// One answer to an authenticated request, and its code.
    pub fn code(
        &mut self,
        user: &User,
        from: SocketAddr,
        method: Method,
        attributes: impl FnOnce(Builder<'_>) -> Builder<'_>,
    ) -> u16 {
        let answers = self.request(user, from, method, attributes);
        assert_eq!(answers.len(), 1);
        answers[0].code()
    }

    /// An allocation, its relayed address.
    pub fn allocate(&mut self, user: &User, from: SocketAddr) -> (AllocationKey, SocketAddr) {
        let answers = self.request(user, from, Method::ALLOCATE, |b| b.requested_transport(17));
        assert_eq!(answers.len(), 1, "an answer to Allocate");
        assert_eq!(answers[0].code(), 0);
        let relayed = answers[0].message().xor_relayed_address().unwrap();
        (*self.admissions.last().unwrap(), relayed)
    }

    pub fn permit_peer(&mut self, user: &User, from: SocketAddr, peer: SocketAddr) -> u16 {
        self.code(user, from, Method::CREATE_PERMISSION, |b| {
            b.xor_peer_address(peer)
        })
    }

    pub fn bind(&mut self, user: &User, from: SocketAddr, number: u16, peer: SocketAddr) -> u16 {
        let number = ChannelNumber::new(number).unwrap();
        self.code(user, from, Method::CHANNEL_BIND, |b| {
            b.channel_number(number).xor_peer_address(peer)
        })
    }
}

/// Somebody with a username.
pub struct User {
    pub name: String,
    pub key: [u8; 16],
    pub session: SessionId,
    pub permit: Arc<Permit>,
}

impl User {
    pub fn sign(
        &self,
        method: Method,
        id: TransactionId,
        nonce: &str,
        attributes: impl FnOnce(Builder<'_>) -> Builder<'_>,
    ) -> Vec<u8> {
        build(method, id, |b| {
            attributes(b)
                .username(&self.name)
                .realm(REALM)
                .nonce(nonce)
                .integrity(&self.key)
        })
    }
}

pub fn build(
    method: Method,
    id: TransactionId,
    attributes: impl FnOnce(Builder<'_>) -> Builder<'_>,
) -> Vec<u8> {
    let mut buffer = vec![0; 2048];
    let len = attributes(Builder::new(&mut buffer, Class::Request, method, id))
        .finish()
        .unwrap();
    buffer.truncate(len);
    buffer
}

/// A Send indication of any shape.
pub fn indication(attributes: impl FnOnce(Builder<'_>) -> Builder<'_>) -> Vec<u8> {
    let mut buffer = vec![0; 2048];
    let id = TransactionId([9; 12]);
    let len = attributes(Builder::new(&mut buffer, Class::Indication, Method::SEND, id))
        .finish()
        .unwrap();
    buffer.truncate(len);
    buffer
}

pub fn send_indication(peer: SocketAddr, data: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; 2048];
    let id = TransactionId([9; 12]);
    let len = Builder::new(&mut buffer, Class::Indication, Method::SEND, id)
        .xor_peer_address(peer)
        .data(data)
        .finish()
        .unwrap();
    buffer.truncate(len);
    buffer
}

pub fn channel_message(number: u16, data: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 4];
    let header = message.first_chunk_mut().unwrap();
    channel_data::write_header(header, ChannelNumber::new(number).unwrap(), data.len() as u16);
    message.extend_from_slice(data);
    message
}

/// What `AttributeType`s a message shows, for tests of order and content.
pub fn types(message: &Message<'_>) -> Vec<AttributeType> {
    message.attributes().map(|(kind, _)| kind).collect()
}
