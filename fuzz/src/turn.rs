//! Bytes as the life of a TURN core that does everything: messages over every transport, signed requests of any shape,
//! peers, connections, time. Whatever comes, nothing panics, and at the end every port is given back and every lease
//! reported for the last time. `turn-server/tests/seeds.rs` runs this over the committed seeds.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use identity::token::{Issue, TokenPolicy, issue, verify};
use identity::{Permit, SigningKey};
use metering::{Allowance, Direction, LeaseId, Msat, Rates, SessionId, Step};
use turn_server::{
    AddressPolicy, AllocationKey, Census, Client, Config, ConnectionId, Credential, DataConnection,
    Discovery, Event, Family, HEADROOM, Protocol, REALM, RELAYED_PORTS, Transport, TurnServer,
};
use wire::stun::{AttributeType, Builder, Class, Icmp, Message, Method, TransactionId, long_term_key};

const NAME: &str = "name";
const PASSWORD: &str = "password";
const SERVER: ([u8; 4], u16) = ([9, 9, 9, 9], 3478);
const METHODS: [Method; 7] = [
    Method::ALLOCATE,
    Method::REFRESH,
    Method::CREATE_PERMISSION,
    Method::CHANNEL_BIND,
    Method::CONNECT,
    Method::CONNECTION_BIND,
    Method::BINDING,
];

struct Life {
    turn: TurnServer,
    census: Arc<Census>,
    now: Instant,
    key: [u8; 16],
    nonce: Option<(Client, String)>,
    allocations: Vec<AllocationKey>,
    data: Vec<DataConnection>,
    leases: u64,
    last_reports: u64,
}

/// Two bytes of each step say what happens and how many bytes it takes.
pub(crate) fn turn(bytes: &[u8]) {
    let mut life = Life::new();
    let mut rest = bytes;
    while let [what, len, after @ ..] = rest {
        let (step, next) = after.split_at(after.len().min(usize::from(*len)));
        life.step(*what, step);
        life.events();
        rest = next;
    }
    life.end();
}

fn permit() -> Arc<Permit> {
    static PERMIT: OnceLock<Arc<Permit>> = OnceLock::new();
    let made = PERMIT.get_or_init(|| {
        let [operator, issuer, holder] = [(); 3].map(|()| SigningKey::generate());
        let mut claims = Issue::new(holder.did().clone(), operator.did().clone(), 1_000_000, 1_000);
        claims.bearer = true;
        let jwt = issue(&issuer, &claims);
        let mut policy = TokenPolicy::new(operator.did().clone(), vec![issuer.did().clone()]);
        policy.allow_bearer = true;
        let token = verify(&jwt, &policy, 1_000).expect("just issued");
        Arc::new(Permit::from_bearer(token).expect("a bearer token"))
    });
    made.clone()
}

impl Life {
    fn new() -> Self {
        let server = SocketAddr::from(SERVER);
        let policy = AddressPolicy {
            own_addresses: vec![server.ip()],
            ..AddressPolicy::default()
        };
        let other = SocketAddr::from(([9, 9, 9, 10], 3479));
        let config = Config {
            families: vec![Family::V4, Family::V6],
            tcp_relay: true,
            mobility: true,
            dont_fragment: true,
            discovery: Discovery::new(server, other).into_iter().collect(),
            allocations_max: 8,
            ..Config::new(policy)
        };
        let (now, census) = (Instant::now(), Arc::new(Census::new()));
        let mut turn = TurnServer::new(config, census.clone(), [7; 32], now);
        let expires = now + Duration::from_secs(3_600);
        let credential = Credential::new(NAME, PASSWORD, SessionId::new(1), permit(), expires);
        assert!(turn.add_credential(Arc::new(credential), now));
        Self {
            turn,
            census,
            now,
            key: long_term_key(NAME, REALM, PASSWORD),
            nonce: None,
            allocations: Vec::new(),
            data: Vec::new(),
            leases: 0,
            last_reports: 0,
        }
    }

    fn step(&mut self, what: u8, bytes: &[u8]) {
        let client = client(what >> 4);
        let (first, rest) = bytes.split_first().unwrap_or((&0, &[]));
        let allocation = self.allocations.get(usize::from(first & 7)).copied();
        let data = self.data.get(usize::from(first & 7)).copied();
        let peer = SocketAddr::from(([8, 8, 8, first >> 4], 5_000));
        match what & 0x0F {
            0..=2 => {
                let _ = self.turn.handle_client(self.now, client, bytes);
            }
            3..=8 => self.signed(client, *first, rest),
            9 => {
                let mut packet = [&[0; HEADROOM][..], rest].concat();
                if let Some(allocation) = allocation {
                    let _ = self.turn.handle_peer(self.now, allocation, peer, &mut packet);
                }
            }
            10 => {
                if let Some(allocation) = allocation {
                    let accepted = self.turn.accepted(allocation, peer, self.now);
                    self.data.extend(accepted.map(|(data, _)| data));
                }
            }
            11 => {
                if let Some(data) = data {
                    match first >> 6 {
                        0 => {
                            let _ = self.turn.connect_failed(data);
                        }
                        1 => self.turn.data_closed(data),
                        2 => {
                            let _ = self.turn.spend(data, Direction::ToClient, 1_000, self.now);
                        }
                        _ => {
                            let _ = self.turn.connected(data, self.now);
                        }
                    }
                }
            }
            12 => self.turn.connection_closed(&client, self.now),
            13 => {
                let [kind, code] = [first >> 4, first & 15];
                let icmp = Icmp { kind, code, data: 1 };
                if let Some(allocation) = self.allocations.first() {
                    let _ = self.turn.peer_unreachable(self.now, *allocation, peer, icmp);
                }
            }
            14 => {
                let steps = [Step::Full, Step::Reduced, Step::AudioOnly, Step::Held];
                let step = steps[usize::from(first & 3)];
                self.turn.set_step(SessionId::new(1), step, self.now);
            }
            _ => {
                self.now += Duration::from_millis(500 * u64::from(*first));
                self.turn.handle_timeout(self.now);
            }
        }
    }

    /// A request whose attributes are the bytes', signed as it should be.
    fn signed(&mut self, client: Client, first: u8, mut rest: &[u8]) {
        let mut request = [0; 2_048];
        let id = TransactionId([first; 12]);
        if self.nonce.as_ref().is_none_or(|(of, _)| *of != client) {
            let builder = Builder::new(&mut request, Class::Request, Method::ALLOCATE, id);
            let len = builder.requested_transport(17).finish().expect("28 bytes");
            let answer = self.turn.handle_client(self.now, client, &request[..len]);
            let nonce = answer.and_then(|answer| {
                let message = Message::parse(answer.contents).expect("our answers are STUN");
                message.nonce().map(str::to_owned)
            });
            self.nonce = nonce.map(|nonce| (client, nonce));
        }
        let Some((_, nonce)) = &self.nonce else { return };
        let method = METHODS[usize::from(first) % METHODS.len()];
        let mut builder = Builder::new(&mut request, Class::Request, method, id);
        while let [high, low, len, after @ ..] = rest {
            let (value, next) = after.split_at(after.len().min(usize::from(*len)));
            builder = builder.attribute(AttributeType(u16::from_be_bytes([*high, *low])), value);
            rest = next;
        }
        let builder = builder
            .username(NAME)
            .realm(REALM)
            .nonce(nonce)
            .integrity(&self.key);
        if let Ok(len) = builder.finish()
            && let Some(answer) = self.turn.handle_client(self.now, client, &request[..len])
        {
            Message::parse(answer.contents).expect("our answers are STUN");
        }
    }

    fn events(&mut self) {
        while let Some(event) = self.turn.poll_event() {
            match event {
                Event::Admit {
                    allocation, session, ..
                } => {
                    self.leases += 1;
                    let rates = Rates {
                        out: 50,
                        in_: 50,
                        second: 2,
                    };
                    let granted = Msat::new(100_000);
                    let allowance = Allowance::new(LeaseId::new(self.leases), session, rates, granted);
                    self.allocations.push(allocation);
                    let _ = self.turn.admitted(allocation, allowance, Step::Full, self.now);
                }
                // Every fifth port is somebody else's.
                Event::OpenRelay {
                    allocation,
                    family,
                    port,
                    ..
                } if port % 5 == 0 => {
                    let _ = self.turn.relay_failed(allocation, family, self.now);
                }
                Event::OpenRelay {
                    allocation,
                    family,
                    port,
                    ..
                } => {
                    let relayed = match family {
                        Family::V4 => SocketAddr::from(([9, 9, 9, 9], port)),
                        Family::V6 => SocketAddr::from(([0x2a00, 0, 0, 0, 0, 0, 0, 9], port)),
                    };
                    let _ = self.turn.relay_opened(allocation, relayed, self.now);
                }
                Event::Connect { data, .. } => self.data.push(data),
                Event::Report(report) => self.last_reports += u64::from(report.last),
                _ => {}
            }
        }
    }

    fn end(mut self) {
        self.turn.end_all(self.now);
        self.events();
        assert_eq!(self.turn.allocations(), 0);
        assert_eq!(self.last_reports, self.leases, "every lease ends");
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            let kept = RELAYED_PORTS.filter(|port| self.census.is_relayed(protocol, *port));
            assert_eq!(kept.count(), 0, "no port is lost");
        }
        for data in self.data {
            self.turn.data_closed(data);
        }
    }
}

fn client(number: u8) -> Client {
    let source = SocketAddr::from(([8, 8, 4, number], 4_000));
    let connection = ConnectionId::new(number.into());
    let server = SocketAddr::from(SERVER);
    match number % 4 {
        0 => Client::udp(source, server),
        1 => Client::connected(Transport::Tcp, source, server, connection),
        2 => Client::connected(Transport::Tls, source, server, connection),
        _ => Client::connected(Transport::Dtls, source, server, connection),
    }
}
