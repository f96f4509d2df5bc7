//! Debian's TURN client (coturn's `turnutils_uclient`) in its modes against Debian's TURN server and, with credentials
//! bought over HTTP, against ours: so that what fails is known to be ours.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use loadtest::http;
use loadtest::relay::{Relay, faucet};

/// Messages each emulated client sends. The tool says how many came back.
const MESSAGES: u32 = 10;

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
        let port = free_port();
        let child = Command::new("turnutils_peer")
            .args(["-L", "127.0.0.1", "-L", "::1", "-p", &port.to_string()])
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

/// Debian's TURN server, ended with the test: what the tool must get from it, it must get from us.
struct Coturn {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Coturn {
    fn start() -> Coturn {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
            ])
            .args(["-subj", "/CN=localhost", "-days", "2"])
            .args(["-keyout", &path("key.pem"), "-out", &path("chain.pem")])
            .stderr(Stdio::null())
            .status();
        assert!(
            made.is_ok_and(|status| status.success()),
            "openssl makes a certificate"
        );
        let (port, tls) = (free_port(), free_port());
        let child = Command::new("turnserver")
            .args([
                "-n",
                "--no-cli",
                "-L",
                "127.0.0.1",
                "-E",
                "127.0.0.1",
                "-E",
                "::1",
            ])
            .args(["-p", &port.to_string(), "--tls-listening-port", &tls.to_string()])
            .args([
                "--allow-loopback-peers",
                "-a",
                "-u",
                "user:pass",
                "-r",
                "coturn.test",
                "--mobility",
            ])
            .args(["--cert", &path("chain.pem"), "--pkey", &path("key.pem")])
            .args(["--pidfile", &path("pid"), "--log-file", "stdout"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("turnserver; `apt-get install coturn` brings it");
        let coturn = Coturn {
            child,
            port,
            _folder: folder,
        };
        for _ in 0..100 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return coturn;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("turnserver does not listen");
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    socket.expect("a free port").port()
}

fn uclient(port: u16, username: &str, password: &str, arguments: &[&str], seconds: u32) -> (Output, String) {
    let output = Command::new("timeout")
        .args([&seconds.to_string(), "turnutils_uclient"])
        .args(arguments)
        .args(["-u", username, "-w", password])
        .args(["-n", &MESSAGES.to_string(), "-p", &port.to_string(), "127.0.0.1"])
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

fn port_of(relay: &Relay) -> u16 {
    let turn: SocketAddr = relay.ready.turn.parse().expect("an address in the ready line");
    turn.port()
}

/// Over TLS and DTLS the tool draws lots which version it speaks, old ones among them, which nobody should; it then says
/// nothing of a transfer.
const DRAWS: usize = 8;

/// And coturn, on a loaded machine, is now and then too slow for its own tool.
const COTURN_DRAWS: usize = 3;

/// Everything that was sent came back.
fn all_came_back(name: &str, port: u16, credentials: &Credentials, arguments: &[&str], clients: u64) {
    let Credentials { username, password } = credentials;
    let messages = u64::from(MESSAGES) * clients;
    let is_coturn = name == "coturn";
    let draws = match (arguments.contains(&"-S"), is_coturn) {
        (true, _) => DRAWS,
        (false, true) => COTURN_DRAWS,
        (false, false) => 1,
    };
    let seconds = if draws > 1 { 8 } else { 60 };
    let mut tried = None;
    for _ in 0..draws {
        let (output, said) = uclient(port, username, password, arguments, seconds);
        let transferred = output.status.success() && last(&said, "tot_send_msgs").is_some();
        let done = transferred && (!is_coturn || last(&said, "tot_recv_msgs") == Some(messages));
        tried = Some((output, said));
        if done {
            break;
        }
    }
    let (output, said) = tried.expect("at least one run");
    assert!(output.status.success(), "{name}: {}\n{said}", output.status);
    assert_eq!(last(&said, "tot_send_msgs"), Some(messages), "{name}: {said}");
    assert_eq!(last(&said, "tot_recv_msgs"), Some(messages), "{name}: {said}");
    assert!(said.contains("Total lost packets 0"), "{name}: {said}");
}

/// The same from coturn and from us.
fn passes(arguments: &[&str], clients: u64) {
    let peer = Peer::start();
    let port = peer.port.to_string();
    let family = if arguments.contains(&"-x") {
        "::1"
    } else {
        "127.0.0.1"
    };
    let all = [arguments, &["-e", family, "-r", &port]].concat();
    let coturn = Coturn::start();
    let known = Credentials {
        username: "user".to_owned(),
        password: "pass".to_owned(),
    };
    all_came_back("coturn", coturn.port, &known, &all, clients);
    let relay = Relay::start().expect("a relay that starts");
    all_came_back("milliway", port_of(&relay), &credentials(&relay), &all, clients);
    assert!(!relay.log().contains("panicked"), "{}", relay.log());
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
fn over_tcp_channels_and_indications_bring_everything_back() {
    passes(&["-t", "-X", "-c"], 1);
    passes(&["-t", "-X", "-c", "-s"], 1);
}

#[test]
fn over_tls_on_the_same_port_everything_comes_back() {
    // Between two clients over TLS the tool loses messages at coturn too: it takes one record for one message.
    passes(&["-t", "-S", "-X", "-c"], 1);
}

#[test]
fn over_dtls_on_the_udp_port_everything_comes_back() {
    passes(&["-S", "-X", "-c"], 1);
}

#[test]
fn tcp_allocations_carry_everything_between_clients() {
    passes(&["-t", "-T", "-y", "-X", "-c"], 2);
    passes(&["-t", "-S", "-T", "-y", "-c"], 2);
}

#[test]
fn ipv6_allocations_and_both_families_at_once_bring_everything_back() {
    passes(&["-x", "-c"], 1);
    passes(&["-Z", "-c"], 1);
}

#[test]
fn mobile_clients_lose_nothing() {
    // Over TCP the tool fails at coturn.
    passes(&["-M", "-X", "-c"], 1);
}

#[test]
fn padded_channels_and_extra_requests_bring_everything_back() {
    passes(&["-D", "-X", "-c"], 1);
    passes(&["-t", "-D", "-X", "-c"], 1);
    passes(&["-G", "-X", "-c"], 1);
}

/// How the tool itself ends is a matter of chance in these modes, at coturn as well: what counts is who comes after.
#[test]
fn whoever_is_wrong_on_purpose_takes_nothing_from_others() {
    let peer = Peer::start();
    let port = peer.port.to_string();
    let relay = Relay::start().expect("a relay that starts");
    let good = ["-X", "-c", "-e", "127.0.0.1", "-r", &port];
    for mode in ["-N", "-R", "-O"] {
        let arguments = [&[mode], &good[..]].concat();
        let Credentials { username, password } = credentials(&relay);
        let _ended = uclient(port_of(&relay), &username, &password, &arguments, 6);
        all_came_back("milliway", port_of(&relay), &credentials(&relay), &good, 1);
    }
    assert!(!relay.log().contains("panicked"), "{}", relay.log());
}

#[test]
fn a_wrong_password_is_refused() {
    let relay = Relay::start().expect("a relay that starts");
    let peer = Peer::start();
    let Credentials { username, .. } = credentials(&relay);
    let port = peer.port.to_string();
    for transport in [&[][..], &["-t"], &["-t", "-S"]] {
        let arguments = [transport, &["-X", "-c", "-e", "127.0.0.1", "-r", &port]].concat();
        let (output, said) = uclient(port_of(&relay), &username, "not the password", &arguments, 60);
        assert!(!output.status.success(), "{said}");
        assert!(last(&said, "tot_recv_msgs").unwrap_or(0) == 0, "{said}");
    }
}

#[test]
fn a_username_that_was_never_sold_is_refused() {
    let relay = Relay::start().expect("a relay that starts");
    let arguments = ["-X", "-c", "-e", "127.0.0.1"];
    let (output, said) = uclient(port_of(&relay), "nobody", "nothing", &arguments, 60);
    assert!(!output.status.success(), "{said}");
}
