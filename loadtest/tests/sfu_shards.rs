//! One room on two shards: independent clients (str0m) land where the kernel puts them, both shards forward, and
//! everybody gets the picture.

use std::fs;
use std::time::{Duration, Instant};

use loadtest::client::{Client, Place};
use loadtest::holder::bearer_token;
use loadtest::http;
use loadtest::relay::Relay;
use loadtest::swarm::Swarm;

const BALANCE_MSAT: u64 = 10_000_000;

/// Enough that the kernel does not put them all on one shard: once in 2^20 runs it would.
const SUBSCRIBERS: usize = 20;

/// The sum of a metric's lines that hold all of these labels.
fn metric(text: &str, name: &str, labels: &[&str]) -> f64 {
    text.lines()
        .filter(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[test]
fn both_shards_forward_in_one_room_and_every_packet_crosses_at_most_once() {
    let data = tempfile::tempdir().expect("a folder");
    let config = data.path().join("milliway.toml");
    fs::write(&config, "[relay]\nshards = 2\n").expect("a file");
    let config = config.to_str().expect("a path in UTF-8");
    let relay = Relay::start_in(data.path(), &["--config", config]).expect("a relay that starts");
    let base = relay.ready.http.clone();
    let epoch = Instant::now();
    let mut swarm = Swarm::new().expect("a poll");
    let place = |token| Place {
        base: &base,
        token,
        room: "wide-room",
        name: "stage",
    };
    let token = |_| bearer_token(&base, BALANCE_MSAT).expect("the faucet of a dev relay");
    let tokens: Vec<String> = (0..=SUBSCRIBERS).map(token).collect();
    for (client, token) in tokens.iter().enumerate() {
        let client = match client {
            0 => Client::publish(place(token), epoch).expect("a WHIP session"),
            _ => Client::subscribe(place(token), epoch).expect("a WHEP session"),
        };
        swarm.add(client).expect("a socket");
    }
    let sees = |client: &mut Client| {
        client
            .subscriber()
            .is_none_or(|s| s.video.packets_ever > 300 && s.audio.packets_ever > 50)
    };
    let all_see = swarm
        .run_while(
            Instant::now() + Duration::from_secs(20),
            Duration::from_millis(5),
            |clients| !clients.iter_mut().all(sees),
        )
        .expect("a poll");
    assert!(
        all_see,
        "audio and video at every subscriber; the relay said:\n{}",
        relay.log()
    );
    // Figures are published once a second.
    swarm
        .run_until(Instant::now() + Duration::from_millis(1_500))
        .expect("a poll");
    let text = http::call(&base, "GET", "/metrics", &[], "")
        .expect("metrics")
        .body;
    let (zero, one) = ("shard=\"0\"", "shard=\"1\"");
    let sessions = |shard| metric(&text, "milliway_shard_sfu_sessions", &[shard]);
    assert_eq!(sessions(zero) + sessions(one), (SUBSCRIBERS + 1) as f64, "{text}");
    let sent = |shard| metric(&text, "milliway_shard_sfu_packets_total", &[shard, "\"out\""]);
    for shard in [zero, one] {
        assert!(sessions(shard) > 0.0, "the kernel spreads clients over shards");
        assert!(sent(shard) > 350.0, "{shard} sent {} packets", sent(shard));
    }
    let published = metric(&text, "milliway_shard_sfu_packets_total", &["\"in\""]);
    let crossed = metric(&text, "milliway_shard_crossings_total", &["\"out\""]);
    assert!(
        crossed > 350.0 && crossed <= published,
        "{crossed} of {published} crossed"
    );
    let failure = swarm.clients().iter().find_map(|client| client.failure());
    assert_eq!(failure, None);
    let clients = swarm.into_clients();
    for client in &clients {
        let left = client.leave().expect("an answer to DELETE");
        assert!(matches!(left.status, 200 | 204), "{left:?}");
    }
    let status = relay.stop().expect("a relay that stops");
    assert!(status.success(), "{status}");
}
