//! Usage records into a real NATS JetStream (Debian's `nats-server`), for a program built with `--features nats`.
#![cfg(feature = "nats")]
#![allow(clippy::unwrap_used)]

mod relay;

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::Config;
use identity::SigningKey;
use relay::Relay;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// A server with a folder of its own; it ends with the test.
struct Nats {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Nats {
    fn start() -> Nats {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let folder = tempfile::tempdir().unwrap();
        let child = Nats::run(port, &folder);
        Nats { child, port, folder }
    }

    fn run(port: u16, folder: &tempfile::TempDir) -> Child {
        let child = Command::new("nats-server")
            .args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"])
            .arg(folder.path())
            .stderr(Stdio::null())
            .spawn()
            .expect("Debian's nats-server");
        let end = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "nats-server does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        child
    }

    fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.child = Nats::run(self.port, &self.folder);
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn stream(nats: &Nats) -> jetstream::stream::Stream {
    let client = async_nats::connect(nats.url()).await.unwrap();
    let config = Config {
        name: "RECORDS".into(),
        subjects: vec!["milliway.records".into()],
        ..Config::default()
    };
    jetstream::new(client).get_or_create_stream(config).await.unwrap()
}

/// Everything in the stream.
fn messages(nats: &Nats) -> Vec<StreamMessage> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut stream = stream(nats).await;
        let last = stream.info().await.unwrap().state.last_sequence;
        let mut messages = Vec::new();
        for sequence in 1..=last {
            messages.push(stream.get_raw_message(sequence).await.unwrap());
        }
        messages
    })
}

fn top_up(relay: &Relay, client: &SigningKey, msat: u64) {
    let token = relay.faucet(client.did().as_str(), msat, false);
    let body = json!({ "token": token }).to_string();
    let answer = relay.signed(client, None, "POST", "/v1/topup", body.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn records_reach_a_jetstream_once_and_in_order_also_when_both_ends_are_killed() {
    let mut nats = Nats::start();
    assert_eq!(messages(&nats).len(), 0);
    let url = nats.url();
    let environment = [("MILLIWAY_RECORDS__NATS", url.as_str())];
    let relay = Relay::start_with(tempfile::tempdir().unwrap(), &[], &environment);
    let client = SigningKey::generate();
    let until = |nats: &Nats, count: usize| {
        let end = Instant::now() + PATIENCE;
        while messages(nats).len() < count {
            assert!(Instant::now() < end, "never {count} messages");
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    (1..=3).for_each(|msat| top_up(&relay, &client, msat));
    until(&nats, 3);
    nats.kill();
    (4..=6).for_each(|msat| top_up(&relay, &client, msat));
    // The relay gives up on it, is killed, and comes back before the server does.
    std::thread::sleep(Duration::from_secs(2));
    let data = relay.kill();
    let relay = Relay::start_with(data, &[], &environment);
    nats.start_again();
    top_up(&relay, &client, 7);
    until(&nats, 7);
    let events: Vec<Value> = messages(&nats)
        .iter()
        .map(|message| serde_json::from_slice(&message.payload).unwrap())
        .collect();
    let msat: Vec<u64> = events
        .iter()
        .map(|event| event["data"]["msat"].as_u64().unwrap())
        .collect();
    assert_eq!(msat, [1, 2, 3, 4, 5, 6, 7]);
    let ids: BTreeSet<String> = events.iter().map(|event| event["id"].to_string()).collect();
    assert_eq!(ids.len(), 7, "each once");
    for (message, event) in messages(&nats).iter().zip(&events) {
        assert_eq!(message.headers.get("Nats-Msg-Id").unwrap().as_str(), event["id"]);
    }
}
