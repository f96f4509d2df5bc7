//! Usage records of a really started relay: to a receiver over HTTPS that fails in every way, to a file that is moved and
//! torn, and back into the books after a disaster.
#![allow(clippy::unwrap_used)]

mod relay;

#[path = "../../ledger-postgres/tests/server/mod.rs"]
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use identity::SigningKey;
use metering::ledger::{Command as Order, Conditions, Open, Outcome};
use metering::{Embedded, LeaseId, Ledger, Msat, Rates, Report, Service, SessionId, Usage, Voucher};
use parquet::file::reader::{FileReader, SerializedFileReader};
use relay::{MILLIWAY, Relay};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_rustls::rustls::crypto::aws_lc_rs as provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

const PATIENCE: Duration = Duration::from_secs(60);

/// What the receiver does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    /// Keeps it and says so.
    Takes,
    /// Does not keep it.
    Answers(u16),
    /// Keeps it and says nothing.
    IsSilent,
    /// Keeps it and breaks off.
    BreaksOff,
}

/// A request that was read to its end.
#[derive(Clone, Debug)]
struct Posted {
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
    mood: Mood,
}

impl Posted {
    fn events(&self) -> Vec<Value> {
        match serde_json::from_slice(&self.body).unwrap() {
            Value::Array(events) => events,
            event => vec![event],
        }
    }
}

/// An HTTPS server, `records.example` on loopback.
struct Receiver {
    port: u16,
    data: TempDir,
    posted: Arc<Mutex<Vec<Posted>>>,
    moods: Arc<Mutex<Vec<Mood>>>,
    connections: Arc<Mutex<usize>>,
}

impl Receiver {
    /// Has these moods one after the other, and the last one for ever.
    fn start(moods: &[Mood]) -> Receiver {
        let data = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["records.example".to_owned()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        std::fs::write(data.path().join("ca.pem"), certificate.pem()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let receiver = Receiver {
            port: listener.local_addr().unwrap().port(),
            data,
            posted: Arc::default(),
            moods: Arc::new(Mutex::new(moods.to_vec())),
            connections: Arc::default(),
        };
        let (posted, moods) = (receiver.posted.clone(), receiver.moods.clone());
        let connections = receiver.connections.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                *connections.lock().unwrap() += 1;
                let (config, posted, moods) = (config.clone(), posted.clone(), moods.clone());
                std::thread::spawn(move || serve(stream, config, &posted, &moods));
            }
        });
        receiver
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            (
                "MILLIWAY_RECORDS__WEBHOOK",
                format!("https://records.example:{}/in?from=relay", self.port),
            ),
            (
                "MILLIWAY_RECORDS__WEBHOOK_HOSTS",
                r#"["records.example=127.0.0.1"]"#.to_owned(),
            ),
            (
                "MILLIWAY_RECORDS__WEBHOOK_ALLOW_ADDRESSES",
                r#"["127.0.0.0/8"]"#.to_owned(),
            ),
            (
                "MILLIWAY_RECORDS__WEBHOOK_CA_FILE",
                self.data.path().join("ca.pem").display().to_string(),
            ),
            ("MILLIWAY_RECORDS__WEBHOOK_TIMEOUT_SECONDS", "1".to_owned()),
        ]
    }

    fn posted(&self) -> Vec<Posted> {
        self.posted.lock().unwrap().clone()
    }

    /// The events that were kept, each once, in the order in which they first came.
    fn kept(&self) -> Vec<Value> {
        let mut seen = BTreeSet::new();
        self.posted()
            .iter()
            .filter(|posted| !matches!(posted.mood, Mood::Answers(_)))
            .flat_map(Posted::events)
            .filter(|event| seen.insert(event["id"].to_string()))
            .collect()
    }
}

fn serve(
    stream: std::net::TcpStream,
    config: Arc<ServerConfig>,
    posted: &Mutex<Vec<Posted>>,
    moods: &Mutex<Vec<Mood>>,
) {
    let connection = ServerConnection::new(config).unwrap();
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    let mut headers = BTreeMap::new();
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            if line.trim_end().is_empty() {
                break;
            }
            headers.insert("request".to_owned(), line.trim_end().to_owned());
            continue;
        };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length: usize = headers["content-length"].parse().unwrap();
    let mut body = vec![0; length];
    if stream.read_exact(&mut body).is_err() {
        return;
    }
    let mood = {
        let mut moods = moods.lock().unwrap();
        if moods.len() > 1 {
            moods.remove(0)
        } else {
            moods[0]
        }
    };
    posted.lock().unwrap().push(Posted { headers, body, mood });
    let status = match mood {
        Mood::Takes => 204,
        Mood::Answers(status) => status,
        Mood::IsSilent => {
            std::thread::sleep(PATIENCE);
            return;
        }
        Mood::BreaksOff => return,
    };
    let mut stream = stream.into_inner();
    let _ = stream.write_all(format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n").as_bytes());
    stream.conn.send_close_notify();
    let _ = stream.flush();
}

fn borrowed<'a>(environment: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    environment
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Shows a token of the faucet; the token.
fn top_up(relay: &Relay, client: &SigningKey, msat: u64) -> String {
    let token = relay.faucet(client.did().as_str(), msat, false);
    let answer = show(relay, client, &token);
    assert_eq!(answer.status, 200, "{}", answer.text());
    token
}

fn show(relay: &Relay, client: &SigningKey, token: &str) -> relay::Answer {
    let body = json!({ "token": token }).to_string();
    relay.signed(client, None, "POST", "/v1/topup", body.as_bytes())
}

fn metric(relay: &Relay, line: &str) -> f64 {
    let text = relay.get("/metrics").text().to_owned();
    let found = text.lines().find_map(|found| found.strip_prefix(line));
    found.map_or(f64::NAN, |value| value.trim().parse().unwrap())
}

fn milliway(data: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(MILLIWAY)
        .args(arguments)
        .args(["--data", data.to_str().unwrap()])
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

/// Each account's records are in the order of their numbers, and the sink's places have no gap.
fn in_order(events: &[Value]) {
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for (index, event) in events.iter().enumerate() {
        let number = event["data"]["number"].as_u64().unwrap();
        let before = last.insert(event["subject"].as_str().unwrap(), number);
        assert!(before < Some(number), "{event}");
        assert_eq!(event["sequence"], format!("{:020}", index + 1));
        assert_eq!(event["specversion"], "1.0");
    }
}

#[test]
fn a_receiver_that_fails_hangs_and_breaks_off_gets_every_record_in_the_order_of_its_account() {
    let receiver = Receiver::start(&[
        Mood::Answers(500),
        Mood::BreaksOff,
        Mood::IsSilent,
        Mood::Answers(429),
        Mood::Takes,
    ]);
    let secret = [7_u8; 32];
    let secret_file = receiver.data.path().join("secret");
    std::fs::write(&secret_file, format!("whsec_{}\n", STANDARD.encode(secret))).unwrap();
    let mut environment = receiver.environment();
    environment.push((
        "MILLIWAY_RECORDS__WEBHOOK_SECRET_FILE",
        secret_file.display().to_string(),
    ));
    environment.push(("MILLIWAY_RECORDS__WEBHOOK_RECORDS_MAX", "4".to_owned()));
    let relay = Relay::start_with(tempfile::tempdir().unwrap(), &[], &borrowed(&environment));
    let clients: Vec<SigningKey> = (0..3).map(|_| SigningKey::generate()).collect();
    for round in 1..=4 {
        for client in &clients {
            top_up(&relay, client, round * 1_000);
        }
    }
    until("every record is there", || receiver.kept().len() == 12);
    let kept = receiver.kept();
    in_order(&kept);
    let credited: u64 = kept
        .iter()
        .map(|event| event["data"]["msat"].as_u64().unwrap())
        .sum();
    assert_eq!(credited, 3 * (1 + 2 + 3 + 4) * 1_000);
    assert!(kept.iter().all(|event| event["type"] == "milliway.ledger.credit"));
    assert!(
        kept.iter()
            .all(|event| event["data"]["claims"]["aud"] == relay.did())
    );

    // Both signatures hold, over what Standard Webhooks says.
    let key = SigningKey::load(&relay.data.path().join("relay.jwk")).unwrap();
    let hmac_key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
    for posted in receiver.posted() {
        let header = |name: &str| posted.headers[name].clone();
        assert_eq!(header("request"), "POST /in?from=relay HTTP/1.1");
        assert_eq!(header("content-type"), "application/cloudevents-batch+json");
        let mut signed = format!("{}.{}.", header("webhook-id"), header("webhook-timestamp")).into_bytes();
        signed.extend_from_slice(&posted.body);
        let signatures = header("webhook-signature");
        let (shared, own) = signatures.split_once(' ').unwrap();
        let shared = STANDARD.decode(shared.strip_prefix("v1,").unwrap()).unwrap();
        hmac::verify(&hmac_key, &signed, &shared).unwrap();
        let own = STANDARD.decode(own.strip_prefix("v1a,").unwrap()).unwrap();
        assert!(key.public_key().verify(&signed, &own));
    }

    // Shown, and over. Nothing was lost either.
    assert_eq!(metric(&relay, r#"milliway_memo_msat{memo="uncollected"}"#), 0.0);
    assert!(metric(&relay, r#"milliway_records_failures_total{sink="webhook"}"#) >= 4.0);
    until("nothing is behind", || {
        metric(&relay, r#"milliway_records_behind_entries{sink="webhook"}"#) == 0.0
    });
    let sinks = milliway(relay.data.path(), &["usage", "sinks"]).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&sinks).unwrap(),
        json!({ "sink": "webhook", "records": 12, "behind_entries": 0 })
    );
}

#[test]
fn a_relay_killed_between_the_delivery_and_its_note_of_it_delivers_again_under_the_same_names() {
    let receiver = Receiver::start(&[Mood::IsSilent, Mood::Takes]);
    let mut environment = receiver.environment();
    environment.retain(|(name, _)| !name.ends_with("TIMEOUT_SECONDS"));
    environment.push(("MILLIWAY_RECORDS__WEBHOOK_RECORDS_MAX", "1".to_owned()));
    let relay = Relay::start_with(tempfile::tempdir().unwrap(), &[], &borrowed(&environment));
    let client = SigningKey::generate();
    top_up(&relay, &client, 1_000);
    until("the first record is there", || receiver.posted().len() == 1);
    top_up(&relay, &client, 2_000);
    let data = relay.kill();
    let relay = Relay::start_with(data, &[], &borrowed(&environment));
    until("both are there", || receiver.kept().len() == 2);
    let posted = receiver.posted();
    assert_eq!(posted.len(), 3, "one of them twice");
    let content = |index: usize| serde_json::from_slice::<Value>(&posted[index].body).unwrap();
    assert_eq!(content(0), content(1));
    assert_eq!(posted[0].headers["webhook-id"], posted[1].headers["webhook-id"]);
    assert_eq!(posted[0].headers["content-type"], "application/cloudevents+json");
    in_order(&receiver.kept());
    drop(relay);
}

#[test]
fn records_are_posted_to_no_address_that_is_not_public_unless_the_operator_says_so() {
    let receiver = Receiver::start(&[Mood::Takes]);
    let mut environment = receiver.environment();
    environment.retain(|(name, _)| !name.ends_with("ALLOW_ADDRESSES"));
    let relay = Relay::start_with(tempfile::tempdir().unwrap(), &[], &borrowed(&environment));
    top_up(&relay, &SigningKey::generate(), 1_000);
    until("it failed", || {
        metric(&relay, r#"milliway_records_failures_total{sink="webhook"}"#) >= 1.0
    });
    assert_eq!(*receiver.connections.lock().unwrap(), 0);
    assert!(metric(&relay, r#"milliway_records_behind_entries{sink="webhook"}"#) >= 1.0);
}

/// The records of a file, whole lines all.
fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_file_of_records_may_be_moved_and_torn_and_lacks_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (
        folder.path().join("records.jsonl"),
        folder.path().join("records.1"),
    );
    let environment = [("MILLIWAY_RECORDS__FILE", path.to_str().unwrap())];
    let relay = Relay::start_with(tempfile::tempdir().unwrap(), &[], &environment);
    let client = SigningKey::generate();
    (1..=3).for_each(|msat| drop(top_up(&relay, &client, msat)));
    until("three are written", || lines(&path).len() == 3);
    std::fs::rename(&path, &moved).unwrap();
    (4..=6).for_each(|msat| drop(top_up(&relay, &client, msat)));
    until("three more are written", || lines(&path).len() == 3);
    top_up(&relay, &client, 7);
    let data = relay.kill();
    // The seventh may have been written or not; a crash of the machine would have torn it in two.
    let whole = lines(&path).len();
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(br#"{"specversion":"1.0","id":"0-6"#).unwrap();
    let relay = Relay::start_with(data, &[], &environment);
    top_up(&relay, &client, 8);
    until("all are written", || {
        let text = std::fs::read_to_string(&path).unwrap();
        text.ends_with('\n') && text.contains("\"msat\":8") && text.contains("\"msat\":7")
    });
    let mut seen = BTreeSet::new();
    let events: Vec<Value> = [lines(&moved), lines(&path)]
        .concat()
        .into_iter()
        .filter(|event| seen.insert(event["id"].to_string()))
        .collect();
    in_order(&events);
    let msat: Vec<u64> = events
        .iter()
        .map(|event| event["data"]["msat"].as_u64().unwrap())
        .collect();
    assert_eq!(msat, [1, 2, 3, 4, 5, 6, 7, 8], "{whole} were whole");
}

const RATES: Rates = Rates {
    out: 50,
    in_: 50,
    second: 2,
};

fn open(ledger: &mut dyn Ledger, account: &str, session: u64, at: u64) -> LeaseId {
    let order = Order::Open(Box::new(Open {
        session: SessionId::new(session),
        account: account.into(),
        voucher: None,
        service: Service::Turn,
        tariff: "turn-1".into(),
        rates: RATES,
        want: Msat::new(400),
        minimum: Msat::new(10),
        cap: None,
        conditions: Conditions::default(),
    }));
    match ledger.apply(&[order], at).unwrap().remove(0) {
        Ok(Outcome::Opened { lease, .. }) => lease,
        other => panic!("{other:?}"),
    }
}

/// A segment of so many seconds and as many megabytes.
fn segment(lease: LeaseId, session: u64, segment: u32, size: u64, end: Option<bool>) -> Order {
    let report = Report {
        lease,
        session: SessionId::new(session),
        epoch: 0,
        sequence: u64::from(segment) * 10 + if end.is_some() { 9 } else { 1 },
        segment,
        usage: Usage {
            bytes_out: size * 1_000_000,
            bytes_in: 0,
            nanoseconds: size * 1_000_000_000,
            debit: Msat::ZERO,
        },
        granted: Msat::ZERO,
        exhausted: false,
        renew: false,
        closed: end.is_some(),
        held: false,
        last: end == Some(true),
    };
    match end {
        Some(_) => Order::Settle {
            report,
            reason: "bye".into(),
        },
        None => Order::Report(report),
    }
}

fn credit(account: &str, jti: &str, msat: u64, refundable: bool) -> Order {
    Order::Credit(Voucher {
        iss: "did:key:z6MkIssuer".into(),
        jti: jti.into(),
        sub: account.into(),
        payer: None,
        aud: "did:key:z6MkRelay".into(),
        balance: Msat::new(msat),
        account: account.into(),
        refundable,
    })
}

fn accounts(data: &Path) -> Vec<Value> {
    let text = milliway(data, &["account", "list"]).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Lets a relay run on this data until its file of records has everything.
fn write_records(data: TempDir, file: &Path, records: usize) -> TempDir {
    let relay = Relay::start_with(data, &[], &[("MILLIWAY_RECORDS__FILE", file.to_str().unwrap())]);
    until("they are written", || lines(file).len() >= records);
    until("that is noted", || {
        milliway(relay.data.path(), &["usage", "sinks"])
            .unwrap()
            .contains(r#""behind_entries":0"#)
    });
    relay.stop()
}

#[test]
fn after_a_disaster_a_backup_and_the_records_since_are_the_books_as_they_were() {
    let data = Relay::start().stop();
    let books = data.path().join("ledger.redb");
    let folder = tempfile::tempdir().unwrap();
    let (file, backup) = (
        folder.path().join("records.jsonl"),
        folder.path().join("backup.jsonl"),
    );
    let at = |second: u64| 1_764_547_000_000_000_000 + second * 1_000_000_000;

    // Before the backup: anna and ben have money, and anna's session is in its second segment.
    let (mut ledger, _) = Embedded::open(&books, at(0)).unwrap();
    ledger
        .apply(
            &[
                credit("anna", "a1", 10_000, true),
                credit("ben", "b1", 5_000, true),
            ],
            at(1),
        )
        .unwrap();
    let lease = open(&mut ledger, "anna", 1, at(2));
    ledger
        .apply(&[segment(lease, 1, 0, 2, Some(false))], at(3))
        .unwrap();
    ledger.apply(&[segment(lease, 1, 1, 1, None)], at(4)).unwrap();
    drop(ledger);
    // The backup is of the open ledger, session and all: the command would settle nothing either.
    milliway(data.path(), &["ledger", "backup", backup.to_str().unwrap()]).unwrap();

    // After it: the session ends, another one comes and goes, ben tops up, is refunded and frozen.
    let mut ledger = Embedded::reopen(&books).unwrap();
    ledger
        .apply(&[segment(lease, 1, 1, 4, Some(true))], at(10))
        .unwrap();
    let other = open(&mut ledger, "anna", 2, at(11));
    ledger
        .apply(&[segment(other, 2, 0, 1, Some(true))], at(12))
        .unwrap();
    ledger
        .apply(
            &[
                credit("ben", "b2", 700, false),
                credit("carl", "c1", 9, true),
                Order::Refund {
                    account: "ben".into(),
                    reason: "asked".into(),
                },
                Order::Freeze {
                    account: "carl".into(),
                    frozen: true,
                },
            ],
            at(13),
        )
        .unwrap();
    drop(ledger);
    let data = write_records(data, &file, 9);
    let client = SigningKey::generate();
    let (data, token) = {
        let relay = Relay::start_with(data, &[], &[("MILLIWAY_RECORDS__FILE", file.to_str().unwrap())]);
        let token = top_up(&relay, &client, 1_234);
        until("that too", || lines(&file).len() == 10);
        (relay.stop(), token)
    };
    let before = accounts(data.path());
    let usage = |format: &str| milliway(data.path(), &["usage", "export", "--format", format]).unwrap();
    let (bill, statement) = (
        usage("csv"),
        milliway(data.path(), &["issuer", "statement", "did:key:z6MkIssuer"]).unwrap(),
    );

    // In Parquet it is the same bill, and so is a part of it.
    let parquet = folder.path().join("usage.parquet");
    let export = |more: &[&str]| {
        let _ = std::fs::remove_file(&parquet);
        let mut arguments = vec![
            "usage",
            "export",
            "--format",
            "parquet",
            "--out",
            parquet.to_str().unwrap(),
        ];
        arguments.extend(more);
        milliway(data.path(), &arguments).unwrap();
        let reader = SerializedFileReader::new(std::fs::File::open(&parquet).unwrap()).unwrap();
        let rows: Vec<String> = reader
            .get_row_iter(None)
            .unwrap()
            .map(|row| {
                let row = row.unwrap();
                let values = row.get_column_iter().map(|(_, value)| value.to_string());
                values.collect::<Vec<_>>().join(",")
            })
            .collect();
        rows
    };
    let rows: Vec<&str> = bill.lines().skip(1).collect();
    assert_eq!(rows.len(), 3);
    let money = |row: &str| row.rsplit(',').next().unwrap().to_owned();
    let (of_csv, of_parquet): (Vec<_>, Vec<_>) = (
        rows.iter().map(|row| money(row)).collect(),
        export(&[]).iter().map(|row| money(row)).collect(),
    );
    assert_eq!(of_csv, of_parquet);
    // A segment belongs to the period in which it was settled, not to that of its use.
    let (first, second) = ("1764547003", "1764547011");
    let part = export(&["--since", first, "--until", second, "--account", "anna"]);
    assert_eq!(part.iter().map(|row| money(row)).collect::<Vec<_>>(), of_csv[..2]);
    assert_eq!(export(&["--until", first]).len(), 0);
    assert_eq!(export(&["--account", "ben"]).len(), 0);

    // The backup alone is less, and the page says what.
    let page = include_str!("../../docs/billing.md");
    let on_page = |start: &str, figures: [u64; 3]| {
        let line = page.lines().find(|line| line.starts_with(start)).unwrap();
        let shown: Vec<u64> = line
            .split('|')
            .skip(2)
            .take(3)
            .map(|cell| cell.trim().replace(',', "").parse().unwrap_or_default())
            .collect();
        assert_eq!(shown, figures, "{line}");
    };
    let available = |data: &Path| {
        let accounts = accounts(data);
        ["anna", "ben", "carl"].map(|name| {
            let account = accounts.iter().find(|account| account["did"] == name);
            account.map_or(0, |account| account["available_msat"].as_u64().unwrap())
        })
    };
    let alone = tempfile::tempdir().unwrap();
    milliway(alone.path(), &["ledger", "restore", backup.to_str().unwrap()]).unwrap();
    on_page("| **`restore FILE`**", available(alone.path()));

    // The same books, in a database.
    let url = server::fresh();
    let in_database = |arguments: &[&str]| {
        let output = Command::new(MILLIWAY)
            .args(arguments)
            .args(["--data", alone.path().to_str().unwrap()])
            .env("MILLIWAY_LEDGER__URL", &url)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let said = in_database(&[
        "ledger",
        "restore",
        backup.to_str().unwrap(),
        "--journal",
        file.to_str().unwrap(),
        "--complete",
    ]);
    assert!(said.contains("tokens issued before now are accepted"), "{said}");
    let shared = in_database(&["account", "list"]);
    let shared: Vec<Value> = shared
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(shared, before);
    let sinks: Value = serde_json::from_str(&in_database(&["usage", "sinks"])).unwrap();
    assert_eq!(
        sinks,
        json!({ "sink": "file", "records": 10, "behind_entries": 0 })
    );

    // The disaster.
    std::fs::rename(&books, folder.path().join("lost.redb")).unwrap();
    let restore = |more: &[&str]| {
        let mut arguments = vec!["ledger", "restore", backup.to_str().unwrap()];
        arguments.extend(more);
        let said = milliway(data.path(), &arguments);
        said.unwrap_or_else(|error| panic!("{error}"))
    };
    let journal = file.to_str().unwrap();
    let said = restore(&["--journal", journal, "--complete"]);
    assert!(said.contains("3 records were in the backup already"), "{said}");
    assert!(said.contains("replayed 2 of milliway.ledger.settle"), "{said}");
    assert!(said.contains("replayed 3 of milliway.ledger.credit"), "{said}");
    assert!(said.contains("tokens issued before now are accepted"), "{said}");
    assert_eq!(accounts(data.path()), before);
    on_page("| **`restore FILE --journal RECORDS`**", available(data.path()));
    assert_eq!(
        milliway(data.path(), &["issuer", "statement", "did:key:z6MkIssuer"]).unwrap(),
        statement
    );
    // The same bill in the same periods; only the entries' names may differ.
    let without_entry = |csv: &str| -> Vec<String> {
        csv.lines()
            .map(|line| line.split_once(',').unwrap().1.to_owned())
            .collect()
    };
    assert_eq!(without_entry(&usage("csv")), without_entry(&bill));
    milliway(data.path(), &["ledger", "verify"]).unwrap();

    // A token from before is known, and was credited once. New records follow the old ones.
    let relay = Relay::start_with(data, &[], &[("MILLIWAY_RECORDS__FILE", journal)]);
    let again = show(&relay, &client, &token);
    assert_eq!(
        (again.status, &again.json()["repeated"]),
        (200, &json!(true)),
        "{}",
        again.text()
    );
    top_up(&relay, &client, 1);
    until("the new one is written", || lines(&file).len() == 11);
    let data = relay.stop();
    let places: Vec<Value> = lines(&file)
        .iter()
        .map(|event| event["sequence"].clone())
        .collect();
    assert_eq!(places.last().unwrap(), &json!(format!("{:020}", 11)));
    assert_eq!(
        places.len(),
        places.iter().map(Value::to_string).collect::<BTreeSet<_>>().len()
    );

    // Records that are missing, and what depends on them, are told; then old tokens are refused.
    let text = std::fs::read_to_string(&file).unwrap();
    let part: Vec<&str> = text
        .lines()
        .filter(|line| !line.contains(r#""jti":"b2""#) && !line.contains(r#""jti":"c1""#))
        .collect();
    let thin = folder.path().join("thin.jsonl");
    std::fs::write(&thin, part.join("\n") + "\n").unwrap();
    std::fs::rename(&books, folder.path().join("lost2.redb")).unwrap();
    let arguments = [
        "ledger",
        "restore",
        backup.to_str().unwrap(),
        "--journal",
        thin.to_str().unwrap(),
        "--complete",
    ];
    let said = milliway(data.path(), &arguments).unwrap();
    assert!(said.contains("missing: the records from"), "{said}");
    assert!(said.contains("tokens issued before now are refused"), "{said}");
    let relay = Relay::start_with(data, &[], &[]);
    assert_eq!(show(&relay, &client, &token).slug(), "token-expired");
}
