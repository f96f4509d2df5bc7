//! What the core keeps: little for an idle allocation, nothing for who has shown no password.
// A counting allocator cannot be written without `unsafe`; it hands everything on to the system's.
#![allow(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod world;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};

use metering::Msat;
use turn_server::{Config, Discard};
use wire::stun::Method;
use world::*;

/// Our memory for one idle allocation, its username included.
const IDLE_MAX: isize = 4096;

struct Counting;

thread_local! {
    /// Of this thread: what the test harness does meanwhile is not counted.
    static HELD: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that ends has nothing to count any more.
    let _ = HELD.try_with(|held| held.set(held.get() + bytes));
}

// SAFETY: every call is the system allocator's own, with the caller's arguments unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn held() -> isize {
    HELD.with(Cell::get)
}

#[test]
fn an_idle_allocation_takes_at_most_4_kib_of_our_memory() {
    const ALLOCATIONS: isize = 2_000;
    let mut world = World::with(Config {
        challenges_per_second: 1_000_000,
        challenges_burst: 1_000_000,
        mobility: true,
        ..config()
    });
    world.grant = Ok(Msat::new(1_000_000));
    let permits: Vec<_> = (0..ALLOCATIONS / 20).map(|_| permit()).collect();
    let before = held();
    let mut kept_by_world = 0;
    for n in 0..ALLOCATIONS {
        let user = world.user_of(permits[n as usize / 20].clone());
        let client = SocketAddr::from(([8, 8, 4, (n >> 8) as u8], 4000 + (n & 255) as u16));
        let answers = world.request(&user, client, Method::ALLOCATE, |b| {
            b.requested_transport(17).mobility_ticket(&[])
        });
        assert_eq!(answers[0].code(), 0);
        assert_eq!(world.bind(&user, client, 0x4000, address("8.8.8.8:5000")), 0);
        // What this test's world remembers is not the core's.
        let own = held();
        world.reports = Vec::new();
        world.admissions = Vec::new();
        world.opened.clear();
        world.opened.shrink_to_fit();
        kept_by_world += own - held();
    }
    let each = (held() - before) / ALLOCATIONS;
    println!("{each} bytes each ({kept_by_world} were the test's)");
    assert!(each <= IDLE_MAX, "{each} bytes");
    assert!(each > 500, "{each} bytes: the counter counts");
}

#[test]
fn a_flood_from_100_000_sources_leaves_nothing_behind() {
    const SOURCES: u32 = 100_000;
    let mut world = World::new();
    let user = world.user();
    let nonce = world.nonce(address("8.8.4.4:4000"));
    let id = world.id();
    let stranger = world::User {
        name: "nobody".into(),
        ..world.user()
    };
    let messages = [
        build(Method::ALLOCATE, id, |b| b.requested_transport(17).lifetime(600)),
        build(Method::BINDING, id, |b| b),
        user.sign(Method::ALLOCATE, id, &nonce, |b| b.requested_transport(17)),
        stranger.sign(Method::ALLOCATE, id, &nonce, |b| b.requested_transport(17)),
        user.sign(Method::REFRESH, id, &nonce, |b| b.mobility_ticket(&[7; 41])),
        user.sign(Method::CONNECTION_BIND, id, &nonce, |b| b.connection_id(7)),
        channel_message(0x4000, b"x"),
        send_indication(address("8.8.8.8:1"), b"x"),
        vec![0xFF; 100],
    ];
    let before = held();
    let mut answered = 0;
    for source in 0..SOURCES {
        // The whole of 127.0.0.0/8, as one machine can show it.
        let ip = IpAddr::from((0x7F00_0000 | source.wrapping_mul(2_654_435_761) >> 8).to_be_bytes());
        let client = SocketAddr::new(ip, 1024 + (source % 60_000) as u16);
        let message = &messages[source as usize % messages.len()];
        let transmit = world.turn.handle_client(world.now, udp(client), message);
        answered += usize::from(transmit.is_some());
    }
    assert_eq!(held() - before, 0, "bytes");
    assert_eq!(world.turn.allocations(), 0);
    assert!(world.turn.poll_event().is_none(), "nobody is asked for anything");
    assert!(answered > 1_000, "prefixes are served");
    assert!(world.turn.counters().discarded(Discard::NoAllocation) > 10_000);
}
