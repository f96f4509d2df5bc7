//! Who may be a peer, and who may not: request forgery, loops, port 0.

use super::*;

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
pub(super) fn tcp_world() -> (
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
