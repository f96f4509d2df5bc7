//! Three relays on one PostgreSQL, really started: they share accounts and vouchers, are killed, and lose their database.
#![allow(clippy::unwrap_used)]

#[path = "../../ledger-postgres/tests/server/mod.rs"]
mod server;

mod relay;

use std::process::Command;
use std::time::{Duration, Instant};

use identity::SigningKey;
use relay::{MILLIWAY, Relay, offer};
use serde_json::{Value, json};

/// The keys that all nodes of one operator have.
fn keys() -> tempfile::TempDir {
    let first = Relay::start();
    first.stop()
}

/// A node of the operator whose keys these are.
fn node(keys: &tempfile::TempDir, url: &str, name: &str) -> Relay {
    let data = tempfile::tempdir().unwrap();
    for key in ["relay.jwk", "issuer.jwk"] {
        std::fs::copy(keys.path().join(key), data.path().join(key)).unwrap();
    }
    again(data, url, name)
}

fn again(data: tempfile::TempDir, url: &str, name: &str) -> Relay {
    let environment = [("MILLIWAY_LEDGER__URL", url), ("MILLIWAY_LEDGER__NODE", name)];
    Relay::start_with(data, &[], &environment)
}

fn milliway(url: &str, data: &std::path::Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(MILLIWAY)
        .args(arguments)
        .args(["--data", data.to_str().unwrap()])
        .env("MILLIWAY_LEDGER__URL", url)
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

fn available(relay: &Relay, key: &SigningKey) -> Value {
    relay.signed(key, None, "GET", "/v1/account", b"").json()
}

#[test]
fn clients_that_show_the_same_vouchers_to_every_node_are_credited_once_also_when_one_is_killed() {
    let (keys, url) = (keys(), server::fresh());
    let mut nodes: Vec<Relay> = ["a", "b", "c"]
        .iter()
        .map(|name| node(&keys, &url, name))
        .collect();
    let clients: Vec<SigningKey> = (0..6).map(|_| SigningKey::generate()).collect();
    let tokens: Vec<Vec<String>> = clients
        .iter()
        .map(|client| {
            (0..4)
                .map(|_| nodes[0].faucet(client.did().as_str(), 1_000, false))
                .collect()
        })
        .collect();
    let show_all = |nodes: &[Relay]| {
        std::thread::scope(|scope| {
            for (client, tokens) in clients.iter().zip(&tokens) {
                for node in nodes {
                    scope.spawn(move || {
                        for token in tokens {
                            let body = json!({ "token": token }).to_string();
                            let answer = node.signed(client, None, "POST", "/v1/topup", body.as_bytes());
                            assert_eq!(answer.status, 200, "{}", answer.text());
                            assert_eq!(answer.json()["credited_msat"], 1_000);
                        }
                    });
                }
            }
        });
    };
    show_all(&nodes);
    let data = nodes.pop().unwrap().kill();
    nodes.push(again(data, &url, "c"));
    show_all(&nodes);
    for client in &clients {
        for node in &nodes {
            assert_eq!(available(node, client)["available_msat"], 4_000);
        }
    }
    let proof = milliway(&url, nodes[1].data.path(), &["ledger", "verify"]).unwrap();
    assert!(proof.contains("24000 = 24000 + 0 + 0 + 0"), "{proof}");
    let issuer = nodes[0].issuer();
    let statement = milliway(
        &url,
        nodes[1].data.path(),
        &["issuer", "statement", issuer.did().as_str()],
    )
    .unwrap();
    let statement: Value = serde_json::from_str(&statement).unwrap();
    assert_eq!(
        (&statement["vouchers"], &statement["outstanding_msat"]),
        (&json!(24), &json!(24_000))
    );
}

#[test]
fn an_operator_credits_freezes_and_refunds_beside_running_nodes() {
    let (keys, url) = (keys(), server::fresh());
    let (here, there) = (node(&keys, &url, "here"), node(&keys, &url, "there"));
    let anna = SigningKey::generate();
    let did = anna.did().as_str();
    let token = here.faucet(did, 50_000, false);
    let joined = here.signed(&anna, Some(&token), "POST", "/whip/den/anna", offer().as_bytes());
    assert_eq!(joined.status, 201, "{}", joined.text());
    assert_eq!(
        available(&there, &anna)["sessions"],
        json!([]),
        "it lives on the other node"
    );
    let there_data = there.data.path().to_owned();
    let account = |arguments: &[&str]| -> Value {
        let out = milliway(&url, &there_data, &[&["account"], arguments].concat()).unwrap();
        serde_json::from_str(out.lines().last().unwrap()).unwrap()
    };
    let credited = account(&["credit", did, "--msat", "700", "--reason", "sorry", "--id", "one"]);
    let again = account(&["credit", did, "--msat", "700", "--reason", "sorry", "--id", "one"]);
    assert_eq!(credited["available_msat"], again["available_msat"]);
    assert_eq!(
        credited["refundable_msat"], 50_000,
        "promotional credit is not paid back"
    );
    assert_eq!(account(&["freeze", did])["frozen"], true);
    // The freeze reaches the session on the other node, which ends it and settles.
    let until = Instant::now() + Duration::from_secs(10);
    while account(&["show", did])["live_sessions"] != 0 {
        assert!(Instant::now() < until, "the session goes on");
        std::thread::sleep(Duration::from_millis(50));
    }
    let refunded = account(&["refund", did, "--reason", "leaves", "--all"]);
    assert_eq!(refunded["refundable_msat"], 0);
    assert!(
        refunded["refunded_msat"].as_u64().unwrap() >= 49_000,
        "{refunded}"
    );
    // Once more: there is nothing to pay back, and nothing wrong with that. Without `--all` it is refused.
    assert_eq!(account(&["refund", did, "--reason", "leaves", "--all"]), refunded);
    let nothing = milliway(
        &url,
        &there_data,
        &["account", "refund", did, "--reason", "leaves"],
    );
    assert!(nothing.unwrap_err().contains("exhausted"));
    let refused = here.signed(&anna, Some(&token), "POST", "/whip/den/anna", offer().as_bytes());
    assert_eq!(refused.slug(), "account-frozen");
    let proof = milliway(&url, here.data.path(), &["ledger", "verify"]);
    assert!(proof.is_ok(), "{proof:?}");
    let usage = milliway(&url, here.data.path(), &["usage", "export", "--format", "csv"]).unwrap();
    assert!(
        usage.starts_with("entry,settled_at_ns,account,settlement,"),
        "{usage}"
    );
}

#[test]
fn a_crash_of_the_database_loses_no_credit_and_the_nodes_come_back_by_themselves() {
    let keys = keys();
    let mut database = server::start();
    let url = database.url().to_owned();
    let nodes = [node(&keys, &url, "a"), node(&keys, &url, "b")];
    let anna = SigningKey::generate();
    let did = anna.did().as_str();
    let session = nodes[0].faucet(did, 50_000, false);
    let joined = nodes[0].signed(
        &anna,
        Some(&session),
        "POST",
        "/whip/den/anna",
        offer().as_bytes(),
    );
    assert_eq!(joined.status, 201, "{}", joined.text());
    let mut credited = 50_000;
    for _ in 0..2 {
        database.crash();
        let token = nodes[0].faucet(did, 1_000, false);
        let body = json!({ "token": token }).to_string();
        for node in &nodes {
            let until = Instant::now() + Duration::from_secs(20);
            loop {
                let answer = node.signed(&anna, None, "POST", "/v1/topup", body.as_bytes());
                if answer.status == 200 {
                    break;
                }
                assert_eq!(answer.slug(), "capacity", "{}", answer.text());
                assert!(Instant::now() < until, "the node does not come back");
                std::thread::sleep(Duration::from_millis(200));
            }
        }
        credited += 1_000;
    }
    let account = available(&nodes[1], &anna);
    let sum = ["available_msat", "reserved_msat", "spent_msat"].map(|part| account[part].as_u64().unwrap());
    assert_eq!(sum.iter().sum::<u64>(), credited, "{account}");
    let proof = milliway(&url, nodes[1].data.path(), &["ledger", "verify"]);
    assert!(proof.is_ok(), "{proof:?}");
}

#[test]
fn a_loss_on_any_node_is_shown_and_told_once_by_the_others() {
    use ledger_postgres::{Options, Postgres};
    use metering::ledger::{Command as Order, Conditions, Open, Outcome};
    use metering::{LeaseId, Ledger, Msat, Rates, Report, Service, SessionId, Usage, Voucher};

    let url = server::fresh();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let environment = [
        ("MILLIWAY_LEDGER__URL", url.as_str()),
        ("MILLIWAY_LEDGER__NODE", "a"),
    ];
    let relay = Relay::start_logging_with(std::fs::File::create(&log).unwrap(), &environment);
    let shown = || {
        let text = relay.get("/metrics").text().to_owned();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(r#"milliway_memo_msat{memo="old-epoch"} "#));
        line.map(|value| value.parse::<f64>().unwrap())
    };
    let until = |what: &str, holds: &dyn Fn() -> bool| {
        let end = Instant::now() + Duration::from_secs(30);
        while !holds() {
            assert!(Instant::now() < end, "never: {what}");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    until("the memo is looked at", &|| shown() == Some(0.0));

    // Another node's lease is taken back, and it reports what it had used by then.
    let (mut other, _) = Postgres::open(&url, Options::new("b"), 1).unwrap();
    let voucher = Voucher {
        iss: "did:key:z6MkIssuer".into(),
        jti: "a".into(),
        sub: "anna".into(),
        payer: None,
        aud: "did:key:z6MkRelay".into(),
        balance: Msat::new(1_000),
        account: "anna".into(),
        refundable: true,
    };
    let open = Order::Open(Box::new(Open {
        session: SessionId::new(1),
        account: "anna".into(),
        voucher: Some(voucher),
        service: Service::Sfu,
        tariff: "sfu-1".into(),
        rates: Rates {
            out: 50,
            in_: 0,
            second: 8,
        },
        want: Msat::new(100),
        minimum: Msat::new(42),
        cap: None,
        conditions: Conditions::default(),
    }));
    let lease: LeaseId = match other.apply(&[open], 2).unwrap().remove(0) {
        Ok(Outcome::Opened { lease, .. }) => lease,
        outcome => panic!("{outcome:?}"),
    };
    let reason = "test".to_owned();
    other.apply(&[Order::Reclaim { lease, reason }], 3).unwrap()[0]
        .as_ref()
        .unwrap();
    let report = Report {
        lease,
        session: SessionId::new(1),
        epoch: 0,
        sequence: 1,
        segment: 0,
        usage: Usage {
            bytes_out: 1_000_000,
            bytes_in: 0,
            nanoseconds: 1_000_000_000,
            debit: Msat::ZERO,
        },
        granted: Msat::ZERO,
        exhausted: false,
        renew: false,
        closed: false,
        held: false,
        last: false,
    };
    other.apply(&[Order::Report(report)], 4).unwrap()[0]
        .as_ref()
        .unwrap();
    until("the loss is shown", &|| shown() == Some(58.0));
    until("the loss is told", &|| {
        std::fs::read_to_string(&log)
            .unwrap()
            .contains("the loss memo has grown")
    });
    std::thread::sleep(Duration::from_secs(6));
    let told = std::fs::read_to_string(&log).unwrap();
    assert_eq!(told.matches("the loss memo has grown").count(), 1, "once");
    assert!(told.contains("msat=58"), "{told}");
}

#[test]
fn a_denial_on_one_node_ends_live_sessions_on_the_other_and_one_list_serves_all() {
    let (keys, url) = (keys(), server::fresh());
    let (here, there) = (node(&keys, &url, "here"), node(&keys, &url, "there"));
    let anna = SigningKey::generate();
    let did = anna.did().as_str();
    let token = here.faucet(did, 500_000, false);
    let mut took = Vec::new();
    for round in 0..5 {
        let joined = here.signed(&anna, Some(&token), "POST", "/whip/den/anna", offer().as_bytes());
        assert_eq!(joined.status, 201, "{}", joined.text());
        let there_data = there.data.path();
        milliway(&url, there_data, &["deny", "add", "sub", did]).unwrap();
        let denied = Instant::now();
        while available(&here, &anna)["sessions"] != json!([]) {
            assert!(denied.elapsed() < Duration::from_secs(10), "the session goes on");
            std::thread::sleep(Duration::from_millis(5));
        }
        took.push(denied.elapsed());
        let refused = here.signed(&anna, Some(&token), "POST", "/whip/den/anna", offer().as_bytes());
        assert_eq!(refused.slug(), "denied", "round {round}");
        let list = milliway(&url, here.data.path(), &["deny", "list"]).unwrap();
        assert_eq!(list, format!("sub {did}\n"));
        milliway(&url, here.data.path(), &["deny", "remove", "sub", did]).unwrap();
        let removed = Instant::now();
        while there
            .signed(&anna, Some(&token), "POST", "/v1/turn/credentials", b"")
            .status
            != 200
        {
            assert!(removed.elapsed() < Duration::from_secs(10), "it stays denied");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    took.sort();
    // A figure for people; a timing is no test.
    println!("from the denial to the end of sessions on the other node: {took:?}");

    // And with no relay running: the list is the ledger's, not a node's.
    let (here, there) = (here.stop(), there.stop());
    milliway(&url, here.path(), &["deny", "add", "jti", "stolen"]).unwrap();
    assert_eq!(
        milliway(&url, there.path(), &["deny", "list"]).unwrap(),
        "jti stolen\n"
    );
    assert!(!there.path().join("deny.list").exists());
}
