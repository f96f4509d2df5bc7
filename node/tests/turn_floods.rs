//! Floods from many loopback addresses against a really started relay: over UDP, TCP and DTLS its memory stays bounded, and
//! whoever comes from elsewhere is served meanwhile.
#![allow(clippy::unwrap_used)]

mod relay;
mod turn_client;

use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use identity::SigningKey;
use relay::Relay;
use turn_client::{By, CHANNEL, Client, Peer, buy, client_hello, metric, relays, resident, server};
use wire::stun::{Builder, Class, Method, TransactionId};

/// Addresses that a flood comes from.
const SOURCES: u32 = 1_500;

/// What a relay may grow by meanwhile: what the limits allow (512 DTLS handshakes of some 10 KB a shard, 4,096 meters) and
/// what an allocator keeps, but nothing for each source or datagram.
const GROWTH_MAX: u64 = 24 << 20;

/// The flood's addresses: 127.64.0.0/10, so that nobody else's client is among them, 256 of each /24.
fn source(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 64, 0, 0)) + number)
}

fn request(method: Method, number: u32) -> Vec<u8> {
    let mut buffer = vec![0; 256];
    let mut id = [3; 12];
    id[..4].copy_from_slice(&number.to_be_bytes());
    let len = Builder::new(&mut buffer, Class::Request, method, TransactionId(id))
        .requested_transport(17)
        .username("nobody")
        .realm("nowhere")
        .nonce("0123456789abcdef")
        .integrity(b"a guess")
        .finish()
        .unwrap();
    buffer.truncate(len);
    buffer
}

/// Somebody who pays, with an allocation; called again and again while others flood.
struct Honest {
    client: Client,
    relayed: SocketAddr,
    peer: Peer,
}

impl Honest {
    fn new(relay: &Relay, by: By) -> Honest {
        let key = SigningKey::generate();
        let bought = buy(relay, &key, &relay.faucet(key.did().as_str(), 10_000_000, false));
        let peer = Peer::new("127.0.0.1");
        let (mut client, relayed) = Client::allocated(relay, by, &bought);
        assert_eq!(client.bind(CHANNEL, peer.address).code(), 0);
        Honest {
            client,
            relayed,
            peer,
        }
    }

    fn is_served(&mut self) -> bool {
        (0..10).any(|_| relays(&mut self.client, self.relayed, &self.peer))
    }
}

#[test]
fn a_udp_flood_from_thousands_of_addresses_allocates_nothing_and_is_answered_within_the_rate() {
    let relay = Relay::start();
    let mut honest = Honest::new(&relay, By::Udp);
    assert!(honest.is_served());
    let before = resident(&relay);
    let (mut sent, mut answered) = (0_u64, 0_u64);
    let (mut bytes_sent, mut bytes_answered) = (0, 0);
    let methods = [
        Method::ALLOCATE,
        Method::REFRESH,
        Method::CREATE_PERMISSION,
        Method::CHANNEL_BIND,
    ];
    let start = Instant::now();
    for number in 0..SOURCES {
        let socket = UdpSocket::bind((source(number), 0)).unwrap();
        socket.connect(server(&relay)).unwrap();
        for method in methods {
            let request = request(method, number);
            bytes_sent += socket.send(&request).unwrap();
            sent += 1;
        }
        socket.send(&[0x40, 0, 0, 4, 1, 2, 3, 4]).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let mut answer = [0; 2_048];
        while let Ok(len) = socket.recv(&mut answer) {
            answered += 1;
            bytes_answered += len;
        }
        if number % 500 == 0 {
            assert!(honest.is_served(), "after {number} sources");
        }
    }
    let took = start.elapsed();
    let grown = resident(&relay).saturating_sub(before);
    eprintln!(
        "UDP: {sent} requests, {answered} answers, {} KiB more memory, {took:?}",
        grown >> 10
    );
    assert!(grown < GROWTH_MAX, "{grown} bytes");
    assert!(2 * bytes_answered <= 3 * bytes_sent);
    // 100 at once and 20 a second for each of the prefixes.
    let prefixes = u64::from(SOURCES.div_ceil(256));
    assert!(
        answered <= prefixes * (100 + 20 * (took.as_secs() + 1)),
        "{answered}"
    );
    assert!(answered < sent, "the rate was reached");
    assert_eq!(
        metric(&relay, "milliway_turn_allocations", ""),
        1.0,
        "the honest one"
    );
    assert!(honest.is_served());
}

#[test]
fn a_flood_of_tcp_connections_is_bounded_by_source_and_in_all() {
    let settings = [
        ("MILLIWAY_TURN__CONNECTIONS_MAX", "1000"),
        ("MILLIWAY_TURN__CONNECTIONS_PER_SOURCE_MAX", "8"),
    ];
    let relay = Relay::start_with(tempfile::tempdir().unwrap(), &[], &settings);
    let mut honest = Honest::new(&relay, By::Tcp);
    let before = resident(&relay);
    let connect = |number: u32| -> TcpStream {
        let raw = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        raw.bind(&SocketAddr::from((source(number), 0)).into()).unwrap();
        raw.connect(&server(&relay).into()).unwrap();
        raw.into()
    };
    // One address asks for twenty, then many for one each.
    let mut held: Vec<TcpStream> = (0..20).map(|_| connect(0)).collect();
    held.extend((1..1_500).map(connect));
    turn_client::wait_until("the count of what was turned away", || {
        metric(&relay, "milliway_discards_total", "connection-limit") >= 12.0 + 500.0
    });
    let turned_away = metric(&relay, "milliway_discards_total", "connection-limit");
    let grown = resident(&relay).saturating_sub(before);
    eprintln!(
        "TCP: {} connections, {turned_away} turned away, {} KiB more memory",
        held.len(),
        grown >> 10
    );
    assert!(grown < GROWTH_MAX, "{grown} bytes");
    assert!(honest.is_served());
    drop(held);
    let back = || {
        connect(5_000)
            .peer_addr()
            .is_ok_and(|_| Honest::new(&relay, By::Tcp).is_served())
    };
    turn_client::wait_until("the places come free", || {
        metric(&relay, "milliway_discards_total", "connection-limit") >= turned_away && back()
    });
}

#[test]
fn a_flood_of_dtls_hellos_holds_a_bounded_number_of_handshakes_and_no_amplifier() {
    let one = [("MILLIWAY_RELAY__SHARDS", "1")];
    let relay = Relay::start_with(tempfile::tempdir().unwrap(), &[], &one);
    let mut honest = Honest::new(&relay, By::Dtls);
    let hello = client_hello();
    let before = resident(&relay);
    let (mut bytes_sent, mut bytes_answered) = (0, 0);
    for number in 0..SOURCES {
        let socket = UdpSocket::bind((source(number), 0)).unwrap();
        socket.connect(server(&relay)).unwrap();
        bytes_sent += socket.send(&hello).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let mut answer = [0; 2_048];
        while let Ok(len) = socket.recv(&mut answer) {
            bytes_answered += len;
        }
        if number % 500 == 0 {
            assert!(honest.is_served(), "after {number} sources");
        }
    }
    let turned_away = metric(&relay, "milliway_discards_total", "connection-limit");
    let grown = resident(&relay).saturating_sub(before);
    eprintln!(
        "DTLS: {SOURCES} hellos of {} bytes, {bytes_answered} bytes of answers, {turned_away} turned away, {} KiB more memory",
        hello.len(),
        grown >> 10
    );
    assert!(grown < GROWTH_MAX, "{grown} bytes");
    assert!(
        2 * bytes_answered <= 3 * bytes_sent,
        "{bytes_answered} for {bytes_sent}"
    );
    assert!(turned_away > 0.0, "the limit was reached");
    assert!(honest.is_served());
}
