use super::*;
use crate::bind_group;
use std::time::{Duration, Instant};

fn socket(address: &str) -> Socket {
    Socket::bind(address.parse().unwrap(), Fragmentation::Forbidden).unwrap()
}

fn transmit(destination: SocketAddr, contents: &[u8], segment_size: Option<usize>) -> Transmit<'_> {
    Transmit {
        destination,
        source: None,
        segment_size,
        ecn: None,
        contents,
    }
}

/// Source, local address, mark, contents.
type Got = (SocketAddr, Option<IpAddr>, Option<Ecn>, Vec<u8>);

/// Every datagram that arrives until `count` are there or a second has passed.
fn receive(socket: &Socket, count: usize) -> Vec<Got> {
    let mut inbox = Inbox::new();
    let mut got = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(1);
    while got.len() < count && Instant::now() < deadline {
        for index in 0..socket.receive(&mut inbox).unwrap() {
            let Some((meta, mut datagrams)) = inbox.datagrams(index) else {
                continue;
            };
            while let Some(datagram) = datagrams.next_datagram() {
                got.push((meta.source, meta.local_ip, meta.ecn, datagram.to_vec()));
            }
        }
    }
    got
}

#[test]
fn a_batch_arrives_as_the_datagrams_it_was_made_of() {
    let (mut a, b) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
    let mut batch: Vec<u8> = (0..10u8).flat_map(|n| [n; 1000]).collect();
    batch.extend([10; 300]);
    a.send(&transmit(b.local_addr(), &batch, Some(1000))).unwrap();
    let got = receive(&b, 11);
    assert_eq!(got.len(), 11);
    for (n, (source, local_ip, _, datagram)) in got.iter().enumerate() {
        assert_eq!(*source, a.local_addr());
        assert_eq!(*local_ip, Some(b.local_addr().ip()));
        assert_eq!(datagram.len(), if n == 10 { 300 } else { 1000 });
        assert!(datagram.iter().all(|byte| usize::from(*byte) == n));
    }
}

#[test]
fn a_batch_above_the_kernels_limits_is_sent_in_parts() {
    let (mut a, b) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
    let batch: Vec<u8> = (0..150u8).flat_map(|n| [n; 1000]).collect();
    a.send(&transmit(b.local_addr(), &batch, Some(1000))).unwrap();
    let got = receive(&b, 150);
    assert_eq!(got.len(), 150);
    assert!(
        got.iter()
            .enumerate()
            .all(|(n, (.., datagram))| usize::from(datagram[0]) == n)
    );
}

#[test]
fn an_empty_datagram_is_one_datagram() {
    let (mut a, b) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
    a.send(&transmit(b.local_addr(), &[], None)).unwrap();
    assert_eq!(receive(&b, 1).len(), 1);
}

#[test]
fn headroom_before_each_datagram_can_be_overwritten() {
    let (mut a, b) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
    let batch: Vec<u8> = (1..=5u8).flat_map(|n| [n; 100]).collect();
    a.send(&transmit(b.local_addr(), &batch, Some(100))).unwrap();
    let mut inbox = Inbox::new();
    let deadline = Instant::now() + Duration::from_secs(1);
    let mut seen = 0;
    while seen < 5 && Instant::now() < deadline {
        for index in 0..b.receive(&mut inbox).unwrap() {
            let (_, mut datagrams) = inbox.datagrams(index).unwrap();
            let expected = datagrams.remaining();
            let before = seen;
            while let Some(datagram) = datagrams.next_with_headroom() {
                seen += 1;
                datagram[..crate::HEADROOM].fill(0xFF);
                assert_eq!(datagram[crate::HEADROOM..], [seen as u8; 100]);
            }
            assert_eq!(seen - before, expected);
        }
    }
    assert_eq!(seen, 5);
}

#[test]
fn congestion_marks_travel() {
    let (mut a, b) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
    a.send(&Transmit {
        ecn: Some(Ecn::Ect0),
        ..transmit(b.local_addr(), b"x", None)
    })
    .unwrap();
    assert_eq!(receive(&b, 1)[0].2, Some(Ecn::Ect0));
    a.send(&Transmit {
        ecn: Some(Ecn::Ect0),
        ..transmit(b.local_addr(), b"xxxx", Some(1))
    })
    .unwrap();
    let got = receive(&b, 4);
    assert_eq!(got.iter().map(|g| g.2).collect::<Vec<_>>(), [Some(Ecn::Ect0); 4]);
}

#[test]
fn a_reply_leaves_from_the_address_that_was_hit() {
    let (mut client, mut wildcard) = (socket("127.0.0.1:0"), socket("0.0.0.0:0"));
    let hit = SocketAddr::from(([127, 0, 0, 5], wildcard.local_addr().port()));
    client.send(&transmit(hit, b"ping", None)).unwrap();
    let (source, local_ip, ..) = receive(&wildcard, 1).remove(0);
    assert_eq!(local_ip, Some(hit.ip()));
    wildcard
        .send(&Transmit {
            source: local_ip,
            ..transmit(source, b"pong", None)
        })
        .unwrap();
    assert_eq!(receive(&client, 1)[0].0, hit);
}

#[test]
fn the_ipv6_wildcard_serves_ipv4_too_and_never_shows_mapped_addresses() {
    let mut dual = socket("[::]:0");
    let port = dual.local_addr().port();
    for (client, hit) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1")] {
        let mut client = socket(client);
        let hit = SocketAddr::new(hit.parse().unwrap(), port);
        client.send(&transmit(hit, b"ping", None)).unwrap();
        let (source, local_ip, ..) = receive(&dual, 1).remove(0);
        assert_eq!((source, local_ip), (client.local_addr(), Some(hit.ip())));
        dual.send(&Transmit {
            source: local_ip,
            ..transmit(source, b"pong", None)
        })
        .unwrap();
        assert_eq!(receive(&client, 1)[0].0, hit);
    }
}

#[test]
fn a_destination_that_refuses_every_send_does_not_switch_offload_off_for_the_others() {
    let (mut a, b) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
    let offload = a.offload();
    // Port 0 is refused with EINVAL, batch or not.
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
    for _ in 0..20 {
        let refused = a.send(&transmit(nowhere, &[0; 300], Some(100))).unwrap_err();
        assert_eq!((refused.bytes, refused.datagrams), (300, 3));
    }
    assert!(a.send(&transmit(nowhere, &[0; 100], None)).is_err());
    assert_eq!(a.offload(), offload);
    assert!(a.segmentation.allowed(b.local_addr().ip()));
    a.send(&Transmit {
        ecn: Some(Ecn::Ect0),
        ..transmit(b.local_addr(), &[7; 300], Some(100))
    })
    .unwrap();
    let got = receive(&b, 3);
    assert_eq!(got.len(), 3);
    assert!(
        got.iter().all(|(_, _, ecn, _)| *ecn == Some(Ecn::Ect0)),
        "the mark was not lost either"
    );
}

#[test]
fn a_batch_whose_segments_are_too_large_for_offload_is_sent_singly() {
    let (mut a, b) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
    // Loopback's MTU is 65,536; a segment above it cannot be offloaded, nor sent with Don't Fragment.
    let refused = a.send(&transmit(b.local_addr(), &[1; 70_000], None)).unwrap_err();
    assert_eq!(refused.bytes, 70_000);
    a.send(&transmit(b.local_addr(), &[1; 60_000], Some(30_000)))
        .unwrap();
    assert_eq!(receive(&b, 2).len(), 2);
}

#[test]
fn a_datagram_with_source_port_0_is_dropped() {
    let mut inbox = Inbox::new();
    inbox
        .fill(|buffers, meta| {
            buffers[0][..4].copy_from_slice(b"evil");
            (meta[0].len, meta[0].stride) = (4, 4);
            meta[0].addr = SocketAddr::from(([192, 0, 2, 1], 0));
            Ok(1)
        })
        .unwrap();
    assert!(inbox.datagrams(0).is_none());
}

#[test]
fn a_relay_socket_does_not_set_dont_fragment_even_after_its_state_was_rebuilt() {
    let mut relay = Socket::bind("127.0.0.1:0".parse().unwrap(), Fragmentation::Allowed).unwrap();
    assert_eq!(
        sockopt::ip_mtu_discover(&relay.io).unwrap(),
        Ipv4PathMtuDiscovery::DONT
    );
    assert!(
        relay
            .send(&transmit(SocketAddr::from(([127, 0, 0, 1], 0)), &[0; 10], None))
            .is_err()
    );
    assert_eq!(
        sockopt::ip_mtu_discover(&relay.io).unwrap(),
        Ipv4PathMtuDiscovery::DONT
    );
    let media = socket("127.0.0.1:0");
    assert_eq!(
        sockopt::ip_mtu_discover(&media.io).unwrap(),
        Ipv4PathMtuDiscovery::PROBE
    );
}

#[test]
fn a_group_spreads_clients_and_each_stays_where_it_is() {
    let group = bind_group("127.0.0.1:0".parse().unwrap(), 2, Fragmentation::Forbidden).unwrap();
    for _ in 0..16 {
        let mut client = socket("127.0.0.1:0");
        for _ in 0..3 {
            client.send(&transmit(group.address, b"x", None)).unwrap();
        }
        std::thread::sleep(Duration::from_millis(2));
        let counts: Vec<usize> = group
            .sockets
            .iter()
            .map(|socket| {
                let mut inbox = Inbox::new();
                let filled = socket.receive(&mut inbox).unwrap();
                (0..filled)
                    .map(|index| inbox.datagrams(index).unwrap().1.remaining())
                    .sum()
            })
            .collect();
        assert!(counts.contains(&3) && counts.contains(&0), "{counts:?}");
    }
}

/// The errors that a socket keeps, once there are so many or none come any more.
fn errors(socket: &mut Socket, wanted: usize) -> Vec<NetworkError> {
    let (mut found, patience) = (Vec::new(), Instant::now() + Duration::from_secs(5));
    while found.len() < wanted && Instant::now() < patience {
        match socket.next_error().unwrap() {
            Some(error) => found.push(error),
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    found
}

/// An address that nobody listens on.
fn closed(ip: &str) -> SocketAddr {
    Socket::probe(ip.parse().unwrap()).unwrap()
}

#[test]
fn a_port_that_is_closed_is_told_and_costs_no_other_datagram() {
    for (ip, kind, code) in [("127.0.0.1:0", 3, 3), ("[::1]:0", 1, 4)] {
        let (nobody, somebody) = (closed(ip), socket(ip));
        let mut relay = Socket::bind(ip.parse().unwrap(), Fragmentation::Allowed).unwrap();
        relay.keep_errors().unwrap();
        for _ in 0..3 {
            assert_eq!(relay.send(&transmit(nobody, b"knock", None)), Ok(()));
            assert_eq!(
                relay.send(&transmit(somebody.local_addr(), b"hello", None)),
                Ok(()),
                "the error is not this one's"
            );
        }
        let error = NetworkError {
            destination: nobody,
            kind,
            code,
            mtu: 0,
        };
        assert_eq!(errors(&mut relay, 3), [error; 3]);
        assert_eq!(relay.next_error().unwrap(), None);
        let mut inbox = Inbox::new();
        let mut arrived = 0;
        while arrived < 3 {
            let filled = somebody.receive(&mut inbox).unwrap();
            arrived += (0..filled)
                .map(|index| inbox.datagrams(index).unwrap().1.remaining())
                .sum::<usize>();
        }
    }
}

#[test]
fn a_datagram_is_sent_whole_or_not_at_all_and_the_next_one_as_ever() {
    let receiver = socket("127.0.0.1:0");
    let mut relay = Socket::bind("127.0.0.1:0".parse().unwrap(), Fragmentation::Allowed).unwrap();
    let small = transmit(receiver.local_addr(), &[0; 100], None);
    let mode = |relay: &Socket| sockopt::ip_mtu_discover(&relay.io).unwrap();
    assert_eq!(relay.send_whole(&small), Ok(()));
    assert_eq!(mode(&relay), Ipv4PathMtuDiscovery::DO);
    relay.rebuild();
    assert_eq!(
        mode(&relay),
        Ipv4PathMtuDiscovery::DO,
        "a fresh state changes nothing"
    );
    assert_eq!(relay.send(&small), Ok(()));
    assert_eq!(mode(&relay), Ipv4PathMtuDiscovery::OMIT);
}
