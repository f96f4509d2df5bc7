use std::sync::Arc;

use metering::Direction;
use turn_server::{PeerKind, Via};

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A node behind a NAT: it is known as 203.0.113.5, and its own address is 10.0.0.5.
fn directory() -> Arc<Directory> {
    let told = [ip("203.0.113.5"), ip("2001:db8::5")];
    let local = [ip("10.0.0.5"), ip("2001:db8::5")];
    Arc::new(Directory::new(&RelayAddresses::new(&told, &local), &told, &local))
}

fn to_sfu(contents: &[u8]) -> Transmit<'_> {
    let allocation = AllocationKey::new(7);
    Transmit {
        via: Via::Relay {
            allocation,
            family: Family::V4,
        },
        destination: at("203.0.113.5:5004"),
        source: None,
        contents,
        charged: Some(Charged {
            allocation,
            direction: Direction::FromClient,
            packets: 1,
            bytes: contents.len() as u64,
        }),
        peer: Some(PeerKind::OwnSfu),
        dont_fragment: false,
    }
}

#[test]
fn what_the_sfu_sends_to_a_relayed_address_goes_to_the_shard_of_its_port_and_all_else_to_the_kernel() {
    let directory = directory();
    let mut shards: Vec<Hairpin> = (0..2)
        .map(|shard| Hairpin::new(shard, directory.clone()))
        .collect();
    let local = Some(ip("10.0.0.5"));
    let way = |to| directory.way(at(to), local);
    assert_eq!(way("203.0.113.5:50000"), Way::Kernel, "no such port yet");
    shards[0].opened(50_000, AllocationKey::new(1));
    shards[1].opened(50_001, AllocationKey::new(1));
    assert_eq!(way("203.0.113.5:50000"), Way::Shard(0));
    assert_eq!(way("203.0.113.5:50001"), Way::Shard(1));
    assert_eq!(way("[2001:db8::5]:50001"), Way::Shard(1), "told in both families");
    assert_eq!(way("198.51.100.9:50000"), Way::Kernel, "somebody else's port");
    assert_eq!(way("203.0.113.5:50002"), Way::Kernel);
    shards[1].closed(50_000);
    assert_eq!(
        way("203.0.113.5:50000"),
        Way::Shard(0),
        "another shard's to close"
    );
    shards[0].closed(50_000);
    assert_eq!(way("203.0.113.5:50000"), Way::Kernel);
    assert_eq!(shards[0].allocation(50_000), None);
    assert_eq!(shards[0].counts.gone, 1);
}

#[test]
fn nothing_is_sent_from_an_address_that_is_a_nats() {
    let directory = directory();
    let way = |from| directory.way(at("203.0.113.5:50000"), Some(ip(from)));
    assert_eq!(
        way("203.0.113.5"),
        Way::Gone,
        "the port is closed, the path is left over"
    );
    assert_eq!(way("10.0.0.5"), Way::Kernel);
}

#[test]
fn the_sfu_is_told_the_relayed_address_as_its_candidate_says_it() {
    let mut hairpin = Hairpin::new(0, directory());
    assert!(hairpin.push(50_000, &to_sfu(b"first")));
    assert!(hairpin.push(50_001, &to_sfu(b"second one")));
    let (first, bytes) = hairpin.next().unwrap();
    assert_eq!(
        (first.relayed, first.sfu),
        (at("203.0.113.5:50000"), at("203.0.113.5:5004"))
    );
    assert_eq!(bytes, b"first");
    let (second, bytes) = hairpin.next().unwrap();
    assert_eq!((second.relayed.port(), &*bytes), (50_001, &b"second one"[..]));
    assert!(hairpin.next().is_none());
    assert_eq!(hairpin.counts.to_sfu, 2);
}

#[test]
fn what_waits_is_bounded_in_bytes_and_in_datagrams_and_what_is_too_much_is_counted() {
    for (size, most) in [(1_200, WAITING_BYTES_MAX / 1_200), (40, WAITING_MAX)] {
        let mut hairpin = Hairpin::new(0, directory());
        let contents = vec![5; size];
        for round in 1..=2 {
            let kept = (0..10_000)
                .filter(|_| hairpin.push(50_000, &to_sfu(&contents)))
                .count();
            assert_eq!(kept, most, "{size} bytes each");
            assert_eq!(hairpin.counts.full, round * (10_000 - most as u64));
            assert_eq!(std::iter::from_fn(|| hairpin.next().map(drop)).count(), most);
        }
    }
}
