//! Clients whose only way to the SFU is the TURN server of the same relay: nothing between the two touches the kernel,
//! and both bills are exact to the byte.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use loadtest::client::{Client, Detour, Place};
use loadtest::holder::bearer_token;
use loadtest::http::{self, Answer};
use loadtest::relay::Relay;
use loadtest::swarm::Swarm;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

const BALANCE_MSAT: u64 = 10_000_000;

/// For everything that takes a while on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// An independent witness: what tcpdump sees on loopback.
struct Capture {
    child: Child,
    folder: TempDir,
}

impl Capture {
    /// Of these UDP ports.
    fn start(ports: &[u16]) -> Capture {
        let folder = tempfile::tempdir().expect("a folder");
        let said = folder.path().join("said");
        let filter: Vec<String> = ports.iter().map(|port| format!("udp port {port}")).collect();
        let child = Command::new("tcpdump")
            .args([
                "-i", "lo", "-n", "-U", "-B", "65536", "-s", "64", "-Z", "root", "-w",
            ])
            .arg(folder.path().join("lo.pcap"))
            .arg(filter.join(" or "))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&said).expect("a file"))
            .spawn()
            .expect("tcpdump");
        let end = Instant::now() + PATIENCE;
        let listens = || {
            fs::read_to_string(&said)
                .unwrap_or_default()
                .contains("listening on")
        };
        while !listens() {
            assert!(
                Instant::now() < end,
                "tcpdump does not start: {:?}",
                fs::read_to_string(&said)
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Capture { child, folder }
    }

    /// Ends it: how many packets had each of these ports at one end.
    fn stop(mut self, ports: &[u16]) -> Vec<usize> {
        // What the kernel still holds.
        std::thread::sleep(Duration::from_millis(1_200));
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("tcpdump runs");
        self.child.wait().expect("tcpdump ends");
        let said = fs::read_to_string(self.folder.path().join("said")).expect("what tcpdump said");
        assert!(
            said.contains("\n0 packets dropped by kernel"),
            "it missed some: {said}"
        );
        let file = fs::read(self.folder.path().join("lo.pcap")).expect("a capture");
        let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().expect("four bytes"));
        assert_eq!((word(0), word(20)), (0xA1B2_C3D4, 1), "a pcap file of Ethernet");
        let mut found = vec![0; ports.len()];
        let mut at = 24;
        while at < file.len() {
            let length = word(at + 8) as usize;
            let packet = &file[at + 16..at + 16 + length];
            let udp = 14 + 4 * usize::from(packet[14] & 15);
            let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
            let ends = [port(udp), port(udp + 2)];
            for (count, wanted) in found.iter_mut().zip(ports) {
                *count += usize::from(ends.contains(wanted));
            }
            at += 16 + length;
        }
        found
    }
}

fn number(value: &Value) -> u128 {
    let text = || value.as_str()?.parse().ok();
    value.as_u64().map(u128::from).or_else(text).expect("a number")
}

/// What a JWS says.
fn claims(jws: &str) -> Value {
    let payload = jws.split('.').nth(1).expect("a compact JWS has three parts");
    let payload = URL_SAFE_NO_PAD.decode(payload).expect("base64url");
    serde_json::from_slice(&payload).expect("claims are JSON")
}

/// What a settled session was billed: bytes in and out. The sum of each segment is worked out anew.
fn billed(mut receipt: impl FnMut() -> Answer, tariff: &Value) -> (u128, u128) {
    let end = Instant::now() + PATIENCE;
    let receipt = loop {
        let answer = receipt();
        let said = (answer.status == 200).then(|| claims(answer.body.trim()));
        // Before the end it speaks of what is settled so far.
        match said {
            Some(receipt) if !receipt["ended"].is_null() => break receipt,
            _ => assert!(Instant::now() < end, "no receipt of the end: {answer:?}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let (mut bytes_in, mut bytes_out) = (0, 0);
    for segment in receipt["segments"].as_array().expect("segments") {
        let rate = |name: &str| number(&tariff[name]);
        let (inward, outward) = (number(&segment["bytes_in"]), number(&segment["bytes_out"]));
        let bytes = outward * rate("msat_per_megabyte_out") + inward * rate("msat_per_megabyte_in");
        let owed = 1_000 * bytes + number(&segment["nanoseconds"]) * rate("msat_per_second");
        assert_eq!(
            number(&segment["msat"]),
            owed.div_ceil(1_000_000_000),
            "{segment}"
        );
        bytes_in += inward;
        bytes_out += outward;
    }
    (bytes_in, bytes_out)
}

fn tariff(base: &str, service: &str) -> Value {
    let answer = http::call(base, "GET", "/v1/tariff", &[], "").expect("a tariff");
    let all = answer.json().expect("JSON");
    let all = all["tariffs"].as_array().expect("a list").clone();
    all.into_iter()
        .find(|tariff| tariff["service"] == service)
        .expect("its tariff")
}

fn metric(base: &str, name: &str, label: &str) -> f64 {
    let text = http::call(base, "GET", "/metrics", &[], "")
        .expect("metrics")
        .body;
    text.lines()
        .filter(|line| line.starts_with(name) && line.contains(label))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// What the relay dropped, by reason.
fn dropped(base: &str) -> String {
    // Figures are published once a second.
    std::thread::sleep(Duration::from_millis(1_100));
    let text = http::call(base, "GET", "/metrics", &[], "")
        .expect("metrics")
        .body;
    let some = |line: &&str| line.starts_with("milliway_discards_total") && !line.ends_with(" 0");
    text.lines().filter(some).collect::<Vec<_>>().join("\n")
}

fn started(shards: usize) -> Relay {
    Relay::start_with(&[("MILLIWAY_RELAY__SHARDS", shards.to_string())]).expect("a relay that starts")
}

fn port(address: &str) -> u16 {
    address
        .rsplit(':')
        .next()
        .and_then(|port| port.parse().ok())
        .expect("a port")
}

fn see(swarm: &mut Swarm, relay: &Relay, video: u64, audio: u64) {
    let sees = |client: &mut Client| {
        client
            .subscriber()
            .is_none_or(|s| s.video.packets_ever >= video && s.audio.packets_ever >= audio)
    };
    let step = Duration::from_millis(5);
    let all = swarm
        .run_while(Instant::now() + PATIENCE, step, |clients| {
            !clients.iter_mut().all(sees)
        })
        .expect("a poll");
    let failure = swarm.clients().iter().find_map(|client| client.failure());
    assert_eq!(failure, None, "{}", relay.log());
    assert!(
        all,
        "audio and video at every subscriber; the relay said:\n{}",
        relay.log()
    );
}

/// Everybody leaves; what was billed for each, by both services, is what they counted.
fn bills_are_exact(swarm: Swarm, base: &str) {
    let (sfu, turn) = (tariff(base, "sfu"), tariff(base, "turn"));
    let mut clients = swarm.into_clients();
    for client in &clients {
        let left = client.leave().expect("an answer to DELETE");
        assert!(matches!(left.status, 200 | 204), "{left:?}");
    }
    std::thread::sleep(Duration::from_millis(500));
    for (index, client) in clients.iter_mut().enumerate() {
        // What left while it was saying goodbye was paid for too.
        client.handle_readable();
        let (_, bytes_out) = billed(|| client.receipt().expect("an answer"), &sfu);
        if let Some(subscriber) = client.subscriber() {
            assert_eq!(
                bytes_out,
                u128::from(subscriber.billable_bytes),
                "the SFU's bill for {index}"
            );
        }
        assert_eq!(client.refused_sends(), 0);
        let detour = client.detour().expect("everybody comes through TURN");
        assert_eq!(detour.refused_sends, 0);
        detour.end().expect("the end of an allocation");
        let (to_peer, to_client) = (detour.bytes_to_peer.into(), detour.bytes_to_client.into());
        let bill = billed(|| detour.receipt().expect("an answer"), &turn);
        assert_eq!(bill.1, to_client, "TURN's bill for {index}, to the client");
        if bill.0 == to_peer {
            continue;
        }
        // Who starts at the full rate may be ahead of its first lease for a moment; that is dropped, counted, not billed.
        let dropped = dropped(base);
        let unaffordable = metric(
            base,
            "milliway_discards_total",
            r#"core="turn",reason="exhausted""#,
        );
        assert!(
            bill.0 < to_peer && to_peer - bill.0 <= 1_300 * unaffordable as u128,
            "TURN's bill for {index}, to the peer: {} of {to_peer}; dropped:\n{dropped}",
            bill.0
        );
    }
}

fn relay_only(shards: usize, subscribers: u32) {
    let relay = started(shards);
    let base = relay.ready.http.clone();
    let ports = [port(&relay.ready.sfu), port(&relay.ready.turn)];
    let capture = Capture::start(&ports);
    let epoch = Instant::now();
    let mut swarm = Swarm::new().expect("a poll");
    for index in 0..=subscribers {
        let token = bearer_token(&base, BALANCE_MSAT).expect("the faucet of a dev relay");
        let place = Place {
            base: &base,
            token: &token,
            room: "relayed-room",
            name: "stage",
        };
        let sfu = relay.ready.sfu.parse().expect("an address");
        let detour = Detour::open(&base, &token, sfu, index).expect("an allocation");
        let client = match index {
            0 => Client::publish_through(place, epoch, detour).expect("a WHIP session"),
            _ => Client::subscribe_through(place, epoch, detour).expect("a WHEP session"),
        };
        swarm.add(client).expect("a socket");
    }
    see(&mut swarm, &relay, 300, 50);
    // Figures are published once a second.
    swarm
        .run_until(Instant::now() + Duration::from_millis(1_500))
        .expect("a poll");
    for direction in ["to-sfu", "to-client"] {
        let passed = metric(&base, "milliway_hairpin_packets_total", direction);
        assert!(passed > 350.0, "{direction}: {passed}");
    }
    assert_eq!(metric(&base, "milliway_discards_total", "hairpin"), 0.0);
    bills_are_exact(swarm, &base);
    let seen = capture.stop(&ports);
    assert_eq!(seen[0], 0, "nothing on the wire to or from the SFU's port");
    assert!(
        seen[1] > 350,
        "the capture sees what clients send to TURN: {}",
        seen[1]
    );
    let status = relay.stop().expect("a relay that stops");
    assert!(status.success(), "{status}");
}

#[test]
fn a_call_through_turn_to_our_own_sfu_never_touches_the_kernel_and_both_bills_are_exact() {
    relay_only(1, 2);
}

#[test]
fn on_two_shards_it_does_not_either() {
    relay_only(2, 8);
}

/// A session lives where its handshake began. These begin without TURN and move to it in mid-call, so that the kernel
/// puts session and allocation on different shards for about half of them.
#[test]
fn a_session_and_an_allocation_on_different_shards_meet_in_memory_and_both_bills_are_exact() {
    /// That none of them crosses happens once in 2^12 runs.
    const SUBSCRIBERS: usize = 11;
    let relay = started(2);
    let base = relay.ready.http.clone();
    let epoch = Instant::now();
    let mut swarm = Swarm::new().expect("a poll");
    let mut tokens = Vec::new();
    for index in 0..=SUBSCRIBERS {
        let token = bearer_token(&base, BALANCE_MSAT).expect("the faucet of a dev relay");
        let place = Place {
            base: &base,
            token: &token,
            room: "moving-room",
            name: "stage",
        };
        let client = match index {
            0 => Client::publish(place, epoch).expect("a WHIP session"),
            _ => Client::subscribe(place, epoch).expect("a WHEP session"),
        };
        swarm.add(client).expect("a socket");
        tokens.push(token);
    }
    see(&mut swarm, &relay, 50, 20);
    for (index, token) in tokens.iter().enumerate() {
        let sfu = relay.ready.sfu.parse().expect("an address");
        let detour = Detour::open(&base, token, sfu, index as u32).expect("an allocation");
        swarm.move_to(index, detour).expect("a second way");
    }
    let moved = |client: &mut Client| {
        client
            .detour()
            .is_some_and(|detour| detour.bytes_to_peer > 100_000 || detour.bytes_to_client > 100_000)
    };
    let step = Duration::from_millis(5);
    let all_moved = swarm
        .run_while(Instant::now() + PATIENCE, step, |clients| {
            !clients.iter_mut().all(moved)
        })
        .expect("a poll");
    assert!(
        all_moved,
        "media takes the better way; the relay said:\n{}",
        relay.log()
    );
    swarm
        .run_until(Instant::now() + Duration::from_millis(1_500))
        .expect("a poll");
    let crossed = metric(&base, "milliway_hairpin_packets_total", "to-another-shard");
    assert!(crossed > 50.0, "{crossed} crossed");
    assert_eq!(metric(&base, "milliway_discards_total", "hairpin"), 0.0);
    bills_are_exact(swarm, &base);
    let status = relay.stop().expect("a relay that stops");
    assert!(status.success(), "{status}");
}
