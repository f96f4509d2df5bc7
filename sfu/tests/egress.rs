//! What leaves, and when: batches, key frames, padding, recovery from loss; and a random call against a reference
//! model, checked at the exit.

mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use metering::Step;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sfu::CloseReason;
use sfu::media::{Kind, Role};
use world::{Weather, World, frame_of, publisher_of};

/// Ends all sessions and compares each bill, segment by segment, with what left the exit.
fn settle(world: &mut World) {
    for client in 0..world.clients.len() {
        world
            .sfu
            .close(world.clients[client].id, CloseReason::Bye, world.now);
    }
    world.run(Duration::from_millis(50));
    for client in &world.clients {
        let billed: u64 = world
            .events
            .iter()
            .filter_map(|event| match event {
                sfu::Event::Report { session, report } if *session == client.id && report.closed => {
                    Some(report.usage.bytes_out)
                }
                sfu::Event::Closed { session, report, .. } if *session == client.id => {
                    Some(report.usage.bytes_out)
                }
                _ => None,
            })
            .sum();
        let seen = world.on_the_wire.get(&client.address).copied().unwrap_or(0);
        assert_eq!(
            billed, seen,
            "seed {}: bytes billed to {:?}",
            world.seed, client.id
        );
    }
    assert_eq!(world.sealed_twice, 0, "seed {}", world.seed);
}

#[test]
fn a_frame_leaves_in_one_send_though_its_last_packet_is_longer() {
    let mut world = World::new(300);
    let publisher = world.join(true, 0);
    let subscriber = world.join(false, 1);
    world.subscribe(subscriber, 0, publisher);
    world.clients[publisher].video_last_longer = 3;
    world.connect_all();
    world.run(Duration::from_secs(1));
    world.media_sends.clear();
    world.run(Duration::from_secs(4));
    let video: Vec<usize> = world
        .media_sends
        .iter()
        .map(|(.., datagrams)| *datagrams)
        .filter(|datagrams| *datagrams > 1)
        .collect();
    assert!(video.len() >= 115, "{} sends of several", video.len());
    let whole = video.iter().filter(|datagrams| **datagrams >= 5).count();
    assert!(
        whole * 100 >= video.len() * 98,
        "{whole} of {} carry a frame",
        video.len()
    );
    let padded = |got: &&world::Got| got.packet.header.has_padding;
    assert!(world.clients[subscriber].got.iter().filter(padded).count() > 400);
    // It is gone by the time the payload is looked at.
    for got in world.clients[subscriber].sequences(Kind::Video).values() {
        let last = frame_of(&got.packet.payload).1 == 4;
        assert_eq!(got.packet.payload.len(), if last { 1_003 } else { 1_000 });
    }
    settle(&mut world);
}

#[test]
fn a_key_frame_is_spread_and_over_no_more_than_50_ms() {
    let mut world = World::new(310);
    let publisher = world.join(true, 0);
    let subscriber = world.join(false, 1);
    world.clients[publisher].video_packets = 40;
    world.connect_all();
    world.run(Duration::from_secs(1));
    world.subscribe(subscriber, 0, publisher);
    world.run(Duration::from_secs(2));
    let got = world.clients[subscriber].sequences(Kind::Video);
    let (first, _) = frame_of(&got.values().next().unwrap().packet.payload);
    let times: Vec<Instant> = got
        .values()
        .filter(|got| frame_of(&got.packet.payload).0 == first)
        .map(|got| got.at)
        .collect();
    assert_eq!(times.len(), 40);
    let took = *times.last().unwrap() - times[0];
    assert!(took >= Duration::from_millis(15), "spread over {took:?}");
    assert!(took <= Duration::from_millis(50), "spread over {took:?}");
    let order: Vec<u8> = got.values().map(|got| frame_of(&got.packet.payload).1).collect();
    assert!(order.chunks(40).all(|frame| frame.is_sorted()));
    settle(&mut world);
}

#[test]
fn one_percent_of_loss_on_every_link_costs_less_than_one_frame_in_a_thousand() {
    let mut world = World::new(320);
    let publisher = world.join(true, 0);
    let subscribers: Vec<usize> = (0..8).map(|_| world.join(false, 1)).collect();
    for &subscriber in &subscribers {
        world.subscribe(subscriber, 0, publisher);
    }
    world.connect_all();
    world.run(Duration::from_secs(1));
    world.weather = Weather {
        loss: 0.01,
        ..Weather::FAIR
    };
    world.run(Duration::from_secs(16));
    world.weather = Weather::FAIR;
    world.run(Duration::from_secs(1));
    let (mut frames, mut broken) = (0, 0);
    for &subscriber in &subscribers {
        let mut packets: BTreeMap<u32, BTreeSet<u8>> = BTreeMap::new();
        for got in world.clients[subscriber].sequences(Kind::Video).values() {
            let (frame, packet) = frame_of(&got.packet.payload);
            packets.entry(frame).or_default().insert(packet);
        }
        let (&first, &last) = (packets.keys().next().unwrap(), packets.keys().last().unwrap());
        frames += last - first;
        broken += (first..last)
            .filter(|frame| packets.get(frame).is_none_or(|packets| packets.len() < 5))
            .count() as u32;
    }
    assert!(frames > 3_500);
    assert!(broken * 1_000 <= frames, "{broken} of {frames} frames");
    assert!(world.sfu.counters().retransmissions > 100);
    settle(&mut world);
}

/// What the reference model knows of one slot: who may be seen there, and until when the one before.
#[derive(Default)]
struct Shown {
    now: Option<usize>,
    before: Vec<(usize, Instant)>,
}

/// A packet that was on its way, or asked for again, may arrive this long after the route was changed.
const UNDERWAY: Duration = Duration::from_millis(600);

#[test]
fn a_random_call_shows_nobody_what_they_did_not_subscribe_to_and_bills_what_left() {
    for seed in 330..334 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::new(seed);
        let people: Vec<usize> = (0..4).map(|_| world.join(true, 2)).collect();
        let mut model: BTreeMap<(usize, usize), Shown> = BTreeMap::new();
        world.connect_all();
        world.weather = Weather {
            loss: 0.01,
            duplication: 0.01,
            reordering: 0.02,
        };
        for _ in 0..80 {
            let person = people[rng.random_range(0..people.len())];
            let slot = rng.random_range(0..2);
            let shown = model.entry((person, slot)).or_default();
            match rng.random_range(0..10) {
                0..=4 => {
                    let other = people[rng.random_range(0..people.len())];
                    if other != person {
                        shown.before.extend(shown.now.map(|before| (before, world.now)));
                        shown.now = Some(other);
                        world.subscribe(person, slot, other);
                    }
                }
                5 => {
                    shown
                        .before
                        .extend(shown.now.take().map(|before| (before, world.now)));
                    world.unsubscribe(person, slot);
                }
                6 => {
                    // Muted, or not any more.
                    world.clients[person].publishing ^= true;
                }
                7 => {
                    let steps = [Step::Full, Step::Reduced, Step::AudioOnly, Step::Held];
                    let step = steps[rng.random_range(0..steps.len())];
                    world.sfu.set_step(world.clients[person].id, step, world.now);
                }
                8 => world.clients[person].video_last_longer = rng.random_range(0..20),
                _ => world.clients[person].video_packets = rng.random_range(1..30),
            }
            world.run(Duration::from_millis(rng.random_range(1..150)));
            check(&mut world, &people, &model);
        }
        for &person in &people {
            world
                .sfu
                .set_step(world.clients[person].id, Step::Full, world.now);
        }
        world.run(Duration::from_secs(1));
        check(&mut world, &people, &model);
        timestamps_never_go_back(&world, &people);
        settle(&mut world);
    }
}

/// Every packet that arrived belongs to who is, or a moment ago was, routed into its slot.
fn check(world: &mut World, people: &[usize], model: &BTreeMap<(usize, usize), Shown>) {
    for &person in people {
        let client = &world.clients[person];
        for slot in 0..2 {
            for kind in [Kind::Audio, Kind::Video] {
                let mid = client.slots(kind)[slot];
                let line = client
                    .media
                    .lines
                    .iter()
                    .find(|line| line.mid == mid)
                    .expect("the slot is a line");
                let Role::Send { ssrc, .. } = line.role else {
                    panic!("a slot is a send line")
                };
                for got in client.got.iter().filter(|got| *got.packet.header.ssrc == ssrc) {
                    let publisher = publisher_of(kind, &got.packet.payload);
                    let allowed = model.get(&(person, slot)).is_some_and(|shown| {
                        shown.now == Some(publisher)
                            || shown
                                .before
                                .iter()
                                .any(|(before, until)| *before == publisher && got.at <= *until + UNDERWAY)
                    });
                    assert!(
                        allowed,
                        "seed {}: {person} got {kind:?} of {publisher} in slot {slot}",
                        world.seed
                    );
                }
            }
        }
    }
}

fn timestamps_never_go_back(world: &World, people: &[usize]) {
    for &person in people {
        let mut streams: BTreeMap<u32, BTreeMap<u64, u32>> = BTreeMap::new();
        for got in &world.clients[person].got {
            let stream = streams.entry(*got.packet.header.ssrc).or_default();
            stream.insert(*got.packet.seq_no, got.packet.header.timestamp);
        }
        for (ssrc, packets) in streams {
            let times: Vec<u32> = packets.into_values().collect();
            for pair in times.windows(2) {
                let step = pair[1].wrapping_sub(pair[0]) as i32;
                assert!(step >= 0, "seed {}: {ssrc} goes back by {step}", world.seed);
            }
        }
    }
}
