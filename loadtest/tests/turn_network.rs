//! What the network answers to relayed datagrams reaches the client (RFC 8656 section 11.5), and DONT-FRAGMENT means
//! what it says (section 18.9): a relay as its users start it, and a client on the wire.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use datagram::Inbox;
use loadtest::holder::bearer_token;
use loadtest::http;
use loadtest::relay::Relay;
use loadtest::turn::allocation::{Allocation, Opening};
use loadtest::turn::link::{Link, Transport};
use loadtest::turn::server::bought;
use mio::{Poll, Token};
use serde_json::Value;
use wire::stun::{Builder, Class, Icmp, Message, Method, TransactionId};

const BALANCE_MSAT: u64 = 10_000_000;

/// For everything that takes a while on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Set for the test that is run again in a network of its own.
const INSIDE: &str = "MILLIWAY_TEST_INSIDE";

struct Client {
    base: String,
    token: String,
    session: String,
    allocation: Allocation,
    inbox: Inbox,
    _poll: Poll,
}

impl Client {
    /// With an allocation and a permission for 127.0.0.1.
    fn of(relay: &Relay, transport: Transport) -> Client {
        let base = relay.ready.http.clone();
        let token = bearer_token(&base, BALANCE_MSAT).expect("the faucet of a dev relay");
        let bought = bought(&base, &token, transport).expect("a username");
        let mut inbox = Inbox::new();
        let link = Link::open(transport, bought.server, 1).expect("a way to the server");
        let opening = Opening::begin(link, 1, &bought.credentials).expect("a request");
        let mut allocation = opening.authenticate(&mut inbox).expect("a challenge");
        allocation.finish(&mut inbox).expect("an allocation");
        allocation.bind(closed()).expect("a request");
        allocation.done(&mut inbox).expect("a channel");
        let poll = Poll::new().expect("a poll");
        let registered = allocation.link.register(poll.registry(), Token(0));
        registered.expect("a descriptor");
        Client {
            base,
            token,
            session: bought.session,
            allocation,
            inbox,
            _poll: poll,
        }
    }

    /// A Send indication.
    fn send(&mut self, peer: SocketAddr, data: &[u8], dont_fragment: bool) {
        let mut buffer = vec![0; data.len() + 100];
        let id = TransactionId([7; 12]);
        let builder = Builder::new(&mut buffer, Class::Indication, Method::SEND, id).xor_peer_address(peer);
        let builder = if dont_fragment {
            builder.dont_fragment()
        } else {
            builder
        };
        let length = builder.data(data).finish().expect("room for it");
        let refused = self.allocation.link.send(&buffer[..length], length);
        assert_eq!(refused.expect("a send"), 0);
    }

    /// What the client has been told of the network since it last looked.
    fn told(&mut self) -> Vec<(SocketAddr, Icmp)> {
        let mut told = Vec::new();
        let read = self.allocation.link.receive(&mut self.inbox, |message| {
            let message = Message::parse(message).expect("a STUN message");
            assert_eq!(
                (message.class(), message.method()),
                (Class::Indication, Method::DATA)
            );
            let peer = message.xor_peer_address().expect("of a peer");
            told.push((peer, message.icmp().expect("ICMP, and no data")));
        });
        // A stream that has nothing to say for now is no error.
        drop(read);
        told
    }

    fn wait_to_be_told(&mut self) -> (SocketAddr, Icmp) {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(first) = self.told().first() {
                return *first;
            }
            assert!(Instant::now() < end, "nothing is told");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the allocation: bytes to the peer and to the client on the bill.
    fn bill(&mut self) -> (u64, u64) {
        self.allocation.end().expect("a request");
        let authorization = format!("Bearer {}", self.token);
        let headers = [("authorization", &authorization[..])];
        let path = format!("/v1/receipts/{}", self.session);
        let end = Instant::now() + PATIENCE;
        loop {
            let answer = http::call(&self.base, "GET", &path, &headers, "").expect("an answer");
            let payload = answer.body.trim().split('.').nth(1).unwrap_or_default();
            let payload = URL_SAFE_NO_PAD.decode(payload).unwrap_or_default();
            let receipt: Value = serde_json::from_slice(&payload).unwrap_or_default();
            if receipt["ended"].as_u64().is_some() || receipt["ended"].is_string() {
                let bytes = |name: &str| receipt[name].as_u64().expect("bytes");
                return (bytes("bytes_in"), bytes("bytes_out"));
            }
            assert!(Instant::now() < end, "no receipt of the end: {answer:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A loopback port that nobody has.
fn closed() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("its address")
}

fn peer() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

#[test]
fn a_client_is_told_that_its_peers_port_is_closed_and_of_a_flood_of_that_a_part() {
    let relay = Relay::start().expect("a relay that starts");
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut client = Client::of(&relay, transport);
        let (nobody, somebody) = (closed(), peer());
        client.send(nobody, b"knock", false);
        let unreachable = Icmp {
            kind: 3,
            code: 3,
            data: 0,
        };
        assert_eq!(client.wait_to_be_told(), (nobody, unreachable), "{transport:?}");

        let began = Instant::now();
        let mut buffer = [0; 200];
        for _ in 0..20 {
            for _ in 0..20 {
                client.send(nobody, b"knock", false);
                client.send(somebody.local_addr().expect("its address"), &[5; 100], false);
            }
            // None of what goes elsewhere is lost for it.
            for _ in 0..20 {
                assert_eq!(somebody.recv(&mut buffer).expect("a datagram"), 100);
            }
        }
        std::thread::sleep(Duration::from_millis(500));
        let told = client.told();
        assert!(told.iter().all(|told| *told == (nobody, unreachable)));
        let seconds = began.elapsed().as_secs() as usize + 2;
        assert!(
            !told.is_empty() && told.len() <= 20 * seconds,
            "{} told",
            told.len()
        );
        // What nobody received was sent all the same.
        assert_eq!(client.bill(), (5 * 401 + 100 * 400, 0));
    }
    let status = relay.stop().expect("a relay that stops");
    assert!(status.success(), "{status}");
}

/// Runs a test of this file again in a network of its own; true there.
fn in_a_network_of_its_own(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    let output = command
        .arg("--net")
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stdout)
    );
    false
}

#[test]
fn dont_fragment_is_sent_whole_or_the_client_is_told_what_fits() {
    const MTU: u32 = 1_300;
    if !in_a_network_of_its_own("dont_fragment_is_sent_whole_or_the_client_is_told_what_fits") {
        return;
    }
    let mtu = MTU.to_string();
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up", "mtu", &mtu])
        .status();
    assert!(up.expect("ip").success());
    let relay = Relay::start().expect("a relay that starts");
    // Over a stream, so that what is too large for the network reaches the relay.
    let mut client = Client::of(&relay, Transport::Tcp);
    let somebody = peer();
    let to = somebody.local_addr().expect("its address");
    let mut buffer = [0; 2_000];
    let mut received = || somebody.recv(&mut buffer).expect("a datagram");
    client.send(to, &[1; 1_400], false);
    assert_eq!(received(), 1_400, "in fragments");
    client.send(to, &[2; 1_400], true);
    let too_big = Icmp {
        kind: 3,
        code: 4,
        data: MTU,
    };
    assert_eq!(client.wait_to_be_told(), (to, too_big));
    client.send(to, &[3; 1_000], true);
    assert_eq!(received(), 1_000, "the one before was not sent");
    client.send(to, &[4; 1_400], false);
    assert_eq!(received(), 1_400, "in fragments again");
    assert_eq!(
        client.bill(),
        (1_400 + 1_000 + 1_400, 0),
        "what did not leave is given back"
    );
    // Figures are published once a second.
    std::thread::sleep(Duration::from_millis(1_200));
    let text = http::call(&relay.ready.http, "GET", "/metrics", &[], "")
        .expect("metrics")
        .body;
    let counted = text
        .lines()
        .any(|line| line.contains("message-too-long") && line.ends_with(" 1"));
    assert!(counted, "{text}");
    let status = relay.stop().expect("a relay that stops");
    assert!(status.success(), "{status}");
}
