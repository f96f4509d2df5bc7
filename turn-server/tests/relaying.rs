//! Relaying itself: data both ways, by indication and by channel, and what of it is billed.
#![allow(clippy::unwrap_used)]

mod world;

use std::time::Duration;

use turn_server::{Family, PeerKind, Transport, Via};
use wire::stun::Method;
use world::*;

const CLIENT: &str = "8.8.4.4:4000";
const PEER: &str = "8.8.8.8:5000";

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
