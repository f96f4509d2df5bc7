//! The forward path allocates nothing and locks nothing: a counting allocator watches every call into the core
//! while 100,000 packets pass.

// The one place that needs it: a global allocator is an unsafe trait.
#![allow(unsafe_code)]

mod world;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sfu::Discard;
use world::{Weather, World};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static INSIDE_THE_CORE: Cell<bool> = const { Cell::new(false) };
}

fn count() {
    if INSIDE_THE_CORE.get() {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn forwarding_a_hundred_thousand_packets_allocates_nothing() {
    let mut world = World::new(1);
    let publisher = world.join(true, 0);
    for _ in 0..8 {
        let subscriber = world.join(false, 1);
        world.subscribe(subscriber, 0, publisher);
    }
    world.connect_all();
    world.clients[publisher].video_packets = 30;
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
    while world.sfu.counters().packets_out - before.0 < 100_000 {
        world.run(Duration::from_millis(500));
        world.clients.iter_mut().for_each(|client| client.got.clear());
        world.sealed.clear();
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
