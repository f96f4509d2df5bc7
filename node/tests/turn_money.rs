//! Money and live TURN allocations: who is denied or frozen stops at once, a low balance is felt on every transport, a
//! held allocation refuses to be kept alive and says why, a top-up brings it back, and the end of the hold deletes it.
#![allow(clippy::unwrap_used)]

mod relay;
mod turn_client;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use identity::SigningKey;
use identity::token::{Issue, issue};
use relay::{MILLIWAY, Relay};
use turn_client::{
    Bought, By, CHANNEL, Carrier, Client, PATIENCE, Peer, account, ask_for_credentials, buy, receipt_when,
    relays, server, top_up, wait_until,
};
use wire::stun::Method;

fn milliway(arguments: &[&str], data: &Path) {
    let done = Command::new(MILLIWAY)
        .args(arguments)
        .args(["--data", data.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// A client with a channel to its peer, over which bytes have passed.
fn calling(relay: &Relay, by: By, bought: &Bought) -> (Client, SocketAddr, Peer) {
    let peer = Peer::new("127.0.0.1");
    let (mut client, relayed) = Client::allocated(relay, by, bought);
    assert_eq!(client.bind(CHANNEL, peer.address).code(), 0);
    assert!(relays(&mut client, relayed, &peer), "{by:?} relays");
    (client, relayed, peer)
}

/// A TCP allocation (RFC 6062) with one connection to a peer: the control connection, and both ends.
fn streaming(relay: &Relay, bought: &Bought) -> (Client, TcpStream, TcpStream) {
    let mut client = Client::new(Carrier::connect(By::Tcp, server(relay)), bought);
    let allocated = client.ask(Method::ALLOCATE, |b| b.requested_transport(6));
    assert_eq!(allocated.outcome(), (0, String::new()));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = listener.local_addr().unwrap();
    assert_eq!(client.permit(peer).code(), 0);
    let answer = client.ask(Method::CONNECT, |b| b.xor_peer_address(peer));
    assert_eq!(answer.code(), 0);
    let id = answer.message().connection_id().unwrap();
    let (at_peer, _) = listener.accept().unwrap();
    let mut data = Client::new(Carrier::connect(By::Tcp, server(relay)), bought);
    assert_eq!(
        data.ask(Method::CONNECTION_BIND, |b| b.connection_id(id)).code(),
        0
    );
    let Carrier::Tcp(at_client, _) = data.carrier else {
        unreachable!("a TCP client")
    };
    for stream in [&at_client, &at_peer] {
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    }
    (client, at_client, at_peer)
}

/// True once the stream is closed.
fn is_closed(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 4_096];
    match stream.read(&mut buffer) {
        Ok(read) => read == 0,
        Err(error) => !matches!(
            error.kind(),
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
        ),
    }
}

/// After this a session's username is nobody's.
fn is_forgotten(client: &mut Client) {
    if let Some(answer) = client.try_ask(Method::ALLOCATE, |b| b.requested_transport(17)) {
        assert_eq!(answer.code(), 401, "its username is not known any more");
    }
}

#[test]
fn who_is_denied_by_token_holder_key_or_issuer_loses_a_live_allocation_on_every_transport() {
    for (kind, by) in ["jti", "sub", "kid", "iss"].into_iter().zip(By::ALL) {
        let relay = Relay::start();
        let (alice, bob, issuer) = (SigningKey::generate(), SigningKey::generate(), relay.issuer());
        let mut wanted = Issue::new(
            alice.did().clone(),
            relay.did().parse().unwrap(),
            1_000_000,
            relay::now(),
        );
        wanted.id = Some("the-one".into());
        let of_alice = buy(&relay, &alice, &issue(&issuer, &wanted));
        let of_bob = buy(&relay, &bob, &relay.faucet(bob.did().as_str(), 1_000_000, false));
        let (mut client, relayed, peer) = calling(&relay, by, &of_alice);
        let (mut other, other_relayed, other_peer) = calling(&relay, by, &of_bob);
        let value = match kind {
            "jti" => "the-one",
            "sub" => alice.did().as_str(),
            "kid" => issuer.kid(),
            _ => issuer.did().as_str(),
        };
        milliway(&["deny", "add", kind, value], relay.data.path());
        let after = wait_until("the denial", || !relays(&mut client, relayed, &peer));
        eprintln!("deny {kind}, {by:?}: nothing is relayed {after:?} after the command");
        is_forgotten(&mut client);
        // A denied issuer or key takes all with it whom it signed for; a denied token or holder nobody else.
        let both = matches!(kind, "kid" | "iss");
        let others = relays(&mut other, other_relayed, &other_peer);
        assert_eq!(others, !both, "deny {kind}");
        let account = account(&relay, &alice);
        assert_eq!(
            account["reserved_msat"], 0,
            "what was not spent is back: {account}"
        );
        receipt_when(&relay, &alice, &of_alice.session, |receipt| {
            !receipt["ended"].is_null()
        });
    }
}

#[test]
fn a_frozen_account_loses_its_datagrams_and_its_streams_and_buys_nothing() {
    let (relay, key) = (Relay::start(), SigningKey::generate());
    let token = relay.faucet(key.did().as_str(), 1_000_000, false);
    let bought = buy(&relay, &key, &token);
    let (mut datagrams, relayed, peer) = calling(&relay, By::Tls, &bought);
    let (mut control, mut at_client, mut at_peer) = streaming(&relay, &bought);
    milliway(&["account", "freeze", key.did().as_str()], relay.data.path());
    let after = wait_until("the freeze", || !relays(&mut datagrams, relayed, &peer));
    eprintln!("freeze: nothing is relayed {after:?} after the command");
    wait_until("the end of the stream at its peer", || is_closed(&mut at_peer));
    wait_until("the end of the stream at its client", || {
        is_closed(&mut at_client)
    });
    is_forgotten(&mut datagrams);
    is_forgotten(&mut control);
    let refused = ask_for_credentials(&relay, &key, &token);
    assert_eq!((refused.status, refused.slug().as_str()), (403, "account-frozen"));
    assert_eq!(account(&relay, &key)["frozen"], true, "it is told why");
    milliway(&["account", "unfreeze", key.did().as_str()], relay.data.path());
    let bought = buy(&relay, &key, &token);
    calling(&relay, By::Udp, &bought);
}

/// A relay on which a session costs 1,000 msat a second and bytes nothing, so that a balance lasts as long as a test
/// says and runways are known.
fn dear(held_seconds: &str) -> Relay {
    let settings = [
        ("MILLIWAY_TARIFF__TURN_MSAT_PER_SECOND", "1000"),
        ("MILLIWAY_TARIFF__TURN_MSAT_PER_MEGABYTE_OUT", "0"),
        ("MILLIWAY_TARIFF__TURN_MSAT_PER_MEGABYTE_IN", "0"),
        ("MILLIWAY_LADDER__HELD_SECONDS", held_seconds),
        // All clients of a test come from one address and ask often.
        ("MILLIWAY_HTTP__REQUESTS_PER_SECOND", "10000"),
        ("MILLIWAY_HTTP__REQUESTS_BURST", "10000"),
    ];
    Relay::start_with(tempfile::tempdir().unwrap(), &[], &settings)
}

fn step(relay: &Relay, key: &SigningKey) -> String {
    account(relay, key)["step"].as_str().unwrap().to_owned()
}

fn with_balance(relay: &Relay, msat: u64) -> (SigningKey, Bought) {
    let key = SigningKey::generate();
    let token = relay.faucet(key.did().as_str(), msat, false);
    let bought = buy(relay, &key, &token);
    (key, bought)
}

#[test]
fn a_held_allocation_refuses_to_be_kept_alive_says_why_and_is_back_after_a_top_up() {
    let relay = dear("60");
    // Over each transport at the same time, each on an account of its own.
    std::thread::scope(|scope| {
        for by in By::ALL {
            let relay = &relay;
            scope.spawn(move || {
                let (key, bought) = with_balance(relay, 6_500);
                let (mut client, relayed, peer) = calling(relay, by, &bought);
                wait_until("the hold", || step(relay, &key) == "held");
                wait_until("silence", || !relays(&mut client, relayed, &peer));
                let exhausted = (486, "Balance exhausted: top up".to_owned());
                let elsewhere = "127.0.0.9:9".parse().unwrap();
                assert_eq!(client.refresh(600).outcome(), exhausted, "{by:?}");
                assert_eq!(client.permit(peer.address).outcome(), exhausted);
                assert_eq!(client.permit(elsewhere).outcome(), exhausted);
                assert_eq!(client.bind(CHANNEL, peer.address).outcome(), exhausted);
                assert_eq!(client.bind(CHANNEL + 1, elsewhere).outcome(), exhausted);
                let mut second = Client::new(Carrier::connect(by, server(relay)), &bought);
                let more = second.ask(Method::ALLOCATE, |b| b.requested_transport(17));
                assert_eq!(more.code(), 486, "{:?}", more.outcome());
                let held = account(relay, &key);
                assert_eq!(held["reserved_msat"], 0, "what it had is settled: {held}");
                top_up(relay, &key, 1_000_000);
                let after = wait_until("the return", || relays(&mut client, relayed, &peer));
                eprintln!("top-up of a held account, {by:?}: relayed again after {after:?}");
                assert_eq!(client.refresh(600).code(), 0);
                assert_eq!(client.permit(elsewhere).code(), 0);
                assert_eq!(step(relay, &key), "full");
            });
        }
    });
}

#[test]
fn a_held_stream_waits_and_goes_on_after_a_top_up_without_a_byte_lost() {
    let relay = dear("60");
    let (key, bought) = with_balance(&relay, 6_500);
    let (mut control, mut at_client, mut at_peer) = streaming(&relay, &bought);
    at_client.write_all(b"before").unwrap();
    let mut heard = [0; 6];
    at_peer.set_read_timeout(Some(PATIENCE)).unwrap();
    at_peer.read_exact(&mut heard).unwrap();
    wait_until("the hold", || step(&relay, &key) == "held");
    assert_eq!(control.refresh(600).code(), 486);
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = other.local_addr().unwrap();
    let connect = control.ask(Method::CONNECT, |b| b.xor_peer_address(peer));
    assert_eq!(connect.outcome(), (486, "Balance exhausted: top up".to_owned()));
    let sent: Vec<u8> = (0..50_000_u32).map(|byte| byte as u8).collect();
    at_client.write_all(&sent).unwrap();
    at_peer.write_all(b"and back").unwrap();
    at_peer
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    assert!(at_peer.read(&mut [0; 1]).is_err(), "it waits");
    assert!(at_client.read(&mut [0; 1]).is_err(), "both ways");
    top_up(&relay, &key, 1_000_000);
    let start = Instant::now();
    at_peer.set_read_timeout(Some(PATIENCE)).unwrap();
    at_client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut heard = vec![0; sent.len()];
    at_peer.read_exact(&mut heard).unwrap();
    eprintln!("top-up of a held stream: all there after {:?}", start.elapsed());
    assert_eq!(heard, sent);
    at_client.read_exact(&mut heard[..8]).unwrap();
    assert_eq!(&heard[..8], b"and back");
}

#[test]
fn at_the_end_of_the_hold_the_allocation_is_deleted_and_nothing_is_owed() {
    let relay = dear("1");
    std::thread::scope(|scope| {
        for by in By::ALL {
            let relay = &relay;
            scope.spawn(move || {
                let (key, bought) = with_balance(relay, 6_000);
                let (mut client, relayed, peer) = calling(relay, by, &bought);
                let receipt = receipt_when(relay, &key, &bought.session, |receipt| {
                    !receipt["ended"].is_null()
                });
                assert_eq!(receipt["reason"], "balance-exhausted", "{receipt}");
                let paid = receipt["msat"].as_u64().unwrap();
                assert!(paid <= 6_000, "{receipt}");
                let left = account(relay, &key);
                assert_eq!(left["available_msat"], 6_000 - paid, "{left}");
                assert_eq!(left["sessions"].as_array().unwrap().len(), 0);
                assert!(!relays(&mut client, relayed, &peer));
                is_forgotten(&mut client);
            });
        }
    });
}

/// What one way let through while the test pushed packets of 1,000 bytes into it for a while.
struct Flow {
    passed: u64,
    pushed: u64,
    took: Duration,
}

impl Flow {
    /// A token bucket lets its burst through at once, and its rate as time goes; which time it was we measured ourselves.
    fn obeys(&self, bits_per_second: u64, what: &str) {
        let by_rate =
            u64::try_from(self.took.as_nanos() * u128::from(bits_per_second) / 8_000_000_000).unwrap();
        let most = 16_000 + by_rate;
        assert!(
            (15_000..=most).contains(&self.passed),
            "{what}: {} of {} bytes passed in {:?}, at most {most} may",
            self.passed,
            self.pushed,
            self.took
        );
        assert!(self.pushed > most, "{what}: more came than may pass");
    }
}

/// To the peer and to the client, a burst each, and then at more than the rate.
fn push(client: &mut Client, relayed: SocketAddr, peer: &Peer, packets: u64) -> [Flow; 2] {
    let packet = [0; 1_000];
    let start = Instant::now();
    let (mut at_peer, mut at_client) = (0, 0);
    for _ in 0..packets {
        client.send(CHANNEL, &packet);
        at_peer += peer
            .hear(Duration::from_millis(1))
            .map_or(0, |(data, _)| data.len() as u64);
        peer.socket.send_to(&packet, relayed).unwrap();
        at_client += client
            .hear(Duration::from_millis(1))
            .map_or(0, |data| data.len() as u64);
    }
    while let Some((data, _)) = peer.hear(Duration::from_millis(300)) {
        at_peer += data.len() as u64;
    }
    while let Some(data) = client.hear(Duration::from_millis(300)) {
        at_client += data.len() as u64;
    }
    let took = start.elapsed();
    [at_peer, at_client].map(|passed| Flow {
        passed,
        pushed: packets * 1_000,
        took,
    })
}

#[test]
fn a_low_balance_is_a_token_bucket_on_every_transport_until_a_top_up() {
    let relay = dear("60");
    std::thread::scope(|scope| {
        for by in By::ALL {
            let relay = &relay;
            scope.spawn(move || {
                for (msat, rung, bits_per_second, packets) in [
                    (15_000, "audio-only", 128_000, 250),
                    (50_000, "reduced", 400_000, 500),
                ] {
                    let (key, bought) = with_balance(relay, msat);
                    let peer = Peer::new("127.0.0.1");
                    let (mut client, relayed) = Client::allocated(relay, by, &bought);
                    assert_eq!(client.bind(CHANNEL, peer.address).code(), 0);
                    wait_until(rung, || step(relay, &key) == rung);
                    let what = format!("{by:?}, {rung}");
                    for flow in push(&mut client, relayed, &peer, packets) {
                        flow.obeys(bits_per_second, &what);
                    }
                    top_up(relay, &key, 10_000_000);
                    let after = wait_until("full quality", || step(relay, &key) == "full");
                    eprintln!("top-up while {what}: full after {after:?}");
                    for flow in push(&mut client, relayed, &peer, 100) {
                        assert_eq!(flow.passed, flow.pushed, "{what}, topped up");
                    }
                }
            });
        }
    });
}

#[test]
fn a_low_balance_slows_a_stream_and_loses_nothing_of_it() {
    let relay = dear("60");
    let (key, bought) = with_balance(&relay, 15_000);
    let (_control, mut at_client, mut at_peer) = streaming(&relay, &bought);
    wait_until("audio only", || step(&relay, &key) == "audio-only");
    let sent: Vec<u8> = (0..100_000_u32).map(|byte| (byte / 7) as u8).collect();
    let start = Instant::now();
    at_client.write_all(&sent).unwrap();
    let mut heard = Vec::new();
    let mut chunk = [0; 65_536];
    while start.elapsed() < Duration::from_secs(1) {
        if let Ok(read) = at_peer.read(&mut chunk) {
            heard.extend_from_slice(&chunk[..read]);
        }
    }
    // A chunk that is larger than what the burst has left passes once the bucket is full, and is owed.
    let most = 16_000 + 16_384 + 16 * start.elapsed().as_millis();
    assert!(
        (1..=most).contains(&(heard.len() as u128)),
        "{} of at most {most}",
        heard.len()
    );
    assert!(heard.len() < sent.len());
    top_up(&relay, &key, 10_000_000);
    let mut rest = vec![0; sent.len() - heard.len()];
    at_peer.set_read_timeout(Some(PATIENCE)).unwrap();
    at_peer.read_exact(&mut rest).unwrap();
    heard.extend_from_slice(&rest);
    assert_eq!(heard, sent);
}
