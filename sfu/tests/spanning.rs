//! Rooms that span cores: several cores joined by their queues, real WebRTC stacks (str0m) on each, and the same checks
//! at the exit as on one core.

#![allow(clippy::unwrap_used)]

mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use metering::Step;
use sfu::media::{Kind, Role};
use sfu::{CloseReason, Discard};
use str0m::rtp::rtcp::Rtcp;
use world::{Weather, World, frame_of};

/// Places of the queues where they are not the test.
const PLACES: usize = 1_024;

/// A publisher on the first core and a subscriber on each.
fn broadcast(seed: u64, cores: usize) -> (World, usize, Vec<usize>) {
    let mut world = World::spanning(seed, cores, PLACES);
    let publisher = world.join(true, 0);
    let subscribers = (0..cores)
        .map(|core| {
            world.join_at = core;
            let subscriber = world.join(false, 1);
            world.subscribe(subscriber, 0, publisher);
            subscriber
        })
        .collect();
    world.connect_all();
    (world, publisher, subscribers)
}

/// Sequence numbers that are missing between the first and the last received.
fn gaps(world: &World, client: usize, kind: Kind) -> usize {
    let got = world.clients[client].sequences(kind);
    let (Some(first), Some(last)) = (got.keys().next(), got.keys().last()) else {
        return 0;
    };
    (last - first + 1) as usize - got.len()
}

/// Frames that a subscriber got some packets of, but not all.
fn torn_frames(world: &World, client: usize) -> Vec<u32> {
    let whole = world
        .clients
        .iter()
        .map(|client| client.video_packets)
        .max()
        .unwrap();
    let mut frames: BTreeMap<u32, u32> = BTreeMap::new();
    for got in world.clients[client].sequences(Kind::Video).values() {
        *frames.entry(frame_of(&got.packet.payload).0).or_default() += 1;
    }
    let last = frames.keys().last().copied();
    frames
        .into_iter()
        .filter(|(frame, packets)| *packets != whole && Some(*frame) != last)
        .map(|(frame, _)| frame)
        .collect()
}

/// SSRCs that a client received and none of its lines has.
fn strangers(world: &World, client: usize) -> usize {
    let client = &world.clients[client];
    let own: BTreeSet<u32> = client
        .media
        .lines
        .iter()
        .filter_map(|line| match line.role {
            Role::Send { ssrc, .. } => Some(ssrc),
            _ => None,
        })
        .collect();
    let foreign = |got: &&world::Got| !own.contains(&*got.packet.header.ssrc);
    client.got.iter().filter(foreign).count()
}

fn discarded(world: &World, reason: Discard) -> u64 {
    world.cores().map(|core| core.counters().discarded(reason)).sum()
}

/// Ends all sessions; no number was sealed twice, and each bill is what was seen on the wire.
fn settle(world: &mut World) {
    for client in 0..world.clients.len() {
        let (id, now) = (world.clients[client].id, world.now);
        world.sfu_of(client).close(id, CloseReason::Bye, now);
    }
    world.run(Duration::from_millis(50));
    for client in 0..world.clients.len() {
        let (_, usage) = world.closed(client).expect("closed above");
        let address = world.clients[client].address;
        let seen = world.on_the_wire.get(&address).copied().unwrap_or(0);
        assert_eq!(
            usage.bytes_out, seen,
            "seed {}: bytes billed to client {client}",
            world.seed
        );
        assert_eq!(strangers(world, client), 0, "seed {}", world.seed);
    }
    assert_eq!(world.sealed_twice, 0, "seed {}", world.seed);
    assert_eq!(discarded(world, Discard::SealedBefore), 0, "seed {}", world.seed);
}

#[test]
fn subscribers_on_every_core_get_what_a_publisher_sends_and_each_packet_crosses_once() {
    for cores in [2, 3] {
        let (mut world, publisher, subscribers) = broadcast(cores as u64, cores);
        // A second one on the last core costs no further crossing.
        let second = world.join(false, 1);
        world.subscribe(second, 0, publisher);
        world.run(Duration::from_secs(5));
        for subscriber in subscribers.into_iter().chain([second]) {
            let client = &world.clients[subscriber];
            assert!(
                client.sequences(Kind::Video).len() > 600,
                "client {subscriber} of {cores}"
            );
            assert!(
                client.sequences(Kind::Audio).len() > 200,
                "client {subscriber} of {cores}"
            );
            let first = client
                .sequences(Kind::Video)
                .values()
                .next()
                .unwrap()
                .packet
                .payload[1];
            assert_eq!(first, 0, "it starts with a key frame");
            assert!(torn_frames(&world, subscriber).is_empty());
            assert_eq!(
                (
                    gaps(&world, subscriber, Kind::Video),
                    gaps(&world, subscriber, Kind::Audio)
                ),
                (0, 0)
            );
        }
        let (sent, crossed) = (
            world.sfu.counters().packets_in,
            world.sfu.counters().crossings_out,
        );
        assert!(crossed <= sent * (cores as u64 - 1), "{crossed} of {sent}");
        assert!(
            crossed * 10 >= sent * (cores as u64 - 1) * 8,
            "{crossed} of {sent}"
        );
        settle(&mut world);
    }
}

#[test]
fn everybody_sees_everybody_across_three_cores_and_a_late_comer_too() {
    let mut world = World::spanning(30, 3, PLACES);
    let people: Vec<usize> = (0..3)
        .map(|core| {
            world.join_at = core;
            world.join(true, 3)
        })
        .collect();
    world.connect_all();
    for &subscriber in &people {
        let others = people.iter().filter(|other| **other != subscriber);
        for (slot, &publisher) in others.enumerate() {
            world.subscribe(subscriber, slot, publisher);
        }
    }
    world.run(Duration::from_secs(2));
    let late = world.join(true, 3);
    for (slot, &publisher) in people.iter().enumerate() {
        world.subscribe(late, slot, publisher);
        world.subscribe(publisher, 2, late);
    }
    world.run(Duration::from_secs(3));
    for client in 0..4 {
        let mut streams: BTreeMap<u32, usize> = BTreeMap::new();
        for got in &world.clients[client].got {
            *streams.entry(*got.packet.header.ssrc).or_default() += 1;
        }
        assert_eq!(streams.len(), 6, "audio and video of three others at {client}");
        assert!(streams.values().all(|packets| *packets > 80), "{streams:?}");
    }
    settle(&mut world);
}

#[test]
fn loss_on_every_link_is_repaired_from_the_replica_or_by_asking_for_what_it_lacks() {
    let mut asked = 0;
    for seed in 40..44 {
        let (mut world, _, subscribers) = broadcast(seed, 2);
        world.weather = Weather::FOUL;
        world.run(Duration::from_secs(8));
        world.weather = Weather::FAIR;
        world.run(Duration::from_secs(1));
        for subscriber in subscribers {
            let received = world.clients[subscriber].sequences(Kind::Video).len();
            let missing = gaps(&world, subscriber, Kind::Video);
            assert!(received > 1_000, "seed {seed}: {received}");
            assert!(
                missing * 500 <= received,
                "seed {seed}: {missing} of {received} missing"
            );
        }
        let far = world.others[0].counters();
        assert!(far.retransmissions > 20, "seed {seed}");
        asked += far.packets_asked;
        settle(&mut world);
    }
    // A key frame whose packets came out of order: those before its first one never crossed.
    assert!(asked > 0, "the replica lacked nothing");
}

#[test]
fn a_full_queue_loses_whole_frames_and_the_picture_resumes_at_a_key_frame_without_a_gap() {
    let (mut world, publisher, subscribers) = broadcast(50, 2);
    world.clients[publisher].video_packets = 40;
    world.run(Duration::from_secs(1));
    let before = world.clients[subscribers[1]].sequences(Kind::Video).len();
    // The second core stands still for longer than its queue is deep.
    for _ in 0..3 {
        world.stalled = vec![1];
        world.run(Duration::from_millis(1_300));
        world.stalled.clear();
        world.run(Duration::from_millis(1_500));
    }
    assert!(
        discarded(&world, Discard::ShardQueueFull) > 0,
        "the queue was full"
    );
    for &subscriber in &subscribers {
        let frames: BTreeSet<u32> = world.clients[subscriber]
            .sequences(Kind::Video)
            .values()
            .map(|got| frame_of(&got.packet.payload).0)
            .collect();
        // The frames of before had five packets.
        let torn = torn_frames(&world, subscriber);
        let torn: Vec<u32> = torn.into_iter().filter(|frame| *frame > 60).collect();
        assert!(
            torn.is_empty(),
            "client {subscriber}: {torn:?} of {}",
            frames.len()
        );
        assert_eq!(gaps(&world, subscriber, Kind::Video), 0, "client {subscriber}");
    }
    let after = world.clients[subscribers[1]].sequences(Kind::Video).len();
    assert!(after > before + 2_000, "{before} and {after}");
    assert!(
        world.clients[publisher].key_frames_sent >= 3,
        "a key frame was asked for"
    );
    settle(&mut world);
}

#[test]
fn a_core_that_stood_still_for_long_goes_on_where_its_publishers_are() {
    let (mut world, _, subscribers) = broadcast(55, 2);
    world.run(Duration::from_secs(1));
    world.stalled = vec![1];
    world.run(Duration::from_secs(8));
    world.stalled.clear();
    world.run(Duration::from_secs(1));
    let far = &world.clients[subscribers[1]];
    assert!(far.sequences(Kind::Audio).len() > 90 && far.sequences(Kind::Video).len() > 300);
    assert!(torn_frames(&world, subscribers[1]).is_empty());
    settle(&mut world);
}

#[test]
fn a_slot_that_switches_between_publishers_of_both_cores_shows_one_continuous_stream() {
    let mut world = World::spanning(60, 2, PLACES);
    let one = world.join(true, 0);
    let subscriber = world.join(false, 1);
    world.join_at = 1;
    let two = world.join(true, 0);
    world.subscribe(subscriber, 0, one);
    world.connect_all();
    for round in 0..6 {
        world.run(Duration::from_secs(1));
        world.subscribe(subscriber, 0, if round % 2 == 0 { two } else { one });
    }
    world.run(Duration::from_secs(1));
    for kind in [Kind::Audio, Kind::Video] {
        assert_eq!(gaps(&world, subscriber, kind), 0);
        let got = world.clients[subscriber].sequences(kind);
        let rate = if kind == Kind::Audio { 48_000 } else { 90_000 };
        let times: Vec<u32> = got.values().map(|got| got.packet.header.timestamp).collect();
        for pair in times.windows(2) {
            let step = pair[1].wrapping_sub(pair[0]);
            assert!(step < rate, "{kind:?}: the timestamp jumps by {step}");
        }
    }
    settle(&mut world);
}

#[test]
fn sender_reports_cross_so_that_lips_stay_in_sync() {
    let (mut world, _, subscribers) = broadcast(70, 2);
    world.run(Duration::from_secs(12));
    let client = &world.clients[subscribers[1]];
    for kind in [Kind::Audio, Kind::Video] {
        let rate = if kind == Kind::Audio { 48.0 } else { 90.0 };
        let ssrc = client.sequences(kind).values().next().unwrap().packet.header.ssrc;
        let reports: Vec<_> = client
            .rtcp
            .iter()
            .filter_map(|(at, rtcp)| match rtcp {
                Rtcp::SenderReport(report) if report.sender_info.ssrc == ssrc => {
                    Some((at, &report.sender_info))
                }
                _ => None,
            })
            .collect();
        assert!(reports.len() >= 2, "{kind:?}: {} sender reports", reports.len());
        for (at, info) in reports {
            let media_ms = info.rtp_time.numer() as u32 as f64 / rate;
            let wall_ms = at.duration_since(world.start).as_secs_f64() * 1_000.0;
            assert!(
                (wall_ms - media_ms).abs() < 60.0,
                "{kind:?}: {wall_ms} against {media_ms}"
            );
        }
    }
}

#[test]
fn the_publisher_hears_the_largest_cap_of_all_cores_and_that_it_is_lifted() {
    let (mut world, publisher, subscribers) = broadcast(80, 2);
    world.run(Duration::from_secs(1));
    let told = |world: &World| {
        let rtcp = world.clients[publisher].rtcp.iter().rev();
        rtcp.filter_map(|(_, rtcp)| match rtcp {
            Rtcp::Remb(remb) => Some(remb.bitrate),
            _ => None,
        })
        .next()
    };
    let step = |world: &mut World, client: usize, step| {
        let (id, now) = (world.clients[client].id, world.now);
        world.sfu_of(client).set_step(id, step, now);
        world.run(Duration::from_secs(3));
    };
    step(&mut world, subscribers[0], Step::Reduced);
    assert_eq!(told(&world), None, "the other core's subscriber has no cap");
    step(&mut world, subscribers[1], Step::Reduced);
    assert!(told(&world).is_some_and(|told| (290_000.0..=300_000.0).contains(&told)));
    step(&mut world, subscribers[1], Step::Full);
    assert!(told(&world).is_some_and(|told| told > 10_000_000.0));
    settle(&mut world);
}

#[test]
fn a_publisher_that_leaves_is_gone_everywhere_and_the_next_one_takes_its_place() {
    let (mut world, publisher, subscribers) = broadcast(90, 2);
    world.run(Duration::from_secs(1));
    let (id, now) = (world.clients[publisher].id, world.now);
    world.sfu.close(id, CloseReason::Bye, now);
    world.run(Duration::from_secs(1));
    let count = world.clients[subscribers[1]].got.len();
    world.run(Duration::from_secs(1));
    assert_eq!(world.clients[subscribers[1]].got.len(), count);
    world.join_at = 0;
    let next = world.join(true, 0);
    world.subscribe(subscribers[1], 0, next);
    world.run(Duration::from_secs(3));
    assert!(world.clients[subscribers[1]].got.len() > count + 100);
    assert_eq!(gaps(&world, subscribers[1], Kind::Video), 0);
    assert_eq!(world.sealed_twice, 0);
}

#[test]
fn the_last_subscriber_that_leaves_a_core_stops_the_crossing_and_the_next_one_starts_it() {
    let (mut world, publisher, subscribers) = broadcast(100, 2);
    world.run(Duration::from_secs(1));
    world.unsubscribe(subscribers[1], 0);
    world.run(Duration::from_millis(20));
    let (crossed, got) = (
        world.sfu.counters().crossings_out,
        world.clients[subscribers[1]].got.len(),
    );
    world.run(Duration::from_secs(1));
    assert_eq!(world.sfu.counters().crossings_out, crossed);
    assert!(world.clients[subscribers[1]].got.len() <= got + 10);
    for _ in 0..5 {
        world.subscribe(subscribers[1], 0, publisher);
        world.run(Duration::from_millis(700));
        world.unsubscribe(subscribers[1], 0);
    }
    world.subscribe(subscribers[1], 0, publisher);
    world.run(Duration::from_secs(1));
    assert!(world.sfu.counters().crossings_out > crossed + 300);
    assert_eq!(gaps(&world, subscribers[1], Kind::Video), 0);
    settle(&mut world);
}

#[test]
fn a_line_that_goes_and_comes_back_at_the_publisher_restarts_the_replica() {
    let (mut world, publisher, subscribers) = broadcast(110, 2);
    world.run(Duration::from_secs(1));
    let (id, media) = (
        world.clients[publisher].id,
        world.clients[publisher].media.clone(),
    );
    for _ in 0..4 {
        let mut without = media.clone();
        without
            .lines
            .iter_mut()
            .for_each(|line| line.role = Role::Inactive);
        world.sfu.set_media(id, without);
        world.run(Duration::from_millis(200));
        world.sfu.set_media(id, media.clone());
        world.run(Duration::from_secs(1));
    }
    let far = &world.clients[subscribers[1]];
    assert!(
        far.sequences(Kind::Video).len() > 500,
        "{}",
        far.sequences(Kind::Video).len()
    );
    assert_eq!(gaps(&world, subscribers[1], Kind::Video), 0);
    let times: Vec<u32> = far
        .sequences(Kind::Video)
        .values()
        .map(|got| got.packet.header.timestamp)
        .collect();
    assert!(
        times
            .windows(2)
            .all(|pair| (pair[1].wrapping_sub(pair[0]) as i32) >= 0)
    );
    settle(&mut world);
}

#[test]
fn a_held_subscriber_on_another_core_costs_and_gets_nothing() {
    let (mut world, _, subscribers) = broadcast(120, 2);
    world.run(Duration::from_secs(1));
    let far = subscribers[1];
    let (id, now) = (world.clients[far].id, world.now);
    world.sfu_of(far).set_step(id, Step::Held, now);
    world.run(Duration::from_millis(60));
    let address = world.clients[far].address;
    let held = world.on_the_wire[&address];
    world.run(Duration::from_secs(2));
    assert_eq!(world.on_the_wire[&address], held);
    let now = world.now;
    world.sfu_of(far).set_step(id, Step::Full, now);
    world.run(Duration::from_secs(2));
    assert!(world.on_the_wire[&address] > held + 200_000);
    assert_eq!(gaps(&world, far, Kind::Video), 0);
}

#[test]
fn kernels_that_refuse_on_any_core_are_not_billed() {
    let (mut world, ..) = broadcast(130, 3);
    world.refuse_every = Some(9);
    world.run(Duration::from_secs(3));
    settle(&mut world);
}
