//! What a test of TURN clients has at hand: credentials bought over HTTP, and Debian's TURN server and echo beside our relay,
//! so that what fails is known to be ours.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use loadtest::holder::bearer_token;
use loadtest::http;
use loadtest::relay::Relay;

/// What a TURN client shows.
#[derive(Clone)]
pub struct Credentials {
    pub username: String,
    pub password: String,
    /// Where they are for TLS too: the URLs that came with them.
    pub urls: Vec<String>,
    authorization: String,
    session: String,
}

/// Of an account of their own.
pub fn credentials(relay: &Relay) -> Credentials {
    let token = bearer_token(&relay.ready.http, 10_000_000).expect("the faucet of a dev relay");
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
        urls: urls
            .iter()
            .filter_map(|url| url.as_str().map(str::to_owned))
            .collect(),
        authorization,
        session: answer["session"].as_str().expect("a session").to_owned(),
    }
}

/// Coturn's of this test.
pub fn known_to_coturn() -> Credentials {
    Credentials {
        username: "user".to_owned(),
        password: "pass".to_owned(),
        urls: Vec::new(),
        authorization: String::new(),
        session: String::new(),
    }
}

/// What the receipt says was relayed under these credentials: bytes to the peers, and bytes to the client. It is complete
/// once the allocations are gone.
pub fn billed(relay: &Relay, credentials: &Credentials) -> (u64, u64) {
    let path = format!("/v1/receipts/{}", credentials.session);
    let headers = [("authorization", &credentials.authorization[..])];
    let answer =
        http::call(&relay.ready.http, "GET", &path, &headers, "").and_then(|a| a.expect(200, "the receipt"));
    let jws = answer.expect("a receipt").body;
    let payload = jws.split('.').nth(1).expect("a compact JWS");
    let payload = URL_SAFE_NO_PAD.decode(payload).expect("base64url");
    let receipt: serde_json::Value = serde_json::from_slice(&payload).expect("JSON");
    let bytes = |name: &str| receipt[name].as_u64().expect("a number");
    (bytes("bytes_in"), bytes("bytes_out"))
}

/// Waits until the receipt says this, and says what it says if it does not.
pub fn is_billed(relay: &Relay, credentials: &Credentials, to_peers: u64, to_client: u64) {
    let mut said = None;
    for _ in 0..100 {
        said = Some(billed(relay, credentials));
        if said == Some((to_peers, to_client)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the receipt says {said:?}, not {:?}", (to_peers, to_client));
}

/// Waits until a figure of the relay's metrics is this; they are written now and then. The name comes with its labels.
pub fn metric_becomes(relay: &Relay, name: &str, expected: u64) {
    let mut line = None;
    for _ in 0..100 {
        let answer = http::call(&relay.ready.http, "GET", "/metrics", &[], "").expect("metrics");
        line = answer
            .body
            .lines()
            .find(|line| line.starts_with(name))
            .map(str::to_owned);
        if line
            .as_ref()
            .is_some_and(|line| *line == format!("{name} {expected}"))
        {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{line:?}, not {expected}");
}

/// An echo of coturn's own, ended with the test.
pub struct Peer {
    child: Child,
    pub port: u16,
}

impl Peer {
    pub fn start() -> Peer {
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
pub struct Coturn {
    child: Child,
    pub port: u16,
    _folder: tempfile::TempDir,
}

impl Coturn {
    pub fn start() -> Coturn {
        Coturn::with(&[])
    }

    /// With further arguments.
    pub fn with(more: &[&str]) -> Coturn {
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
            .args(more)
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
pub fn free_port() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    socket.expect("a free port").port()
}

/// The port of its TURN server.
pub fn port_of(relay: &Relay) -> u16 {
    let turn: SocketAddr = relay.ready.turn.parse().expect("an address in the ready line");
    turn.port()
}
