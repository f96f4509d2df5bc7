//! Debian's TURN client (coturn's `turnutils_uclient`) against our TURN server, with credentials bought over HTTP.

use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use loadtest::http;
use loadtest::relay::{Relay, faucet};

/// Messages each emulated client sends. The tool says how many came back.
const MESSAGES: u32 = 30;

struct Credentials {
    username: String,
    password: String,
}

fn credentials(relay: &Relay) -> Credentials {
    let token = faucet(&relay.ready.http, 10_000_000).expect("the faucet of a dev relay");
    let authorization = format!("Bearer {token}");
    let answer = http::call(
        &relay.ready.http,
        "POST",
        "/v1/turn/credentials",
        &[("authorization", &authorization)],
        "",
    );
    let answer = answer
        .and_then(|answer| answer.expect(200, "TURN credentials"))
        .expect("TURN credentials");
    let answer = answer.json().expect("JSON");
    let server = &answer["iceServers"][0];
    let text = |name: &str| server[name].as_str().expect("a string").to_owned();
    let expected = format!("turn:{}", relay.ready.turn);
    let urls = server["urls"].as_array().expect("a list of URLs");
    assert!(
        urls.iter()
            .any(|url| url.as_str().is_some_and(|url| url.starts_with(&expected))),
        "{urls:?}"
    );
    Credentials {
        username: text("username"),
        password: text("credential"),
    }
}

/// An echo of coturn's own, ended with the test.
struct Peer {
    child: Child,
    port: u16,
}

impl Peer {
    fn start() -> Peer {
        let free = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let port = free.expect("a free port").port();
        let child = Command::new("turnutils_peer")
            .args(["-L", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("turnutils_peer; `apt-get install coturn` brings it");
        let peer = Peer { child, port };
        let probe = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        probe
            .set_read_timeout(Some(Duration::from_millis(100)))
            .expect("a socket option");
        for _ in 0..50 {
            drop(probe.send_to(b"there?", ("127.0.0.1", port)));
            if probe.recv(&mut [0; 16]).is_ok() {
                return peer;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("turnutils_peer does not echo");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn uclient(relay: &Relay, username: &str, password: &str, arguments: &[&str]) -> (Output, String) {
    let turn: SocketAddr = relay.ready.turn.parse().expect("an address in the ready line");
    let output = Command::new("timeout")
        .args(["60", "turnutils_uclient"])
        .args(arguments)
        .args([
            "-u",
            username,
            "-w",
            password,
            "-n",
            &MESSAGES.to_string(),
            "-p",
            &turn.port().to_string(),
        ])
        .arg(turn.ip().to_string())
        .output()
        .expect("turnutils_uclient; `apt-get install coturn` brings it");
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (output, said)
}

/// The numbers after "name=" in the tool's last report: "tot_send_msgs=30, tot_recv_msgs=30, ...".
fn last(said: &str, name: &str) -> Option<u64> {
    let at = said.rfind(&format!("{name}="))? + name.len() + 1;
    let digits: String = said[at..].chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn passes(arguments: &[&str], clients: u64) {
    let relay = Relay::start().expect("a relay that starts");
    let peer = Peer::start();
    let Credentials { username, password } = credentials(&relay);
    let port = peer.port.to_string();
    let all = [arguments, &["-e", "127.0.0.1", "-r", &port]].concat();
    let (output, said) = uclient(&relay, &username, &password, &all);
    assert!(
        output.status.success(),
        "{}\n{said}\nthe relay said:\n{}",
        output.status,
        relay.log()
    );
    let messages = u64::from(MESSAGES) * clients;
    assert_eq!(last(&said, "tot_send_msgs"), Some(messages), "{said}");
    assert_eq!(last(&said, "tot_recv_msgs"), Some(messages), "{said}");
    assert!(said.contains("Total lost packets 0"), "{said}");
}

#[test]
fn channels_to_a_peer_bring_everything_back() {
    passes(&["-X", "-c"], 1);
}

#[test]
fn send_indications_to_a_peer_bring_everything_back() {
    passes(&["-X", "-c", "-s"], 1);
}

#[test]
fn clients_reach_each_other_through_their_relayed_addresses() {
    passes(&["-y", "-X", "-c"], 2);
}

#[test]
fn a_wrong_password_is_refused() {
    let relay = Relay::start().expect("a relay that starts");
    let peer = Peer::start();
    let Credentials { username, .. } = credentials(&relay);
    let port = peer.port.to_string();
    let (output, said) = uclient(
        &relay,
        &username,
        "not the password",
        &["-X", "-c", "-e", "127.0.0.1", "-r", &port],
    );
    assert!(!output.status.success(), "{said}");
    assert!(last(&said, "tot_recv_msgs").unwrap_or(0) == 0, "{said}");
}

#[test]
fn a_username_that_was_never_sold_is_refused() {
    let relay = Relay::start().expect("a relay that starts");
    let (output, said) = uclient(&relay, "nobody", "nothing", &["-X", "-c", "-e", "127.0.0.1"]);
    assert!(!output.status.success(), "{said}");
}
