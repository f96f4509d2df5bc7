//! Mobility (RFC 8016): an allocation follows its client.
#![allow(clippy::unwrap_used)]

mod world;

use std::time::Duration;

use turn_server::{Client, Config, Event, Transport};
use wire::stun::{Builder, Method};
use world::*;

const OLD: &str = "8.8.4.4:4000";
const NEW: &str = "8.8.5.5:5000";
const PEER: &str = "8.8.8.8:5000";

fn mobile() -> World {
    World::with(Config {
        mobility: true,
        ..config()
    })
}

/// An allocation with a channel, and its ticket.
fn allocated(world: &mut World, user: &User, from: Client) -> Vec<u8> {
    let answers = world.ask(user, from, Method::ALLOCATE, |b| {
        b.requested_transport(17).mobility_ticket(&[])
    });
    assert_eq!(answers[0].code(), 0);
    let ticket = answers[0].message().mobility_ticket().unwrap().to_vec();
    let number = wire::channel_data::ChannelNumber::new(0x4000).unwrap();
    let answers = world.ask(user, from, Method::CHANNEL_BIND, |b| {
        b.channel_number(number).xor_peer_address(address(PEER))
    });
    assert_eq!(answers[0].code(), 0);
    ticket
}

fn refresh(world: &mut World, user: &User, from: &str, ticket: &[u8]) -> (u16, Option<Vec<u8>>) {
    let answers = world.request(user, address(from), Method::REFRESH, |b| {
        b.mobility_ticket(ticket)
    });
    let ticket = answers[0].message().mobility_ticket().map(<[u8]>::to_vec);
    (answers[0].code(), ticket)
}

fn where_to(world: &mut World) -> std::net::SocketAddr {
    let key = world.admissions[0];
    world.peer_sends(key, address(PEER), b"x")[0].to
}

#[test]
fn a_client_that_has_moved_keeps_its_allocation_and_gets_another_ticket() {
    let mut world = mobile();
    let user = world.user();
    let ticket = allocated(&mut world, &user, udp(address(OLD)));
    let (code, next) = refresh(&mut world, &user, NEW, &ticket);
    assert_eq!(code, 0);
    let next = next.expect("another ticket");
    assert_ne!(next, ticket);
    assert_eq!(where_to(&mut world), address(OLD), "until it shows up");
    let data = channel_message(0x4000, b"x");
    assert_eq!(
        world.client_sends(address(OLD), &data).len(),
        1,
        "what was on its way"
    );
    assert_eq!(world.client_sends(address(NEW), &data).len(), 1);
    assert_eq!(where_to(&mut world), address(NEW));
    assert!(
        world.client_sends(address(OLD), &data).is_empty(),
        "the old address is discarded"
    );
    assert_eq!(refresh(&mut world, &user, OLD, &next).0, 0, "and back");
    assert_eq!(world.turn.allocations(), 1);
}

#[test]
fn a_request_from_the_new_address_also_shows_that_the_client_is_there() {
    let mut world = mobile();
    let user = world.user();
    let ticket = allocated(&mut world, &user, udp(address(OLD)));
    assert_eq!(refresh(&mut world, &user, NEW, &ticket).0, 0);
    assert_eq!(world.permit_peer(&user, address(NEW), address(PEER)), 0);
    assert_eq!(where_to(&mut world), address(NEW));
    assert_eq!(world.code(&user, address(OLD), Method::REFRESH, |b| b), 437);
}

#[test]
fn the_same_refresh_again_is_answered_again() {
    let mut world = mobile();
    let user = world.user();
    let ticket = allocated(&mut world, &user, udp(address(OLD)));
    assert_eq!(refresh(&mut world, &user, NEW, &ticket).0, 0);
    let (code, next) = refresh(&mut world, &user, NEW, &ticket);
    assert_eq!(code, 0);
    world.client_sends(address(NEW), &channel_message(0x4000, b"x"));
    assert_eq!(refresh(&mut world, &user, "8.8.6.6:1", &next.unwrap()).0, 0);
}

#[test]
fn a_moved_client_can_delete_its_allocation() {
    let mut world = mobile();
    let user = world.user();
    let ticket = allocated(&mut world, &user, udp(address(OLD)));
    let code = world.code(&user, address(NEW), Method::REFRESH, |b: Builder<'_>| {
        b.mobility_ticket(&ticket).lifetime(0)
    });
    assert_eq!((code, world.turn.allocations()), (0, 0));
    assert_eq!(
        world.code(&user, address(NEW), Method::ALLOCATE, |b| b
            .requested_transport(17)),
        0
    );
}

#[test]
fn a_username_that_has_expired_moves_its_live_allocation() {
    let mut world = mobile();
    let user = world.user();
    let ticket = allocated(&mut world, &user, udp(address(OLD)));
    assert_eq!(
        world.code(&user, address(OLD), Method::REFRESH, |b| b.lifetime(3600)),
        0
    );
    world.pass(Duration::from_secs(700));
    assert_eq!(refresh(&mut world, &user, NEW, &ticket).0, 0);
}

#[test]
fn mobility_is_405_or_400_where_it_is_not_offered_or_not_asked_for_as_it_should_be() {
    let mut world = World::new();
    let user = world.user();
    let allocate = |world: &mut World, ticket: &[u8]| {
        let answers = world.request(&user, address(OLD), Method::ALLOCATE, |b| {
            b.requested_transport(17).mobility_ticket(ticket)
        });
        answers[0].code()
    };
    assert_eq!(allocate(&mut world, &[]), 405);
    assert_eq!(refresh(&mut world, &user, OLD, &[0; 41]).0, 405);
    let mut world = mobile();
    let user = world.user();
    let code = world.code(&user, address(OLD), Method::ALLOCATE, |b| {
        b.requested_transport(17).mobility_ticket(&[1])
    });
    assert_eq!(code, 400);
    world.allocate(&user, address(OLD));
    assert_eq!(
        refresh(&mut world, &user, NEW, &[0; 41]).0,
        437,
        "nobody has this ticket"
    );
}

#[test]
fn a_ticket_of_another_shard_hands_its_client_over() {
    let [mut here, mut there] = [1, 2].map(|shard| {
        World::with(Config {
            mobility: true,
            shard,
            secret: Some([9; 32]),
            ..config()
        })
    });
    let user = there.user();
    let ticket = allocated(&mut there, &user, udp(address(OLD)));
    // The other shard does not even know the username: it may have expired.
    let nonce = here.nonce(address(NEW));
    let id = here.id();
    let request = user.sign(Method::REFRESH, id, &nonce, |b| b.mobility_ticket(&ticket));
    assert!(here.client_sends(address(NEW), &request).is_empty());
    assert!(matches!(
        here.data[..],
        [Event::HandOver { client, shard: 2 }] if client == udp(address(NEW))
    ));
    let answers = there.client_sends(address(NEW), &request);
    assert_eq!(answers[0].code(), 0, "the nonce of one shard serves on all");
    // Neither a forged ticket nor a forged address makes work for another shard.
    here.data.clear();
    let mut forged = ticket.clone();
    forged[30] ^= 1;
    let request = user.sign(Method::REFRESH, id, &nonce, |b| b.mobility_ticket(&forged));
    assert_eq!(here.client_sends(address(NEW), &request)[0].code(), 401);
    let request = user.sign(Method::REFRESH, id, "AAAA", |b| b.mobility_ticket(&ticket));
    assert_eq!(here.client_sends(address(NEW), &request)[0].code(), 438);
    assert!(here.data.is_empty());
}

#[test]
fn a_mobile_allocation_outlives_its_connection_and_others_do_not() {
    for mobility in [true, false] {
        let mut world = mobile();
        let user = world.user();
        let old = connected(Transport::Tls, address(OLD), 1);
        let ticket = if mobility {
            allocated(&mut world, &user, old)
        } else {
            let answers = world.ask(&user, old, Method::ALLOCATE, |b| b.requested_transport(17));
            assert_eq!(answers[0].code(), 0);
            Vec::new()
        };
        world.turn.connection_closed(&old, world.now);
        world.events();
        assert_eq!(world.turn.allocations(), usize::from(mobility));
        if mobility {
            let new = connected(Transport::Tcp, address(NEW), 2);
            let answers = world.ask(&user, new, Method::REFRESH, |b| b.mobility_ticket(&ticket));
            assert_eq!(answers[0].code(), 0);
            world.turn.connection_closed(&old, world.now);
            let sent = world.sends(new, &channel_message(0x4000, b"x\0\0\0")[..8]);
            assert_eq!(sent.len(), 1);
            assert_eq!(where_to(&mut world), address(NEW));
        }
    }
}
