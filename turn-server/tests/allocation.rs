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
use turn_server::HEADROOM;
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
}

fn address_v4(last: u8) -> std::net::SocketAddr {
    std::net::SocketAddr::from(([8, 8, 8, last], 1))
}
