//! What attacks a TURN server that is paid, one test a row.
#![allow(clippy::unwrap_used)]

#[path = "threats/hijack.rs"]
mod hijack;
#[path = "threats/money.rs"]
mod money;
#[path = "threats/peers.rs"]
mod peers;
mod world;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use metering::{Msat, Step};
use turn_server::{
    Client, CloseReason, Config, Discard, Event, Family, Protocol, REALM, Refusal, Spend, Transport, Via,
};
use wire::stun::{AttributeType, Method};
use world::*;

const CLIENT: &str = "8.8.4.4:4000";
const PEER: &str = "8.8.8.8:5000";

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
