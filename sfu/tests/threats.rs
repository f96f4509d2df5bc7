//! What will attack the SFU, one named test each.

#![allow(clippy::unwrap_used)]

mod world;

use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use sfu::media::{Kind, Role};
use sfu::{CloseReason, Config, Discard, Event, Source};
use str0m::media::KeyframeRequestKind;
use wire::stun::{Builder, Class, Message, Method, TransactionId};
use world::{World, permit};

fn pair(seed: u64) -> (World, usize, usize) {
    let mut world = World::new(seed);
    let (publisher, subscriber) = (world.join(true, 0), world.join(false, 1));
    world.subscribe(subscriber, 0, publisher);
    world.connect_all();
    world.run(Duration::from_secs(1));
    (world, publisher, subscriber)
}

fn somewhere(port: u16) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 9], port))
}

/// A nominating check with the client's own credentials.
fn check(world: &World, client: usize) -> Vec<u8> {
    let transport = world.clients[client].negotiation.transport().unwrap();
    let username = format!("{}:{}", transport.local.ufrag, transport.remote.ufrag);
    let mut buffer = [0; 300];
    let length = Builder::new(
        &mut buffer,
        Class::Request,
        Method::BINDING,
        TransactionId([3; 12]),
    )
    .username(&username)
    .priority(1)
    .ice_controlling(1)
    .use_candidate()
    .integrity(transport.local.pwd.as_bytes())
    .fingerprint()
    .finish()
    .unwrap();
    buffer[..length].to_vec()
}

#[test]
fn guessed_ufrags_get_no_answer_and_leave_no_state() {
    let (mut world, ..) = pair(1);
    let mut rng = StdRng::seed_from_u64(1);
    for guess in 0..5_000u32 {
        let mut buffer = [0; 300];
        let username = format!("00{:012}:x", rng.random_range(0..u32::MAX));
        let length = Builder::new(
            &mut buffer,
            Class::Request,
            Method::BINDING,
            TransactionId([3; 12]),
        )
        .username(&username)
        .use_candidate()
        .integrity(b"a guess")
        .fingerprint()
        .finish()
        .unwrap();
        world.inject(somewhere(1_000 + (guess % 5_000) as u16), &buffer[..length]);
    }
    assert!(world.strays.is_empty());
    assert_eq!(world.sfu.counters().discarded(Discard::UnknownUfrag), 5_000);
}

#[test]
fn a_known_ufrag_with_a_guessed_password_gets_no_answer() {
    let (mut world, publisher, _) = pair(2);
    let mut forged = check(&world, publisher);
    let last = forged.len() - 12;
    forged[last] ^= 1;
    world.inject(somewhere(1), &forged);
    assert!(world.strays.is_empty());
    assert_eq!(world.sfu.counters().discarded(Discard::StunUnauthentic), 1);
}

#[test]
fn a_dtls_flood_from_addresses_without_a_check_is_dropped_before_the_engine() {
    let (mut world, ..) = pair(3);
    for port in 1..2_000 {
        world.inject(somewhere(port), &[22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
    }
    assert!(world.strays.is_empty());
    assert_eq!(world.sfu.counters().discarded(Discard::UnknownAddress), 1_999);
}

#[test]
fn half_open_handshakes_are_bounded_in_number_and_time() {
    let config = Config {
        handshakes_max: 1,
        ..Config::default()
    };
    let mut world = World::with_config(4, config);
    let first = world.join(true, 0);
    // It sends its ClientHello and falls silent.
    world.tap = Some(Vec::new());
    world.run_until("a ClientHello", |world| {
        world.tap.iter().flatten().any(|(_, bytes)| bytes[0] == 22)
    });
    world.clients[first].silent = true;
    let second = world.join(true, 0);
    world.run(Duration::from_secs(5));
    assert!(world.sfu.counters().discarded(Discard::TooManyHandshakes) > 0);
    world.run(Duration::from_secs(30));
    assert!(world.closed(first).is_some(), "the half-open one is gone");
    let _ = second;
}

#[test]
fn a_certificate_that_does_not_match_the_signed_fingerprint_ends_the_session() {
    let mut world = World::new(5);
    let client = world.join(true, 0);
    let mut transport = world.clients[client].negotiation.transport().unwrap();
    transport.fingerprint.value[0] ^= 1;
    world.sfu.set_transport(world.clients[client].id, transport);
    world.run(Duration::from_secs(3));
    assert_eq!(
        world.closed(client).map(|(reason, _)| reason),
        Some(CloseReason::Fingerprint)
    );
    assert!(
        !world
            .events
            .iter()
            .any(|event| matches!(event, Event::Connected { .. }))
    );
}

#[test]
fn media_does_not_follow_a_spoofed_address() {
    let (mut world, _, subscriber) = pair(6);
    let spoofed = check(&world, subscriber);
    let before = world.clients[subscriber].got.len();
    for _ in 0..20 {
        world.inject(somewhere(7), &spoofed);
        world.run(Duration::from_millis(100));
    }
    assert!(
        world.clients[subscriber].got.len() > before + 350,
        "media stays where it was"
    );
    // The address is answered, and asked to prove itself, with small STUN messages only.
    assert!(!world.strays.is_empty());
    let sent: usize = world.strays.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(
        world
            .strays
            .iter()
            .all(|(_, bytes)| Message::parse(bytes).is_ok()),
        "no media, no DTLS"
    );
    assert!(sent < 40 * 150, "{sent} bytes");
}

#[test]
fn a_session_cannot_take_over_another_session_s_address() {
    let (mut world, publisher, subscriber) = pair(7);
    let victim = world.clients[publisher].address;
    let spoofed = check(&world, subscriber);
    let before = world.sfu.counters().packets_in;
    for _ in 0..20 {
        world.inject(victim, &spoofed);
        world.run(Duration::from_millis(100));
    }
    assert!(
        world.sfu.counters().packets_in > before + 350,
        "the victim's packets are still its own"
    );
    assert_eq!(world.sfu.counters().discarded(Discard::Unauthentic), 0);
}

#[test]
fn without_negotiated_rtx_nothing_is_sent_twice() {
    let mut world = World::new(8);
    let (publisher, subscriber) = (world.join(true, 0), world.join(false, 1));
    let mut media = world.clients[subscriber].media.clone();
    for line in &mut media.lines {
        if let Role::Send { rtx_ssrc, .. } = &mut line.role {
            *rtx_ssrc = None;
        }
    }
    world.sfu.set_media(world.clients[subscriber].id, media);
    world.subscribe(subscriber, 0, publisher);
    world.connect_all();
    world.weather = world::Weather {
        loss: 0.05,
        ..world::Weather::FAIR
    };
    world.run(Duration::from_secs(4));
    assert_eq!(world.sfu.counters().retransmissions, 0);
    assert_eq!(world.sealed_twice, 0);
    let sent = world.sfu.counters().packets_out;
    assert_eq!(world.sealed.len() as u64, sent, "every number went out once");
}

#[test]
fn replayed_packets_are_refused_whatever_their_age() {
    let (mut world, publisher, _) = pair(9);
    world.tap = Some(Vec::new());
    world.run(Duration::from_secs(2));
    let recorded = world.tap.take().unwrap();
    let from = world.clients[publisher].address;
    let packets: Vec<_> = recorded
        .into_iter()
        .filter(|(source, bytes)| *source == from && bytes[0] >= 128)
        .collect();
    world.run(Duration::from_secs(3));
    let before = world.sfu.counters().packets_in;
    for (_, bytes) in &packets {
        world.inject(from, bytes);
    }
    assert!(packets.len() > 300);
    assert_eq!(world.sfu.counters().packets_in, before);
}

#[test]
fn a_goodbye_does_not_reopen_the_replay_window() {
    let (mut world, publisher, _) = pair(10);
    world.tap = Some(Vec::new());
    world.run(Duration::from_secs(1));
    let recorded = world.tap.take().unwrap();
    // The m-lines go away and come back, as after a renegotiation.
    let (id, media) = (
        world.clients[publisher].id,
        world.clients[publisher].media.clone(),
    );
    let mut without = media.clone();
    without.lines.clear();
    world.clients[publisher].publishing = false;
    world.run(Duration::from_millis(100));
    world.sfu.set_media(id, without);
    world.sfu.set_media(id, media);
    let before = world.sfu.counters().packets_in;
    for (from, bytes) in recorded
        .iter()
        .filter(|(_, bytes)| bytes[0] >= 128 && !(192..=223).contains(&bytes[1]))
    {
        world.inject(*from, bytes);
    }
    assert_eq!(world.sfu.counters().packets_in, before);
}

#[test]
fn forged_ssrcs_leave_no_state() {
    let (mut world, publisher, _) = pair(11);
    let published = |world: &World| {
        world
            .events
            .iter()
            .filter(|event| matches!(event, Event::Publishing { .. }))
            .count()
    };
    let (before, from) = (published(&world), world.clients[publisher].address);
    let mut rng = StdRng::seed_from_u64(11);
    for payload_type in [96u8, 97, 111, 0, 127] {
        for _ in 0..1_000 {
            let mut packet = [0; 60];
            rng.fill_bytes(&mut packet);
            (packet[0], packet[1]) = (0x80, payload_type);
            world.inject(from, &packet);
        }
    }
    assert_eq!(published(&world), before);
    world.run(Duration::from_secs(1));
    assert_eq!(world.sealed_twice, 0);
}

#[test]
fn two_publishers_may_use_the_same_ssrc() {
    let mut world = World::new(12);
    let (one, two) = (world.join(true, 0), world.join(true, 0));
    let subscriber = world.join(false, 2);
    world.subscribe(subscriber, 0, one);
    world.subscribe(subscriber, 1, two);
    world.connect_all();
    world.run(Duration::from_secs(1));
    // SSRC tables belong to sessions, so nothing is shared that could collide; what leaves has SSRCs of ours.
    let ours: Vec<u32> = world.clients[subscriber]
        .media
        .lines
        .iter()
        .filter_map(|line| match line.role {
            Role::Send { ssrc, .. } => Some(ssrc),
            _ => None,
        })
        .collect();
    assert!(
        world.clients[subscriber]
            .got
            .iter()
            .all(|got| ours.contains(&got.packet.header.ssrc))
    );
}

#[test]
fn header_extensions_that_overrun_and_rtcp_that_lies_are_dropped() {
    let (mut world, publisher, _) = pair(13);
    let from = world.clients[publisher].address;
    let overrun = [
        0x90, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xbe, 0xde, 0xff, 0xff, 1, 2, 3, 4,
    ];
    world.inject(from, &overrun);
    assert_eq!(world.sfu.counters().discarded(Discard::MalformedRtp), 1);
    let csrcs = [0x8f, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
    world.inject(from, &csrcs);
    assert_eq!(world.sfu.counters().discarded(Discard::MalformedRtp), 2);
    let lying = [0x80, 200, 0xff, 0xff, 0, 0, 0, 1];
    world.inject(from, &lying);
    world.run(Duration::from_secs(1));
    assert!(world.closed(publisher).is_none());
}

#[test]
fn no_datagram_panics_or_disturbs_the_others() {
    let (mut world, publisher, subscriber) = pair(14);
    let mut rng = StdRng::seed_from_u64(14);
    let known = [
        world.clients[publisher].address,
        world.clients[subscriber].address,
        somewhere(9),
    ];
    world.tap = Some(Vec::new());
    world.run(Duration::from_millis(300));
    let real = world.tap.take().unwrap();
    for round in 0..20_000usize {
        let from = known[round % known.len()];
        let mut bytes = if round % 2 == 0 {
            // DTLS is left out: an attacker who shares the address can end a handshake, not more.
            let mut bytes = vec![0; rng.random_range(0..100)];
            rng.fill_bytes(&mut bytes);
            bytes
        } else {
            real[rng.random_range(0..real.len())].1.clone()
        };
        if let Some(at) = bytes.len().checked_sub(1).map(|last| rng.random_range(0..=last)) {
            bytes[at] ^= 1 << rng.random_range(0..8u32);
            let cut = rng.random_range(0..=bytes.len());
            bytes.truncate(if round % 3 == 0 { cut } else { bytes.len() });
        }
        world.inject(from, &bytes);
    }
    let before = world.clients[subscriber].got.len();
    world.run(Duration::from_secs(2));
    assert!(world.clients[subscriber].got.len() > before + 350);
}

#[test]
fn a_publisher_far_above_the_limit_is_cut_to_it() {
    let config = Config {
        publisher_bits_per_second: 5_000_000,
        ..Config::default()
    };
    let mut world = World::with_config(15, config);
    let (publisher, subscriber) = (world.join(true, 0), world.join(false, 1));
    world.subscribe(subscriber, 0, publisher);
    world.connect_all();
    world.clients[publisher].video_packets = 200;
    let before = world.sfu.counters().bytes_in;
    world.run(Duration::from_secs(3));
    let bits = (world.sfu.counters().bytes_in - before) * 8;
    assert!(bits <= 3 * 5_000_000 + 5_000_000, "{bits} bits in 3 s");
    assert!(world.sfu.counters().discarded(Discard::PublisherTooFast) > 1_000);
}

#[test]
fn subscribing_ten_thousand_times_sends_everything_once() {
    let (mut world, publisher, subscriber) = pair(16);
    let (id, session) = (world.clients[subscriber].id, world.clients[publisher].id);
    let mids: Vec<_> = [Kind::Audio, Kind::Video]
        .map(|kind| (kind, world.clients[subscriber].slots(kind)[0]))
        .into();
    let requests = world.sfu.counters().keyframe_requests;
    for round in 0..10_000 {
        for &(kind, mid) in &mids {
            let source = (round % 2 == 1).then_some(Source { session, kind });
            world.sfu.route(id, mid, source);
            world.sfu.route(id, mid, source);
        }
    }
    let before = world.sfu.counters().packets_out;
    world.run(Duration::from_secs(2));
    let sent = world.sfu.counters().packets_out - before;
    assert!((300..500).contains(&sent), "{sent} packets in 2 s");
    assert!(world.sfu.counters().keyframe_requests - requests < 6);
    assert_eq!(world.sealed_twice, 0);
}

#[test]
fn the_shard_takes_no_more_sessions_than_it_may() {
    let config = Config {
        sessions_max: 1,
        ..Config::default()
    };
    let mut world = World::with_config(17, config);
    let client = world.join(true, 0);
    let transport = world.clients[client].negotiation.transport().unwrap();
    let id = metering::SessionId::new(77);
    let allowance = || {
        metering::Allowance::new(
            metering::LeaseId::new(77),
            id,
            world::RATES,
            metering::Msat::new(1_000),
        )
    };
    let taken = world
        .sfu
        .open(id, permit(), transport.clone(), allowance(), world.now);
    assert_eq!(taken, Err(sfu::Refused::UfragTaken));
    let mut other = transport;
    other.local.ufrag.push('x');
    assert_eq!(
        world.sfu.open(id, permit(), other, allowance(), world.now),
        Err(sfu::Refused::Capacity)
    );
}

#[test]
fn a_datagram_with_source_port_zero_is_dropped_before_parsing() {
    let (mut world, publisher, _) = pair(18);
    let valid = check(&world, publisher);
    world.inject(somewhere(0), &valid);
    assert!(world.strays.is_empty());
    assert_eq!(world.sfu.counters().discarded(Discard::SourcePortZero), 1);
}

#[test]
fn a_client_cannot_play_on_after_its_money_is_gone_by_restarting_ice() {
    let mut world = World::new(19);
    let publisher = world.join(true, 0);
    let rates = metering::Rates {
        out: 50_000,
        in_: 0,
        second: 8,
    };
    let subscriber = world.join_with(false, 1, metering::Msat::new(20), rates);
    world.subscribe(subscriber, 0, publisher);
    world.connect_all();
    world.run(Duration::from_secs(2));
    let spent = world.on_the_wire[&world.clients[subscriber].address];
    for round in 0..10u16 {
        let mut transport = world.clients[subscriber].negotiation.transport().unwrap();
        transport.local.ufrag = format!("00restart{round:05}");
        world.sfu.set_transport(world.clients[subscriber].id, transport);
        world.run(Duration::from_millis(300));
    }
    assert_eq!(world.on_the_wire[&world.clients[subscriber].address], spent);
}

#[test]
fn a_storm_of_key_frame_requests_reaches_the_publisher_once_in_an_interval() {
    let (mut world, publisher, subscriber) = pair(20);
    let mid: str0m::media::Mid = world.clients[subscriber].slots(Kind::Video)[0].as_str().into();
    let (asked, sent) = (
        world.sfu.counters().keyframe_requests,
        world.clients[publisher].key_frames_sent,
    );
    for round in 0..2_000 {
        let kind = if round % 2 == 0 {
            KeyframeRequestKind::Pli
        } else {
            KeyframeRequestKind::Fir
        };
        let mut direct = world.clients[subscriber].rtc.direct_api();
        direct.stream_rx_by_mid(mid, None).unwrap().request_keyframe(kind);
        world.run(Duration::from_millis(1));
    }
    let asked = world.sfu.counters().keyframe_requests - asked;
    assert!((2..=5).contains(&asked), "{asked} requests in 2 s");
    assert!(world.clients[publisher].key_frames_sent - sent <= 5);
}

#[test]
fn a_subscriber_that_loses_half_of_everything_is_helped_within_its_budget() {
    let (mut world, publisher, _) = pair(21);
    world.clients[publisher].video_packets = 25;
    world.run(Duration::from_secs(1));
    world.weather = world::Weather {
        loss: 0.5,
        ..world::Weather::FAIR
    };
    let before = world.sfu.counters().retransmissions;
    world.run(Duration::from_secs(6));
    let sent = world.sfu.counters().retransmissions - before;
    assert!(
        sent * 1_000 <= 256_000 + 7 * 125_000,
        "{sent} retransmissions in 6 s"
    );
    assert_eq!(world.sealed_twice, 0);
}

/// DTLS records that anybody can write, in the clear or not decipherable.
fn forged_records() -> Vec<Vec<u8>> {
    let record = |kind: u8, epoch: u8, body: &[u8]| {
        let mut bytes = vec![kind, 254, 253, 0, epoch, 0, 0, 0, 0, 0, 9];
        bytes.extend_from_slice(&(body.len() as u16).to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    };
    let mut forged = Vec::new();
    for epoch in 0..4 {
        for kind in 20..=26 {
            for body in [&[][..], &[1, 0], &[2, 40], &[1], &[0xff; 40]] {
                forged.push(record(kind, epoch, body));
            }
            let mut lying = record(kind, epoch, &[1, 0, 0, 10]);
            lying[11] = 0xff;
            forged.push(lying);
        }
        for handshake in 0..=24 {
            forged.push(record(22, epoch, &[handshake, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
            forged.push(record(
                22,
                epoch,
                &[
                    handshake, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 8, 254, 253, 1, 2, 3, 4, 5, 6,
                ],
            ));
        }
    }
    for first in 32..=63 {
        forged.push([&[first, 0, 9, 0, 20][..], &[7; 40]].concat());
    }
    forged
}

#[test]
fn forged_dtls_records_from_its_address_end_no_established_session() {
    let (mut world, publisher, subscriber) = pair(31);
    let mut hello = World::new(32);
    hello.join(true, 0);
    hello.tap = Some(Vec::new());
    hello.run(Duration::from_secs(1));
    let recorded = hello.tap.take().unwrap().into_iter().map(|(_, bytes)| bytes);
    let foreign = recorded.filter(|bytes| (20..=63).contains(&bytes[0]));
    let forged: Vec<Vec<u8>> = forged_records().into_iter().chain(foreign).collect();
    let addresses = [publisher, subscriber].map(|client| world.clients[client].address);
    for record in &forged {
        for from in addresses {
            world.inject(from, record);
        }
        for client in [publisher, subscriber] {
            assert_eq!(world.closed(client), None, "{record:02x?}");
        }
    }
    let before = world.clients[subscriber].got.len();
    world.run(Duration::from_secs(2));
    assert!(world.clients[subscriber].got.len() > before + 350);
}

#[test]
fn reports_are_free_and_the_relays_own_so_they_carry_nothing_between_clients() {
    let mut world = World::new(33);
    let (publisher, subscriber) = (world.join(true, 0), world.join(false, 1));
    world.subscribe(subscriber, 0, publisher);
    world.tap = Some(Vec::new());
    world.connect_all();
    world.run(Duration::from_secs(10));
    let address = world.clients[publisher].address;
    let tap = world.tap.take().unwrap();
    let from_publisher = tap.iter().filter(|(from, _)| *from == address);
    let (mut ssrcs, mut reports) = (std::collections::BTreeSet::new(), 0);
    for (_, bytes) in from_publisher.filter(|(_, bytes)| (128..=191).contains(&bytes[0])) {
        if (192..=223).contains(&bytes[1]) {
            reports += 1;
        } else {
            ssrcs.insert(u32::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]));
        }
    }
    assert!(
        reports > 5 && ssrcs.len() >= 2,
        "the publisher does report: {reports}, {ssrcs:?}"
    );
    let heard = &world.clients[subscriber].rtcp;
    assert!(heard.len() > 5, "and the subscriber hears reports");
    for (_, report) in heard {
        let text = format!("{report:?}");
        for ssrc in &ssrcs {
            assert!(!text.contains(&ssrc.to_string()), "passed through: {text}");
        }
    }
}
