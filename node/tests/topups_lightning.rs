//! Top-ups over Lightning, with either kind of node behind them: invoices checked, payments credited once, through
//! restarts, lies and expiry; and 402 in the form of L402. THREATS: one payment claimed twice, an invoice that the node
//! changed, kill -9.
#![allow(clippy::unwrap_used)]

mod lightning_node;
mod nutshell;
mod relay;

use std::time::{Duration, Instant};

use identity::SigningKey;
use lightning_node::{Kind, Node, Stands};
use relay::{Answer, Relay, offer};
use serde_json::{Value, json};
use tempfile::TempDir;

const KINDS: [Kind; 2] = [Kind::Lnd, Kind::CoreLightning];

fn start(node: &Node, data: TempDir, more: &str) -> Relay {
    let file = node.configuration(data.path(), more);
    Relay::start_with(data, &["--config", &file], &[])
}

fn ask(relay: &Relay, key: &SigningKey, msat: u64) -> Answer {
    let wish = json!({"method": "lightning", "amount_msat": msat}).to_string();
    relay.signed(key, None, "POST", "/v1/topups", wish.as_bytes())
}

fn asked(relay: &Relay, key: &SigningKey, msat: u64) -> String {
    let answer = ask(relay, key, msat);
    assert_eq!(answer.status, 201, "{}", answer.text());
    let top_up = answer.json();
    let id = top_up["id"].as_str().unwrap().to_owned();
    assert_eq!(answer.headers["location"], format!("/v1/topups/{id}"));
    assert_eq!(
        (top_up["state"].clone(), top_up["amount_msat"].clone()),
        ("open".into(), msat.into())
    );
    assert!(top_up["invoice"].as_str().unwrap().starts_with("lnbcrt"));
    id
}

fn account(relay: &Relay, key: &SigningKey) -> u64 {
    let account = relay.signed(key, None, "GET", "/v1/account", b"").json();
    account["available_msat"].as_u64().unwrap()
}

fn top_up(relay: &Relay, key: &SigningKey, id: &str) -> Value {
    relay
        .signed(key, None, "GET", &format!("/v1/topups/{id}"), b"")
        .json()
}

fn wait_for(what: &str, mut is: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_paid_invoice_is_credited_once_to_the_account_that_asked_for_it() {
    for kind in KINDS {
        let node = Node::start(kind);
        let relay = start(&node, tempfile::tempdir().unwrap(), "");
        let ways = relay.get("/v1/topups").json();
        assert_eq!(
            (ways["methods"].clone(), ways["minimum_msat"].clone()),
            (json!(["lightning"]), 1_000.into())
        );
        let (anna, bob) = (SigningKey::generate(), SigningKey::generate());
        let id = asked(&relay, &anna, 21_000);
        assert_eq!(
            relay
                .signed(&bob, None, "GET", &format!("/v1/topups/{id}"), b"")
                .slug(),
            "not-found"
        );
        assert_eq!(account(&relay, &anna), 0);
        // Paid with a little more, as payers may.
        node.set(&id, Stands::Paid(21_005));
        wait_for("the payment is credited", || account(&relay, &anna) == 21_000);
        let settled = top_up(&relay, &anna, &id);
        assert_eq!(
            (settled["state"].clone(), settled.get("invoice")),
            ("settled".into(), None)
        );
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!((account(&relay, &anna), account(&relay, &bob)), (21_000, 0));
    }
}

#[test]
fn a_payment_that_arrives_while_the_relay_is_dead_is_credited_once_it_is_back() {
    for kind in KINDS {
        let node = Node::start(kind);
        let anna = SigningKey::generate();
        let mut relay = start(&node, tempfile::tempdir().unwrap(), "");
        let mut expected = 0;
        // Killed after the invoice was shown; killed right as it is paid; killed once it is credited.
        for moment in 0..3 {
            let id = asked(&relay, &anna, 5_000 + moment);
            expected += 5_000 + moment;
            if moment > 0 {
                node.set(&id, Stands::Paid(5_000 + moment));
            }
            if moment == 2 {
                wait_for("the payment is credited", || account(&relay, &anna) == expected);
            }
            let data = relay.kill();
            if moment == 0 {
                node.set(&id, Stands::Paid(5_000));
            }
            relay = start(&node, data, "");
            wait_for("the payment is credited after the kill", || {
                account(&relay, &anna) == expected
            });
            assert_eq!(top_up(&relay, &anna, &id)["state"], "settled");
        }
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(account(&relay, &anna), expected);
    }
}

#[test]
fn a_node_that_lies_hangs_or_lets_an_invoice_expire_gets_nothing_credited() {
    for kind in KINDS {
        let node = Node::start(kind);
        let relay = start(
            &node,
            tempfile::tempdir().unwrap(),
            "open_per_account_max = 2\nmaximum_msat = 50_000\n",
        );
        let anna = SigningKey::generate();
        for (msat, slug) in [(999, "topup-amount"), (50_001, "topup-amount")] {
            assert_eq!(ask(&relay, &anna, msat).slug(), slug);
        }
        assert_eq!(node.invoices(), 0, "refused before the node is asked");
        node.cheat(1);
        assert_eq!(ask(&relay, &anna, 9_000).slug(), "capacity");
        node.cheat(0);
        node.set_down(true);
        assert_eq!(ask(&relay, &anna, 9_000).slug(), "capacity");
        node.set_down(false);

        let (liar, short) = (asked(&relay, &anna, 9_000), asked(&relay, &anna, 9_000));
        let made = node.invoices();
        assert_eq!(ask(&relay, &anna, 9_000).slug(), "rate-limited");
        assert_eq!(node.invoices(), made, "one too many is not asked for");
        node.set(&liar, Stands::PaidSheSays);
        node.set(&short, Stands::Paid(8_999));
        std::thread::sleep(Duration::from_millis(700));
        assert_eq!(account(&relay, &anna), 0);
        for id in [&liar, &short] {
            assert_eq!(top_up(&relay, &anna, id)["state"], "open");
            node.set(id, Stands::Expired);
        }
        wait_for("both have failed", || {
            [&liar, &short]
                .iter()
                .all(|id| top_up(&relay, &anna, id)["state"] == "failed")
        });
        assert_eq!(top_up(&relay, &anna, &liar)["reason"], "expired");
        // Both places are free again.
        asked(&relay, &anna, 9_000);
        assert_eq!(account(&relay, &anna), 0);
    }
}

#[test]
fn the_node_of_these_tests_is_one_to_other_peoples_clients_too() {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};
    for kind in KINDS {
        let node = Node::start(kind);
        let folder = tempfile::tempdir().unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/nutshell/lightning_client.py");
        let mut client = Command::new("timeout")
            .arg("60")
            .arg(nutshell::environment().join("bin/python"))
            .args([
                script,
                if kind == Kind::Lnd {
                    "lnd"
                } else {
                    "core-lightning"
                },
            ])
            .current_dir(folder.path())
            .env("CASHU_DIR", folder.path())
            .envs(node.for_nutshell(folder.path()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(client.stdout.take().unwrap()).lines();
        let mut input = client.stdin.take().unwrap();
        let hash = lines.next().unwrap().unwrap();
        writeln!(input).unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "PENDING");
        node.set(&hash, Stands::Paid(21_000));
        writeln!(input).unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "SETTLED");
        assert!(client.wait().unwrap().success());
    }
}

fn challenge(answer: &Answer) -> (String, String) {
    let header = &answer.headers["www-authenticate"];
    assert!(header.starts_with("L402 version=\"0\", token=\""), "{header}");
    let part = |name: &str| {
        let rest = header.split(&format!("{name}=\"")).nth(1).unwrap();
        rest.split('"').next().unwrap().to_owned()
    };
    assert_eq!(part("token"), part("macaroon"));
    assert!(part("invoice").starts_with("lnbcrt"));
    let id = answer.json()["topup"]
        .as_str()
        .unwrap()
        .rsplit('/')
        .next()
        .unwrap()
        .to_owned();
    (part("token"), id)
}

fn call(relay: &Relay, headers: &[(&str, &str)]) -> Answer {
    let mut all = vec![("Content-Type", "application/sdp")];
    all.extend(headers);
    relay.call("POST", "/whip/den/somebody", &all, offer().as_bytes())
}

#[test]
fn somebody_without_a_token_pays_an_l402_invoice_and_is_let_in_with_its_preimage() {
    let node = Node::start(Kind::Lnd);
    let relay = start(
        &node,
        tempfile::tempdir().unwrap(),
        "l402 = true\nl402_msat = 40_000\n",
    );
    // Nobody asked for the form.
    assert_eq!(call(&relay, &[]).slug(), "token-missing");
    let answer = call(&relay, &[("Accept-Authenticate", "L402")]);
    assert_eq!(
        (answer.status, answer.slug().as_str()),
        (402, "balance-exhausted")
    );
    let (token, id) = challenge(&answer);
    let preimage = node.preimage(&id);
    let shown = |token: &str, preimage: &str| {
        let authorization = format!("L402 {token}:{preimage}");
        call(
            &relay,
            &[("Authorization", &authorization), ("Accept-Authenticate", "L402")],
        )
    };
    // LND's own API shows a preimage before it was paid: knowing it opens an account with nothing in it.
    assert_eq!(shown(&token, &preimage).status, 402);
    assert_eq!(shown(&token, &"11".repeat(32)).slug(), "token-malformed");
    assert_eq!(shown("e30.e30.e30", &preimage).slug(), "token-malformed");
    node.set(&id, Stands::Paid(40_000));
    let answer = shown(&token, &preimage);
    assert_eq!(answer.status, 201, "{}", answer.text());
    // What is left is the account's; its receipts and its balance are its bearer's to see.
    let authorization = format!("L402 {token}:{preimage}");
    let seen = relay
        .call("GET", "/v1/account", &[("Authorization", &authorization)], b"")
        .json();
    let of = |name: &str| seen[name].as_u64().unwrap();
    assert_eq!(
        of("available_msat") + of("reserved_msat") + of("spent_msat"),
        40_000
    );
}

#[test]
fn a_holder_out_of_money_is_told_an_invoice_for_its_own_account() {
    let node = Node::start(Kind::CoreLightning);
    let relay = start(&node, tempfile::tempdir().unwrap(), "l402 = true\n");
    let anna = SigningKey::generate();
    let jwt = relay.faucet(anna.did().as_str(), 0, false);
    let (body, url) = (offer(), relay.url("/whip/den/anna"));
    let join = |accept: bool| {
        let request = identity::proof::Request {
            method: "POST",
            url: &url,
            body: body.as_bytes(),
        };
        let proof = identity::proof::sign_dpop(&anna, &request, Some(&jwt), &relay.nonce(), relay::now());
        let authorization = format!("DPoP {jwt}");
        let mut headers = vec![
            ("Authorization", authorization.as_str()),
            ("DPoP", proof.as_str()),
            ("Content-Type", "application/sdp"),
        ];
        if accept {
            headers.push(("Accept-Authenticate", "DPoP, l402"));
        }
        relay.call("POST", "/whip/den/anna", &headers, body.as_bytes())
    };
    let plain = join(false);
    assert_eq!((plain.status, plain.headers.get("www-authenticate")), (402, None));
    let (token, id) = challenge(&join(true));
    node.set(&id, Stands::Paid(100_000));
    wait_for("the payment is credited", || account(&relay, &anna) == 100_000);
    // What pays opens nothing: spending needs the account's key.
    let authorization = format!("L402 {token}:{}", node.preimage(&id));
    assert_eq!(
        call(&relay, &[("Authorization", &authorization)]).slug(),
        "token-malformed"
    );
    assert_eq!(join(true).status, 201);
}
