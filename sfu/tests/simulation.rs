//! The core between real WebRTC stacks (str0m) on a simulated network.

mod world;

use std::time::Duration;

use sfu::Discard;
use sfu::media::Kind;
use world::{Weather, World};

#[test]
fn a_subscriber_gets_what_a_publisher_sends() {
    let mut world = World::new(1);
    let (publisher, subscriber) = (world.join(true, 0), world.join(false, 1));
    world.subscribe(subscriber, 0, publisher);
    world.connect_all();
    world.run(Duration::from_secs(5));
    let video = world.clients[subscriber].sequences(Kind::Video);
    let audio = world.clients[subscriber].sequences(Kind::Audio);
    for (reason, count) in world.sfu.counters().discards().filter(|(_, count)| *count > 0) {
        println!("{reason:?}: {count}");
    }
    assert!(video.len() > 650, "{} video packets", video.len());
    assert!(audio.len() > 220, "{} audio packets", audio.len());
    assert_eq!(world.sfu.counters().discarded(Discard::Unauthentic), 0);
}
