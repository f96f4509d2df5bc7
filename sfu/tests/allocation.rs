//! The forward path allocates nothing and locks nothing: a counting allocator watches every call into the core
//! while a million packets pass. The same allocator says what an idle subscriber costs.

// The one place that needs it: a global allocator is an unsafe trait.
#![allow(unsafe_code)]

mod world;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use sfu::Discard;
use world::{Weather, World};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
/// Bytes that the core holds, by what it took and gave back.
static HELD: AtomicI64 = AtomicI64::new(0);
/// The counts are the process's, so tests take turns.
static TURN: Mutex<()> = Mutex::new(());

thread_local! {
    static INSIDE_THE_CORE: Cell<bool> = const { Cell::new(false) };
}

fn count(taken: usize, given_back: usize) {
    if INSIDE_THE_CORE.get() {
        ALLOCATIONS.fetch_add(u64::from(taken > 0), Ordering::Relaxed);
        HELD.fetch_add(taken as i64 - given_back as i64, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What an idle subscriber may cost, DTLS and SRTP state included.
const IDLE_SUBSCRIBER_BYTES_MAX: i64 = 64 << 10;

#[test]
fn forwarding_a_million_packets_allocates_nothing() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut world = World::new(1);
    let publisher = world.join(true, 0);
    // Most of them throw media away unread: what is watched is the core, not the clients.
    for number in 0..56 {
        let subscriber = world.join(false, 1);
        world.subscribe(subscriber, 0, publisher);
        world.clients[subscriber].deaf = number >= 4;
    }
    world.connect_all();
    world.clients[publisher].video_packets = 30;
    world.clients[publisher].video_last_longer = 3;
    // Some loss, so that NACK, RTX and PLI are part of what is watched.
    world.weather = Weather {
        loss: 0.005,
        ..Weather::FOUL
    };
    // Until the histories are full: the pool makes slots as they are first needed.
    world.run(Duration::from_secs(4));

    let before = (
        world.sfu.counters().packets_out,
        world.sfu.counters().retransmissions,
    );
    ALLOCATIONS.store(0, Ordering::Relaxed);
    world.watch = |inside| INSIDE_THE_CORE.set(inside);
    while world.sfu.counters().packets_out - before.0 < 1_000_000 {
        world.run(Duration::from_millis(500));
        world.clients.iter_mut().for_each(|client| client.got.clear());
        world.sealed.clear();
        world.media_sends.clear();
    }
    world.watch = |_| {};
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), 0);
    INSIDE_THE_CORE.set(true);
    drop(std::hint::black_box(Box::new(1)));
    INSIDE_THE_CORE.set(false);
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), 1, "the count itself works");
    assert!(
        world.sfu.counters().retransmissions > before.1,
        "retransmissions were part of it"
    );
    assert_eq!(world.sfu.counters().discarded(Discard::Unauthentic), 0);
}

#[test]
fn an_idle_subscriber_costs_at_most_64_kib() {
    const SUBSCRIBERS: i64 = 24;
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut world = World::new(2);
    let publisher = world.join(true, 0);
    world.connect_all();
    world.run(Duration::from_secs(1));
    let before = HELD.load(Ordering::Relaxed);
    world.watch = |inside| INSIDE_THE_CORE.set(inside);
    for _ in 0..SUBSCRIBERS {
        let subscriber = world.join(false, 1);
        world.subscribe(subscriber, 0, publisher);
    }
    world.connect_all();
    world.run(Duration::from_secs(3));
    world.watch = |_| {};
    let each = (HELD.load(Ordering::Relaxed) - before) / SUBSCRIBERS;
    println!("{each} bytes an idle subscriber");
    assert!(each > 2_000, "{each} bytes are less than its keys take");
    assert!(each <= IDLE_SUBSCRIBER_BYTES_MAX, "{each} bytes");
}

#[test]
fn the_core_holds_no_lock() {
    let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in std::fs::read_dir(sources).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            for word in ["Mutex", "RwLock", "Atomic", "Condvar"] {
                assert!(!text.contains(word), "{} names {word}", path.display());
            }
        }
    }
}
