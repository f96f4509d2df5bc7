//! Requests and their answers (RFC 8656 sections 7, 8, 10 and 12; RFC 8489 section 9.2).
#![allow(clippy::unwrap_used)]

mod world;

use std::time::Duration;

use turn_server::{Family, Protocol, REALM, Refusal, Via};
use wire::channel_data::ChannelNumber;
use wire::stun::{AttributeType, Method};
use world::*;

const CLIENT: &str = "8.8.4.4:4000";
const PEER: &str = "8.8.8.8:5000";

#[test]
fn an_allocation_is_told_its_addresses_and_its_lifetime_and_is_signed() {
    let mut world = World::new();
    let user = world.user();
    let client = address(CLIENT);
    let answers = world.request(&user, client, Method::ALLOCATE, |b| b.requested_transport(17));
    let message = answers[0].message();
    assert_eq!((answers[0].via, answers[0].to), (Via::Listener, client));
    assert_eq!(answers[0].code(), 0);
    assert!(message.verify_integrity(&user.key));
    assert_eq!(message.xor_mapped_address(), Some(client));
    assert_eq!(message.lifetime(), Some(600));
    assert!(message.software().unwrap().len() <= 16, "SOFTWARE is short");
    let relayed = message.xor_relayed_address().unwrap();
    assert_eq!(relayed.ip().to_string(), SERVER);
    assert!(turn_server::RELAYED_PORTS.contains(&relayed.port()));
}

#[test]
fn a_retransmitted_allocate_is_answered_the_same_and_allocates_once() {
    let mut world = World::new();
    let user = world.user();
    let client = address(CLIENT);
    let (nonce, id) = (world.nonce(client), world.id());
    let request = user.sign(Method::ALLOCATE, id, &nonce, |b| b.requested_transport(17));
    let first = world.client_sends(client, &request);
    let second = world.client_sends(client, &request);
    assert_eq!(first, second);
    assert_eq!((world.turn.allocations(), world.admissions.len()), (1, 1));
}

#[test]
fn retransmissions_are_absorbed_while_money_is_being_asked_for() {
    let mut world = World::new();
    let user = world.user();
    let client = address(CLIENT);
    world.cashier_answers = false;
    let (nonce, id) = (world.nonce(client), world.id());
    let request = user.sign(Method::ALLOCATE, id, &nonce, |b| b.requested_transport(17));
    assert!(world.client_sends(client, &request).is_empty());
    assert!(world.client_sends(client, &request).is_empty());
    assert_eq!(world.admissions.len(), 1);
    world.answer_admission(world.admissions[0], user.session);
    world.events();
    assert_eq!(world.sent.len(), 1);
    assert_eq!(world.sent[0].code(), 0);
}

#[test]
fn an_admission_that_is_never_answered_leaves_nothing_behind() {
    let mut world = World::new();
    let user = world.user();
    world.cashier_answers = false;
    let answers = world.request(&user, address(CLIENT), Method::ALLOCATE, |b| {
        b.requested_transport(17)
    });
    assert!(answers.is_empty());
    world.pass(Duration::from_secs(11));
    assert_eq!(world.turn.allocations(), 0);
    // The answer comes after all: the lease goes back unused.
    world.answer_admission(world.admissions[0], user.session);
    world.events();
    let report = world.reports.last().unwrap();
    assert!(report.last && report.usage.is_empty());
}

#[test]
fn another_allocate_on_the_same_5_tuple_is_a_mismatch() {
    let mut world = World::new();
    let user = world.user();
    world.allocate(&user, address(CLIENT));
    assert_eq!(
        world.code(&user, address(CLIENT), Method::ALLOCATE, |b| b
            .requested_transport(17)),
        437
    );
}

#[test]
fn allocate_is_checked_in_the_order_of_the_rfc() {
    let mut world = World::new();
    let user = world.user();
    let mut code = |attributes: &dyn Fn(wire::stun::Builder<'_>) -> wire::stun::Builder<'_>| {
        world.code(&user, address(CLIENT), Method::ALLOCATE, attributes)
    };
    assert_eq!(code(&|b| b), 400, "without REQUESTED-TRANSPORT");
    assert_eq!(code(&|b| b.requested_transport(6)), 442, "TCP");
    assert_eq!(code(&|b| b.requested_transport(17).dont_fragment()), 420);
    assert_eq!(
        code(&|b| b.requested_transport(6).dont_fragment()),
        420,
        "unknown attributes come first"
    );
    assert_eq!(
        code(&|b| b.requested_transport(17).requested_address_family(3)),
        440
    );
    assert_eq!(
        code(&|b| b.requested_transport(6).requested_address_family(3)),
        442
    );
    assert_eq!(
        code(&|b| b.requested_transport(17).reservation_token([0; 8])),
        508
    );
    assert_eq!(
        code(&|b| b
            .requested_transport(17)
            .reservation_token([0; 8])
            .even_port(false)),
        400
    );
    assert_eq!(
        code(&|b| b
            .requested_transport(17)
            .requested_address_family(1)
            .additional_address_family(2)),
        400
    );
    assert_eq!(
        code(&|b| b.requested_transport(17).additional_address_family(1)),
        400
    );
    assert_eq!(world.turn.allocations(), 0);
}

#[test]
fn what_was_not_understood_is_listed() {
    let mut world = World::new();
    let user = world.user();
    let answers = world.request(&user, address(CLIENT), Method::ALLOCATE, |b| {
        b.requested_transport(17)
            .attribute(AttributeType(0x7777), &[1, 2, 3])
            .attribute(AttributeType(0x9999), &[])
    });
    assert_eq!(answers[0].code(), 420);
    assert_eq!(
        answers[0].message().unknown_attributes().collect::<Vec<_>>(),
        [0x7777]
    );
    assert!(answers[0].message().verify_integrity(&user.key));
}

#[test]
fn ipv6_is_relayed_where_asked_for() {
    let mut world = World::new();
    let user = world.user();
    let answers = world.request(&user, address(CLIENT), Method::ALLOCATE, |b| {
        b.requested_transport(17).requested_address_family(2)
    });
    assert!(answers[0].message().xor_relayed_address().unwrap().is_ipv6());
    assert_eq!(
        world.permit_peer(&user, address(CLIENT), address("[2606:4700::1]:1")),
        0
    );
    assert_eq!(world.permit_peer(&user, address(CLIENT), address(PEER)), 443);
    assert_eq!(world.bind(&user, address(CLIENT), 0x4000, address(PEER)), 443);
}

#[test]
fn a_dual_allocation_has_an_address_of_each_family_and_peers_of_both() {
    let mut world = World::new();
    let (user, client) = (world.user(), address(CLIENT));
    let answers = world.request(&user, client, Method::ALLOCATE, |b| {
        b.requested_transport(17).additional_address_family(2)
    });
    assert_eq!(answers[0].code(), 0);
    let relayed: Vec<_> = answers[0].message().xor_relayed_addresses().collect();
    assert!(relayed.len() == 2 && relayed[0].is_ipv4() && relayed[1].is_ipv6());
    let (key, six) = (world.admissions[0], address("[2606:4700::1]:1"));
    assert_eq!(world.opened.len(), 2);
    assert_eq!(world.bind(&user, client, 0x4000, address(PEER)), 0);
    assert_eq!(world.bind(&user, client, 0x4001, six), 0);
    for (number, peer, family) in [(0x4000, address(PEER), Family::V4), (0x4001, six, Family::V6)] {
        let sent = world.client_sends(client, &channel_message(number, b"x"));
        let via = Via::Relay {
            allocation: key,
            family,
        };
        assert_eq!((sent[0].via, sent[0].to), (via, peer));
        assert_eq!(
            world.peer_sends(key, peer, b"y")[0].bytes,
            channel_message(number, b"y")
        );
    }
    assert_eq!(world.code(&user, client, Method::REFRESH, |b| b.lifetime(0)), 0);
    assert!(world.opened.is_empty(), "both ports are closed");
    assert!(
        relayed
            .iter()
            .all(|r| !world.census.is_relayed(Protocol::Udp, r.port()))
    );
}

#[test]
fn of_two_families_one_that_is_missing_is_told_and_the_other_serves() {
    let mut world = World::with(turn_server::Config {
        families: vec![Family::V4],
        ..config()
    });
    let user = world.user();
    let both = |world: &mut World, client| {
        let answers = world.request(&user, address(client), Method::ALLOCATE, |b| {
            b.requested_transport(17).additional_address_family(2)
        });
        let message = answers[0].message();
        (
            message.xor_relayed_addresses().count(),
            message.address_error_code(),
        )
    };
    assert_eq!(both(&mut world, CLIENT), (1, Some((2, 440))));
    let mut world = World::new();
    let user = world.user();
    // The ports of the first family fail, all of them; the second family's are there.
    world.ports_fail = 8;
    let answers = world.request(&user, address(CLIENT), Method::ALLOCATE, |b| {
        b.requested_transport(17).additional_address_family(2)
    });
    let message = answers[0].message();
    assert!(message.xor_relayed_address().unwrap().is_ipv6());
    assert_eq!(message.address_error_code(), Some((1, 508)));
}

#[test]
fn of_a_dual_allocation_one_family_can_go_and_the_other_stays() {
    let mut world = World::new();
    let (user, client) = (world.user(), address(CLIENT));
    let answers = world.request(&user, client, Method::ALLOCATE, |b| {
        b.requested_transport(17).additional_address_family(2)
    });
    let relayed: Vec<_> = answers[0].message().xor_relayed_addresses().collect();
    let key = world.admissions[0];
    assert_eq!(world.bind(&user, client, 0x4000, address(PEER)), 0);
    assert_eq!(world.permit_peer(&user, client, address("[2606:4700::1]:1")), 0);
    assert_eq!(
        world.code(&user, client, Method::REFRESH, |b| b
            .lifetime(0)
            .requested_address_family(2)),
        0
    );
    assert_eq!(world.turn.allocations(), 1);
    assert!(!world.opened.contains_key(&(key, Family::V6)));
    assert!(!world.census.is_relayed(Protocol::Udp, relayed[1].port()));
    assert_eq!(world.permit_peer(&user, client, address("[2606:4700::1]:1")), 443);
    assert_eq!(
        world.client_sends(client, &channel_message(0x4000, b"x")).len(),
        1
    );
    assert_eq!(
        world.code(&user, client, Method::REFRESH, |b| b.requested_address_family(2)),
        443
    );
    assert_eq!(
        world.code(&user, client, Method::REFRESH, |b| b
            .lifetime(0)
            .requested_address_family(1)),
        0
    );
    assert_eq!(world.turn.allocations(), 0);
}

#[test]
fn an_even_port_is_even() {
    let mut world = World::new();
    let user = world.user();
    for port in 4000..4016 {
        let client = address(&format!("8.8.4.4:{port}"));
        let answers = world.request(&user, client, Method::ALLOCATE, |b| {
            b.requested_transport(17).even_port(false)
        });
        assert_eq!(answers[0].message().xor_relayed_address().unwrap().port() % 2, 0);
    }
}

#[test]
fn a_port_that_the_kernel_does_not_give_is_replaced_and_eight_are_508() {
    let mut world = World::new();
    let user = world.user();
    world.ports_fail = 3;
    world.allocate(&user, address(CLIENT));
    world.ports_fail = 8;
    assert_eq!(
        world.code(&user, address("8.8.4.4:4001"), Method::ALLOCATE, |b| b
            .requested_transport(17)),
        508
    );
    assert_eq!(world.turn.allocations(), 1);
    let report = world.reports.last().unwrap();
    assert!(report.last && report.usage.is_empty(), "nothing is paid for it");
    assert_eq!(
        (49_152..=65_535u16)
            .filter(|port| world.census.is_relayed(Protocol::Udp, *port))
            .count(),
        1,
        "no port is lost"
    );
}

#[test]
fn a_refresh_prolongs_within_limits_and_0_deletes() {
    let mut world = World::new();
    let user = world.user();
    let client = address(CLIENT);
    let (key, relayed) = world.allocate(&user, client);
    let lifetime = |world: &mut World, seconds| {
        world.request(&user, client, Method::REFRESH, |b| b.lifetime(seconds))[0]
            .message()
            .lifetime()
    };
    assert_eq!(lifetime(&mut world, 1), Some(600));
    assert_eq!(lifetime(&mut world, 1200), Some(1200));
    assert_eq!(lifetime(&mut world, 1_000_000), Some(3600));
    world.pass(Duration::from_secs(3000));
    assert_eq!(world.turn.allocations(), 1);
    assert_eq!(lifetime(&mut world, 0), Some(0));
    assert_eq!(world.turn.allocations(), 0);
    assert!(
        !world.opened.contains_key(&(key, Family::V4))
            && !world.census.is_relayed(Protocol::Udp, relayed.port())
    );
    assert!(world.reports.last().unwrap().last);
}

#[test]
fn a_refresh_for_the_other_family_is_refused() {
    let mut world = World::new();
    let user = world.user();
    world.allocate(&user, address(CLIENT));
    assert_eq!(
        world.code(&user, address(CLIENT), Method::REFRESH, |b| b
            .requested_address_family(2)),
        443
    );
    assert_eq!(
        world.code(&user, address(CLIENT), Method::REFRESH, |b| b
            .requested_address_family(1)),
        0
    );
}

#[test]
fn an_allocation_that_is_not_refreshed_expires_and_is_billed_to_that_moment() {
    let mut world = World::new();
    let user = world.user();
    world.allocate(&user, address(CLIENT));
    world.pass(Duration::from_secs(601));
    assert_eq!(world.turn.allocations(), 0);
    let nanoseconds: u64 = world
        .reports
        .iter()
        .filter(|report| report.closed)
        .map(|r| r.usage.nanoseconds)
        .sum();
    assert_eq!(nanoseconds, 600_000_000_000);
}

#[test]
fn a_credential_that_expired_makes_no_new_allocation_but_keeps_its_old_one() {
    let mut world = World::new();
    let user = world.user();
    world.allocate(&user, address(CLIENT));
    assert_eq!(
        world.code(&user, address(CLIENT), Method::REFRESH, |b| b.lifetime(3600)),
        0
    );
    world.pass(Duration::from_secs(700));
    assert_eq!(world.code(&user, address(CLIENT), Method::REFRESH, |b| b), 0);
    assert_eq!(
        world.code(&user, address("8.8.4.4:4001"), Method::ALLOCATE, |b| b
            .requested_transport(17)),
        401
    );
}

#[test]
fn several_permissions_come_in_one_request_all_or_none() {
    let mut world = World::new();
    let user = world.user();
    let client = address(CLIENT);
    let (key, _) = world.allocate(&user, client);
    let code = world.code(&user, client, Method::CREATE_PERMISSION, |b| {
        b.xor_peer_address(address(PEER))
            .xor_peer_address(address("10.0.0.1:1"))
    });
    assert_eq!(code, 403);
    assert!(
        world.peer_sends(key, address(PEER), b"x").is_empty(),
        "none was installed"
    );
    let code = world.code(&user, client, Method::CREATE_PERMISSION, |b| {
        b.xor_peer_address(address(PEER))
            .xor_peer_address(address("1.1.1.1:1"))
    });
    assert_eq!(code, 0);
    assert_eq!(world.peer_sends(key, address(PEER), b"x").len(), 1);
    assert_eq!(
        world.peer_sends(key, address("1.1.1.1:999"), b"x").len(),
        1,
        "any port of a permitted address"
    );
    assert_eq!(world.code(&user, client, Method::CREATE_PERMISSION, |b| b), 400);
}

#[test]
fn a_channel_is_bound_to_one_peer_and_its_number_is_in_range() {
    let mut world = World::new();
    let user = world.user();
    let client = address(CLIENT);
    world.allocate(&user, client);
    assert_eq!(world.bind(&user, client, 0x4000, address(PEER)), 0);
    assert_eq!(world.bind(&user, client, 0x4000, address(PEER)), 0, "a refresh");
    assert_eq!(world.bind(&user, client, 0x4000, address("8.8.8.8:5001")), 400);
    assert_eq!(world.bind(&user, client, 0x4001, address(PEER)), 400);
    let code = world.code(&user, client, Method::CHANNEL_BIND, |b| {
        b.attribute(AttributeType::CHANNEL_NUMBER, &[0x80, 0, 0, 0])
            .xor_peer_address(address(PEER))
    });
    assert_eq!(code, 400);
    let number = ChannelNumber::new(0x4002).unwrap();
    assert_eq!(
        world.code(&user, client, Method::CHANNEL_BIND, |b| b.channel_number(number)),
        400
    );
}

#[test]
fn requests_without_an_allocation_are_a_mismatch() {
    let mut world = World::new();
    let user = world.user();
    assert_eq!(world.code(&user, address(CLIENT), Method::REFRESH, |b| b), 437);
    assert_eq!(world.permit_peer(&user, address(CLIENT), address(PEER)), 437);
    assert_eq!(world.bind(&user, address(CLIENT), 0x4000, address(PEER)), 437);
}

#[test]
fn a_binding_request_tells_a_client_its_address() {
    let mut world = World::new();
    let id = world.id();
    let request = build(Method::BINDING, id, |b| b);
    let answers = world.client_sends(address(CLIENT), &request);
    assert_eq!(answers[0].message().xor_mapped_address(), Some(address(CLIENT)));
}

#[test]
fn no_money_is_486_with_a_reason() {
    let mut world = World::new();
    let user = world.user();
    for (refusal, code) in [
        (Refusal::BalanceExhausted, 486),
        (Refusal::Frozen, 486),
        (Refusal::Capacity, 508),
        (Refusal::Unavailable, 500),
    ] {
        world.grant = Err(refusal);
        let answers = world.request(&user, address(CLIENT), Method::ALLOCATE, |b| {
            b.requested_transport(17)
        });
        assert_eq!(answers[0].code(), code);
        assert!(!answers[0].message().error_code().unwrap().reason.is_empty());
        assert!(answers[0].message().verify_integrity(&user.key));
    }
    assert_eq!(world.turn.allocations(), 0);
}

#[test]
fn a_fingerprint_is_answered_with_one() {
    let mut world = World::new();
    let user = world.user();
    let client = address(CLIENT);
    let (nonce, id) = (world.nonce(client), world.id());
    let request = build(Method::ALLOCATE, id, |b| {
        b.requested_transport(17)
            .username(&user.name)
            .realm(REALM)
            .nonce(&nonce)
            .integrity(&user.key)
            .fingerprint()
    });
    let answers = world.client_sends(client, &request);
    assert_eq!(answers[0].message().verify_fingerprint(), Some(true));
}

#[test]
fn a_draining_server_sends_its_clients_to_another_of_their_family() {
    let mut world = World::with(turn_server::Config {
        alternate_servers: vec![address("8.8.1.1:3478"), address("[2606:4700::2]:3478")],
        ..config()
    });
    let user = world.user();
    world.allocate(&user, address(CLIENT));
    world.turn.drain();
    for (client, server) in [
        ("8.8.4.4:4001", "8.8.1.1:3478"),
        ("[2606:4700::9]:4001", "[2606:4700::2]:3478"),
    ] {
        let answers = world.request(&user, address(client), Method::ALLOCATE, |b| {
            b.requested_transport(17)
        });
        let message = answers[0].message();
        assert_eq!(answers[0].code(), 300);
        assert_eq!(message.alternate_server(), Some(address(server)));
        assert!(
            message.verify_integrity(&user.key),
            "nobody else can send a client away"
        );
    }
    assert_eq!(world.code(&user, address(CLIENT), Method::REFRESH, |b| b), 0);
}

#[test]
fn a_loaded_node_sends_its_clients_to_another() {
    let mut world = World::with(turn_server::Config {
        alternate_servers: vec![address("8.8.1.1:3478")],
        redirect_above: 2,
        ..config()
    });
    let user = world.user();
    let mut code = |client| {
        world.code(&user, address(client), Method::ALLOCATE, |b| {
            b.requested_transport(17)
        })
    };
    assert_eq!(code("8.8.4.4:4000"), 0);
    assert_eq!(code("8.8.4.4:4001"), 0);
    assert_eq!(code("8.8.4.4:4002"), 300);
}

#[test]
fn a_draining_server_makes_no_new_allocations_and_keeps_the_old_ones() {
    let mut world = World::new();
    let user = world.user();
    world.allocate(&user, address(CLIENT));
    world.turn.drain();
    assert_eq!(
        world.code(&user, address("8.8.4.4:4001"), Method::ALLOCATE, |b| b
            .requested_transport(17)),
        508
    );
    assert_eq!(world.code(&user, address(CLIENT), Method::REFRESH, |b| b), 0);
}

#[test]
fn the_port_after_an_even_one_is_kept_for_30_s_for_who_shows_the_token() {
    let mut world = World::new();
    let user = world.user();
    let reserve = |world: &mut World, client: &str| {
        let answers = world.request(&user, address(client), Method::ALLOCATE, |b| {
            b.requested_transport(17).even_port(true)
        });
        let message = answers[0].message();
        (
            message.xor_relayed_address().unwrap().port(),
            message.reservation_token().unwrap(),
        )
    };
    let redeem = |world: &mut World, user: &User, client: &str, token| {
        let answers = world.request(user, address(client), Method::ALLOCATE, |b| {
            b.requested_transport(17).reservation_token(token)
        });
        (
            answers[0].code(),
            answers[0].message().xor_relayed_address().map(|r| r.port()),
        )
    };
    let (port, token) = reserve(&mut world, "8.8.4.4:4000");
    assert_eq!(port % 2, 0);
    let other = world.user();
    assert_eq!(
        redeem(&mut world, &other, "8.8.4.4:4001", token),
        (508, None),
        "another account's"
    );
    world.pass(Duration::from_secs(29));
    assert_eq!(
        redeem(&mut world, &user, "8.8.4.4:4001", token),
        (0, Some(port + 1))
    );
    assert_eq!(
        redeem(&mut world, &user, "8.8.4.4:4002", token),
        (508, None),
        "once"
    );
    let (port, token) = reserve(&mut world, "8.8.4.4:4003");
    assert!(!world.census.is_relayed(Protocol::Udp, port + 1));
    world.pass(Duration::from_secs(31));
    assert_eq!(
        redeem(&mut world, &user, "8.8.4.4:4004", token),
        (508, None),
        "too late"
    );
    assert_eq!(world.turn.allocations(), 3);
}

#[test]
fn a_reserved_port_that_the_kernel_does_not_give_is_508_and_no_port_is_lost() {
    let mut world = World::new();
    let user = world.user();
    world.ports_fail = 3;
    let answers = world.request(&user, address(CLIENT), Method::ALLOCATE, |b| {
        b.requested_transport(17).even_port(true)
    });
    let token = answers[0].message().reservation_token().unwrap();
    world.ports_fail = 1;
    assert_eq!(
        world.code(&user, address("8.8.4.4:4001"), Method::ALLOCATE, |b| b
            .requested_transport(17)
            .reservation_token(token)),
        508
    );
    assert_eq!(
        (49_152..=65_535u16)
            .filter(|port| world.census.is_relayed(Protocol::Udp, *port))
            .count(),
        1
    );
}

#[test]
fn dont_fragment_is_told_with_the_datagram_where_it_can_be_and_420_elsewhere() {
    let mut world = World::with(turn_server::Config {
        dont_fragment: true,
        ..config()
    });
    let (user, client) = (world.user(), address(CLIENT));
    assert_eq!(
        world.code(&user, client, Method::ALLOCATE, |b| b
            .requested_transport(17)
            .dont_fragment()),
        0
    );
    assert_eq!(world.permit_peer(&user, client, address(PEER)), 0);
    for set in [false, true] {
        let indication = indication(|b| {
            let b = b.xor_peer_address(address(PEER)).data(b"x");
            if set { b.dont_fragment() } else { b }
        });
        let transmit = world.turn.handle_client(world.now, udp(client), &indication);
        assert_eq!(transmit.unwrap().dont_fragment, set);
    }
    let mut world = World::new();
    let user = world.user();
    let answers = world.request(&user, client, Method::ALLOCATE, |b| {
        b.requested_transport(17).dont_fragment()
    });
    assert_eq!(answers[0].code(), 420);
    assert_eq!(
        answers[0].message().unknown_attributes().collect::<Vec<_>>(),
        [0x001A]
    );
}

#[test]
fn what_the_network_answers_is_told_in_a_data_indication() {
    let mut world = World::new();
    let (user, client) = (world.user(), address(CLIENT));
    let (key, _) = world.allocate(&user, client);
    let icmp = |kind, code, data| wire::stun::Icmp { kind, code, data };
    let mut told = |peer: &str, icmp| {
        let transmit = world.turn.peer_unreachable(world.now, key, address(peer), icmp)?;
        let message = wire::stun::Message::parse(transmit.contents).unwrap();
        assert!(message.data().is_none() && transmit.charged.is_none());
        assert_eq!(message.xor_peer_address(), Some(address(peer)));
        message.icmp()
    };
    assert_eq!(told(PEER, icmp(3, 3, 0)), None, "no permission");
    assert_eq!(world.permit_peer(&user, client, address(PEER)), 0);
    let mut told = |icmp| {
        let transmit = world.turn.peer_unreachable(world.now, key, address(PEER), icmp)?;
        wire::stun::Message::parse(transmit.contents).unwrap().icmp()
    };
    assert_eq!(told(icmp(3, 3, 7)), Some(icmp(3, 3, 0)), "no port");
    assert_eq!(told(icmp(3, 4, 1280)), Some(icmp(3, 4, 1280)), "too big");
    assert_eq!(told(icmp(11, 0, 0)), Some(icmp(11, 0, 0)), "too far");
    assert_eq!(told(icmp(8, 0, 0)), None, "an echo is nobody's answer");
}
