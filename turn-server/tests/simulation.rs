//! A client, a network that loses, repeats and reorders by a seed, and the core: whatever happens on the way, the
//! client gets what it asked for, every byte is paid for once, and nothing is left behind.
#![allow(clippy::unwrap_used)]

mod world;

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use metering::{Msat, Report};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use turn_server::{AllocationKey, Protocol, Via};
use wire::channel_data::{self, ChannelNumber};
use wire::stun::{Class, Message, Method};
use world::*;

const SEEDS: u64 = 40;
const PEER: &str = "8.8.8.8:5000";
const CHANNEL: u16 = 0x4007;

/// Who a datagram is for.
enum To {
    Server(SocketAddr),
    Client(usize),
    Peer(AllocationKey),
    Relayed(AllocationKey),
}

struct Network {
    rng: StdRng,
    queue: BTreeMap<(Instant, u64), (To, Vec<u8>)>,
    count: u64,
    loss: f64,
}

impl Network {
    fn carry(&mut self, now: Instant, to: impl Fn() -> To, bytes: &[u8]) {
        let copies = if self.rng.random_bool(self.loss) {
            0
        } else {
            1 + usize::from(self.rng.random_bool(0.1))
        };
        for _ in 0..copies {
            let delay = if self.rng.random_bool(0.2) { 120 } else { 20 };
            self.count += 1;
            self.queue.insert(
                (now + Duration::from_millis(delay), self.count),
                (to(), bytes.to_vec()),
            );
        }
    }
}

/// What a client does next; each request is repeated until it is answered.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Stage {
    Challenge,
    Allocate,
    Bind,
    Talk { left: u32 },
    Delete,
    Done,
}

struct Client {
    user: User,
    address: SocketAddr,
    stage: Stage,
    nonce: String,
    pending: Option<Vec<u8>>,
    retry_at: Instant,
    key: Option<AllocationKey>,
    echoes: HashSet<Vec<u8>>,
    counter: u32,
}

fn run(seed: u64, loss: f64) {
    let mut world = World::new();
    let mut network = Network {
        rng: StdRng::seed_from_u64(seed),
        queue: BTreeMap::new(),
        count: 0,
        loss,
    };
    let start = world.now;
    let mut clients: Vec<Client> = (0..3u16)
        .map(|n| Client {
            user: world.user(),
            address: SocketAddr::from(([8, 8, 4, 4], 4000 + n)),
            stage: Stage::Challenge,
            nonce: String::new(),
            pending: None,
            retry_at: start,
            key: None,
            echoes: HashSet::new(),
            counter: 0,
        })
        .collect();
    let (mut to_peers, mut to_clients) = (0u64, 0u64);
    while clients.iter().any(|client| client.stage != Stage::Done) {
        assert!(
            world.now < start + Duration::from_secs(500),
            "seed {seed}: nobody is stuck"
        );
        world.pass(Duration::from_millis(10));
        for client in &mut clients {
            act(client, &mut world, &mut network);
        }
        while let Some((&at, _)) = network
            .queue
            .first_key_value()
            .filter(|((at, _), _)| *at <= world.now)
        {
            let (to, bytes) = network.queue.remove(&at).unwrap();
            let sent = match to {
                To::Server(from) => world.client_sends(from, &bytes),
                To::Relayed(key) => world.peer_sends(key, PEER.parse().unwrap(), &bytes),
                To::Peer(key) => {
                    // The peer echoes.
                    network.carry(world.now, || To::Relayed(key), &bytes);
                    Vec::new()
                }
                To::Client(index) => {
                    receive(&mut clients[index], &mut world, &bytes);
                    Vec::new()
                }
            };
            for sent in sent {
                match sent.via {
                    Via::Relay { allocation: key, .. } => {
                        to_peers += sent.bytes.len() as u64;
                        network.carry(world.now, || To::Peer(key), &sent.bytes);
                    }
                    Via::Listener | Via::Connection(_) => {
                        let index = clients
                            .iter()
                            .position(|client| client.address == sent.to)
                            .unwrap();
                        if let Ok(message) = channel_data::parse_datagram(&sent.bytes) {
                            to_clients += message.data.len() as u64;
                        }
                        network.carry(world.now, || To::Client(index), &sent.bytes);
                    }
                }
            }
        }
    }
    assert_eq!(world.turn.allocations(), 0, "seed {seed}");
    assert!(world.opened.is_empty(), "seed {seed}: every port is closed");
    assert!(
        (49_152..=65_535u16).all(|port| !world.census.is_relayed(Protocol::Udp, port)),
        "seed {seed}: no port is lost"
    );
    let closed: Vec<&Report> = world.reports.iter().filter(|report| report.closed).collect();
    let billed = |bytes: fn(&Report) -> u64| closed.iter().map(|report| bytes(report)).sum::<u64>();
    assert_eq!(
        billed(|report| report.usage.bytes_in),
        to_peers,
        "seed {seed}: what went to peers"
    );
    assert_eq!(
        billed(|report| report.usage.bytes_out),
        to_clients,
        "seed {seed}: what went to clients"
    );
    let last: HashSet<_> = world
        .reports
        .iter()
        .filter(|report| report.last)
        .map(|report| report.lease)
        .collect();
    let leases: HashSet<_> = world.reports.iter().map(|report| report.lease).collect();
    assert_eq!(last, leases, "seed {seed}: every lease ends");
    assert!(
        closed
            .iter()
            .all(|report| report.usage.debit <= Msat::new(1_000_000))
    );
    if loss == 0.0 {
        assert!(
            clients.iter().all(|client| client.echoes.len() == 50),
            "seed {seed}: everything came back"
        );
    }
}

fn act(client: &mut Client, world: &mut World, network: &mut Network) {
    if let Stage::Talk { left } = client.stage {
        if left == 0 {
            // Once the last echo is home.
            client.stage = Stage::Delete;
            client.retry_at = world.now + Duration::from_secs(1);
        } else {
            client.stage = Stage::Talk { left: left - 1 };
            client.counter += 1;
            let data = [&client.counter.to_be_bytes()[..], &[0; 100]].concat();
            network.carry(
                world.now,
                || To::Server(client.address),
                &channel_message(CHANNEL, &data),
            );
            return;
        }
    }
    if client.stage == Stage::Done || world.now < client.retry_at {
        return;
    }
    if client.pending.is_none() {
        let id = world.id();
        let (user, nonce) = (&client.user, client.nonce.as_str());
        let number = ChannelNumber::new(CHANNEL).unwrap();
        client.pending = Some(match client.stage {
            Stage::Challenge => build(Method::ALLOCATE, id, |b| b.requested_transport(17).lifetime(600)),
            Stage::Allocate => user.sign(Method::ALLOCATE, id, nonce, |b| b.requested_transport(17)),
            Stage::Bind => user.sign(Method::CHANNEL_BIND, id, nonce, |b| {
                b.channel_number(number).xor_peer_address(PEER.parse().unwrap())
            }),
            _ => user.sign(Method::REFRESH, id, nonce, |b| b.lifetime(0)),
        });
    }
    if let Some(request) = &client.pending {
        client.retry_at = world.now + Duration::from_millis(500);
        network.carry(world.now, || To::Server(client.address), request);
    }
}

fn receive(client: &mut Client, world: &mut World, bytes: &[u8]) {
    if let Ok(message) = channel_data::parse_datagram(bytes) {
        client.echoes.insert(message.data.to_vec());
        return;
    }
    let answer = Message::parse(bytes).unwrap();
    let Some(pending) = client.pending.as_deref() else {
        return;
    };
    if answer.transaction_id() != Message::parse(pending).unwrap().transaction_id() {
        return;
    }
    let code = answer.error_code().map_or(0, |error| error.code);
    client.stage = match (client.stage, answer.class(), code) {
        (Stage::Challenge, Class::Error, 401) => {
            client.nonce = answer.nonce().unwrap().to_owned();
            Stage::Allocate
        }
        (Stage::Allocate, Class::Success, _) => {
            client.key = world.admissions.last().copied();
            Stage::Bind
        }
        (Stage::Bind, Class::Success, _) => Stage::Talk { left: 50 },
        // A repeated deletion finds nothing to delete.
        (Stage::Delete, Class::Success, _) | (Stage::Delete, Class::Error, 437) => Stage::Done,
        (stage, class, code) => panic!("{stage:?} was answered {class:?} {code}"),
    };
    client.pending = None;
    client.retry_at = world.now;
}

#[test]
fn a_fair_network_brings_everything_back() {
    for seed in 0..SEEDS {
        run(seed, 0.0);
    }
}

#[test]
fn on_a_foul_network_the_books_are_right_all_the_same() {
    for seed in 0..SEEDS {
        run(1_000 + seed, 0.25);
    }
}
