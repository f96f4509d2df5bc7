//! TCP allocations (RFC 6062): Connect, ConnectionAttempt, ConnectionBind, and what a stream pays.
#![allow(clippy::unwrap_used)]

mod world;

use std::time::{Duration, Instant};

use metering::{Direction, Step};
use turn_server::{
    AllocationKey, Client, Config, ConnectionId, DataConnection, Event, Family, Protocol, Spend, Transport,
    Via,
};
use wire::stun::{Message, Method};
use world::*;

const PEER: &str = "8.8.8.8:80";

fn world() -> World {
    World::with(Config {
        tcp_relay: true,
        shard: 3,
        ..config()
    })
}

fn control() -> Client {
    connected(Transport::Tcp, address("8.8.4.4:4000"), 1)
}

fn second() -> Client {
    connected(Transport::Tls, address("8.8.4.4:4001"), 2)
}

fn allocate(world: &mut World, user: &User) -> AllocationKey {
    let answers = world.ask(user, control(), Method::ALLOCATE, |b| b.requested_transport(6));
    assert_eq!(answers[0].code(), 0);
    assert!(
        !answers[0]
            .message()
            .has(wire::stun::AttributeType::RESERVATION_TOKEN)
    );
    *world.admissions.last().unwrap()
}

/// A Connect on its way; the number of its connection.
fn connecting(world: &mut World, user: &User, peer: &str) -> DataConnection {
    let answers = world.ask(user, control(), Method::CONNECT, |b| {
        b.xor_peer_address(address(peer))
    });
    assert!(answers.is_empty(), "the peer is asked first");
    match world.data.pop() {
        Some(Event::Connect {
            data, peer: asked, ..
        }) if asked == address(peer) => data,
        other => panic!("{other:?}"),
    }
}

fn connect_code(world: &mut World, user: &User, peer: &str) -> u16 {
    let answers = world.ask(user, control(), Method::CONNECT, |b| {
        b.xor_peer_address(address(peer))
    });
    answers[0].code()
}

fn bind(world: &mut World, user: &User, from: Client, data: DataConnection) -> Vec<Sent> {
    world.ask(user, from, Method::CONNECTION_BIND, |b| {
        b.connection_id(data.get())
    })
}

/// A connection that is joined with the client's second one.
fn joined(world: &mut World, user: &User) -> DataConnection {
    let data = connecting(world, user, PEER);
    let now = world.now;
    let answer = Sent::from(world.turn.connected(data, now).unwrap());
    assert_eq!(answer.message().connection_id(), Some(data.get()));
    assert_eq!(bind(world, user, second(), data)[0].code(), 0);
    assert!(matches!(world.data.pop(), Some(Event::Join { .. })));
    data
}

fn spend(world: &mut World, data: DataConnection, direction: Direction, bytes: u64) -> Spend {
    let now = world.now;
    let spend = world.turn.spend(data, direction, bytes, now);
    world.events();
    spend
}

#[test]
fn a_tcp_allocation_needs_a_tcp_connection_and_nothing_of_datagrams() {
    let mut world = world();
    let user = world.user();
    let udp_client = udp(address("8.8.4.4:4000"));
    let dtls = connected(Transport::Dtls, address("8.8.4.4:4000"), 9);
    for client in [udp_client, dtls] {
        let answers = world.ask(&user, client, Method::ALLOCATE, |b| b.requested_transport(6));
        assert_eq!(answers[0].code(), 400);
    }
    let mut code = |shape: &dyn Fn(wire::stun::Builder<'_>) -> wire::stun::Builder<'_>| {
        world.ask(&user, control(), Method::ALLOCATE, |b| {
            shape(b.requested_transport(6))
        })[0]
            .code()
    };
    assert_eq!(code(&|b| b.even_port(false)), 400);
    assert_eq!(code(&|b| b.reservation_token([1; 8])), 400);
    assert_eq!(code(&|b| b), 0);
    let mut off = World::new();
    let user = off.user();
    let answers = off.ask(&user, control(), Method::ALLOCATE, |b| b.requested_transport(6));
    assert_eq!(answers[0].code(), 442, "where it is not offered");
}

#[test]
fn a_tcp_allocation_has_a_tcp_port_and_no_channels() {
    let mut world = world();
    let user = world.user();
    let key = allocate(&mut world, &user);
    let port = world.opened[&(key, Family::V4)];
    assert!(world.census.is_relayed(Protocol::Tcp, port));
    assert!(!world.census.is_relayed(Protocol::Udp, port));
    let number = wire::channel_data::ChannelNumber::new(0x4000).unwrap();
    let answers = world.ask(&user, control(), Method::CHANNEL_BIND, |b| {
        b.channel_number(number).xor_peer_address(address(PEER))
    });
    assert_eq!(answers[0].code(), 403);
}

#[test]
fn a_client_connects_and_fetches_its_connection_on_another() {
    let mut world = world();
    let user = world.user();
    allocate(&mut world, &user);
    let data = connecting(&mut world, &user, PEER);
    let now = world.now;
    let answer = Sent::from(world.turn.connected(data, now).unwrap());
    assert_eq!(answer.via, Via::Connection(ConnectionId::new(1)));
    assert_eq!(
        (answer.code(), answer.message().connection_id()),
        (0, Some(data.get()))
    );
    let answers = bind(&mut world, &user, second(), data);
    assert_eq!(answers[0].via, Via::Connection(ConnectionId::new(2)));
    assert_eq!(answers[0].code(), 0);
    assert!(matches!(
        world.data.pop(),
        Some(Event::Join { data: d, client }) if d == data && client == ConnectionId::new(2)
    ));
}

#[test]
fn a_peer_that_does_not_answer_is_447() {
    let mut world = world();
    let user = world.user();
    allocate(&mut world, &user);
    let data = connecting(&mut world, &user, PEER);
    assert_eq!(Sent::from(world.turn.connect_failed(data).unwrap()).code(), 447);
    let data = connecting(&mut world, &user, PEER);
    world.pass(Duration::from_secs(29));
    assert!(world.data.is_empty(), "at least 30 s");
    world.pass(Duration::from_secs(2));
    assert!(matches!(world.data[..], [Event::CloseData { data: d }] if d == data));
    assert_eq!(Sent::from(world.turn.connect_failed(data).unwrap()).code(), 447);
    assert!(world.turn.connect_failed(data).is_none(), "once");
}

#[test]
fn one_connection_to_a_peer_at_a_time() {
    let mut world = world();
    let user = world.user();
    allocate(&mut world, &user);
    let data = connecting(&mut world, &user, PEER);
    assert_eq!(connect_code(&mut world, &user, PEER), 446, "on its way");
    let now = world.now;
    world.turn.connected(data, now);
    assert_eq!(connect_code(&mut world, &user, PEER), 446, "waiting");
    bind(&mut world, &user, second(), data);
    assert_eq!(connect_code(&mut world, &user, PEER), 446, "joined");
    world.turn.data_closed(data);
    connecting(&mut world, &user, PEER);
}

#[test]
fn connect_is_437_without_an_allocation_400_without_a_peer_and_443_for_another_family() {
    let mut world = world();
    let user = world.user();
    assert_eq!(connect_code(&mut world, &user, PEER), 437);
    allocate(&mut world, &user);
    let answers = world.ask(&user, control(), Method::CONNECT, |b| b);
    assert_eq!(answers[0].code(), 400);
    assert_eq!(connect_code(&mut world, &user, "[2606:4700::1]:80"), 443);
    let plain = connected(Transport::Tcp, address("8.8.4.4:4005"), 5);
    world.ask(&user, plain, Method::ALLOCATE, |b| b.requested_transport(17));
    let answers = world.ask(&user, plain, Method::CONNECT, |b| {
        b.xor_peer_address(address(PEER))
    });
    assert_eq!(answers[0].code(), 437, "a UDP allocation");
}

#[test]
fn a_peer_with_a_permission_may_connect_and_its_client_is_told() {
    let mut world = world();
    let user = world.user();
    let key = allocate(&mut world, &user);
    let now = world.now;
    assert!(
        world.turn.accepted(key, address(PEER), now).is_none(),
        "no permission"
    );
    let answers = world.ask(&user, control(), Method::CREATE_PERMISSION, |b| {
        b.xor_peer_address(address(PEER))
    });
    assert_eq!(answers[0].code(), 0);
    let (data, transmit) = world.turn.accepted(key, address(PEER), now).unwrap();
    assert_eq!(transmit.via, Via::Connection(ConnectionId::new(1)));
    let message = Message::parse(transmit.contents).unwrap();
    assert_eq!(message.method(), Method::CONNECTION_ATTEMPT);
    assert_eq!(message.xor_peer_address(), Some(address(PEER)));
    assert_eq!(message.connection_id(), Some(data.get()));
    assert_eq!(bind(&mut world, &user, second(), data)[0].code(), 0);
}

#[test]
fn a_connection_that_nobody_fetches_is_closed_after_30_s() {
    let mut world = world();
    let user = world.user();
    allocate(&mut world, &user);
    let data = connecting(&mut world, &user, PEER);
    let now = world.now;
    world.turn.connected(data, now);
    world.pass(Duration::from_secs(31));
    assert!(matches!(world.data[..], [Event::CloseData { data: d }] if d == data));
    assert_eq!(bind(&mut world, &user, second(), data)[0].code(), 400);
}

#[test]
fn connection_bind_is_400_for_what_is_unknown_or_over_udp_and_441_for_another_user() {
    let mut world = world();
    let (user, thief) = (world.user(), world.user());
    allocate(&mut world, &user);
    let data = connecting(&mut world, &user, PEER);
    assert_eq!(
        bind(&mut world, &user, second(), data)[0].code(),
        400,
        "the peer has not answered"
    );
    let now = world.now;
    world.turn.connected(data, now);
    let wrong = DataConnection::new(data.get() ^ 1);
    assert_eq!(bind(&mut world, &user, second(), wrong)[0].code(), 400);
    let over_udp = udp(address("8.8.4.4:4001"));
    assert_eq!(bind(&mut world, &user, over_udp, data)[0].code(), 400);
    assert_eq!(
        bind(&mut world, &user, control(), data)[0].code(),
        400,
        "a control connection"
    );
    assert_eq!(bind(&mut world, &thief, second(), data)[0].code(), 441);
    let answers = world.ask(&user, second(), Method::CONNECTION_BIND, |b| b);
    assert_eq!(answers[0].code(), 400);
    assert_eq!(bind(&mut world, &user, second(), data)[0].code(), 0);
    assert_eq!(
        bind(
            &mut world,
            &user,
            connected(Transport::Tcp, address("8.8.4.4:4009"), 9),
            data
        )[0]
        .code(),
        400,
        "it is joined already"
    );
}

#[test]
fn a_connection_of_another_shard_is_handed_over() {
    let mut world = world();
    let user = world.user();
    allocate(&mut world, &user);
    let elsewhere = DataConnection::new(0x0500_0001);
    assert!(bind(&mut world, &user, second(), elsewhere).is_empty());
    assert!(matches!(
        world.data[..],
        [Event::HandOver { client, shard: 5 }] if client == second()
    ));
}

#[test]
fn a_connection_of_a_shard_that_does_not_exist_is_400() {
    let mut world = World::with(Config {
        tcp_relay: true,
        shard: 3,
        shards: 4,
        ..config()
    });
    let user = world.user();
    allocate(&mut world, &user);
    let nowhere = DataConnection::new(0x0500_0001);
    assert_eq!(bind(&mut world, &user, second(), nowhere)[0].code(), 400);
    assert!(world.data.is_empty());
}

#[test]
fn connections_end_with_their_allocation_and_with_either_side() {
    let mut world = world();
    let user = world.user();
    allocate(&mut world, &user);
    let data = joined(&mut world, &user);
    let now = world.now;
    world.turn.connection_closed(&second(), now);
    world.events();
    assert!(matches!(world.data.pop(), Some(Event::CloseData { data: d }) if d == data));
    let data = joined(&mut world, &user);
    world.turn.connection_closed(&control(), now);
    world.events();
    assert!(matches!(world.data.pop(), Some(Event::CloseData { data: d }) if d == data));
    assert_eq!(world.turn.allocations(), 0);
    assert_eq!(spend(&mut world, data, Direction::FromClient, 1), Spend::Gone);
}

#[test]
fn every_byte_of_a_stream_is_paid_for_in_its_direction() {
    let mut world = world();
    let user = world.user();
    allocate(&mut world, &user);
    let data = joined(&mut world, &user);
    assert!(matches!(
        spend(&mut world, data, Direction::FromClient, 1234),
        Spend::Paid(_)
    ));
    let Spend::Paid(charged) = spend(&mut world, data, Direction::ToClient, 4000) else {
        panic!("there is money");
    };
    // The socket took only a part of it.
    world.turn.give_back(turn_server::Charged {
        bytes: 1000,
        ..charged
    });
    let answers = world.ask(&user, control(), Method::REFRESH, |b| b.lifetime(0));
    assert_eq!(answers[0].code(), 0);
    let usage = world.reports.last().unwrap().usage;
    assert_eq!((usage.bytes_in, usage.bytes_out), (1234, 3000));
}

#[test]
fn a_slower_rung_makes_a_stream_wait_and_loses_nothing() {
    for (step, bits) in [(Step::Reduced, 400_000u64), (Step::AudioOnly, 128_000)] {
        let mut world = world();
        let user = world.user();
        allocate(&mut world, &user);
        let data = joined(&mut world, &user);
        let now = world.now;
        world.turn.set_step(user.session, step, now);
        let end = world.now + Duration::from_secs(10);
        let mut passed = 0;
        while world.now < end {
            match spend(&mut world, data, Direction::ToClient, 16_000) {
                Spend::Paid(charged) => passed += charged.bytes,
                Spend::Wait(until) => {
                    assert!(until > world.now, "time goes on");
                    let wait = until - world.now;
                    world.pass(wait);
                }
                Spend::Gone => panic!("it is slow, not gone"),
            }
        }
        let rate = bits / 8 * 10;
        assert!((rate..=rate + 32_000).contains(&passed), "{step:?} {passed}");
    }
}

#[test]
fn a_held_stream_waits_and_resumes_after_a_top_up() {
    let mut world = world();
    let user = world.user();
    allocate(&mut world, &user);
    let data = joined(&mut world, &user);
    let now = world.now;
    world.turn.set_step(user.session, Step::Held, now);
    assert!(matches!(
        spend(&mut world, data, Direction::FromClient, 100),
        Spend::Wait(_)
    ));
    assert_eq!(connect_code(&mut world, &user, "8.8.8.9:80"), 486);
    world.turn.set_step(user.session, Step::Full, now);
    assert!(matches!(
        spend(&mut world, data, Direction::FromClient, 100),
        Spend::Paid(_)
    ));
}

#[test]
fn a_stream_relays_nothing_that_the_lease_does_not_cover() {
    let mut world = world();
    let user = world.user();
    // 2 msat a second ahead and 1 for the bytes: 20 kB at 50 msat a megabyte.
    world.grant = Ok(metering::Msat::new(3));
    allocate(&mut world, &user);
    let data = joined(&mut world, &user);
    let mut passed = 0;
    for _ in 0..100 {
        if let Spend::Paid(charged) = spend(&mut world, data, Direction::FromClient, 1000) {
            passed += charged.bytes;
        }
    }
    assert_eq!(passed, 20_000);
}

#[test]
fn a_session_that_is_ended_loses_its_connections_at_once() {
    let mut world = world();
    let user = world.user();
    allocate(&mut world, &user);
    let data = joined(&mut world, &user);
    let now: Instant = world.now;
    world.turn.end(user.session, now);
    world.events();
    assert!(matches!(world.data.pop(), Some(Event::CloseData { data: d }) if d == data));
    assert_eq!(spend(&mut world, data, Direction::ToClient, 1), Spend::Gone);
}
