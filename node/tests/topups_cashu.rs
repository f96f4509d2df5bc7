//! Top-ups with Cashu tokens, at a real mint and out of a real wallet (Nutshell): exchanged, credited once, and recovered
//! after a kill between any two steps. THREATS: tokens twice, a mint that lies or hangs, kill -9.
#![allow(clippy::unwrap_used)]

mod nutshell;
mod relay;

use std::process::Command;
use std::sync::atomic::Ordering;

use identity::SigningKey;
use nutshell::{Mint, Mischief, configuration, wait_for};
use relay::{Answer, MILLIWAY, Relay};
use serde_json::{Value, json};
use tempfile::TempDir;

fn start(mint: &Mint, data: TempDir) -> Relay {
    let file = configuration(mint, data.path());
    Relay::start_with(data, &["--config", &file], &[])
}

fn pay(relay: &Relay, key: &SigningKey, token: &str) -> Answer {
    let wish = json!({"method": "cashu", "token": token}).to_string();
    relay.signed(key, None, "POST", "/v1/topups", wish.as_bytes())
}

fn available(relay: &Relay, key: &SigningKey) -> u64 {
    let account = relay.signed(key, None, "GET", "/v1/account", b"").json();
    account["available_msat"].as_u64().unwrap()
}

fn state(relay: &Relay, key: &SigningKey, id: &str) -> Value {
    let answer = relay.signed(key, None, "GET", &format!("/v1/topups/{id}"), b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// `milliway`, on this relay's data; its lines.
fn milliway(arguments: &[&str], relay: &Relay) -> Vec<Value> {
    let output = Command::new(MILLIWAY)
        .args(arguments)
        .args(["--data", relay.data.path().to_str().unwrap()])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The token's coins are worth this after the mint's fee.
fn worth(sat: u64) -> u64 {
    let coins = u64::from(sat.count_ones());
    (sat - (coins * nutshell::FEE).div_ceil(1_000)) * 1_000
}

#[test]
fn a_token_becomes_the_relays_own_coins_and_is_credited_once_whoever_brings_it_and_how_often() {
    let mint = Mint::start();
    let wallet = mint.wallet("payer");
    wallet.fill(2_000);
    let relay = start(&mint, tempfile::tempdir().unwrap());
    let (anna, bob) = (SigningKey::generate(), SigningKey::generate());

    // The newer form with the mint's proofs, names of keysets cut short, and the older form.
    for (sat, options, paid) in [(210, vec!["--dleq"], 0), (37, vec!["--legacy"], worth(210))] {
        let token = wallet.send(sat, &options);
        let answer = pay(&relay, &anna, &token);
        assert_eq!(answer.status, 201, "{}", answer.text());
        let top_up = answer.json();
        assert_eq!(top_up["state"], "settled");
        assert_eq!(top_up["credited_msat"], worth(sat));
        assert_eq!(top_up["available_msat"], paid + worth(sat));
        let again = pay(&relay, &anna, &token);
        assert_eq!(
            (again.status, again.json()["repeated"].clone()),
            (200, true.into())
        );
        assert_eq!(pay(&relay, &bob, &token).slug(), "voucher-conflict");
        let id = top_up["id"].as_str().unwrap();
        assert_eq!(state(&relay, &anna, id)["state"], "settled");
        let others = relay.signed(&bob, None, "GET", &format!("/v1/topups/{id}"), b"");
        assert_eq!(others.slug(), "not-found");
    }
    assert_eq!(available(&relay, &anna), worth(210) + worth(37));
    assert_eq!(available(&relay, &bob), 0);

    // Racing: one token, 64 calls for two accounts.
    let token = wallet.send(64, &[]);
    std::thread::scope(|scope| {
        for call in 0..64 {
            let key = if call % 2 == 0 { &anna } else { &bob };
            let (relay, token) = (&relay, &token);
            scope.spawn(move || {
                let answer = pay(relay, key, token);
                assert!(matches!(answer.status, 200 | 201 | 409), "{}", answer.text());
            });
        }
    });
    let both = || available(&relay, &anna) + available(&relay, &bob);
    let expected = worth(210) + worth(37) + worth(64);
    wait_for("the raced token is credited", || both() == expected);

    // Spent elsewhere before it came.
    let token = wallet.send(16, &[]);
    mint.wallet("other").receive(&token).unwrap();
    let answer = pay(&relay, &anna, &token);
    assert_eq!(
        (answer.slug().as_str(), answer.json()["reason"].clone()),
        ("topup-token", "token-spent".into())
    );
    // Coins that the mint never made.
    let token = wallet.send(4, &["--legacy"]);
    let forged = forge(&token);
    assert_eq!(pay(&relay, &anna, &forged).json()["reason"], "mint-refused");
    // The same coins, whole, are still good, for anybody.
    assert_eq!(pay(&relay, &bob, &token).json()["credited_msat"], worth(4));
    assert_eq!(both(), expected + worth(4));

    // What the relay owns comes out as tokens that a wallet takes, once marked as taken.
    let exported = milliway(&["topup", "export"], &relay);
    let sum: u64 = exported.iter().map(|line| line["amount"].as_u64().unwrap()).sum();
    assert_eq!(sum * 1_000, both());
    let operator = mint.wallet("operator");
    let said = operator.receive(exported[0]["token"].as_str().unwrap()).unwrap();
    assert!(said.contains("Received"), "{said}");
    assert!(milliway(&["topup", "export"], &relay).is_empty());
    assert_eq!(
        milliway(&["topup", "export", "--again"], &relay).len(),
        exported.len()
    );
    let listed = milliway(&["topup", "list"], &relay);
    assert_eq!(listed.len(), 6);
    assert!(
        listed.iter().all(|row| row.get("detail").is_none()),
        "a list is no purse"
    );
    let shown = milliway(&["issuer", "statement", "cashu"], &relay);
    assert_eq!(shown[0]["credited_msat"], both());
    milliway(
        &["account", "refund", anna.did().as_str(), "--reason", "asked for"],
        &relay,
    );
    assert_eq!(
        available(&relay, &anna),
        0,
        "what was paid with money is paid back"
    );
}

/// The token with its first coin's secret changed: the signature is no longer on it.
fn forge(token: &str) -> String {
    use base64::Engine;
    use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
    let encoded = token.strip_prefix("cashuA").unwrap().trim_end_matches('=');
    let json = URL_SAFE_NO_PAD.decode(encoded).unwrap();
    let mut json: Value = serde_json::from_slice(&json).unwrap();
    json["token"][0]["proofs"][0]["secret"] = "another secret".into();
    format!("cashuA{}", URL_SAFE.encode(json.to_string()))
}

#[test]
fn a_kill_between_any_two_steps_leaves_the_money_credited_exactly_once() {
    let mint = Mint::start();
    let wallet = mint.wallet("payer");
    wallet.fill(1_000);
    let mut data = tempfile::tempdir().unwrap();
    let anna = SigningKey::generate();
    let mut expected = 0;
    // Written down and not yet asked for; asked for and done, but not known here; known and credited.
    for (step, mischief) in [Mischief::LoseRequest, Mischief::LoseAnswer, Mischief::None]
        .into_iter()
        .enumerate()
    {
        let token = wallet.send(100 + step as u64, &[]);
        expected += worth(100 + step as u64);
        let relay = start(&mint, data);
        mint.set(mischief);
        let before = mint.caught.load(Ordering::SeqCst);
        std::thread::scope(|scope| {
            let call = scope.spawn(|| {
                let wish = json!({"method": "cashu", "token": token}).to_string();
                // Killed before it can answer, where there is mischief.
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    relay.signed(&anna, None, "POST", "/v1/topups", wish.as_bytes())
                }));
            });
            if mischief != Mischief::None {
                wait_for("the exchange is under way", || {
                    mint.caught.load(Ordering::SeqCst) > before
                });
                // The mint needs a moment to do it.
                std::thread::sleep(std::time::Duration::from_millis(700));
                relay.signal("KILL");
            }
            call.join().unwrap();
        });
        data = relay.kill();
        mint.set(Mischief::None);
        let relay = start(&mint, data);
        wait_for("the money is credited after the restart", || {
            available(&relay, &anna) == expected
        });
        let again = pay(&relay, &anna, &token).json();
        assert_eq!(
            (again["state"].clone(), again["repeated"].clone()),
            ("settled".into(), true.into())
        );
        assert_eq!(available(&relay, &anna), expected, "step {step}");
        data = relay.stop();
    }
    let relay = start(&mint, data);
    let exported = milliway(&["topup", "export"], &relay);
    let sum: u64 = exported.iter().map(|line| line["amount"].as_u64().unwrap()).sum();
    assert_eq!(sum * 1_000, expected, "every coin is there");
    for line in &exported {
        mint.wallet("operator")
            .receive(line["token"].as_str().unwrap())
            .unwrap();
    }
    // A new ledger, the old seed: whoever brings the token again gets what only the ledger had forgotten.
    let token = wallet.send(50, &[]);
    assert_eq!(pay(&relay, &anna, &token).status, 201);
    let data = relay.stop();
    std::fs::remove_file(data.path().join("ledger.redb")).unwrap();
    let relay = start(&mint, data);
    assert_eq!(pay(&relay, &anna, &token).json()["credited_msat"], worth(50));
}

#[test]
fn a_mint_that_lies_or_hangs_gets_nothing_credited_and_what_it_did_is_found_later() {
    let mint = Mint::start();
    let wallet = mint.wallet("payer");
    wallet.fill(500);
    let relay = start(&mint, tempfile::tempdir().unwrap());
    let anna = SigningKey::generate();

    mint.set(Mischief::Forge);
    let token = wallet.send(33, &[]);
    let answer = pay(&relay, &anna, &token);
    assert_eq!(
        (answer.status, answer.json()["state"].clone()),
        (201, "open".into()),
        "{}",
        answer.text()
    );
    assert_eq!(
        available(&relay, &anna),
        0,
        "signatures that are none are no money"
    );
    mint.set(Mischief::None);
    wait_for("the true signatures are found", || {
        available(&relay, &anna) == worth(33)
    });

    // Refused before anything is asked of a mint.
    let too_long = format!("cashuA{}", "A".repeat(50_000));
    for (token, slug) in [
        ("cashuA!!!", "topup-token"),
        ("cashuBoWFt", "topup-token"),
        ("lnbc1", "topup-token"),
        ("", "topup-token"),
        (too_long.as_str(), "topup-token"),
    ] {
        assert_eq!(pay(&relay, &anna, token).slug(), slug, "{token:.20}");
    }
    let body = json!({"method": "cashu", "token": "cashuA".repeat(20_000)}).to_string();
    let answer = relay.signed(&anna, None, "POST", "/v1/topups", body.as_bytes());
    assert_eq!(answer.slug(), "too-large");
    let wish = json!({"method": "lightning", "amount_msat": 5_000}).to_string();
    let answer = relay.signed(&anna, None, "POST", "/v1/topups", wish.as_bytes());
    assert_eq!(answer.slug(), "topup-unavailable");
    // Another mint's coins.
    let other = Mint::start();
    let wallet = other.wallet("payer");
    wallet.fill(10);
    let answer = pay(&relay, &anna, &wallet.send(8, &[]));
    assert_eq!(
        (answer.slug().as_str(), answer.json()["mints"][0].clone()),
        ("topup-token", mint.url.clone().into())
    );
    assert_eq!(available(&relay, &anna), worth(33));
}
