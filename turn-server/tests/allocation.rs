//! No heap allocation for a relayed packet, in either direction, with a channel and with indications, throttled or not.
//!
//! One test only: the counter is the whole process's.
// A counting allocator cannot be written without `unsafe`; it hands everything on to the system's.
#![allow(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod world;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use metering::Step;
use turn_server::{Config, HEADROOM};
use world::*;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is the system allocator's own, with the caller's arguments unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_relayed_packet_allocates_nothing() {
    let mut world = World::new();
    let user = world.user();
    let (client, peer, stranger) = (
        address("8.8.4.4:4000"),
        address("8.8.8.8:5000"),
        address("1.1.1.1:1"),
    );
    let (key, _) = world.allocate(&user, client);
    assert_eq!(world.bind(&user, client, 0x4000, peer), 0);
    assert_eq!(world.permit_peer(&user, client, address("8.8.8.9:1")), 0);
    let channel = channel_message(0x4000, &[1; 1200]);
    let indication = send_indication(peer, &[2; 1200]);
    let mut packet = [3; HEADROOM + 1200];
    let mut now = world.now;
    for step in [Step::Full, Step::Reduced, Step::Held] {
        world.turn.set_step(user.session, step, now);
        while world.turn.poll_event().is_some() {}
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        let mut relayed = 0;
        for _ in 0..10_000 {
            now += Duration::from_micros(500);
            relayed += usize::from(world.turn.handle_client(now, udp(client), &channel).is_some());
            relayed += usize::from(world.turn.handle_client(now, udp(client), &indication).is_some());
            relayed += usize::from(world.turn.handle_peer(now, key, peer, &mut packet).is_some());
            // Without a channel: a Data indication.
            relayed += usize::from(
                world
                    .turn
                    .handle_peer(now, key, address_v4(9), &mut packet)
                    .is_some(),
            );
            world.turn.handle_peer(now, key, stranger, &mut packet);
            world.turn.handle_timeout(now);
            while world.turn.poll_event().is_some() {}
        }
        let allocated = ALLOCATIONS.load(Ordering::Relaxed) - before;
        assert_eq!(allocated, 0, "{step:?}");
        match step {
            Step::Full => assert_eq!(relayed, 40_000),
            Step::Reduced => assert!((1..10_000).contains(&relayed)),
            _ => assert_eq!(relayed, 0),
        }
    }
    many_allocations_relay_report_and_are_looked_at_without_one();
}

/// Many of them, so that reports and time have something to do too.
fn many_allocations_relay_report_and_are_looked_at_without_one() {
    const EACH: u16 = 30;
    const CHANNELS: u16 = 8;
    let mut world = World::with(Config {
        challenges_per_second: 1_000_000,
        challenges_burst: 1_000_000,
        ..config()
    });
    let users = [world.user(), world.user(), world.user()];
    let mut all = Vec::new();
    for (u, user) in users.iter().enumerate() {
        for n in 0..EACH {
            let client = std::net::SocketAddr::from(([8, 8, 4, 10 + u as u8], 4000 + n));
            let (key, _) = world.allocate(user, client);
            for channel in 0..CHANNELS {
                let peer = std::net::SocketAddr::from(([8, 8, 8, 8], 5000 + channel));
                assert_eq!(world.bind(user, client, 0x4000 + channel, peer), 0);
            }
            all.push((client, key));
        }
    }
    while world.turn.poll_event().is_some() {}
    let messages: Vec<_> = (0..CHANNELS)
        .map(|channel| channel_message(0x4000 + channel, &[1; 160]))
        .collect();
    let mut packet = [3; HEADROOM + 160];
    let (mut now, mut relayed, mut reports) = (world.now, 0, 0);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    // Three seconds: each reports about three times.
    for round in 0..60_u16 {
        now += Duration::from_millis(50);
        for (index, (client, key)) in all.iter().enumerate() {
            // A third is idle, and reports by time alone.
            if index % 3 == 0 {
                continue;
            }
            let channel = (round + index as u16) % CHANNELS;
            let peer = std::net::SocketAddr::from(([8, 8, 8, 8], 5000 + channel));
            let message = &messages[usize::from(channel)];
            relayed += usize::from(world.turn.handle_client(now, udp(*client), message).is_some());
            relayed += usize::from(world.turn.handle_peer(now, *key, peer, &mut packet).is_some());
        }
        world.turn.handle_timeout(now);
        while let Some(event) = world.turn.poll_event() {
            reports += usize::from(matches!(event, turn_server::Event::Report(_)));
        }
    }
    let allocated = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert_eq!(allocated, 0);
    assert_eq!(relayed, 60 * 60 * 2);
    assert!((2 * all.len()..=4 * all.len()).contains(&reports), "{reports}");
}

fn address_v4(last: u8) -> std::net::SocketAddr {
    std::net::SocketAddr::from(([8, 8, 8, last], 1))
}
