//! TURN's listeners as a client on the wire sees them: messages cut anywhere, garbage, limits, silence, slow readers,
//! certificates that change under live connections, further ports, and clients that move or are sent elsewhere.
#![allow(clippy::unwrap_used)]

mod relay;
mod turn_client;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use relay::Relay;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use turn_client::certificate::{Shown, trusting};
use turn_client::{
    By, CHANNEL, Carrier, Client, PATIENCE, Peer, buy, client_hello, metric, relays, resident, wait_until,
};
use wire::stun::{AttributeType, Builder, Class, Message, Method, TransactionId};

/// A Binding request: 32 bytes with SOFTWARE, so that its answer is not longer than it may be.
const BINDING: [u8; 32] = *b"\x00\x01\x00\x0C\x21\x12\xA4\x42abcdefghijkl\x80\x22\x00\x07testing\0";

fn turn(relay: &Relay) -> SocketAddr {
    relay.ready["turn"].as_str().unwrap().parse().unwrap()
}

fn connect(relay: &Relay) -> TcpStream {
    let stream = TcpStream::connect(turn(relay)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Reads one STUN message; its type.
fn message(stream: &mut impl Read) -> u16 {
    let mut head = [0; 20];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head[8..], b"abcdefghijkl");
    let mut rest = vec![0; usize::from(u16::from_be_bytes([head[2], head[3]]))];
    stream.read_exact(&mut rest).unwrap();
    u16::from_be_bytes([head[0], head[1]])
}

#[test]
fn messages_are_found_wherever_the_stream_is_cut() {
    let relay = Relay::start();
    let mut stream = connect(&relay);
    let two = [BINDING, BINDING].concat();
    // Within the hundred answers at once that somebody unknown is given.
    for cut in 1..BINDING.len() {
        stream.write_all(&two[..cut]).unwrap();
        stream.flush().unwrap();
        std::thread::sleep(Duration::from_millis(2));
        stream.write_all(&two[cut..]).unwrap();
        assert_eq!(
            [message(&mut stream), message(&mut stream)],
            [0x0101; 2],
            "cut at {cut}"
        );
    }
}

#[test]
fn garbage_ends_its_connection_and_no_other() {
    let relay = Relay::start();
    let mut calm = connect(&relay);
    for garbage in [
        &b"\xFF\xFF\xFF\xFF"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00\x01\x00\x03",
        b"\x16\x03\x01\x00\x04\xFF\x00\x00\x00",
        b"\x40\x00\xFF\xFF",
    ] {
        let mut stream = connect(&relay);
        stream.write_all(garbage).unwrap();
        let mut rest = Vec::new();
        match stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{garbage:?}"),
        }
    }
    calm.write_all(&BINDING).unwrap();
    assert_eq!(message(&mut calm), 0x0101);
}

#[test]
fn a_source_has_so_many_connections_and_gets_them_back() {
    let data = tempfile::tempdir().unwrap();
    let relay = Relay::start_with(data, &[], &[("MILLIWAY_TURN__CONNECTIONS_PER_SOURCE_MAX", "3")]);
    let works = |stream: &mut TcpStream| {
        stream.write_all(&BINDING).is_ok() && stream.read_exact(&mut [0; 20]).is_ok()
    };
    let mut held: Vec<TcpStream> = (0..3).map(|_| connect(&relay)).collect();
    assert!(held.iter_mut().all(works));
    assert!(!works(&mut connect(&relay)), "one too many");
    held.pop();
    let start = Instant::now();
    while !works(&mut connect(&relay)) {
        assert!(start.elapsed() < PATIENCE, "the place comes free");
    }
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A TLS connection that has had an answer, and the certificate it was shown.
fn tls(relay: &Relay) -> (Tls, Vec<u8>) {
    let shown = Arc::new(Shown::default());
    let config = trusting(&shown);
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(connection, connect(relay));
    stream.write_all(&BINDING).unwrap();
    assert_eq!(message(&mut stream), 0x0101);
    (stream, shown.get())
}

fn write_certificate(folder: &std::path::Path) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let pem = |label: &str, der: &[u8]| {
        use base64::Engine;
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
    };
    std::fs::write(folder.join("chain.pem"), pem("CERTIFICATE", made.cert.der())).unwrap();
    std::fs::write(
        folder.join("key.pem"),
        pem("PRIVATE KEY", &made.signing_key.serialize_der()),
    )
    .unwrap();
}

#[test]
fn a_hang_up_signal_changes_the_certificate_and_disturbs_no_connection() {
    let keys = tempfile::tempdir().unwrap();
    write_certificate(keys.path());
    let path = |name: &str| keys.path().join(name).display().to_string();
    let environment = [
        ("MILLIWAY_TURN__TLS_CERTIFICATE", &*path("chain.pem")),
        ("MILLIWAY_TURN__TLS_KEY", &*path("key.pem")),
    ];
    let relay = Relay::start_with(tempfile::tempdir().unwrap(), &[], &environment);
    let (mut old, first) = tls(&relay);
    write_certificate(keys.path());
    let pid = relay.ready["pid"].to_string();
    assert!(
        Command::new("kill")
            .args(["-HUP", &pid])
            .status()
            .unwrap()
            .success()
    );
    let start = Instant::now();
    while tls(&relay).1 == first {
        assert!(start.elapsed() < PATIENCE, "the new certificate is shown");
        std::thread::sleep(Duration::from_millis(20));
    }
    old.write_all(&BINDING).unwrap();
    assert_eq!(message(&mut old), 0x0101, "the old connection goes on");
    let mut plain = connect(&relay);
    plain.write_all(&BINDING).unwrap();
    assert_eq!(message(&mut plain), 0x0101, "plain and TLS share the port");
}

/// A client with an allocation over this carrier.
fn allocated(relay: &Relay, carrier: Carrier) -> (Client, SocketAddr) {
    let key = identity::SigningKey::generate();
    let token = relay.faucet(key.did().as_str(), 10_000_000, false);
    let mut client = Client::new(carrier, &buy(relay, &key, &token));
    let answer = client.ask(Method::ALLOCATE, |b| b.requested_transport(17));
    assert_eq!(answer.outcome(), (0, String::new()));
    let relayed = answer.message().xor_relayed_address().unwrap();
    (client, relayed)
}

#[test]
fn tls_and_plain_tcp_are_served_on_a_port_of_their_own_and_clients_are_told() {
    let settings = [("MILLIWAY_TURN__TLS_LISTEN", "[\"127.0.0.1:0\"]")];
    let relay = Relay::start_with(tempfile::tempdir().unwrap(), &[], &settings);
    let key = identity::SigningKey::generate();
    let bought = buy(&relay, &key, &relay.faucet(key.did().as_str(), 10_000_000, false));
    let main = turn(&relay).to_string();
    let further: Vec<SocketAddr> = bought
        .urls
        .iter()
        .filter_map(|url| url.strip_prefix("turn:")?.strip_suffix("?transport=tcp"))
        .filter(|address| **address != main)
        .map(|address| address.parse().unwrap())
        .collect();
    let [at] = further[..] else {
        panic!("one further address: {:?}", bought.urls)
    };
    let peer = Peer::new("127.0.0.1");
    for by in [By::Tcp, By::Tls] {
        let (mut client, relayed) = allocated(&relay, Carrier::connect(by, at));
        assert_eq!(client.bind(CHANNEL, peer.address).code(), 0);
        assert!(relays(&mut client, relayed, &peer), "{by:?}");
    }
}

#[test]
fn nat_behaviour_is_discovered_through_the_second_address_and_port() {
    let free = std::net::UdpSocket::bind("127.0.0.2:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let alternate = format!("[\"{free}\"]");
    let settings = [("MILLIWAY_TURN__DISCOVERY_ALTERNATE", &*alternate)];
    let relay = Relay::start_with(tempfile::tempdir().unwrap(), &[], &settings);
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let ask = |change: u8| {
        let mut request = [0; 128];
        let len = Builder::new(
            &mut request,
            Class::Request,
            Method::BINDING,
            TransactionId([change; 12]),
        )
        .attribute(AttributeType::CHANGE_REQUEST, &[0, 0, 0, change])
        .software("a client that pads, so that everything fits")
        .finish()
        .unwrap();
        socket.send_to(&request[..len], turn(&relay)).unwrap();
        let mut answer = [0; 512];
        let (len, from) = socket.recv_from(&mut answer).unwrap();
        let message = Message::parse(&answer[..len]).unwrap();
        assert_eq!(message.xor_mapped_address(), Some(socket.local_addr().unwrap()));
        assert_eq!(message.other_address(), Some(free));
        from
    };
    let main = turn(&relay);
    assert_eq!(ask(0), main);
    assert_eq!(ask(2), SocketAddr::new(main.ip(), free.port()), "another port");
    assert_eq!(ask(4), SocketAddr::new(free.ip(), main.port()), "another address");
    assert_eq!(ask(6), free, "both");
}

#[test]
fn an_allocation_moves_with_its_client_between_addresses_transports_and_shards() {
    let settings = [("MILLIWAY_RELAY__SHARDS", "4")];
    let relay = Relay::start_with(tempfile::tempdir().unwrap(), &[], &settings);
    let key = identity::SigningKey::generate();
    let bought = buy(&relay, &key, &relay.faucet(key.did().as_str(), 10_000_000, false));
    let peer = Peer::new("127.0.0.1");
    let mut client = Client::new(Carrier::connect(By::Udp, turn(&relay)), &bought);
    let answer = client.ask(Method::ALLOCATE, |b| {
        b.requested_transport(17).mobility_ticket(&[])
    });
    assert_eq!(answer.outcome(), (0, String::new()));
    let relayed = answer.message().xor_relayed_address().unwrap();
    let mut ticket = answer.message().mobility_ticket().unwrap().to_vec();
    assert_eq!(client.bind(CHANNEL, peer.address).code(), 0);
    // A shard is chosen by source port over UDP and by source address over TCP: ten moves miss three shards of four by
    // themselves once in a million runs.
    let ways = (1..=5_u8).flat_map(|host| [(By::Udp, host), (By::Tcp, host)]);
    for (by, host) in ways {
        let carrier = Carrier::connect_from([127, 0, 7, host].into(), by, turn(&relay));
        let mut moved = Client::new(carrier, &bought);
        let answer = moved.ask(Method::REFRESH, |b| b.lifetime(600).mobility_ticket(&ticket));
        assert_eq!(answer.outcome(), (0, String::new()), "{by:?} from 127.0.7.{host}");
        ticket = answer.message().mobility_ticket().unwrap().to_vec();
        assert!(relays(&mut moved, relayed, &peer), "{by:?} from 127.0.7.{host}");
        client = moved;
    }
    assert_eq!(
        client.refresh(0).code(),
        0,
        "and is deleted from where it is last"
    );
    assert!(!relays(&mut client, relayed, &peer));
}

#[test]
fn a_client_that_does_not_read_loses_its_own_packets_and_holds_up_nobody() {
    let settings = [("MILLIWAY_RELAY__SHARDS", "1")];
    let relay = Relay::start_with(tempfile::tempdir().unwrap(), &[], &settings);
    let peer = Peer::new("127.0.0.1");
    let mut slow = Vec::new();
    for by in [By::Tcp, By::Tls] {
        let (mut client, relayed) = allocated(&relay, Carrier::connect(by, turn(&relay)));
        assert_eq!(client.bind(CHANNEL, peer.address).code(), 0);
        slow.push((client, relayed));
    }
    let (mut swift, swift_relayed) = allocated(&relay, Carrier::connect(By::Tcp, turn(&relay)));
    let own = Peer::new("127.0.0.1");
    assert_eq!(swift.bind(CHANNEL, own.address).code(), 0);
    let before = resident(&relay);
    let packet = [0; 1_200];
    let dropped = || metric(&relay, "milliway_discards_total", "slow-reader");
    let mut rounds = 0;
    // Until both have lost something: the kernel holds some megabytes for each first.
    while dropped() < 2_000.0 {
        for _ in 0..200 {
            for (_, relayed) in &slow {
                peer.socket.send_to(&packet, relayed).unwrap();
            }
        }
        assert!(relays(&mut swift, swift_relayed, &own), "round {rounds}");
        rounds += 1;
        assert!(rounds < 500, "nothing is dropped");
    }
    let grown = resident(&relay).saturating_sub(before);
    eprintln!("slow readers: {rounds} rounds, {} KiB more memory", grown >> 10);
    assert!(grown < 8 << 20, "{grown} bytes");
    for (client, relayed) in &mut slow {
        // They read again: whole messages, and an answer to what they ask.
        while client.hear(Duration::from_millis(200)).is_some() {}
        assert_eq!(client.refresh(600).code(), 0);
        assert!(relays(client, *relayed, &peer));
    }
}

#[test]
fn who_says_nothing_or_never_finishes_a_handshake_is_closed_after_ten_seconds() {
    let relay = Relay::start();
    let (mut honest, _) = allocated(&relay, Carrier::connect(By::Tcp, turn(&relay)));
    let mut silent = connect(&relay);
    let mut half = connect(&relay);
    half.write_all(&BINDING[..10]).unwrap();
    let mut hello = connect(&relay);
    hello
        .write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xFC\x03\x03")
        .unwrap();
    let dtls = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    dtls.send_to(&client_hello(), turn(&relay)).unwrap();
    let start = Instant::now();
    for (what, stream) in [
        ("silent", &mut silent),
        ("half", &mut half),
        ("hello", &mut hello),
    ] {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(start.elapsed() < PATIENCE, "{what}");
        assert!(start.elapsed() > Duration::from_secs(5), "{what} had its time");
    }
    wait_until("the count of silent connections", || {
        metric(&relay, "milliway_discards_total", "connection-silent") >= 3.0
    });
    wait_until("the end of the DTLS handshake", || {
        metric(&relay, "milliway_discards_total", "tls-handshake") >= 1.0
    });
    assert_eq!(
        honest.refresh(600).code(),
        0,
        "who has an allocation may be silent"
    );
}

#[test]
fn a_loaded_or_draining_relay_sends_its_clients_to_another_of_their_family() {
    let other: SocketAddr = "203.0.113.7:3478".parse().unwrap();
    let settings = [
        (
            "MILLIWAY_TURN__ALTERNATE_SERVERS",
            "[\"203.0.113.7:3478\", \"[2001:db8::7]:3478\"]",
        ),
        ("MILLIWAY_TURN__REDIRECT_ABOVE", "1"),
    ];
    let relay = Relay::start_with(tempfile::tempdir().unwrap(), &[], &settings);
    let peer = Peer::new("127.0.0.1");
    let (mut first, relayed) = allocated(&relay, Carrier::connect(By::Udp, turn(&relay)));
    assert_eq!(first.bind(CHANNEL, peer.address).code(), 0);
    let key = identity::SigningKey::generate();
    let bought = buy(&relay, &key, &relay.faucet(key.did().as_str(), 10_000_000, false));
    for by in By::ALL {
        let mut second = Client::new(Carrier::connect(by, turn(&relay)), &bought);
        let answer = second.ask(Method::ALLOCATE, |b| b.requested_transport(17));
        assert_eq!(answer.code(), 300, "loaded, {by:?}");
        assert_eq!(answer.message().alternate_server(), Some(other));
    }
    assert_eq!(first.refresh(0).code(), 0);
    let mut second = Client::new(Carrier::connect(By::Udp, turn(&relay)), &bought);
    let answer = second.ask(Method::ALLOCATE, |b| b.requested_transport(17));
    assert_eq!(answer.outcome(), (0, String::new()), "no longer loaded");
    let relayed_second = answer.message().xor_relayed_address().unwrap();
    assert_ne!(relayed, relayed_second);
    assert_eq!(second.bind(CHANNEL, peer.address).code(), 0);
    relay.signal("TERM");
    wait_until("the drain", || relay.get("/readyz").status == 503);
    let mut third = Client::new(Carrier::connect(By::Tls, turn(&relay)), &bought);
    let answer = third.ask(Method::ALLOCATE, |b| b.requested_transport(17));
    assert_eq!(
        (answer.code(), answer.message().alternate_server()),
        (300, Some(other))
    );
    assert!(
        relays(&mut second, relayed_second, &peer),
        "who is there stays until the drain ends"
    );
}
