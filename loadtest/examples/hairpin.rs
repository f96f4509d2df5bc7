//! What the way between TURN and the SFU of one node costs: a publisher and subscribers whose only way is the relay's
//! own TURN server, and the relay's CPU time for each packet that TURN relayed, either way.
//!
//! ```text
//! MILLIWAY_BIN=target/release/milliway cargo run --release -p loadtest --example hairpin -- [SUBSCRIBERS] [SECONDS]
//! ```
//!
//! Beside a program from before the way in memory it shows what the further trips through the kernel cost.

use std::time::{Duration, Instant};

use loadtest::client::{Client, Detour, Place};
use loadtest::holder::bearer_token;
use loadtest::relay::Relay;
use loadtest::swarm::Swarm;
use loadtest::{Error, http, process};

const BALANCE_MSAT: u64 = 100_000_000;

fn main() -> Result<(), Error> {
    let number = |at: usize, otherwise: u32| {
        let given = std::env::args().nth(at).and_then(|text| text.parse().ok());
        given.unwrap_or(otherwise)
    };
    let (subscribers, seconds) = (number(1, 20), number(2, 8));
    let relay = Relay::start_with(&[("MILLIWAY_RELAY__SHARDS", "1".to_owned())])?;
    let base = relay.ready.http.clone();
    let epoch = Instant::now();
    let mut swarm = Swarm::new()?;
    for index in 0..=subscribers {
        let token = bearer_token(&base, BALANCE_MSAT)?;
        let place = Place {
            base: &base,
            token: &token,
            room: "relayed-room",
            name: "stage",
        };
        let detour = Detour::open(&base, &token, relay.ready.sfu.parse()?, index)?;
        let client = match index {
            0 => Client::publish_through(place, epoch, detour)?,
            _ => Client::subscribe_through(place, epoch, detour)?,
        };
        swarm.add(client)?;
    }
    let end = Instant::now() + Duration::from_secs(20);
    let sees = |client: &mut Client| client.subscriber().is_none_or(|s| s.video.packets_ever > 50);
    if !swarm.run_while(end, Duration::from_millis(5), |clients| {
        !clients.iter_mut().all(sees)
    })? {
        return Err(format!("not everybody sees; the relay said:\n{}", relay.log()).into());
    }
    let used = || process::usage(relay.ready.pid).map(|usage| usage.cpu_seconds);
    let before = (used().unwrap_or_default(), packets(&base)?);
    swarm.run_until(Instant::now() + Duration::from_secs(seconds.into()))?;
    let after = (used().ok_or("the relay is gone")?, packets(&base)?);
    let (cpu, relayed) = (after.0 - before.0, after.1 - before.1);
    println!(
        "{{\"subscribers\":{subscribers},\"packets_per_second\":{:.0},\"cpu_microseconds_per_packet\":{:.2}}}",
        relayed / f64::from(seconds),
        cpu * 1e6 / relayed,
    );
    Ok(())
}

/// What TURN relayed, both ways.
fn packets(base: &str) -> Result<f64, Error> {
    let text = http::call(base, "GET", "/metrics", &[], "")?.body;
    let of_turn = |line: &&str| line.starts_with("milliway_turn_packets_total");
    let value = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
    Ok(text.lines().filter(of_turn).filter_map(value).sum())
}
