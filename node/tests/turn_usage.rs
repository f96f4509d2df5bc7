//! What a TURN session is billed for, held against what the test's own sockets sent and received, to the byte.
#![allow(clippy::unwrap_used)]

mod relay;
mod turn_client;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use identity::SigningKey;
use relay::Relay;
use serde_json::Value;
use turn_client::{Bought, By, CHANNEL, Carrier, Client, PATIENCE, Peer, buy, receipt_when, server};
use wire::stun::Method;

/// What went each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bytes {
    to_client: u64,
    to_peer: u64,
}

fn start() -> (Relay, SigningKey) {
    (Relay::start(), SigningKey::generate())
}

fn bought(relay: &Relay, key: &SigningKey) -> Bought {
    let token = relay.faucet(key.did().as_str(), 10_000_000, false);
    buy(relay, key, &token)
}

/// Waits until the session's receipt has `segments` segments, and compares every figure of it.
fn is_billed(relay: &Relay, key: &SigningKey, session: &str, segments: usize, seen: Bytes) {
    let receipt = receipt_when(relay, key, session, |receipt| {
        receipt["segments"]
            .as_array()
            .is_some_and(|found| found.len() == segments)
    });
    let figure = |name: &str| receipt[name].as_u64().unwrap();
    let billed = Bytes {
        to_client: figure("bytes_out"),
        to_peer: figure("bytes_in"),
    };
    assert_eq!(billed, seen, "{receipt}");
    let account = turn_client::account(relay, key);
    assert_eq!(
        account["spent_msat"], receipt["msat"],
        "the account paid exactly that"
    );
    // Recomputed from the receipt's own figures: bytes at the tariff, and the seconds, each segment rounded up once.
    let terms = &receipt["terms"][0];
    let rate = |name: &str| u128::from(terms[name].as_u64().unwrap());
    let owed = |segment: &Value| {
        let figure = |name: &str| u128::from(segment[name].as_u64().unwrap());
        let owed = 1_000
            * (figure("bytes_out") * rate("msat_per_megabyte_out")
                + figure("bytes_in") * rate("msat_per_megabyte_in"))
            + figure("nanoseconds") * rate("msat_per_second");
        owed.div_ceil(1_000_000_000)
    };
    let owed: u128 = receipt["segments"].as_array().unwrap().iter().map(owed).sum();
    assert_eq!(u128::from(figure("msat")), owed, "{receipt}");
}

/// Sends packets of many sizes both ways, each after the last one arrived, and counts what arrives.
fn exchange(client: &mut Client, number: u16, relayed: SocketAddr, peer: &Peer, seen: &mut Bytes) {
    for size in [1, 2, 3, 4, 5, 100, 160, 999, 1_000, 1_100, 1_200] {
        let packet: Vec<u8> = (0..size).map(|byte| byte as u8).collect();
        assert!(client.send(number, &packet));
        let (arrived, from) = peer.hear(PATIENCE).expect("at the peer");
        assert_eq!((&arrived, from), (&packet, relayed));
        seen.to_peer += arrived.len() as u64;
        client.indicate(peer.address, &packet);
        let (arrived, _) = peer.hear(PATIENCE).expect("at the peer, by an indication");
        seen.to_peer += arrived.len() as u64;
        let packet = vec![0x80; size + 7];
        peer.socket.send_to(&packet, relayed).unwrap();
        let arrived = client.hear(PATIENCE).expect("at the client");
        assert_eq!(arrived, packet);
        seen.to_client += arrived.len() as u64;
    }
}

#[test]
fn every_byte_relayed_is_on_the_receipt_whatever_carries_the_client() {
    let (relay, peer) = (Relay::start(), Peer::new("127.0.0.1"));
    for by in By::ALL {
        let key = SigningKey::generate();
        let bought = bought(&relay, &key);
        let (mut client, relayed) = Client::allocated(&relay, by, &bought);
        assert_eq!(client.bind(CHANNEL, peer.address).code(), 0);
        let mut seen = Bytes::default();
        exchange(&mut client, CHANNEL, relayed, &peer, &mut seen);
        // Who has no permission is neither delivered nor billed.
        Peer::new("127.0.0.2")
            .socket
            .send_to(b"unasked", relayed)
            .unwrap();
        assert_eq!(client.refresh(0).code(), 0);
        is_billed(&relay, &key, &bought.session, 1, seen);
    }
}

#[test]
fn both_families_of_a_dual_allocation_and_an_ipv6_one_are_billed_alike() {
    let (relay, key) = start();
    let (v4, v6) = (Peer::new("127.0.0.1"), Peer::new("::1"));
    let of_both = bought(&relay, &key);
    let mut client = Client::new(Carrier::connect(By::Udp, server(&relay)), &of_both);
    let answer = client.ask(Method::ALLOCATE, |b| {
        b.requested_transport(17).additional_address_family(2)
    });
    assert_eq!(answer.code(), 0);
    let relayed: Vec<SocketAddr> = answer.message().xor_relayed_addresses().collect();
    let of = |v4: bool| *relayed.iter().find(|address| address.is_ipv4() == v4).unwrap();
    let mut seen = Bytes::default();
    for (number, peer, relayed) in [(CHANNEL, &v4, of(true)), (CHANNEL + 1, &v6, of(false))] {
        assert_eq!(client.bind(number, peer.address).code(), 0);
        exchange(&mut client, number, relayed, peer, &mut seen);
    }
    assert_eq!(client.refresh(0).code(), 0);
    is_billed(&relay, &key, &of_both.session, 1, seen);

    let key = SigningKey::generate();
    let of_v6 = bought(&relay, &key);
    let mut client = Client::new(Carrier::connect(By::Tcp, server(&relay)), &of_v6);
    let answer = client.ask(Method::ALLOCATE, |b| {
        b.requested_transport(17).requested_address_family(2)
    });
    let relayed = answer.message().xor_relayed_address().unwrap();
    assert!(relayed.is_ipv6());
    assert_eq!(client.bind(CHANNEL, v6.address).code(), 0);
    let mut seen = Bytes::default();
    exchange(&mut client, CHANNEL, relayed, &v6, &mut seen);
    assert_eq!(client.refresh(0).code(), 0);
    is_billed(&relay, &key, &of_v6.session, 1, seen);
}

/// Reads until so many bytes are there.
fn read(stream: &mut TcpStream, bytes: usize) -> u64 {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut all = vec![0; bytes];
    stream.read_exact(&mut all).unwrap();
    all.len() as u64
}

#[test]
fn every_byte_of_a_tcp_allocation_is_on_the_receipt() {
    let (relay, key) = start();
    let bought = bought(&relay, &key);
    let mut client = Client::new(Carrier::connect(By::Tcp, server(&relay)), &bought);
    assert_eq!(
        client.ask(Method::ALLOCATE, |b| b.requested_transport(6)).code(),
        0
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = listener.local_addr().unwrap();
    assert_eq!(client.permit(peer).code(), 0);
    let answer = client.ask(Method::CONNECT, |b| b.xor_peer_address(peer));
    assert_eq!(answer.outcome(), (0, String::new()));
    let id = answer.message().connection_id().unwrap();
    let (mut at_peer, _) = listener.accept().unwrap();
    let mut data = Client::new(Carrier::connect(By::Tcp, server(&relay)), &bought);
    assert_eq!(
        data.ask(Method::CONNECTION_BIND, |b| b.connection_id(id))
            .outcome(),
        (0, String::new())
    );
    let Carrier::Tcp(mut at_client, early) = data.carrier else {
        unreachable!("a TCP client")
    };
    assert!(early.is_empty());
    let mut seen = Bytes::default();
    for size in [1, 17, 4_096, 200_000] {
        at_client.write_all(&vec![1; size]).unwrap();
        seen.to_peer += read(&mut at_peer, size);
        at_peer.write_all(&vec![2; size + 5]).unwrap();
        seen.to_client += read(&mut at_client, size + 5);
    }
    assert_eq!(client.refresh(0).code(), 0);
    is_billed(&relay, &key, &bought.session, 1, seen);
    at_peer.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(
        at_peer.read(&mut [0; 1]).unwrap(),
        0,
        "closed with its allocation"
    );
}

#[test]
fn several_allocations_of_one_session_are_on_one_receipt() {
    let (relay, key) = start();
    let bought = bought(&relay, &key);
    let peer = Peer::new("127.0.0.1");
    let mut seen = Bytes::default();
    for by in [By::Udp, By::Tls] {
        let (mut client, relayed) = Client::allocated(&relay, by, &bought);
        assert_eq!(client.bind(CHANNEL, peer.address).code(), 0);
        exchange(&mut client, CHANNEL, relayed, &peer, &mut seen);
        // One is deleted, the other's connection is closed.
        if by == By::Udp {
            assert_eq!(client.refresh(0).code(), 0);
        }
    }
    is_billed(&relay, &key, &bought.session, 2, seen);
}
