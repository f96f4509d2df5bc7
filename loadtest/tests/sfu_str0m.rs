//! An independent client (str0m) publishes and two more subscribe, through WHIP and WHEP, and the relay's signed
//! receipts say to the byte what arrived, and to the msat what that costs.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use loadtest::client::{Client, Place};
use loadtest::holder::bearer_token;
use loadtest::http;
use loadtest::relay::Relay;
use loadtest::swarm::Swarm;
use serde_json::Value;

const BALANCE_MSAT: u64 = 10_000_000;

/// What a JWS says; its signature is for the verifier's own tests.
fn claims(jws: &str) -> Value {
    let payload = jws.split('.').nth(1).expect("a compact JWS has three parts");
    let payload = URL_SAFE_NO_PAD.decode(payload).expect("base64url");
    serde_json::from_slice(&payload).expect("claims are JSON")
}

fn number(value: &Value) -> u128 {
    value
        .as_u64()
        .map(u128::from)
        .or_else(|| value.as_str()?.parse().ok())
        .expect("a number")
}

/// ceil of the formula of the tariff page: 1 MB is 1,000,000 bytes, amounts are rated in 10^-9 msat.
fn bill(segment: &Value, tariff: &Value) -> u128 {
    let rate = |name: &str| number(&tariff[name]);
    let bytes = number(&segment["bytes_out"]) * rate("msat_per_megabyte_out")
        + number(&segment["bytes_in"]) * rate("msat_per_megabyte_in");
    (1_000 * bytes + number(&segment["nanoseconds"]) * rate("msat_per_second")).div_ceil(1_000_000_000)
}

#[test]
fn a_publisher_reaches_two_subscribers_and_the_receipts_add_up() {
    let relay = Relay::start().expect("a relay that starts");
    let base = relay.ready.http.clone();
    let epoch = Instant::now();
    let mut swarm = Swarm::new().expect("a poll");
    let token = |_| bearer_token(&base, BALANCE_MSAT).expect("the faucet of a dev relay");
    let tokens: Vec<String> = (0..3).map(token).collect();
    let place = |token| Place {
        base: &base,
        token,
        room: "test-room",
        name: "stage",
    };
    // One subscriber comes before the publisher: media follows when it starts.
    swarm
        .add(Client::subscribe(place(&tokens[0]), epoch).expect("a WHEP session"))
        .expect("a socket");
    swarm
        .add(Client::publish(place(&tokens[1]), epoch).expect("a WHIP session"))
        .expect("a socket");
    everybody_sees(&mut swarm, &relay);
    swarm
        .run_until(Instant::now() + Duration::from_millis(500))
        .expect("a poll");
    let asked = keyframe_requests(&mut swarm);
    // One comes late, between two keyframes.
    swarm
        .add(Client::subscribe(place(&tokens[2]), epoch).expect("a WHEP session"))
        .expect("a socket");
    everybody_sees(&mut swarm, &relay);
    assert!(
        keyframe_requests(&mut swarm) > asked,
        "a late subscriber makes the relay ask for a keyframe"
    );
    swarm
        .run_until(Instant::now() + Duration::from_secs(1))
        .expect("a poll");

    let from = epoch.elapsed().as_nanos() as u64;
    let until = from + 2_000_000_000;
    let mut sent_before = 0;
    for client in swarm.clients() {
        if let Some(publisher) = client.publisher() {
            sent_before = publisher.video.packets() + publisher.audio.packets();
        } else if let Some(subscriber) = client.subscriber() {
            subscriber.video.measure(from..until);
            subscriber.audio.measure(from..until);
        }
    }
    swarm
        .run_until(epoch + Duration::from_nanos(until))
        .expect("a poll");
    let publisher = swarm.clients()[1]
        .publisher()
        .expect("the second is the publisher");
    let sent = publisher.video.packets() + publisher.audio.packets() - sent_before;
    swarm
        .run_until(Instant::now() + Duration::from_millis(500))
        .expect("a poll");
    let failure = swarm.clients().iter().find_map(|client| client.failure());
    assert_eq!(failure, None);

    let mut clients = swarm.into_clients();
    for client in &clients {
        let left = client.leave().expect("an answer to DELETE");
        assert!(matches!(left.status, 200 | 204), "{left:?}");
    }
    let tariffs = http::call(&base, "GET", "/v1/tariff", &[], "")
        .and_then(|a| a.json())
        .expect("a tariff");
    let tariffs = tariffs["tariffs"].as_array().expect("a list of tariffs").clone();
    let tariff = tariffs
        .iter()
        .find(|tariff| tariff["service"] == "sfu")
        .expect("a tariff of the SFU");
    for index in [0, 2] {
        let receipt = settled_receipt(&clients[index]);
        // What left while the client was saying goodbye was paid for too.
        clients[index].handle_readable();
        let subscriber = clients[index].subscriber().expect("a subscriber");
        let received = subscriber.video.packets + subscriber.audio.packets;
        assert!(
            received * 100 >= sent * 99,
            "subscriber {index} got {received} of {sent}"
        );
        let segments = receipt["segments"].as_array().expect("segments").clone();
        let bytes: u128 = segments.iter().map(|segment| number(&segment["bytes_out"])).sum();
        assert_eq!(
            bytes,
            u128::from(subscriber.billable_bytes),
            "billed, and arrived at the socket"
        );
        for segment in &segments {
            assert_eq!(number(&segment["msat"]), bill(segment, tariff), "{segment}");
        }
    }
    let status = relay.stop().expect("a relay that stops");
    assert!(status.success(), "{status}");
}

fn everybody_sees(swarm: &mut Swarm, relay: &Relay) {
    let sees = |client: &mut Client| {
        client
            .subscriber()
            .is_none_or(|s| s.video.packets_ever > 0 && s.audio.packets_ever > 0)
    };
    let end = Instant::now() + Duration::from_secs(10);
    let step = Duration::from_millis(5);
    let all_see = swarm
        .run_while(end, step, |clients| !clients.iter_mut().all(sees))
        .expect("a poll");
    assert!(
        all_see,
        "audio and video at every subscriber within 10 s; the relay said:\n{}",
        relay.log()
    );
}

fn keyframe_requests(swarm: &mut Swarm) -> u64 {
    swarm.clients()[1]
        .publisher()
        .expect("the second is the publisher")
        .keyframe_requests
}

/// The session ends in the shard first; its receipt follows within the cashier's next commits.
fn settled_receipt(client: &Client) -> Value {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let answer = client.receipt().expect("an answer about a receipt");
        if answer.status == 200 {
            return claims(answer.body.trim());
        }
        assert!(
            Instant::now() < end,
            "no receipt of {} within 5 s: {answer:?}",
            client.session()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
