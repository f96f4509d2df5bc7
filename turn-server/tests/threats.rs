//! What attacks a TURN server that is paid, one test a row.
#![allow(clippy::unwrap_used)]

mod world;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use metering::{Msat, Step};
use turn_server::{
    Client, CloseReason, Config, Discard, Event, Family, PeerKind, Protocol, REALM, Refusal, Spend,
    Transport, Via,
};
use wire::stun::{AttributeType, Method};
use world::*;

const CLIENT: &str = "8.8.4.4:4000";
const PEER: &str = "8.8.8.8:5000";

// --- Server-side request forgery

const FORBIDDEN: &[&str] = &[
    "127.0.0.1:80",
    "10.0.0.1:80",
    "172.16.0.1:80",
    "192.168.0.1:80",
    "169.254.169.254:80",
    "100.64.0.1:80",
    "0.0.0.0:80",
    "0.1.2.3:80",
    "224.0.0.1:80",
    "255.255.255.255:80",
    "192.0.2.1:80",
    "198.51.100.1:80",
    "203.0.113.1:80",
    "198.18.0.1:80",
    "100.100.100.200:80",
    "168.63.129.16:80",
    "192.0.0.192:80",
];

#[test]
fn a_forbidden_peer_is_refused_on_create_permission_channel_bind_and_send() {
    let mut world = World::new();
    let user = world.user();
    let client = address(CLIENT);
    world.allocate(&user, client);
    for peer in FORBIDDEN {
        assert_eq!(world.permit_peer(&user, client, address(peer)), 403, "{peer}");
        assert_eq!(world.bind(&user, client, 0x4000, address(peer)), 403, "{peer}");
        assert!(
            world
                .client_sends(client, &send_indication(address(peer), b"x"))
                .is_empty(),
            "{peer}"
        );
    }
}

#[test]
fn a_forbidden_ipv6_peer_is_refused_too() {
    let mut world = World::new();
    let user = world.user();
    let client = address(CLIENT);
    world.request(&user, client, Method::ALLOCATE, |b| {
        b.requested_transport(17).requested_address_family(2)
    });
    for peer in [
        "[::]:80",
        "[::1]:80",
        "[::ffff:127.0.0.1]:80",
        "[::ffff:8.8.8.8]:80",
        "[64:ff9b::7f00:1]:80",
        "[2002:7f00:1::]:80",
        "[fe80::1]:80",
        "[fc00::1]:80",
        "[fd00:ec2::254]:80",
        "[ff02::1]:80",
        "[2001:db8::1]:80",
        "[::127.0.0.1]:80",
    ] {
        assert_eq!(world.permit_peer(&user, client, address(peer)), 403, "{peer}");
        assert_eq!(world.bind(&user, client, 0x4000, address(peer)), 403, "{peer}");
    }
}

#[test]
fn of_our_own_ports_only_the_sfu_and_relayed_ports_can_be_reached() {
    let mut world = World::new();
    let user = world.user();
    let (client, other) = (address(CLIENT), address("8.8.4.4:4001"));
    world.allocate(&user, client);
    let (_, relayed) = world.allocate(&user, other);
    assert_eq!(world.bind(&user, client, 0x4000, address("9.9.9.9:5004")), 0);
    assert_eq!(world.bind(&user, client, 0x4001, relayed), 0);
    for port in [22, 3478, 8080, 5005] {
        let peer = SocketAddr::new(SERVER.parse().unwrap(), port);
        assert_eq!(world.bind(&user, client, 0x4002, peer), 403, "{port}");
        // A permission is for an address and exists by now; the port is looked at for every packet.
        assert!(
            world
                .client_sends(client, &send_indication(peer, b"x"))
                .is_empty(),
            "{port}"
        );
    }
    assert_eq!(world.turn.counters().discarded(Discard::PeerDenied), 4);
}

#[test]
fn a_relayed_port_is_open_on_its_own_address_only() {
    // Whoever gets the port of a service that listens on an internal address of ours must not reach it there.
    let mut config = config();
    config.policy.own_addresses.push("10.0.0.5".parse().unwrap());
    config.policy.relays = vec![SERVER.parse().unwrap()];
    let mut world = World::with(config);
    let user = world.user();
    let (client, other) = (address(CLIENT), address("8.8.4.4:4001"));
    let (key, _) = world.allocate(&user, client);
    let (_, relayed) = world.allocate(&user, other);
    let inside = SocketAddr::new("10.0.0.5".parse().unwrap(), relayed.port());
    assert_eq!(world.bind(&user, client, 0x4000, inside), 403);
    world.permit_peer(&user, client, inside);
    assert!(
        world
            .client_sends(client, &send_indication(inside, b"x"))
            .is_empty()
    );
    assert!(world.peer_sends(key, inside, b"x").is_empty());
    assert_eq!(world.bind(&user, client, 0x4000, relayed), 0);
}

#[test]
fn a_relayed_port_that_was_closed_is_no_peer_any_more() {
    let mut world = World::new();
    let user = world.user();
    let (client, other) = (address(CLIENT), address("8.8.4.4:4001"));
    world.allocate(&user, client);
    let (_, relayed) = world.allocate(&user, other);
    assert_eq!(world.bind(&user, client, 0x4000, relayed), 0);
    assert_eq!(
        world.client_sends(client, &channel_message(0x4000, b"x")).len(),
        1
    );
    assert_eq!(world.code(&user, other, Method::REFRESH, |b| b.lifetime(0)), 0);
    assert!(
        world
            .client_sends(client, &channel_message(0x4000, b"x"))
            .is_empty()
    );
}

#[test]
fn a_forbidden_peer_is_not_heard_either() {
    let mut world = World::new();
    let user = world.user();
    let client = address(CLIENT);
    let (key, _) = world.allocate(&user, client);
    assert_eq!(world.permit_peer(&user, client, address("9.9.9.9:5004")), 0);
    assert_eq!(
        world.peer_sends(key, address("9.9.9.9:5004"), b"x").len(),
        1,
        "the SFU"
    );
    assert!(
        world.peer_sends(key, address("9.9.9.9:3478"), b"x").is_empty(),
        "the TURN listener"
    );
    assert!(
        world.peer_sends(key, address("8.8.8.8:80"), b"x").is_empty(),
        "no permission"
    );
}

/// A world with TCP allocations, one of them with a permission for everything that is forbidden.
fn tcp_world() -> (
    World,
    world::User,
    turn_server::Client,
    turn_server::AllocationKey,
) {
    let mut world = World::with(Config {
        tcp_relay: true,
        ..config()
    });
    let user = world.user();
    let client = connected(Transport::Tcp, address(CLIENT), 1);
    let answers = world.ask(&user, client, Method::ALLOCATE, |b| b.requested_transport(6));
    assert_eq!(answers[0].code(), 0);
    let key = world.admissions[0];
    (world, user, client, key)
}

#[test]
fn a_forbidden_peer_is_refused_on_connect_and_when_it_connects() {
    let (mut world, user, client, key) = tcp_world();
    let own = [
        "9.9.9.9:22",
        "9.9.9.9:3478",
        "9.9.9.9:8080",
        // The SFU's port is open for datagrams only.
        "9.9.9.9:5004",
        "8.8.8.8:0",
    ];
    for peer in FORBIDDEN.iter().chain(&own) {
        let answers = world.ask(&user, client, Method::CONNECT, |b| {
            b.xor_peer_address(address(peer))
        });
        assert_eq!(answers[0].code(), 403, "{peer}");
        world.ask(&user, client, Method::CREATE_PERMISSION, |b| {
            b.xor_peer_address(address(peer))
        });
        assert!(
            world.turn.accepted(key, address(peer), world.now).is_none(),
            "{peer}"
        );
        // Prefixes of challenges are limited.
        world.pass(Duration::from_secs(1));
    }
    assert!(world.data.is_empty(), "no socket was asked for anything");
}

#[test]
fn a_relayed_udp_port_is_no_tcp_peer() {
    let (mut world, user, client, _) = tcp_world();
    let other = world.user();
    let (_, relayed) = world.allocate(&other, address("8.8.4.4:4001"));
    let answers = world.ask(&user, client, Method::CONNECT, |b| b.xor_peer_address(relayed));
    assert_eq!(answers[0].code(), 403);
}

#[test]
fn a_relayed_tcp_port_is_a_peer_until_it_is_closed_and_then_its_connections_end() {
    let (mut world, user, client, _) = tcp_world();
    let other = world.user();
    let its = connected(Transport::Tcp, address("8.8.4.4:4001"), 2);
    let answers = world.ask(&other, its, Method::ALLOCATE, |b| b.requested_transport(6));
    let relayed = answers[0].message().xor_relayed_address().unwrap();
    world.ask(&user, client, Method::CONNECT, |b| b.xor_peer_address(relayed));
    let Some(Event::Connect { data, .. }) = world.data.pop() else {
        panic!("two clients behind NATs meet there");
    };
    let now = world.now;
    world.turn.connected(data, now);
    let third = connected(Transport::Tcp, address("8.8.4.4:4002"), 3);
    world.ask(&user, third, Method::CONNECTION_BIND, |b| {
        b.connection_id(data.get())
    });
    assert!(matches!(
        world.turn.spend(data, metering::Direction::FromClient, 1, now),
        Spend::Paid(_)
    ));
    world.ask(&other, its, Method::REFRESH, |b| b.lifetime(0));
    assert_eq!(
        world.turn.spend(data, metering::Direction::FromClient, 1, now),
        Spend::Gone
    );
}

#[test]
fn a_connection_is_delivered_only_through_its_own_permission() {
    let (mut world, user, client, key) = tcp_world();
    let now = world.now;
    assert!(world.turn.accepted(key, address(PEER), now).is_none());
    assert_eq!(world.turn.counters().discarded(Discard::NoPermission), 1);
    world.ask(&user, client, Method::CREATE_PERMISSION, |b| {
        b.xor_peer_address(address(PEER))
    });
    assert!(world.turn.accepted(key, address(PEER), now).is_some());
    world.pass(Duration::from_secs(301));
    let now = world.now;
    assert!(
        world.turn.accepted(key, address("8.8.8.8:81"), now).is_none(),
        "it has run out"
    );
}

#[test]
fn an_allocation_has_so_many_connections() {
    let mut world = World::with(Config {
        tcp_relay: true,
        data_connections_per_allocation_max: 3,
        ..config()
    });
    let user = world.user();
    let client = connected(Transport::Tcp, address(CLIENT), 1);
    world.ask(&user, client, Method::ALLOCATE, |b| b.requested_transport(6));
    world.ask(&user, client, Method::CREATE_PERMISSION, |b| {
        b.xor_peer_address(address(PEER))
    });
    let (key, now) = (world.admissions[0], world.now);
    for port in 1..=3 {
        assert!(
            world
                .turn
                .accepted(key, address(&format!("8.8.8.8:{port}")), now)
                .is_some()
        );
    }
    assert!(world.turn.accepted(key, address("8.8.8.8:4"), now).is_none());
    assert_eq!(world.turn.counters().discarded(Discard::ConnectionLimit), 1);
    let answers = world.ask(&user, client, Method::CONNECT, |b| {
        b.xor_peer_address(address("8.8.8.8:5"))
    });
    assert_eq!(answers[0].code(), 508);
}

#[test]
fn a_relayed_port_delivers_only_through_its_own_permission() {
    let mut world = World::new();
    let (user, victim) = (world.user(), world.user());
    let (client, other) = (address(CLIENT), address("8.8.4.4:4001"));
    let (_, from) = world.allocate(&user, client);
    let (key, to) = world.allocate(&victim, other);
    assert_eq!(world.bind(&user, client, 0x4000, to), 0);
    let sent = world.client_sends(client, &channel_message(0x4000, b"x"));
    assert_eq!(sent[0].to, to);
    assert!(world.peer_sends(key, from, b"x").is_empty());
    assert_eq!(world.permit_peer(&victim, other, from), 0);
    assert_eq!(world.peer_sends(key, from, b"x")[0].to, other);
}

// --- Reflection

/// By payload; requests of less than 32 bytes, for which no server could, as a victim receives them.
fn small_enough(family: &str, request: usize, answer: usize) -> bool {
    let headers = match (request < 32, family.starts_with('[')) {
        (false, _) => 0,
        (true, false) => 28,
        (true, true) => 48,
    };
    2 * (answer + headers) <= 3 * (request + headers)
}

#[test]
fn an_answer_to_nobody_is_at_most_one_and_a_half_times_its_request() {
    let mut world = World::new();
    let user = world.user();
    let mut answered = 0;
    for family in ["8.8.4.4:4000", "[2606:4700::1]:4000"] {
        for method in [
            Method::ALLOCATE,
            Method::REFRESH,
            Method::CREATE_PERMISSION,
            Method::CHANNEL_BIND,
            Method::CONNECT,
            Method::CONNECTION_BIND,
            Method::BINDING,
        ] {
            for padding in 0..40 {
                let id = world.id();
                let shapes = [
                    build(method, id, |b| match padding {
                        0 => b,
                        1 => b.requested_transport(17),
                        more => b.requested_transport(17).software(&"x".repeat(4 * more - 4)),
                    }),
                    // Unknown attributes are listed in a 420, and a wrong integrity is answered with a challenge.
                    build(method, id, |b| {
                        (0..padding).fold(b, |b, n| b.attribute(AttributeType(0x7000 + n as u16), &[]))
                    }),
                    build(method, id, |b| b.username("x").integrity(&[0; 16])),
                    user.sign(method, id, "AAAA", |b| b),
                ];
                for request in shapes {
                    for answer in world.client_sends(address(family), &request) {
                        let (request, answer) = (request.len(), answer.bytes.len());
                        assert!(
                            small_enough(family, request, answer),
                            "{method:?} {request} -> {answer}"
                        );
                        answered += 1;
                    }
                }
                world.pass(Duration::from_millis(500));
            }
        }
    }
    assert!(answered > 1_000, "{answered} were answered");
}

#[test]
fn a_browsers_first_allocate_is_answered_with_44_bytes() {
    let mut world = World::new();
    let id = world.id();
    let request = build(Method::ALLOCATE, id, |b| b.requested_transport(17));
    let answers = world.client_sends(address(CLIENT), &request);
    assert_eq!((request.len(), answers[0].bytes.len()), (28, 44));
}

#[test]
fn challenges_to_one_prefix_are_limited() {
    let mut world = World::new();
    let mut answered = 0;
    for host in 0..=255u8 {
        for port in 4000..4010 {
            let id = world.id();
            let request = build(Method::ALLOCATE, id, |b| b.requested_transport(17).lifetime(600));
            answered += world
                .client_sends(SocketAddr::from(([8, 8, 4, host], port)), &request)
                .len();
        }
    }
    assert_eq!(answered, 100, "the burst");
    assert!(
        !world.nonce(address("8.8.5.1:4000")).is_empty(),
        "other prefixes are served"
    );
}

#[test]
fn over_a_connection_a_challenge_is_never_kept_back() {
    let mut world = World::new();
    for n in 0..300 {
        let client = connected(Transport::Tcp, address(CLIENT), n);
        let id = world.id();
        let request = build(Method::ALLOCATE, id, |b| b.requested_transport(17));
        assert_eq!(world.sends(client, &request).len(), 1, "nobody asks twice there");
    }
}

// --- State exhaustion

#[test]
fn nothing_is_kept_for_who_has_not_shown_a_password() {
    let mut world = World::new();
    let user = world.user();
    let client = address(CLIENT);
    let nonce = world.nonce(client);
    let id = world.id();
    let mut wrong = world::User {
        key: [0; 16],
        name: user.name.clone(),
        ..user
    };
    let request = wrong.sign(Method::ALLOCATE, id, &nonce, |b| b.requested_transport(17));
    assert_eq!(world.client_sends(client, &request)[0].code(), 401);
    wrong.name = "nobody".into();
    let request = wrong.sign(Method::ALLOCATE, id, &nonce, |b| b.requested_transport(17));
    assert_eq!(world.client_sends(client, &request)[0].code(), 401);
    assert!(world.admissions.is_empty() && world.turn.allocations() == 0);
}

#[test]
fn a_stale_nonce_is_answered_438_with_a_fresh_one() {
    let mut world = World::new();
    let user = world.user();
    let client = address(CLIENT);
    let nonce = world.nonce(client);
    world.pass(Duration::from_secs(1300));
    let user = world.user_of(user.permit.clone());
    let id = world.id();
    let answers = world.client_sends(
        client,
        &user.sign(Method::ALLOCATE, id, &nonce, |b| b.requested_transport(17)),
    );
    assert_eq!(answers[0].code(), 438);
    let fresh = answers[0].message().nonce().unwrap().to_owned();
    assert_ne!(fresh, nonce);
    let id = world.id();
    let answers = world.client_sends(
        client,
        &user.sign(Method::ALLOCATE, id, &fresh, |b| b.requested_transport(17)),
    );
    assert_eq!(answers[0].code(), 0);
}

#[test]
fn a_nonce_of_another_address_is_stale() {
    let mut world = World::new();
    let user = world.user();
    let nonce = world.nonce(address("8.8.4.4:4001"));
    let id = world.id();
    let request = user.sign(Method::ALLOCATE, id, &nonce, |b| b.requested_transport(17));
    assert_eq!(world.client_sends(address(CLIENT), &request)[0].code(), 438);
}

// --- Exhaustion

#[test]
fn an_account_has_so_many_allocations_whatever_usernames_it_uses() {
    let mut world = World::with(Config {
        allocations_per_account_max: 3,
        ..config()
    });
    let first = world.user();
    let second = world.user_of(first.permit.clone());
    for port in 4000..4003 {
        world.allocate(
            if port % 2 == 0 { &first } else { &second },
            address(&format!("8.8.4.4:{port}")),
        );
    }
    assert_eq!(
        world.code(&second, address("8.8.4.4:4009"), Method::ALLOCATE, |b| b
            .requested_transport(17)),
        486
    );
    let other = world.user();
    world.allocate(&other, address("8.8.4.4:4010"));
    assert_eq!(
        world.code(&first, address("8.8.4.4:4000"), Method::REFRESH, |b| b
            .lifetime(0)),
        0
    );
    world.allocate(&second, address("8.8.4.4:4009"));
}

#[test]
fn the_node_has_so_many_allocations() {
    let mut world = World::with(Config {
        allocations_max: 2,
        ..config()
    });
    for port in 4000..4002 {
        let user = world.user();
        world.allocate(&user, address(&format!("8.8.4.4:{port}")));
    }
    let user = world.user();
    assert_eq!(
        world.code(&user, address("8.8.4.4:4002"), Method::ALLOCATE, |b| b
            .requested_transport(17)),
        508
    );
}

#[test]
fn an_allocation_has_so_many_permissions_and_channels() {
    let mut world = World::with(Config {
        permissions_per_allocation_max: 4,
        channels_per_allocation_max: 2,
        ..config()
    });
    let user = world.user();
    let client = address(CLIENT);
    world.allocate(&user, client);
    assert_eq!(world.bind(&user, client, 0x4000, address("8.8.8.1:1")), 0);
    assert_eq!(world.bind(&user, client, 0x4001, address("8.8.8.2:1")), 0);
    assert_eq!(world.bind(&user, client, 0x4002, address("8.8.8.2:2")), 508);
    let code = world.code(&user, client, Method::CREATE_PERMISSION, |b| {
        (3..6).fold(b, |b, last| {
            b.xor_peer_address(SocketAddr::from(([8, 8, 8, last], 1)))
        })
    });
    assert_eq!(code, 508);
    assert_eq!(world.permit_peer(&user, client, address("8.8.8.3:1")), 0);
    assert_eq!(world.permit_peer(&user, client, address("8.8.8.4:1")), 0);
    assert_eq!(world.permit_peer(&user, client, address("8.8.8.5:1")), 508);
}

#[test]
fn a_node_without_free_ports_says_508_and_leaks_nothing() {
    let mut world = World::with(Config {
        allocations_per_account_max: 100_000,
        allocations_max: 100_000,
        ..config()
    });
    let user = world.user();
    world.ports_fail = usize::MAX;
    assert_eq!(
        world.code(&user, address(CLIENT), Method::ALLOCATE, |b| b
            .requested_transport(17)),
        508
    );
    assert_eq!(
        (49_152..=65_535u16)
            .filter(|port| world.census.is_relayed(Protocol::Udp, *port))
            .count(),
        0
    );
}

// --- Port prediction

#[test]
fn relayed_ports_do_not_follow_a_pattern_and_another_seed_draws_others() {
    let ports = |seed: u8| {
        let mut world = World::new();
        world.turn = turn_server::TurnServer::new(config(), world.census.clone(), [seed; 32], world.now);
        let user = world.user();
        (0..30)
            .map(|n| {
                world
                    .allocate(&user, address(&format!("8.8.4.4:{}", 4000 + n)))
                    .1
                    .port()
            })
            .collect::<Vec<_>>()
    };
    let (first, second) = (ports(1), ports(2));
    assert_ne!(first, second);
    let steps: HashSet<i32> = first
        .windows(2)
        .map(|pair| i32::from(pair[1]) - i32::from(pair[0]))
        .collect();
    assert!(steps.len() > 25, "no constant step");
    assert!(
        first.iter().any(|port| *port < 55_000) && first.iter().any(|port| *port > 60_000),
        "the whole range"
    );
}

// --- Parsers

#[test]
fn no_truncated_or_flipped_request_does_harm() {
    let mut world = World::new();
    let user = world.user();
    let client = address(CLIENT);
    let nonce = world.nonce(client);
    let id = world.id();
    let request = user.sign(Method::ALLOCATE, id, &nonce, |b| b.requested_transport(17));
    for len in 0..request.len() {
        world.client_sends(client, &request[..len]);
    }
    for index in 0..request.len() {
        for bit in 0..8 {
            let mut flipped = request.clone();
            flipped[index] ^= 1 << bit;
            world.client_sends(client, &flipped);
        }
        world.pass(Duration::from_millis(500));
    }
    assert_eq!(
        world.turn.allocations(),
        0,
        "a bit of a signed request cannot be changed"
    );
    let nonce = world.nonce(client);
    let request = user.sign(Method::ALLOCATE, id, &nonce, |b| b.requested_transport(17));
    assert_eq!(world.client_sends(client, &request)[0].code(), 0);
}

#[test]
fn attributes_after_the_integrity_are_not_seen() {
    let mut world = World::new();
    let user = world.user();
    let client = address(CLIENT);
    world.allocate(&user, client);
    let nonce = world.nonce(client);
    let id = world.id();
    let request = build(Method::REFRESH, id, |b| {
        b.username(&user.name)
            .realm(REALM)
            .nonce(&nonce)
            .integrity(&user.key)
            .lifetime(0)
    });
    assert_eq!(
        world.client_sends(client, &request)[0].message().lifetime(),
        Some(600)
    );
    assert_eq!(world.turn.allocations(), 1);
}

#[test]
fn a_wrong_fingerprint_is_dropped() {
    let mut world = World::new();
    let id = world.id();
    let mut request = build(Method::ALLOCATE, id, |b| b.requested_transport(17).fingerprint());
    *request.last_mut().unwrap() ^= 1;
    assert!(world.client_sends(address(CLIENT), &request).is_empty());
    assert_eq!(world.turn.counters().discarded(Discard::MalformedStun), 1);
}

#[test]
fn a_send_indication_with_what_we_do_not_know_is_dropped() {
    let mut world = World::new();
    let user = world.user();
    let client = address(CLIENT);
    world.allocate(&user, client);
    assert_eq!(world.permit_peer(&user, client, address(PEER)), 0);
    let mut buffer = [0; 256];
    let len = wire::stun::Builder::new(
        &mut buffer,
        wire::stun::Class::Indication,
        Method::SEND,
        world.id(),
    )
    .xor_peer_address(address(PEER))
    .attribute(AttributeType::DONT_FRAGMENT, &[])
    .data(b"x")
    .finish()
    .unwrap();
    assert!(world.client_sends(client, &buffer[..len]).is_empty());
    assert_eq!(
        world
            .client_sends(client, &send_indication(address(PEER), b"x"))
            .len(),
        1
    );
}

// --- Credentials that outlive their money

#[test]
fn a_held_session_cannot_refresh_permit_or_bind_and_relays_nothing() {
    let mut world = World::new();
    let user = world.user();
    let client = address(CLIENT);
    let (key, _) = world.allocate(&user, client);
    assert_eq!(world.bind(&user, client, 0x4000, address(PEER)), 0);
    world.turn.set_step(user.session, Step::Held, world.now);
    world.events();
    assert!(world.reports.last().unwrap().closed, "the segment is settled");
    assert_eq!(world.code(&user, client, Method::REFRESH, |b| b), 486);
    assert_eq!(world.permit_peer(&user, client, address(PEER)), 486);
    assert_eq!(world.bind(&user, client, 0x4000, address(PEER)), 486);
    assert!(
        world
            .client_sends(client, &channel_message(0x4000, b"x"))
            .is_empty()
    );
    assert!(world.peer_sends(key, address(PEER), b"x").is_empty());
    world.turn.set_step(user.session, Step::Full, world.now);
    world.events();
    assert_eq!(world.code(&user, client, Method::REFRESH, |b| b), 0);
    assert_eq!(
        world.client_sends(client, &channel_message(0x4000, b"x")).len(),
        1,
        "a top-up resumes"
    );
}

#[test]
fn an_allocation_is_deleted_at_the_end_of_its_hold_even_if_nobody_says_so() {
    let mut world = World::new();
    let user = world.user();
    let (key, relayed) = world.allocate(&user, address(CLIENT));
    world.turn.set_step(user.session, Step::Held, world.now);
    world.pass(Duration::from_secs(74));
    assert_eq!(world.turn.allocations(), 1);
    // Told again meanwhile: the hold is as old as it is.
    world.turn.set_step(user.session, Step::Held, world.now);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.closed, [(key, user.session, CloseReason::Ended)]);
    assert!(!world.census.is_relayed(Protocol::Udp, relayed.port()));
    assert!(world.reports.last().unwrap().last);
    let user = world.user();
    world.allocate(&user, address("8.8.4.4:4001"));
    world.turn.set_step(user.session, Step::Held, world.now);
    world.pass(Duration::from_secs(50));
    world.turn.set_step(user.session, Step::Full, world.now);
    world.pass(Duration::from_secs(50));
    assert_eq!(world.turn.allocations(), 1, "a top-up keeps it");
}

#[test]
fn a_refusal_for_want_of_money_says_so() {
    let (mut world, user, client, _) = tcp_world();
    world.turn.set_step(user.session, Step::Held, world.now);
    for method in [Method::REFRESH, Method::CREATE_PERMISSION, Method::CONNECT] {
        let answers = world.ask(&user, client, method, |b| b.xor_peer_address(address(PEER)));
        let message = answers[0].message();
        let error = message.error_code().unwrap();
        assert_eq!(error.code, 486, "{method:?}");
        assert!(error.reason.contains("top up"), "{method:?}");
    }
    let answers = world.ask(&user, client, Method::REFRESH, |b| b.lifetime(0));
    assert_eq!(answers[0].code(), 0, "to leave costs nothing");
}

#[test]
fn a_revoked_session_relays_not_one_packet_more() {
    let mut world = World::new();
    let user = world.user();
    let (client, other) = (address(CLIENT), address("8.8.4.4:4001"));
    let (key, _) = world.allocate(&user, client);
    let (other_key, _) = world.allocate(&user, other);
    assert_eq!(world.bind(&user, client, 0x4000, address(PEER)), 0);
    assert_eq!(world.permit_peer(&user, other, address(PEER)), 0);
    world.turn.end(user.session, world.now);
    assert!(
        world
            .client_sends(client, &channel_message(0x4000, b"x"))
            .is_empty()
    );
    assert!(world.peer_sends(key, address(PEER), b"x").is_empty());
    assert!(world.peer_sends(other_key, address(PEER), b"x").is_empty());
    assert_eq!(world.turn.allocations(), 0);
    assert!(world.opened.is_empty());
}

#[test]
fn held_time_is_free() {
    let mut world = World::new();
    let user = world.user();
    world.allocate(&user, address(CLIENT));
    world.pass(Duration::from_secs(10));
    world.turn.set_step(user.session, Step::Held, world.now);
    world.pass(Duration::from_secs(50));
    world.turn.set_step(user.session, Step::Full, world.now);
    world.pass(Duration::from_secs(10));
    assert_eq!(
        world.code(&user, address(CLIENT), Method::REFRESH, |b| b.lifetime(0)),
        0
    );
    let nanoseconds: u64 = world
        .reports
        .iter()
        .filter(|report| report.closed)
        .map(|r| r.usage.nanoseconds)
        .sum();
    assert_eq!(nanoseconds, 20_000_000_000);
}

#[test]
fn an_allocation_that_opens_on_a_held_account_is_paused_from_its_first_moment_and_resumes() {
    let mut world = World::new();
    let (user, client) = (world.user(), address(CLIENT));
    world.step = Step::Held;
    world.allocate(&user, client);
    let first = world.reports.first().expect("its pause is reported");
    assert!(first.held && first.closed && first.usage.nanoseconds == 0);
    world.pass(Duration::from_secs(20));
    world.turn.set_step(user.session, Step::Held, world.now);
    world.turn.set_step(user.session, Step::Full, world.now);
    world.pass(Duration::from_secs(2));
    world.request(&user, client, Method::REFRESH, |b| b.lifetime(0));
    let nanoseconds: u64 = world
        .reports
        .iter()
        .filter(|report| report.closed)
        .map(|report| report.usage.nanoseconds)
        .sum();
    assert_eq!(nanoseconds, 2_000_000_000, "only what came after the hold");
}

#[test]
fn an_ended_session_loses_its_allocations_and_its_username() {
    let mut world = World::new();
    let user = world.user();
    let client = address(CLIENT);
    let (key, _) = world.allocate(&user, client);
    world.turn.end(user.session, world.now);
    world.events();
    assert_eq!(world.closed, [(key, user.session, CloseReason::Ended)]);
    assert!(world.reports.last().unwrap().last);
    assert_eq!(
        world.code(&user, client, Method::ALLOCATE, |b| b.requested_transport(17)),
        401
    );
    assert_eq!(world.code(&user, client, Method::REFRESH, |b| b), 401);
}

#[test]
fn who_is_denied_loses_allocations_and_usernames_and_nobody_else_does() {
    let mut world = World::new();
    let (denied, other) = (world.user(), world.user());
    let (client, neighbour) = (address(CLIENT), address("8.8.4.4:4001"));
    let (key, _) = world.allocate(&denied, client);
    world.allocate(&other, neighbour);
    let theirs = denied.permit.clone();
    world
        .turn
        .revoke(&|permit| std::ptr::eq(permit, &*theirs), world.now);
    world.events();
    assert_eq!(world.closed, [(key, denied.session, CloseReason::Ended)]);
    let allocate =
        |world: &mut World| world.code(&denied, client, Method::ALLOCATE, |b| b.requested_transport(17));
    assert_eq!(allocate(&mut world), 401);
    assert_eq!(world.code(&other, neighbour, Method::REFRESH, |b| b), 0);
}

#[test]
fn nothing_is_relayed_that_the_lease_does_not_cover() {
    let mut world = World::new();
    let user = world.user();
    let client = address(CLIENT);
    // 2 msat a second ahead and 1 for the bytes: 20 kB at 50 msat a megabyte.
    world.grant = Ok(Msat::new(3));
    let (key, _) = world.allocate(&user, client);
    assert_eq!(world.bind(&user, client, 0x4000, address(PEER)), 0);
    let mut relayed = 0;
    for _ in 0..100 {
        relayed += world
            .client_sends(client, &channel_message(0x4000, &[0; 1000]))
            .len();
        relayed += world.peer_sends(key, address(PEER), &[0; 1000]).len();
    }
    assert_eq!(relayed, 20);
    assert_eq!(world.turn.counters().discarded(Discard::Exhausted), 180);
    assert!(
        world.reports.iter().any(|report| report.exhausted),
        "the cashier hears of it at once"
    );
    assert_eq!(world.code(&user, client, Method::REFRESH, |b| b.lifetime(0)), 0);
    let last = world.reports.last().unwrap();
    assert_eq!(
        (last.usage.bytes_in, last.usage.bytes_out, last.usage.debit),
        (10_000, 10_000, Msat::new(1))
    );
}

#[test]
fn a_refused_account_is_asked_about_again_only_when_its_client_asks_again() {
    let mut world = World::new();
    let user = world.user();
    world.grant = Err(Refusal::BalanceExhausted);
    assert_eq!(
        world.code(&user, address(CLIENT), Method::ALLOCATE, |b| b
            .requested_transport(17)),
        486
    );
    world.pass(Duration::from_secs(5));
    assert_eq!(world.admissions.len(), 1);
}

// --- Hijack

#[test]
fn another_user_on_the_same_5_tuple_has_the_wrong_credentials() {
    let mut world = World::new();
    let (user, thief) = (world.user(), world.user());
    let client = address(CLIENT);
    world.allocate(&user, client);
    assert_eq!(
        world.code(&thief, client, Method::REFRESH, |b| b.lifetime(0)),
        441
    );
    assert_eq!(world.permit_peer(&thief, client, address(PEER)), 441);
    assert_eq!(world.bind(&thief, client, 0x4000, address(PEER)), 441);
    assert_eq!(world.turn.allocations(), 1);
}

#[test]
fn another_5_tuple_cannot_use_an_allocation() {
    let mut world = World::new();
    let user = world.user();
    let (client, thief) = (address(CLIENT), address("8.8.4.4:4001"));
    world.allocate(&user, client);
    assert_eq!(world.bind(&user, client, 0x4000, address(PEER)), 0);
    assert!(
        world
            .client_sends(thief, &channel_message(0x4000, b"x"))
            .is_empty()
    );
    assert!(
        world
            .client_sends(thief, &send_indication(address(PEER), b"x"))
            .is_empty()
    );
    assert_eq!(world.code(&user, thief, Method::REFRESH, |b| b.lifetime(0)), 437);
    let elsewhere = Client::udp(client, address("9.9.9.10:3478"));
    assert!(
        world
            .turn
            .handle_client(world.now, elsewhere, &channel_message(0x4000, b"x"))
            .is_none()
    );
    assert_eq!(world.turn.allocations(), 1);
}

#[test]
fn a_stolen_mobility_ticket_moves_nothing() {
    let mut world = World::with(Config {
        mobility: true,
        ..config()
    });
    let (user, thief) = (world.user(), world.user());
    let (client, elsewhere) = (address(CLIENT), address("8.8.5.5:4000"));
    let answers = world.request(&user, client, Method::ALLOCATE, |b| {
        b.requested_transport(17).mobility_ticket(&[])
    });
    let ticket = answers[0].message().mobility_ticket().unwrap().to_vec();
    assert_eq!(world.bind(&user, client, 0x4000, address(PEER)), 0);
    let mut code = |user: &world::User, from, ticket: &[u8]| {
        world.code(user, from, Method::REFRESH, |b| b.mobility_ticket(ticket))
    };
    assert_eq!(code(&thief, elsewhere, &ticket), 441);
    let mut forged = ticket.clone();
    forged[20] ^= 1;
    assert_eq!(code(&user, elsewhere, &forged), 437);
    assert_eq!(code(&user, elsewhere, &ticket[..40]), 437);
    assert_eq!(code(&user, elsewhere, &[]), 400);
    // Used once, by its owner: whoever recorded it comes too late.
    assert_eq!(code(&user, elsewhere, &ticket), 0);
    assert_eq!(code(&user, address("8.8.6.6:4000"), &ticket), 437);
    let key = world.admissions[0];
    assert_eq!(
        world.peer_sends(key, address(PEER), b"x")[0].to,
        client,
        "and a refresh alone moves no data to an address that has sent none"
    );
}

#[test]
fn a_recorded_refresh_from_another_address_is_stale() {
    let mut world = World::with(Config {
        mobility: true,
        ..config()
    });
    let user = world.user();
    let client = address(CLIENT);
    let answers = world.request(&user, client, Method::ALLOCATE, |b| {
        b.requested_transport(17).mobility_ticket(&[])
    });
    let ticket = answers[0].message().mobility_ticket().unwrap().to_vec();
    let (nonce, id) = (world.nonce(address("8.8.5.5:4000")), world.id());
    let refresh = user.sign(Method::REFRESH, id, &nonce, |b| b.mobility_ticket(&ticket));
    assert_eq!(
        world.client_sends(address("8.8.6.6:4000"), &refresh)[0].code(),
        438,
        "the whole request, sent from the thief's own address"
    );
}

#[test]
fn a_reservation_token_cannot_be_guessed_stolen_or_hoarded() {
    let mut world = World::with(Config {
        allocations_per_account_max: 4,
        ..config()
    });
    let (user, thief) = (world.user(), world.user());
    let mut tokens = HashSet::new();
    for n in 0..8 {
        let client = address(&format!("8.8.4.4:{}", 4000 + n));
        let answers = world.request(&user, client, Method::ALLOCATE, |b| {
            b.requested_transport(17).even_port(true)
        });
        if n < 4 {
            assert_eq!(answers[0].code(), 0);
            tokens.insert(answers[0].message().reservation_token().unwrap());
        } else {
            assert_eq!(answers[0].code(), 508, "as many as allocations");
        }
        assert_eq!(
            world.code(&user, client, Method::REFRESH, |b| b.lifetime(0)),
            if n < 4 { 0 } else { 437 }
        );
    }
    assert_eq!(tokens.len(), 4, "no two are equal");
    for token in &tokens {
        assert_eq!(
            world.code(&thief, address("8.8.4.4:5000"), Method::ALLOCATE, |b| b
                .requested_transport(17)
                .reservation_token(*token)),
            508
        );
    }
    world.pass(Duration::from_secs(31));
    world.allocate(&user, address(CLIENT));
    assert_eq!(
        (49_152..=65_535u16)
            .filter(|port| world.census.is_relayed(Protocol::Udp, *port))
            .count(),
        1,
        "every reserved port came back"
    );
}

#[test]
fn another_users_connection_cannot_be_fetched() {
    let (mut world, user, client, _) = tcp_world();
    let thief = world.user();
    world.ask(&user, client, Method::CONNECT, |b| {
        b.xor_peer_address(address(PEER))
    });
    let Some(Event::Connect { data, .. }) = world.data.pop() else {
        panic!("it is on its way");
    };
    let now = world.now;
    world.turn.connected(data, now);
    let third = connected(Transport::Tcp, address("8.8.4.4:4002"), 3);
    let answers = world.ask(&thief, third, Method::CONNECTION_BIND, |b| {
        b.connection_id(data.get())
    });
    assert_eq!(answers[0].code(), 441);
    assert!(world.data.is_empty(), "nothing is joined");
}

// --- Loops

#[test]
fn a_client_cannot_be_at_a_relayed_port_so_no_packet_goes_round() {
    let mut world = World::new();
    let user = world.user();
    let (_, relayed) = world.allocate(&user, address(CLIENT));
    assert_eq!(
        world.code(&user, relayed, Method::ALLOCATE, |b| b.requested_transport(17)),
        403
    );
    assert_eq!(world.turn.allocations(), 1);
}

#[test]
fn a_tcp_client_cannot_be_at_a_relayed_tcp_port() {
    let (mut world, _, _, key) = tcp_world();
    let port = world.opened[&(key, Family::V4)];
    let user = world.user();
    let looped = connected(Transport::Tcp, SocketAddr::new(SERVER.parse().unwrap(), port), 7);
    for transport in [6, 17] {
        let answers = world.ask(&user, looped, Method::ALLOCATE, |b| {
            b.requested_transport(transport)
        });
        assert_eq!(answers[0].code(), 403);
    }
}

#[test]
fn a_packet_from_a_relayed_port_passes_at_most_one_more() {
    // Two allocations that are each other's peers: what one client sends arrives at the other client, and stops there.
    let mut world = World::new();
    let (user, other) = (world.user(), world.user());
    let (here, there) = (address(CLIENT), address("8.8.4.4:4001"));
    let (key, from) = world.allocate(&user, here);
    let (other_key, to) = world.allocate(&other, there);
    assert_eq!(world.bind(&user, here, 0x4000, to), 0);
    assert_eq!(world.bind(&other, there, 0x4000, from), 0);
    let mut hops = 0;
    let mut next = world.client_sends(here, &channel_message(0x4000, b"x"));
    while let Some(sent) = next.pop() {
        hops += 1;
        assert!(hops <= 2, "it goes round");
        if let Via::Relay { allocation, .. } = sent.via {
            let target = if allocation == key { other_key } else { key };
            next = world.peer_sends(target, from, &sent.bytes);
        }
    }
    assert_eq!(hops, 2);
}

// --- Port 0

#[test]
fn source_port_0_is_dropped_and_peer_port_0_is_refused() {
    let mut world = World::new();
    let user = world.user();
    let client = address(CLIENT);
    let (key, _) = world.allocate(&user, client);
    let id = world.id();
    let request = build(Method::ALLOCATE, id, |b| b.requested_transport(17).lifetime(600));
    assert!(world.client_sends(address("8.8.4.4:0"), &request).is_empty());
    assert_eq!(world.turn.counters().discarded(Discard::SourcePortZero), 1);
    assert_eq!(world.bind(&user, client, 0x4000, address("8.8.8.8:0")), 403);
    assert_eq!(world.permit_peer(&user, client, address(PEER)), 0);
    assert!(
        world
            .client_sends(client, &send_indication(address("8.8.8.8:0"), b"x"))
            .is_empty()
    );
    assert!(world.peer_sends(key, address("8.8.8.8:0"), b"x").is_empty());
}

// --- The ladder

#[test]
fn a_reduced_session_has_400_kbit_each_way_and_audio_only_128() {
    for (step, bits) in [(Step::Reduced, 400_000), (Step::AudioOnly, 128_000)] {
        let mut world = World::new();
        let user = world.user();
        let client = address(CLIENT);
        let (key, _) = world.allocate(&user, client);
        assert_eq!(world.bind(&user, client, 0x4000, address(PEER)), 0);
        world.turn.set_step(user.session, step, world.now);
        let (mut up, mut down) = (0, 0);
        for _ in 0..1000 {
            world.pass(Duration::from_millis(10));
            up += 1000
                * world
                    .client_sends(client, &channel_message(0x4000, &[0; 1000]))
                    .len();
            down += 1000 * world.peer_sends(key, address(PEER), &[0; 1000]).len();
        }
        let rate = bits / 8 * 10;
        assert!(
            (rate..=rate + 16_000).contains(&up) && (rate..=rate + 16_000).contains(&down),
            "{step:?} {up} {down}"
        );
    }
}

#[test]
fn towards_our_own_sfu_on_the_same_account_no_bucket_holds() {
    let mut world = World::new();
    let user = world.user();
    let client = address(CLIENT);
    world.allocate(&user, client);
    assert_eq!(world.bind(&user, client, 0x4000, address("9.9.9.9:5004")), 0);
    let burst = |world: &mut World| {
        (0..100)
            .map(|_| {
                world
                    .client_sends(client, &channel_message(0x4000, &[0; 1000]))
                    .len()
            })
            .sum::<usize>()
    };
    world.turn.set_step(user.session, Step::AudioOnly, world.now);
    assert_eq!(burst(&mut world), 16, "the account has no call here");
    world.census.call_opened(user.permit.account());
    world.turn.set_step(user.session, Step::Reduced, world.now);
    assert_eq!(burst(&mut world), 100);
}

// --- Relaying itself

#[test]
fn data_travels_by_indication_without_a_channel_and_behind_four_bytes_with_one() {
    let mut world = World::new();
    let user = world.user();
    let client = address(CLIENT);
    let (key, _) = world.allocate(&user, client);
    assert_eq!(world.permit_peer(&user, client, address(PEER)), 0);
    let sent = world.client_sends(client, &send_indication(address(PEER), b"to the peer"));
    assert_eq!(
        (sent[0].via, sent[0].to, sent[0].bytes.as_slice()),
        (
            Via::Relay {
                allocation: key,
                family: Family::V4
            },
            address(PEER),
            &b"to the peer"[..]
        )
    );
    let back = world.peer_sends(key, address(PEER), b"to the client");
    let message = back[0].message();
    assert_eq!((back[0].via, back[0].to), (Via::Listener, client));
    assert_eq!(
        (message.xor_peer_address(), message.data()),
        (Some(address(PEER)), Some(&b"to the client"[..]))
    );
    assert_eq!(world.bind(&user, client, 0x4abc, address(PEER)), 0);
    let sent = world.client_sends(client, &channel_message(0x4abc, b"again"));
    assert_eq!(
        (sent[0].to, sent[0].bytes.as_slice()),
        (address(PEER), &b"again"[..])
    );
    assert_eq!(
        world.peer_sends(key, address(PEER), b"and back")[0].bytes,
        channel_message(0x4abc, b"and back")
    );
    assert!(
        world
            .client_sends(client, &channel_message(0x4abd, b"x"))
            .is_empty(),
        "not bound"
    );
}

#[test]
fn the_application_bytes_are_billed_and_nothing_else() {
    let mut world = World::new();
    let user = world.user();
    let client = address(CLIENT);
    let (key, _) = world.allocate(&user, client);
    assert_eq!(world.permit_peer(&user, client, address(PEER)), 0);
    world.client_sends(client, &send_indication(address(PEER), &[0; 101]));
    world.peer_sends(key, address(PEER), &[0; 203]);
    assert_eq!(world.bind(&user, client, 0x4000, address(PEER)), 0);
    world.client_sends(client, &channel_message(0x4000, &[0; 301]));
    world.peer_sends(key, address(PEER), &[0; 407]);
    world.peer_sends(key, address("1.1.1.1:1"), &[0; 999]);
    world.pass(Duration::from_secs(10));
    assert_eq!(world.code(&user, client, Method::REFRESH, |b| b.lifetime(0)), 0);
    let usage = world.reports.last().unwrap().usage;
    assert_eq!(
        (usage.bytes_in, usage.bytes_out, usage.nanoseconds),
        (402, 610, 10_000_000_000)
    );
}

#[test]
fn relayed_stun_and_what_goes_to_our_own_sfu_are_billed_like_anything_else() {
    let mut world = World::new();
    let user = world.user();
    let client = address(CLIENT);
    let (key, _) = world.allocate(&user, client);
    let sfu = address("9.9.9.9:5004");
    assert_eq!(world.bind(&user, client, 0x4000, sfu), 0);
    let id = world.id();
    let check = build(Method::BINDING, id, |b| b.software("a connectivity check"));
    let message = channel_message(0x4000, &check);
    let transmit = world
        .turn
        .handle_client(world.now, udp(client), &message)
        .unwrap();
    assert_eq!(
        transmit.peer,
        Some(PeerKind::OwnSfu),
        "it need not leave the node"
    );
    assert_eq!(world.peer_sends(key, sfu, &check).len(), 1);
    assert_eq!(world.code(&user, client, Method::REFRESH, |b| b.lifetime(0)), 0);
    let (usage, len) = (world.reports.last().unwrap().usage, check.len() as u64);
    assert_eq!((usage.bytes_in, usage.bytes_out), (len, len));
}

#[test]
fn a_client_over_a_connection_pays_for_the_same_bytes() {
    let mut world = World::new();
    let user = world.user();
    for (n, transport) in [Transport::Tcp, Transport::Tls, Transport::Dtls]
        .into_iter()
        .enumerate()
    {
        let client = connected(transport, address(CLIENT), n as u64 + 1);
        world.ask(&user, client, Method::ALLOCATE, |b| b.requested_transport(17));
        let key = *world.admissions.last().unwrap();
        let number = wire::channel_data::ChannelNumber::new(0x4000).unwrap();
        world.ask(&user, client, Method::CHANNEL_BIND, |b| {
            b.channel_number(number).xor_peer_address(address(PEER))
        });
        // Padded as a stream's messages are.
        let mut message = channel_message(0x4000, &[1; 101]);
        message.resize(108, 0);
        let sent = world.sends(client, &message);
        assert_eq!(sent[0].bytes.len(), 101);
        let sent = world.peer_sends(key, address(PEER), &[2; 203]);
        assert_eq!(sent[0].via, Via::Connection(client.connection.unwrap()));
        assert_eq!(sent[0].bytes, channel_message(0x4000, &[2; 203]));
        world.ask(&user, client, Method::REFRESH, |b| b.lifetime(0));
        let usage = world.reports.last().unwrap().usage;
        assert_eq!((usage.bytes_in, usage.bytes_out), (101, 203), "{transport:?}");
    }
}

#[test]
fn what_the_kernel_refused_is_given_back() {
    let mut world = World::new();
    let user = world.user();
    let client = address(CLIENT);
    world.allocate(&user, client);
    assert_eq!(world.bind(&user, client, 0x4000, address(PEER)), 0);
    let message = channel_message(0x4000, &[0; 500]);
    let charged = world
        .turn
        .handle_client(world.now, udp(client), &message)
        .unwrap()
        .charged
        .unwrap();
    assert_eq!(charged.bytes, 500);
    world.turn.give_back(charged);
    assert_eq!(world.code(&user, client, Method::REFRESH, |b| b.lifetime(0)), 0);
    assert_eq!(world.reports.last().unwrap().usage.bytes_in, 0);
}

#[test]
fn a_permission_runs_out_under_a_channel_that_is_not_refreshed() {
    let mut world = World::new();
    let user = world.user();
    let client = address(CLIENT);
    let (key, _) = world.allocate(&user, client);
    assert_eq!(world.bind(&user, client, 0x4000, address(PEER)), 0);
    world.pass(Duration::from_secs(299));
    assert_eq!(world.peer_sends(key, address(PEER), b"x").len(), 1);
    world.pass(Duration::from_secs(2));
    assert!(world.peer_sends(key, address(PEER), b"x").is_empty());
    assert!(
        world
            .client_sends(client, &channel_message(0x4000, b"x"))
            .is_empty()
    );
}
