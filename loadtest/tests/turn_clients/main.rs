//! Two TURN clients that others wrote, webrtc-rs's `turn` and the sans-IO `turn-client-proto`, over each transport that they
//! have: they allocate, permit, bind a channel, send and receive by both ways, refresh and leave, and what they sent and
//! received is on the receipt to the byte.

#[path = "../beside/mod.rs"]
mod beside;
mod proto;
mod webrtc;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use beside::{Credentials, credentials, is_billed, metric_becomes};
use loadtest::relay::Relay;

/// Messages by each way, and the bytes of one: not a multiple of four, so that streams have to pad.
const MESSAGES: usize = 20;
const BYTES: usize = 333;

/// How long any answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A peer that sends everything back; it ends with the test's process.
fn echo() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let address = socket.local_addr().expect("an address");
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            drop(socket.send_to(&buffer[..len], from));
        }
    });
    address
}

fn message(n: usize, bytes: usize) -> Vec<u8> {
    vec![u8::try_from(n).expect("few messages"); bytes]
}

/// Runs a client, which must send and get back `MESSAGES` of so many bytes twice: by indications, and over a channel.
fn is_served(bytes: usize, client: impl FnOnce(SocketAddr, &Credentials, SocketAddr)) {
    let relay = Relay::start().expect("a relay that starts");
    let who = credentials(&relay);
    is_served_by(&relay, &who, bytes, client);
}

fn is_served_by(
    relay: &Relay,
    who: &Credentials,
    bytes: usize,
    client: impl FnOnce(SocketAddr, &Credentials, SocketAddr),
) {
    let server = relay.ready.turn.parse().expect("an address in the ready line");
    client(server, who, echo());
    metric_becomes(relay, "milliway_turn_allocations", 0);
    let bytes = (2 * MESSAGES * bytes) as u64;
    is_billed(relay, who, bytes, bytes);
    assert!(!relay.log().contains("panicked"), "{}", relay.log());
}
