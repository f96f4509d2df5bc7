//! A really started relay on free ports, and a raw HTTP client for it. No part of the program is replaced.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use identity::{SigningKey, proof};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The program under test.
pub(crate) const MILLIWAY: &str = env!("CARGO_BIN_EXE_milliway");
/// A loaded machine with a debug build may need this long; the second that is promised is measured elsewhere.
const READY_PATIENCE: Duration = Duration::from_secs(20);

/// A running `milliway dev`.
pub(crate) struct Relay {
    child: Child,
    /// Its ready line.
    pub(crate) ready: Value,
    /// Lines on standard output after the ready line.
    further_output: Mutex<mpsc::Receiver<String>>,
    /// Its data folder.
    pub(crate) data: TempDir,
}

/// What it answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// The slug of a problem, after checking that it is a whole one.
    pub(crate) fn slug(&self) -> String {
        assert_eq!(
            self.headers["content-type"],
            "application/problem+json",
            "{}",
            self.text()
        );
        let problem = self.json();
        assert_eq!(problem["status"], self.status);
        assert!(
            problem["detail"].as_str().unwrap().len() > 20,
            "a sentence that says what to do: {problem}"
        );
        problem["type"]
            .as_str()
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap()
            .to_owned()
    }
}

impl Relay {
    pub(crate) fn start() -> Relay {
        Relay::start_with(tempfile::tempdir().unwrap(), &[], &[])
    }

    pub(crate) fn start_with(data: TempDir, arguments: &[&str], environment: &[(&str, &str)]) -> Relay {
        Relay::launch(data, arguments, environment, Stdio::inherit())
    }

    /// What it logs goes into `log`.
    pub(crate) fn start_logging(log: std::fs::File) -> Relay {
        Relay::launch(tempfile::tempdir().unwrap(), &[], &[], log.into())
    }

    /// The same, with an environment.
    pub(crate) fn start_logging_with(log: std::fs::File, environment: &[(&str, &str)]) -> Relay {
        Relay::launch(tempfile::tempdir().unwrap(), &[], environment, log.into())
    }

    fn launch(data: TempDir, arguments: &[&str], environment: &[(&str, &str)], log: Stdio) -> Relay {
        let mut child = Command::new(MILLIWAY)
            .args([
                "dev",
                "--http",
                "127.0.0.1:0",
                "--sfu",
                "127.0.0.1:0",
                "--turn",
                "127.0.0.1:0",
                "--quic",
                "127.0.0.1:0",
            ])
            .args(["--data", data.path().to_str().unwrap()])
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            output
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        let first = lines.recv_timeout(READY_PATIENCE).expect("a ready line");
        let ready = serde_json::from_str(&first).expect("the first line is one JSON object");
        Relay {
            child,
            ready,
            further_output: Mutex::new(lines),
            data,
        }
    }

    pub(crate) fn did(&self) -> &str {
        self.ready["did"].as_str().unwrap()
    }

    /// host:port of the front door.
    pub(crate) fn host(&self) -> &str {
        self.ready["http"]
            .as_str()
            .unwrap()
            .strip_prefix("http://")
            .unwrap()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.host())
    }

    pub(crate) fn issuer(&self) -> SigningKey {
        SigningKey::load(self.ready["issuer_key"].as_str().unwrap().as_ref()).unwrap()
    }

    /// Sends exactly these bytes and reads until the relay closes.
    pub(crate) fn raw(&self, request: &[u8]) -> Option<Answer> {
        let mut stream = TcpStream::connect(self.host()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // The relay may refuse before it has read everything, which is fine.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        parse(&answer)
    }

    pub(crate) fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n",
            self.host()
        );
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || method == "POST" {
            request.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        let mut bytes = request.into_bytes();
        bytes.extend_from_slice(body);
        self.raw(&bytes).expect("an answer")
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], b"")
    }

    /// A token of the faucet.
    pub(crate) fn faucet(&self, sub: &str, balance_msat: u64, bearer: bool) -> String {
        let wish = json!({ "sub": sub, "balance_msat": balance_msat, "bearer": bearer }).to_string();
        let answer = self.call(
            "POST",
            "/v1/dev/faucet",
            &[("Content-Type", "application/json")],
            wish.as_bytes(),
        );
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["token"].as_str().unwrap().to_owned()
    }

    /// A nonce for proofs, as a client without one gets it.
    pub(crate) fn nonce(&self) -> String {
        let answer = self.call("GET", "/v1/account", &[], b"");
        assert_eq!(answer.status, 401);
        answer.headers["dpop-nonce"].clone()
    }

    /// A call with a proof of `key`, and its token if there is one.
    pub(crate) fn signed(
        &self,
        key: &SigningKey,
        token: Option<&str>,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Answer {
        let url = self.url(path);
        let request = proof::Request {
            method,
            url: &url,
            body,
        };
        let dpop = proof::sign_dpop(key, &request, token, &self.nonce(), now());
        let authorization = token.map(|token| format!("DPoP {token}"));
        let mut headers = vec![("DPoP", dpop.as_str())];
        if let Some(authorization) = &authorization {
            headers.push(("Authorization", authorization));
        }
        if body.first() == Some(&b'{') {
            headers.push(("Content-Type", "application/json"));
        } else if !body.is_empty() {
            headers.push(("Content-Type", "application/sdp"));
        }
        self.call(method, path, &headers, body)
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Waits for the end; the exit code, or None after a signal.
    pub(crate) fn wait(&mut self, patience: Duration) -> Option<i32> {
        let until = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < until, "the relay does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it with SIGTERM and hands its data folder on. Standard output carried the ready line and nothing else.
    pub(crate) fn stop(mut self) -> TempDir {
        self.signal("TERM");
        assert_eq!(self.wait(Duration::from_secs(30)), Some(0));
        assert_eq!(
            self.further_output
                .lock()
                .unwrap()
                .recv_timeout(Duration::from_secs(1))
                .ok(),
            None
        );
        std::mem::replace(&mut self.data, tempfile::tempdir().unwrap())
    }

    /// Ends it with SIGKILL and hands its data folder on.
    pub(crate) fn kill(mut self) -> TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::mem::replace(&mut self.data, tempfile::tempdir().unwrap())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let split = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..split]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().unwrap();
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let mut body = bytes[split + 4..].to_vec();
    if headers
        .get("transfer-encoding")
        .is_some_and(|coding| coding == "chunked")
    {
        body = unchunk(&body);
    }
    Some(Answer {
        status,
        headers,
        body,
    })
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        whole.extend_from_slice(&bytes[end + 2..end + 2 + size]);
        bytes = &bytes[end + 2 + size + 2..];
    }
    whole
}

/// Wall time in seconds.
pub(crate) fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// An offer as a browser makes it: sends one audio and one video line, and receives on one of each.
pub(crate) fn offer() -> String {
    let lines = [
        "v=0",
        "o=- 4611731400430051336 2 IN IP4 127.0.0.1",
        "s=-",
        "t=0 0",
        "a=group:BUNDLE 0 1 2 3",
        "a=extmap-allow-mixed",
        "a=msid-semantic: WMS s",
    ];
    let mut sdp = lines.join("\r\n") + "\r\n";
    for (mid, kind, direction) in [
        (0, "audio", "sendonly"),
        (1, "video", "sendonly"),
        (2, "audio", "recvonly"),
        (3, "video", "recvonly"),
    ] {
        let (pt, codec) = if kind == "audio" {
            (111, "opus/48000/2")
        } else {
            (96, "VP8/90000")
        };
        sdp += &format!(
            "m={kind} 9 UDP/TLS/RTP/SAVPF {pt}\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\na=ice-ufrag:F7gI\r\n\
             a=ice-pwd:x9cml/YzichV2+XlhiMu8g5T\r\na=ice-options:trickle\r\na=fingerprint:sha-256 {}\r\n\
             a=setup:actpass\r\na=mid:{mid}\r\na=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\na={direction}\r\n\
             a=rtcp-mux\r\na=rtcp-rsize\r\na=rtpmap:{pt} {codec}\r\n",
            ["AB"; 32].join(":")
        );
        if direction == "sendonly" {
            let ssrc = 1000 + mid;
            sdp += &format!("a=msid:s {kind}\r\na=ssrc:{ssrc} cname:c\r\na=ssrc:{ssrc} msid:s {kind}\r\n");
        }
        if kind == "video" {
            sdp += &format!("a=rtcp-fb:{pt} nack\r\na=rtcp-fb:{pt} nack pli\r\n");
        }
    }
    sdp
}
