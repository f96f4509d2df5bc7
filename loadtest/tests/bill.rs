//! The bill beside the wire: on one relay, and on three that share a PostgreSQL, are killed and lose their database while
//! 64 clients show all of them the same vouchers.
#![allow(clippy::unwrap_used)]

#[path = "../../ledger-postgres/tests/server/mod.rs"]
mod server;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use dsip::receipt::Receipt;
use identity::{Did, SigningKey};
use indicatif::ProgressBar;
use loadtest::bill::{Capture, Purse, Seen, Session, audit, bytes, play, receipt, sell};
use loadtest::holder;
use loadtest::relay::{Relay, program};
use serde_json::{Value, json};

/// A held session is ended soon, so that the test need not wait for a minute.
const HOLD: (&str, &str) = ("MILLIWAY_LADDER__HELD_SECONDS", "2");

#[test]
fn short_sessions_of_a_relay_are_billed_for_what_the_wire_carried() {
    let relay = Relay::start_with(&[(HOLD.0, HOLD.1.to_owned())]).unwrap();
    let did = Did::parse(&relay.ready.did).unwrap();
    let audit = loadtest::bill::run(&relay.ready.http, &did, 128, &ProgressBar::hidden()).unwrap();
    assert_eq!(audit.sessions, 128, "{audit:?}");
    assert_eq!(audit.reasons["balance-exhausted"], 16, "{audit:?}");
    assert!(audit.captured_bytes > 1_000_000, "{audit:?}");
    assert_eq!(audit.billed_bytes, audit.captured_bytes, "{audit:?}");
    assert_eq!(audit.sessions_with_other_bytes, [] as [u32; 0], "{audit:?}");
    assert_eq!((audit.error_msat, audit.overdrawn), (0, 0), "{audit:?}");
    assert!(audit.in_order >= 100, "{audit:?}");
}

#[test]
fn an_admission_is_weighed() {
    let report = loadtest::admission::run(20, &ProgressBar::hidden()).unwrap();
    assert_eq!(report.admissions, 20);
    assert!(
        report.credentials_cpu_us.is_finite() && report.signature_check_us > 0.0,
        "{report:?}"
    );
}

#[test]
fn clients_hear_that_their_money_is_gone_and_a_top_up_at_either_node_brings_their_media_back() {
    let database = server::start();
    let report = loadtest::notices::run(database.url(), 2, &ProgressBar::hidden()).unwrap();
    assert_eq!(
        (report.held_told_ms.count, report.resumed_told_here_ms.count),
        (2, 1),
        "{report:?}"
    );
    assert_eq!(report.resumed_media_elsewhere_ms.count, 1, "{report:?}");
}

/// What is shown in a default run; `MILLIWAY_VOUCHERS=N` for more.
const VOUCHERS: usize = 100;
const CLIENTS: usize = 64;
/// Of each holder.
const VOUCHERS_EACH: usize = 5;
const NODES: usize = 3;
const VOUCHER_MSAT: u64 = 1_000;

/// Between two troubles: long enough for some sessions to begin and end in order.
const CALM: Duration = Duration::from_secs(4);
/// Sessions that are live at the same time.
const WAVE: u32 = 8;

/// However loaded the machine and whatever is killed.
const PATIENCE: Duration = Duration::from_secs(120);

/// The nodes, of which any may be away.
struct Nodes {
    folders: Vec<tempfile::TempDir>,
    settings: Vec<Vec<(&'static str, String)>>,
    running: Mutex<Vec<Option<Relay>>>,
    did: String,
}

impl Nodes {
    /// All with the keys of the first.
    fn start(url: &str) -> Self {
        let folders: Vec<_> = (0..NODES).map(|_| tempfile::tempdir().unwrap()).collect();
        let settings: Vec<_> = (0..NODES)
            .map(|node| {
                vec![
                    ("MILLIWAY_LEDGER__URL", url.to_owned()),
                    ("MILLIWAY_LEDGER__NODE", format!("node-{node}")),
                    (HOLD.0, HOLD.1.to_owned()),
                ]
            })
            .collect();
        let first = Relay::start_node(folders[0].path(), &settings[0]).unwrap();
        let did = first.ready.did.clone();
        for folder in &folders[1..] {
            for key in ["relay.jwk", "issuer.jwk"] {
                std::fs::copy(folders[0].path().join(key), folder.path().join(key)).unwrap();
            }
        }
        let nodes = Self {
            folders,
            settings,
            running: Mutex::new((0..NODES).map(|_| None).collect()),
            did,
        };
        nodes.running.lock().unwrap()[0] = Some(first);
        (1..NODES).for_each(|node| nodes.bring_back(node));
        nodes
    }

    fn bring_back(&self, node: usize) {
        // The database may be starting itself.
        let until = Instant::now() + PATIENCE;
        loop {
            match Relay::start_node(self.folders[node].path(), &self.settings[node]) {
                Ok(relay) => {
                    self.running.lock().unwrap()[node] = Some(relay);
                    return;
                }
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            sleep(Duration::from_millis(200));
        }
    }

    fn kill(&self, node: usize) {
        let relay = self.running.lock().unwrap()[node].take();
        relay.unwrap().kill().unwrap();
    }

    /// A node's front door, if it is there.
    fn base(&self, node: usize) -> Option<String> {
        let running = self.running.lock().unwrap();
        running[node % NODES]
            .as_ref()
            .map(|relay| relay.ready.http.clone())
    }
}

/// A call that shows the account's key; none where the node is away, knows not the nonce or has no ledger just now.
fn call(base: &str, nonce: &str, key: &SigningKey, method: &str, path: &str, body: &str) -> Option<Value> {
    let answer = holder::signed(base, nonce, key, None, method, path, body).ok()?;
    match answer.status {
        200 => Some(answer.json().unwrap()),
        // Another node's nonce after a restart, or no ledger.
        401 | 503 => None,
        other => panic!("{other}: {}", answer.body),
    }
}

fn milliway(data: &Path, settings: &[(&str, String)], arguments: &[&str]) -> String {
    let output = Command::new(program().unwrap())
        .args(arguments)
        .args(["--data", data.to_str().unwrap()])
        .envs(settings.iter().map(|(name, value)| (name, value)))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn three_nodes_that_are_killed_credit_every_voucher_once_and_bill_what_the_wire_carried() {
    let vouchers: usize = std::env::var("MILLIWAY_VOUCHERS").map_or(VOUCHERS, |count| count.parse().unwrap());
    let mut database = server::start();
    let nodes = Nodes::start(database.url());
    let holders: Vec<SigningKey> = (0..vouchers.div_ceil(VOUCHERS_EACH))
        .map(|_| SigningKey::generate())
        .collect();
    let base = nodes.base(0).unwrap();
    let tokens: Vec<(&SigningKey, String)> = (0..vouchers)
        .map(|number| &holders[number % holders.len()])
        .map(|owner| (owner, holder::token(&base, owner, VOUCHER_MSAT).unwrap()))
        .collect();
    let (credited, repeated, over) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let capture = Capture::start().unwrap();
    let run = capture.run();
    let played = scope(|threads| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (nodes, tokens, credited, repeated) = (&nodes, &tokens, &credited, &repeated);
                threads.spawn(move || {
                    let mut nonces: BTreeMap<String, String> = BTreeMap::new();
                    for number in 0..tokens.len() {
                        let (owner, token) = &tokens[(number + client * 7) % tokens.len()];
                        let body = json!({ "token": token }).to_string();
                        let until = Instant::now() + PATIENCE;
                        let mut attempt = client + number;
                        let answer = loop {
                            if let Some(base) = nodes.base(attempt) {
                                let known = nonces.get(&base).cloned().or_else(|| holder::nonce(&base).ok());
                                let answer = known
                                    .as_ref()
                                    .and_then(|nonce| call(&base, nonce, owner, "POST", "/v1/topup", &body));
                                if let (Some(answer), Some(known)) = (answer, known) {
                                    nonces.insert(base, known);
                                    break answer;
                                }
                                nonces.remove(&base);
                            }
                            assert!(Instant::now() < until, "nobody takes a voucher");
                            attempt += 1;
                            sleep(Duration::from_millis(50));
                        };
                        assert_eq!(answer["credited_msat"], VOUCHER_MSAT);
                        let again = answer["repeated"] == true;
                        if again { repeated } else { credited }.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let (over, nodes) = (&over, &nodes);
        let trouble = threads.spawn(move || {
            let mut killed = 0;
            while !over.load(Ordering::Relaxed) || killed < NODES {
                sleep(CALM);
                let node = killed % NODES;
                nodes.kill(node);
                killed += 1;
                if killed % 2 == 0 {
                    database.crash();
                }
                nodes.bring_back(node);
            }
            database
        });
        let mut played: Vec<Session> = Vec::new();
        // The other test of this file has the numbers below.
        let mut first = 8_000;
        while clients.iter().any(|client| !client.is_finished()) || played.len() < 48 {
            let sold = (first..first + WAVE).filter_map(|number| {
                let base = nodes.base(number as usize)?;
                sell(&base, number, Purse::of(number)).ok()
            });
            played.append(&mut play(sold.collect(), run).unwrap());
            // Numbers count on whether or not a session was sold.
            first += WAVE;
            sleep(Duration::from_millis(50));
        }
        over.store(true, Ordering::Relaxed);
        clients.into_iter().for_each(|client| client.join().unwrap());
        // Held until the last node has been killed and is back.
        (played, trouble.join().unwrap())
    });
    let (mut played, _database) = played;
    let seen = capture.stop().unwrap();
    assert_eq!(
        credited.load(Ordering::Relaxed) + repeated.load(Ordering::Relaxed),
        vouchers * CLIENTS
    );
    // An answer that was lost with its node is given again as a repetition: never more than one first answer.
    assert!(credited.load(Ordering::Relaxed) <= vouchers);
    let base = nodes.base(0).unwrap();
    let nonce = holder::nonce(&base).unwrap();
    for (number, owner) in holders.iter().enumerate() {
        let account = call(&base, &nonce, owner, "GET", "/v1/account", "").unwrap();
        let own = (number..vouchers).step_by(holders.len()).count() as u64;
        assert_eq!(account["available_msat"], own * VOUCHER_MSAT, "{account}");
    }
    check_bills(&mut played, &seen, &base, &Did::parse(&nodes.did).unwrap());
    // Fails where the books do not prove.
    milliway(nodes.folders[1].path(), &nodes.settings[1], &["ledger", "verify"]);
}

/// Sessions that ended in order are billed to the byte; those of a node that was killed for no more than was seen.
fn check_bills(played: &mut [Session], seen: &BTreeMap<u32, Seen>, base: &str, relay: &Did) {
    let mut receipts = Vec::new();
    for session in &mut *played {
        base.clone_into(&mut session.base);
        receipts.push(receipt(session, relay).unwrap());
    }
    let recovered = |receipt: &Receipt| receipt.segments.iter().any(|segment| segment.recovered);
    let pairs = played.iter().zip(receipts);
    let (settled, lost): (Vec<_>, Vec<_>) = pairs.partition(|(session, receipt)| {
        session.in_order && receipt.as_ref().is_some_and(|receipt| !recovered(receipt))
    });
    let audit = audit(&settled, seen);
    assert!(audit.sessions > 10, "{audit:?}");
    assert_eq!(audit.sessions_with_other_bytes, [] as [u32; 0], "{audit:?}");
    assert_eq!((audit.error_msat, audit.overdrawn), (0, 0), "{audit:?}");
    for (session, receipt) in lost {
        let seen = seen.get(&session.number).copied().unwrap_or_default();
        if let Some(receipt) = receipt {
            let billed = bytes(&receipt);
            assert!(
                billed.0 <= seen.to_client && billed.1 <= seen.to_peer,
                "{} was billed for more than was relayed: {seen:?} {receipt:?}",
                session.number
            );
            assert!(receipt.msat <= session.voucher, "{receipt:?}");
        }
    }
}
