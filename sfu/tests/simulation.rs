//! The core between real WebRTC stacks (str0m) on a simulated network that loses, reorders and duplicates.

mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use metering::{Msat, Rates, Step};
use sfu::media::{DtlsRole, Kind, Role};
use sfu::{CloseReason, Discard, Event};
use str0m::rtp::rtcp::Rtcp;
use world::{RATES, Weather, World, frame_of};

fn pair(seed: u64) -> (World, usize, usize) {
    let mut world = World::new(seed);
    let (publisher, subscriber) = (world.join(true, 0), world.join(false, 1));
    world.subscribe(subscriber, 0, publisher);
    world.connect_all();
    (world, publisher, subscriber)
}

fn discards(world: &World) -> BTreeMap<&'static str, u64> {
    let nonzero = world.sfu.counters().discards().filter(|(_, count)| *count > 0);
    nonzero.map(|(reason, count)| (reason.as_str(), count)).collect()
}

/// Sequence numbers that are missing between the first and the last received.
fn gaps(world: &World, client: usize, kind: Kind) -> Vec<u64> {
    let got = world.clients[client].sequences(kind);
    let (Some(first), Some(last)) = (got.keys().next(), got.keys().last()) else {
        return Vec::new();
    };
    (*first..*last)
        .filter(|sequence| !got.contains_key(sequence))
        .collect()
}

/// Frames that a subscriber got some packets of, but not all five.
fn torn_frames(world: &World, client: usize) -> Vec<u32> {
    let mut frames: BTreeMap<u32, u8> = BTreeMap::new();
    for got in world.clients[client].sequences(Kind::Video).values() {
        *frames.entry(frame_of(&got.packet.payload).0).or_default() += 1;
    }
    let last = frames.keys().last().copied();
    frames
        .into_iter()
        .filter(|(frame, packets)| *packets != 5 && Some(*frame) != last)
        .map(|(frame, _)| frame)
        .collect()
}

/// Ends all sessions and compares each bill with what was seen on the wire.
fn settle(world: &mut World) {
    for client in 0..world.clients.len() {
        world
            .sfu
            .close(world.clients[client].id, CloseReason::Bye, world.now);
    }
    world.run(Duration::from_millis(50));
    for client in 0..world.clients.len() {
        let (_, usage) = world.closed(client).expect("closed above");
        let seen = world
            .on_the_wire
            .get(&world.clients[client].address)
            .copied()
            .unwrap_or(0);
        assert_eq!(
            usage.bytes_out, seen,
            "seed {}: bytes billed to client {client}",
            world.seed
        );
    }
    assert_eq!(world.sealed_twice, 0, "seed {}", world.seed);
}

#[test]
fn a_subscriber_gets_what_a_publisher_sends() {
    let (mut world, _, subscriber) = pair(1);
    world.run(Duration::from_secs(5));
    let (video, audio) = (
        world.clients[subscriber].sequences(Kind::Video),
        world.clients[subscriber].sequences(Kind::Audio),
    );
    assert!(video.len() > 650, "{} video packets", video.len());
    assert!(audio.len() > 220, "{} audio packets", audio.len());
    let first = frame_of(&video.values().next().unwrap().packet.payload);
    assert_eq!(first.1, 0, "it starts with the first packet of a frame");
    assert_eq!(
        video.values().next().unwrap().packet.payload[1],
        0,
        "of a key frame"
    );
    assert!(torn_frames(&world, subscriber).is_empty());
    assert_eq!(
        world.sfu.counters().discarded(Discard::Unauthentic),
        0,
        "{:?}",
        discards(&world)
    );
    settle(&mut world);
}

#[test]
fn loss_reordering_and_duplication_leave_no_gap_once_retransmission_had_its_time() {
    for seed in 10..16 {
        let (mut world, _, subscriber) = pair(seed);
        world.weather = Weather::FOUL;
        world.run(Duration::from_secs(8));
        world.weather = Weather::FAIR;
        world.run(Duration::from_secs(1));
        let missing = gaps(&world, subscriber, Kind::Video);
        let received = world.clients[subscriber].sequences(Kind::Video).len();
        assert!(received > 1_000, "seed {seed}: {received}");
        // Both legs lose 5 %, retransmissions and requests too: next to nothing stays missing.
        assert!(
            missing.len() * 500 <= received,
            "seed {seed}: {} of {received} missing",
            missing.len()
        );
        assert!(world.sfu.counters().retransmissions > 20, "seed {seed}");
        settle(&mut world);
    }
}

#[test]
fn a_publisher_s_losses_are_repaired_before_they_are_forwarded() {
    let (mut world, _, subscriber) = pair(20);
    world.run(Duration::from_secs(1));
    world.weather = Weather {
        loss: 0.03,
        ..Weather::FAIR
    };
    world.run(Duration::from_secs(5));
    world.weather = Weather::FAIR;
    world.run(Duration::from_secs(1));
    assert!(gaps(&world, subscriber, Kind::Video).len() < 5);
    let torn = torn_frames(&world, subscriber);
    assert!(torn.len() < 3, "{torn:?}");
}

#[test]
fn three_people_see_each_other_and_a_late_comer_starts_with_a_key_frame() {
    let mut world = World::new(30);
    let people: Vec<usize> = (0..3).map(|_| world.join(true, 3)).collect();
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
        let mut publishers: BTreeMap<u32, Vec<&world::Got>> = BTreeMap::new();
        let client = &world.clients[client];
        for got in &client.got {
            publishers.entry(*got.packet.header.ssrc).or_default().push(got);
        }
        assert_eq!(publishers.len(), 6, "audio and video of three others");
        for packets in publishers.values() {
            let first = packets.iter().min_by_key(|got| *got.packet.seq_no).unwrap();
            assert!(packets.len() > 80);
            if first.packet.payload.len() > 500 {
                assert_eq!(first.packet.payload[..2], [0x10, 0], "a key frame first");
            }
        }
    }
    settle(&mut world);
}

#[test]
fn a_slot_that_switches_to_another_publisher_shows_one_continuous_stream() {
    let mut world = World::new(40);
    let (one, two) = (world.join(true, 0), world.join(true, 0));
    let subscriber = world.join(false, 1);
    world.subscribe(subscriber, 0, one);
    world.connect_all();
    for round in 0..6 {
        world.run(Duration::from_secs(1));
        world.subscribe(subscriber, 0, if round % 2 == 0 { two } else { one });
    }
    world.run(Duration::from_secs(1));
    for kind in [Kind::Audio, Kind::Video] {
        assert!(gaps(&world, subscriber, kind).is_empty());
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
fn sender_reports_keep_the_publisher_s_clock_so_that_lips_stay_in_sync() {
    let (mut world, _, subscriber) = pair(50);
    world.run(Duration::from_secs(12));
    let client = &world.clients[subscriber];
    for kind in [Kind::Audio, Kind::Video] {
        let (ssrc, rate) = {
            let got = client.sequences(kind);
            let ssrc = got.values().next().unwrap().packet.header.ssrc;
            (ssrc, if kind == Kind::Audio { 48.0 } else { 90.0 })
        };
        let reports: Vec<_> = client
            .rtcp
            .iter()
            .filter_map(|(at, rtcp)| match rtcp {
                Rtcp::SenderReport(report) if report.sender_info.ssrc == ssrc => {
                    Some((*at, &report.sender_info))
                }
                _ => None,
            })
            .collect();
        assert!(reports.len() >= 2, "{kind:?}: {} sender reports", reports.len());
        // The simulated publisher stamps both media with the same microseconds since the start, so timestamp and
        // arrival tell the same distance to the start for both: one clock.
        for (at, info) in &reports {
            let media_ms = info.rtp_time.numer() as u32 as f64 / rate;
            let wall_ms = at.duration_since(world.start).as_secs_f64() * 1_000.0;
            assert!(
                (wall_ms - media_ms).abs() < 60.0,
                "{kind:?}: {wall_ms} against {media_ms}"
            );
        }
        let (_, last) = reports.last().unwrap();
        assert!(last.sender_packet_count > 100 && last.sender_octet_count > 5_000);
    }
    let names = client
        .rtcp
        .iter()
        .filter(|(_, rtcp)| matches!(rtcp, Rtcp::SourceDescription(_)))
        .count();
    assert!(names >= 4, "every sender report comes with its CNAME");
}

#[test]
fn a_publisher_hears_true_loss_and_when_its_packets_arrived() {
    let (mut world, publisher, _) = pair(60);
    world.run(Duration::from_secs(1));
    world.weather = Weather {
        loss: 0.10,
        ..Weather::FAIR
    };
    world.run(Duration::from_secs(10));
    let rtcp = &world.clients[publisher].rtcp;
    let fractions: Vec<u8> = rtcp
        .iter()
        .filter_map(|(_, rtcp)| match rtcp {
            Rtcp::ReceiverReport(report) => {
                Some(report.reports.iter().map(|block| block.fraction_lost).max()?)
            }
            _ => None,
        })
        .skip(2)
        .collect();
    let mean = fractions.iter().map(|fraction| f64::from(*fraction)).sum::<f64>() / fractions.len() as f64;
    assert!((12.0..60.0).contains(&mean), "10 % are 26 of 256, not {mean}");
    let feedback: Vec<_> = rtcp
        .iter()
        .filter(|(_, rtcp)| matches!(rtcp, Rtcp::Twcc(_)))
        .map(|(at, _)| *at)
        .collect();
    assert!(
        feedback.len() > 80,
        "{} feedback messages in 11 s",
        feedback.len()
    );
    let shortest = feedback.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap();
    assert!(shortest >= Duration::from_millis(40), "{shortest:?}");
}

#[test]
fn the_reduced_rung_carries_whole_frames_at_its_rate_and_full_quality_returns() {
    let (mut world, publisher, subscriber) = pair(70);
    world.run(Duration::from_secs(2));
    let id = world.clients[subscriber].id;
    world.sfu.set_step(id, Step::Reduced, world.now);
    let before = world.clients[subscriber].sequences(Kind::Video).len();
    world.run(Duration::from_secs(20));
    let reduced = world.clients[subscriber].sequences(Kind::Video).len() - before;
    // 300 kbit/s for 20 s and one second of burst, in packets of about 1,050 bytes, plus the last frame.
    assert!((150..=760).contains(&reduced), "{reduced} packets");
    assert!(
        torn_frames(&world, subscriber).is_empty(),
        "{:?}",
        torn_frames(&world, subscriber)
    );
    assert!(gaps(&world, subscriber, Kind::Video).is_empty());
    let told = world.clients[publisher]
        .rtcp
        .iter()
        .rev()
        .find_map(|(_, rtcp)| match rtcp {
            Rtcp::Remb(remb) => Some(remb.bitrate),
            _ => None,
        });
    assert!(
        told.is_some_and(|told| (290_000.0..=300_000.0).contains(&told)),
        "{told:?}"
    );
    world.sfu.set_step(id, Step::Full, world.now);
    let before = world.clients[subscriber].sequences(Kind::Video).len();
    world.run(Duration::from_secs(3));
    let full = world.clients[subscriber].sequences(Kind::Video).len() - before;
    assert!(full > 400, "{full} packets in 3 s");
    assert!(gaps(&world, subscriber, Kind::Video).is_empty());
    let told = world.clients[publisher]
        .rtcp
        .iter()
        .rev()
        .find_map(|(_, rtcp)| match rtcp {
            Rtcp::Remb(remb) => Some(remb.bitrate),
            _ => None,
        });
    assert!(
        told.is_some_and(|told| told > 10_000_000.0),
        "the limit is lifted: {told:?}"
    );
    settle(&mut world);
}

#[test]
fn audio_only_stops_video_and_keeps_audio() {
    let (mut world, _, subscriber) = pair(80);
    world.run(Duration::from_secs(1));
    world
        .sfu
        .set_step(world.clients[subscriber].id, Step::AudioOnly, world.now);
    world.run(Duration::from_millis(50));
    let count = |world: &World, kind| world.clients[subscriber].sequences(kind).len();
    let (video, audio) = (count(&world, Kind::Video), count(&world, Kind::Audio));
    world.run(Duration::from_secs(2));
    assert_eq!(count(&world, Kind::Video), video);
    assert!(count(&world, Kind::Audio) >= audio + 95);
    assert!(torn_frames(&world, subscriber).is_empty());
    settle(&mut world);
}

#[test]
fn held_pauses_both_directions_for_free_and_a_top_up_resumes_at_once() {
    let mut world = World::new(90);
    let (one, two) = (world.join(true, 1), world.join(true, 1));
    world.subscribe(one, 0, two);
    world.subscribe(two, 0, one);
    world.connect_all();
    world.run(Duration::from_secs(2));
    let id = world.clients[one].id;
    world.sfu.set_step(id, Step::Held, world.now);
    world.run(Duration::from_millis(60));
    let wire = |world: &World, client: usize| world.on_the_wire[&world.clients[client].address];
    let (held, other) = (wire(&world, one), wire(&world, two));
    world.run(Duration::from_secs(5));
    assert_eq!(
        (wire(&world, one), wire(&world, two)),
        (held, other),
        "neither hears the other"
    );
    world.sfu.set_step(id, Step::Full, world.now);
    world.run(Duration::from_secs(2));
    assert!(wire(&world, one) > held + 200_000 && wire(&world, two) > other + 200_000);
    assert!(gaps(&world, one, Kind::Video).is_empty() && gaps(&world, one, Kind::Audio).is_empty());
    // Two segments: the settled one of before, and the one that is closed now.
    world.sfu.close(id, CloseReason::Bye, world.now);
    world.run(Duration::from_millis(50));
    let settled: u64 = world
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Report { session, report } if *session == id && report.closed => {
                Some(report.usage.bytes_out)
            }
            Event::Closed { session, report, .. } if *session == id => Some(report.usage.bytes_out),
            _ => None,
        })
        .sum();
    assert_eq!(settled, wire(&world, one));
    let held_time: u64 = world
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Report { session, report } if *session == id && report.closed => {
                Some(report.usage.nanoseconds)
            }
            Event::Closed { session, report, .. } if *session == id => Some(report.usage.nanoseconds),
            _ => None,
        })
        .sum();
    assert!(
        held_time < 4_500_000_000,
        "{held_time} ns of about 4 s that were not held"
    );
}

#[test]
fn a_session_never_spends_beyond_its_grant() {
    for granted in [12, 13, 40, 100] {
        let mut world = World::new(100 + granted);
        let publisher = world.join(true, 0);
        // A thousandfold rate, so that a few seconds use the grant up.
        let rates = Rates {
            out: 50_000,
            in_: 0,
            second: 8,
        };
        let subscriber = world.join_with(false, 1, Msat::new(granted), rates);
        world.subscribe(subscriber, 0, publisher);
        world.connect_all();
        world.run(Duration::from_secs(4));
        let seen = world
            .on_the_wire
            .get(&world.clients[subscriber].address)
            .copied()
            .unwrap_or(0);
        assert!(
            seen * 50_000 / 1_000_000 <= granted,
            "{seen} bytes for {granted} msat"
        );
        assert!(world.sfu.counters().discarded(Discard::Exhausted) > 0);
        assert!(
            gaps(&world, subscriber, Kind::Video).is_empty(),
            "what is not paid leaves no gap"
        );
        let told = world.events.iter().any(|event| {
            matches!(event, Event::Report { session, report }
                if *session == world.clients[subscriber].id && report.exhausted)
        });
        assert!(told, "the ledger hears of it");
        world
            .sfu
            .close(world.clients[subscriber].id, CloseReason::Balance, world.now);
        world.run(Duration::from_millis(10));
        let (_, usage) = world.closed(subscriber).unwrap();
        assert!(
            usage.debit <= Msat::new(granted),
            "{:?} of {granted}",
            usage.debit
        );
    }
}

#[test]
fn a_grant_brings_the_picture_back_at_a_key_frame() {
    let mut world = World::new(110);
    let publisher = world.join(true, 0);
    let rates = Rates {
        out: 50_000,
        in_: 0,
        second: 8,
    };
    let subscriber = world.join_with(false, 1, Msat::new(30), rates);
    world.subscribe(subscriber, 0, publisher);
    world.connect_all();
    world.run(Duration::from_secs(3));
    let before = world.clients[subscriber].sequences(Kind::Video).len();
    world.clients[subscriber].granted = Msat::new(1_000_000);
    world
        .sfu
        .grant(world.clients[subscriber].id, Msat::new(1_000_000));
    world.run(Duration::from_secs(2));
    assert!(world.clients[subscriber].sequences(Kind::Video).len() > before + 200);
    assert!(gaps(&world, subscriber, Kind::Video).is_empty());
    settle(&mut world);
}

#[test]
fn bytes_that_the_kernel_refused_are_not_billed() {
    let (mut world, _, _) = pair(120);
    world.refuse_every = Some(9);
    world.run(Duration::from_secs(4));
    settle(&mut world);
}

#[test]
fn sending_stops_thirty_seconds_after_the_last_check_and_bills_to_it() {
    let (mut world, _, subscriber) = pair(130);
    world.run(Duration::from_secs(5));
    let silent_since = world.now;
    world.clients[subscriber].silent = true;
    world.run(Duration::from_secs(31));
    let (reason, usage) = world.closed(subscriber).expect("closed for want of consent");
    assert_eq!(reason, CloseReason::Consent);
    let billed = Duration::from_nanos(usage.nanoseconds);
    assert!(
        billed <= silent_since - world.start,
        "{billed:?} though silent after {:?}",
        silent_since - world.start
    );
    let seen = world.on_the_wire[&world.clients[subscriber].address];
    world.run(Duration::from_secs(2));
    assert_eq!(
        world.on_the_wire[&world.clients[subscriber].address], seen,
        "nothing more is sent"
    );
}

#[test]
fn a_session_that_never_connects_is_closed() {
    let mut world = World::new(140);
    let client = world.join(true, 0);
    world.clients[client].silent = true;
    world.run(Duration::from_secs(31));
    assert_eq!(
        world.closed(client).map(|(reason, _)| reason),
        Some(CloseReason::Setup)
    );
    assert_eq!(world.sfu.sessions(), 0);
}

#[test]
fn a_goodbye_reaches_the_client_and_frees_everything() {
    let (mut world, publisher, subscriber) = pair(150);
    world.run(Duration::from_secs(1));
    world
        .sfu
        .close(world.clients[publisher].id, CloseReason::Bye, world.now);
    world.run(Duration::from_secs(1));
    assert!(!world.clients[publisher].rtc.is_alive(), "close_notify arrived");
    let count = world.clients[subscriber].got.len();
    world.run(Duration::from_secs(1));
    assert_eq!(world.clients[subscriber].got.len(), count);
    // Nobody publishes any more; a new session may take the same source's place in the route.
    let next = world.join(true, 0);
    world.subscribe(subscriber, 0, next);
    world.run(Duration::from_secs(3));
    assert!(world.clients[subscriber].got.len() > count + 100);
    assert!(gaps(&world, subscriber, Kind::Video).is_empty());
}

#[test]
fn audio_is_billed_to_the_byte_when_it_is_all_there_is() {
    let mut world = World::new(160);
    let publisher = world.join(true, 0);
    let subscriber = world.join_with(false, 1, Msat::new(1_000), RATES);
    world.subscribe(subscriber, 0, publisher);
    world.connect_all();
    world
        .sfu
        .set_step(world.clients[subscriber].id, Step::AudioOnly, world.now);
    world.run(Duration::from_secs(5));
    settle(&mut world);
}

#[test]
fn a_client_that_waits_for_the_handshake_gets_one() {
    let mut world = World::new(170);
    let (publisher, subscriber) = (world.join_passive(true, 0), world.join_passive(false, 1));
    assert_eq!(
        world.clients[publisher].negotiation.transport().unwrap().role,
        DtlsRole::Active
    );
    world.subscribe(subscriber, 0, publisher);
    world.weather = Weather {
        loss: 0.1,
        ..Weather::FAIR
    };
    world.connect_all();
    world.weather = Weather::FAIR;
    world.run(Duration::from_secs(3));
    assert!(world.clients[subscriber].got.len() > 400);
    settle(&mut world);
}

/// A pair whose publisher's SDP named no SSRC, and with `mid` false no MID extension either.
fn unannounced(seed: u64, mid: bool) -> (World, usize) {
    let mut world = World::new(seed);
    let (publisher, subscriber) = (world.join(true, 0), world.join(false, 1));
    let mut media = world.clients[publisher].media.clone();
    for line in &mut media.lines {
        if let Role::Receive { ssrcs } = &mut line.role {
            ssrcs.clear();
        }
    }
    if !mid {
        media.extensions.mid = None;
    }
    world.sfu.set_media(world.clients[publisher].id, media);
    world.subscribe(subscriber, 0, publisher);
    world.connect_all();
    (world, subscriber)
}

#[test]
fn streams_that_no_sdp_announced_are_known_by_mid_and_else_by_payload_type() {
    for (seed, mid) in [(180, true), (181, false)] {
        let (mut world, subscriber) = unannounced(seed, mid);
        world.run(Duration::from_secs(1));
        world.weather = Weather {
            loss: 0.03,
            ..Weather::FAIR
        };
        world.run(Duration::from_secs(4));
        world.weather = Weather::FAIR;
        world.run(Duration::from_secs(1));
        assert!(
            world.clients[subscriber].sequences(Kind::Audio).len() > 250,
            "mid {mid}"
        );
        assert!(
            world.clients[subscriber].sequences(Kind::Video).len() > 800,
            "mid {mid}"
        );
        assert!(
            gaps(&world, subscriber, Kind::Video).len() < 5,
            "mid {mid}: {:?}",
            discards(&world)
        );
    }
}

#[test]
fn a_line_that_goes_and_comes_back_never_reuses_a_number() {
    let (mut world, publisher, subscriber) = pair(190);
    world.run(Duration::from_secs(1));
    let id = world.clients[subscriber].id;
    let media = world.clients[subscriber].media.clone();
    for _ in 0..5 {
        let mut without = media.clone();
        without
            .lines
            .iter_mut()
            .for_each(|line| line.role = Role::Inactive);
        world.sfu.set_media(id, without);
        world.run(Duration::from_millis(200));
        world.sfu.set_media(id, media.clone());
        world.subscribe(subscriber, 0, publisher);
        world.run(Duration::from_millis(700));
    }
    assert_eq!(world.sealed_twice, 0);
    assert!(
        gaps(&world, subscriber, Kind::Video).is_empty() && gaps(&world, subscriber, Kind::Audio).is_empty()
    );
    assert!(world.clients[subscriber].got.len() > 600);
    settle(&mut world);
}

#[test]
fn an_exhausted_allowance_is_reported_at_once() {
    let mut world = World::new(200);
    let publisher = world.join(true, 0);
    let rates = Rates {
        out: 50_000,
        in_: 0,
        second: 8,
    };
    let subscriber = world.join_with(false, 1, Msat::new(20), rates);
    world.subscribe(subscriber, 0, publisher);
    world.connect_all();
    world.run_until("something is refused", |world| {
        world.sfu.counters().discarded(Discard::Exhausted) > 0
    });
    world.run(Duration::from_millis(2));
    let id = world.clients[subscriber].id;
    let told = |event: &Event| matches!(event, Event::Report { session, report } if *session == id && report.exhausted);
    assert!(world.events.iter().any(told));
}

#[test]
fn a_tariff_may_charge_the_publisher_for_what_it_sends() {
    let mut world = World::new(140);
    let rates = Rates {
        out: 0,
        in_: 50,
        second: 8,
    };
    let publisher = world.join_with(true, 0, Msat::new(1_000_000), rates);
    world.connect_all();
    world.run(Duration::from_secs(2));
    let accepted = world.sfu.counters().bytes_in;
    assert!(accepted > 100_000, "{accepted} bytes");
    world
        .sfu
        .close(world.clients[publisher].id, CloseReason::Bye, world.now);
    world.run(Duration::from_millis(10));
    let (_, usage) = world.closed(publisher).unwrap();
    assert_eq!(usage.bytes_in, accepted);

    let mut world = World::new(141);
    let dear = Rates { in_: 50_000, ..rates };
    let publisher = world.join_with(true, 0, Msat::new(20), dear);
    world.connect_all();
    world.run(Duration::from_secs(2));
    assert!(world.sfu.counters().bytes_in * 50_000 / 1_000_000 <= 20);
    assert!(world.sfu.counters().discarded(Discard::Exhausted) > 0);
    assert!(
        world.closed(publisher).is_none(),
        "held by the ledger, not by the core"
    );
}
