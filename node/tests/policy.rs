//! The policy of a running relay: thresholds, caps, deny lists on live sessions, reload, and the explanation of it all.
#![allow(clippy::unwrap_used)]

mod relay;
mod web;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use identity::policy::{DenyList, Kind, sign_list};
use identity::token::{Issue, issue};
use identity::{Did, SigningKey};
use relay::{MILLIWAY, Relay, offer};
use serde_json::json;
use tempfile::TempDir;
use web::Site;

fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// Configuration and policy of one relay.
struct Setup {
    files: TempDir,
}

impl Setup {
    fn new(policy: &str, more: &str) -> Setup {
        let files = tempfile::tempdir().unwrap();
        let setup = Setup { files };
        setup.write(policy);
        let text = format!("[policy]\nfile = \"{}\"\n{more}", setup.path("policy.toml"));
        std::fs::write(setup.path("relay.toml"), text).unwrap();
        setup
    }

    fn write(&self, policy: &str) {
        std::fs::write(self.path("policy.toml"), policy).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.files.path().join(name).display().to_string()
    }

    fn start(&self) -> Relay {
        Relay::start_with(
            tempfile::tempdir().unwrap(),
            &["--config", &self.path("relay.toml")],
            &[],
        )
    }
}

fn wanted(holder: &SigningKey, relay: &Relay, balance_msat: u64) -> Issue {
    let audience = Did::parse(relay.did()).unwrap();
    Issue::new(holder.did().clone(), audience, balance_msat, now())
}

fn join(relay: &Relay, key: &SigningKey, jwt: &str, name: &str) -> relay::Answer {
    relay.signed(
        key,
        Some(jwt),
        "POST",
        &format!("/whip/den/{name}"),
        offer().as_bytes(),
    )
}

fn milliway(arguments: &[&str], data: &Path) -> std::process::Output {
    Command::new(MILLIWAY)
        .args(arguments)
        .args(["--data", data.to_str().unwrap()])
        .output()
        .unwrap()
}

/// Sessions that the account page lists.
fn sessions(relay: &Relay, key: &SigningKey) -> usize {
    let account = relay.signed(key, None, "GET", "/v1/account", b"");
    account.json()["sessions"].as_array().unwrap().len()
}

fn until(what: &str, patience: Duration, done: impl Fn() -> bool) {
    let end = Instant::now() + patience;
    while !done() {
        assert!(Instant::now() < end, "{what} took too long");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_denied_holder_loses_live_sessions_and_comes_back_when_served_again() {
    let (setup, alice, bob) = (Setup::new("", ""), SigningKey::generate(), SigningKey::generate());
    let relay = setup.start();
    let jwt = |key: &SigningKey| issue(&relay.issuer(), &wanted(key, &relay, 100_000));
    let (of_alice, of_bob) = (jwt(&alice), jwt(&bob));
    for (key, jwt, name) in [(&alice, &of_alice, "alice"), (&bob, &of_bob, "bob")] {
        let joined = join(&relay, key, jwt, name);
        assert_eq!(joined.status, 201, "{}", joined.text());
    }
    assert_eq!(sessions(&relay, &alice), 1);
    let done = milliway(&["deny", "add", "sub", alice.did().as_str()], relay.data.path());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    until("the denial", Duration::from_secs(5), || {
        sessions(&relay, &alice) == 0
    });
    assert_eq!(sessions(&relay, &bob), 1, "nobody else is touched");
    let refused = join(&relay, &alice, &of_alice, "alice");
    assert_eq!((refused.status, refused.slug().as_str()), (403, "denied"));
    assert_eq!(
        relay
            .signed(&alice, Some(&of_alice), "POST", "/v1/turn/credentials", b"")
            .slug(),
        "denied"
    );
    let account = relay.signed(&alice, Some(&of_alice), "GET", "/v1/account", b"");
    assert_eq!(account.status, 200, "a balance is never stranded");

    let listed = milliway(&["deny", "list"], relay.data.path());
    assert_eq!(
        String::from_utf8_lossy(&listed.stdout),
        format!("sub {}\n", alice.did())
    );
    assert!(
        milliway(
            &["deny", "remove", "sub", alice.did().as_str()],
            relay.data.path()
        )
        .status
        .success()
    );
    assert!(
        !milliway(
            &["deny", "remove", "sub", alice.did().as_str()],
            relay.data.path()
        )
        .status
        .success()
    );
    until("the return", Duration::from_secs(5), || {
        join(&relay, &alice, &of_alice, "alice").status == 201
    });
}

#[test]
fn a_denied_issuer_key_or_token_credits_nothing_more() {
    let (setup, alice) = (Setup::new("", ""), SigningKey::generate());
    let relay = setup.start();
    let issuer = relay.issuer();
    let first = issue(&issuer, &wanted(&alice, &relay, 100_000));
    assert_eq!(join(&relay, &alice, &first, "alice").status, 201);
    let mut named = wanted(&alice, &relay, 7);
    named.id = Some("stolen".into());
    let stolen = issue(&issuer, &named);
    for (kind, value) in [
        ("jti", "stolen"),
        ("kid", issuer.kid()),
        ("iss", issuer.did().as_str()),
    ] {
        assert!(
            milliway(&["deny", "add", kind, value], relay.data.path())
                .status
                .success()
        );
        let topup = || {
            let body = json!({ "token": stolen }).to_string();
            relay.signed(&alice, None, "POST", "/v1/topup", body.as_bytes())
        };
        until("the denial", Duration::from_secs(5), || topup().status == 403);
        assert_eq!(topup().slug(), "denied", "{kind}");
        if kind != "jti" {
            until("the denial", Duration::from_secs(5), || {
                sessions(&relay, &alice) == 0
            });
        }
        assert!(
            milliway(&["deny", "remove", kind, value], relay.data.path())
                .status
                .success()
        );
    }
    let unknown = milliway(&["deny", "add", "mac", "x"], relay.data.path());
    assert!(!unknown.status.success());
    assert!(
        !milliway(&["deny", "list"], Path::new("/nowhere/at/all"))
            .status
            .success()
    );
}

#[test]
fn a_reload_on_sighup_changes_thresholds_and_a_mistake_changes_nothing() {
    let (setup, alice) = (Setup::new("", ""), SigningKey::generate());
    let relay = setup.start();
    let with_score = |score: Option<i64>| {
        let mut wanted = wanted(&alice, &relay, 50_000);
        wanted.reputation = score;
        issue(&relay.issuer(), &wanted)
    };
    let ice = |jwt: &str| {
        relay
            .signed(&alice, Some(jwt), "POST", "/v1/turn/credentials", b"")
            .status
    };
    assert_eq!(ice(&with_score(None)), 200);
    setup.write("[turn]\nreputation_min = 500\n");
    relay.signal("HUP");
    until("the reload", Duration::from_secs(5), || {
        ice(&with_score(None)) == 403
    });
    assert_eq!(ice(&with_score(Some(499))), 403);
    assert_eq!(ice(&with_score(Some(500))), 200);
    let refused = relay.signed(
        &alice,
        Some(&with_score(Some(1))),
        "POST",
        "/v1/turn/credentials",
        b"",
    );
    assert_eq!(refused.slug(), "reputation-too-low");
    assert_eq!(
        join(&relay, &alice, &with_score(None), "alice").status,
        201,
        "the SFU asks for nothing"
    );
    setup.write("[turn]\nreputation_min = \"none\"\n");
    relay.signal("HUP");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(ice(&with_score(None)), 403, "the old policy stays");
}

#[test]
fn an_issuers_caps_hold_for_vouchers_days_and_holders() {
    let (issuer, alice, bob) = (
        SigningKey::generate(),
        SigningKey::generate(),
        SigningKey::generate(),
    );
    let policy = format!(
        "[issuers.\"{}\"]\nvoucher_max_msat = 60_000\nday_max_msat = 100_000\nholder_day_max_msat = 70_000\n",
        issuer.did()
    );
    let relay = Setup::new(&policy, "").start();
    let topup = |key: &SigningKey, msat: u64| {
        let body = json!({ "token": issue(&issuer, &wanted(key, &relay, msat)) }).to_string();
        relay.signed(key, None, "POST", "/v1/topup", body.as_bytes())
    };
    assert_eq!(topup(&alice, 60_001).slug(), "issuer-limit", "one voucher");
    assert_eq!(topup(&alice, 60_000).status, 200);
    assert_eq!(topup(&alice, 10_001).slug(), "issuer-limit", "one holder's day");
    assert_eq!(topup(&alice, 10_000).status, 200);
    assert_eq!(topup(&bob, 30_001).slug(), "issuer-limit", "the issuer's day");
    let again = issue(&issuer, &wanted(&bob, &relay, 30_000));
    let body = json!({ "token": again }).to_string();
    for repeated in [None, Some(true)] {
        let answer = relay.signed(&bob, None, "POST", "/v1/topup", body.as_bytes());
        assert_eq!(
            (answer.status, answer.json()["repeated"].as_bool()),
            (200, repeated)
        );
    }
    // A voucher that was credited before the sum was full opens sessions for as long as its money lasts.
    assert_eq!(join(&relay, &bob, &again, "bob").status, 201);
    let more = issue(&issuer, &wanted(&bob, &relay, 5));
    assert_eq!(
        join(&relay, &bob, &more, "bob").status,
        201,
        "and the account's own money does under any token"
    );
    let account = relay.signed(&bob, None, "GET", "/v1/account", b"").json();
    let held = account["available_msat"].as_u64().unwrap() + account["reserved_msat"].as_u64().unwrap();
    assert!(held <= 30_000, "{account}");
}

#[test]
fn an_account_is_admitted_as_often_in_a_minute_as_the_policy_says() {
    let relay = Setup::new("[rates]\nadmissions_per_minute = 3\n", "").start();
    let alice = SigningKey::generate();
    let jwt = issue(&relay.issuer(), &wanted(&alice, &relay, 100_000));
    let ice = || relay.signed(&alice, Some(&jwt), "POST", "/v1/turn/credentials", b"");
    let answers: Vec<u16> = (0..8).map(|_| ice().status).collect();
    let admitted = answers.iter().filter(|status| **status == 200).count();
    // A minute may end in between.
    assert!(
        (3..=6).contains(&admitted) && answers.contains(&429),
        "{answers:?}"
    );
}

/// A token without money, with a score by somebody.
fn scored(relay: &Relay, holder: &SigningKey, by: &SigningKey, score: i64) -> String {
    let vc = json!({"iss": by.did(), "vc": {"type": ["VerifiableCredential", "ReputationScore"],
        "credentialSubject": {"id": holder.did(), "score": score}}});
    let vc = by.sign_jws("JWT", vc.to_string().as_bytes());
    let claims = json!({"iss": relay.issuer().did(), "sub": holder.did(), "aud": relay.did(), "iat": now(),
        "nbf": now(), "exp": now() + 600, "jti": format!("{score} {}", holder.did()), "balance_msat": 0, "vc": [vc]});
    relay
        .issuer()
        .sign_jws("relay+jwt", claims.to_string().as_bytes())
}

#[test]
fn a_score_that_is_good_for_credit_opens_sessions_without_money_and_a_top_up_fills_what_is_owed() {
    let (scorer, alice, bob) = (
        SigningKey::generate(),
        SigningKey::generate(),
        SigningKey::generate(),
    );
    let setup = Setup::new(
        &format!(
            "[credentials.\"{}\"]\ntypes = [\"ReputationScore\"]\ncredit_max_msat = 10_000\n\
             [[credit]]\nscore = 500\nmsat = 8_000\n",
            scorer.did()
        ),
        "",
    );
    let relay = setup.start();
    let poor = scored(&relay, &alice, &scorer, 499);
    assert_eq!(
        join(&relay, &alice, &poor, "alice").status,
        402,
        "a score below the step"
    );
    let made_up = scored(&relay, &alice, &bob, 900);
    assert_eq!(
        join(&relay, &alice, &made_up, "alice").status,
        402,
        "nobody's word"
    );
    let good = scored(&relay, &alice, &scorer, 500);
    let joined = join(&relay, &alice, &good, "alice");
    assert_eq!(joined.status, 201, "{}", joined.text());
    let account = |key: &SigningKey| relay.signed(key, None, "GET", "/v1/account", b"").json();
    let owes = account(&alice);
    let drawn = -owes["available_msat"].as_i64().unwrap();
    assert!((1..=4_000).contains(&drawn), "a lease's worth: {owes}");
    assert_eq!(owes["credit_left_msat"].as_i64().unwrap(), 8_000 - drawn);
    let shown = milliway(&["account", "show", alice.did().as_str()], relay.data.path());
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(
        (&shown["credit_line_msat"], &shown["available_msat"]),
        (&json!(8_000), &json!(-drawn))
    );
    assert_eq!(shown["refundable_msat"], 0);
    let ice = relay.signed(
        &bob,
        Some(&scored(&relay, &bob, &scorer, 600)),
        "POST",
        "/v1/turn/credentials",
        b"",
    );
    assert_eq!(ice.status, 200, "TURN on credit: {}", ice.text());

    let explained = milliway(
        &[
            "policy",
            "explain",
            "--config",
            &setup.path("relay.toml"),
            "--token",
            &good,
        ],
        relay.data.path(),
    );
    let explained = String::from_utf8(explained.stdout).unwrap();
    assert!(
        explained.contains("term   credit       8000 msat below zero for a score of 500"),
        "{explained}"
    );
    let body = json!({ "token": issue(&relay.issuer(), &wanted(&alice, &relay, 50_000)) }).to_string();
    let topped_up = relay.signed(&alice, None, "POST", "/v1/topup", body.as_bytes());
    assert_eq!(topped_up.status, 200, "{}", topped_up.text());
    let available = account(&alice)["available_msat"].as_i64().unwrap();
    assert!(
        (42_000..50_000).contains(&available),
        "the debt went first: {available}"
    );
    let data = relay.stop();
    let proof = milliway(&["ledger", "verify"], data.path());
    assert!(
        proof.status.success(),
        "{}",
        String::from_utf8_lossy(&proof.stderr)
    );
}

#[test]
fn what_an_issuer_gave_today_is_known_after_a_restart_and_what_it_has_outstanding_is_bounded() {
    let (issuer, alice) = (SigningKey::generate(), SigningKey::generate());
    let setup = Setup::new(
        &format!(
            "[issuers.\"{}\"]\nday_max_msat = 100_000\noutstanding_max_msat = 60_000\n",
            issuer.did()
        ),
        "",
    );
    let topup = |relay: &Relay, msat: u64| {
        let body = json!({ "token": issue(&issuer, &wanted(&alice, relay, msat)) }).to_string();
        relay.signed(&alice, None, "POST", "/v1/topup", body.as_bytes())
    };
    let relay = setup.start();
    assert_eq!(topup(&relay, 60_000).status, 200);
    assert_eq!(topup(&relay, 1).slug(), "issuer-limit", "nothing of it was spent");
    let paid_back = milliway(
        &["account", "refund", alice.did().as_str(), "--reason", "asked"],
        relay.data.path(),
    );
    assert!(paid_back.status.success());
    let relay = Relay::start_with(relay.kill(), &["--config", &setup.path("relay.toml")], &[]);
    assert_eq!(
        topup(&relay, 40_001).slug(),
        "issuer-limit",
        "the day's sum outlives the relay"
    );
    assert_eq!(topup(&relay, 40_000).status, 200);
}

#[test]
fn a_daily_allowance_needs_a_credential_and_is_given_once() {
    let (scorer, alice, bob) = (
        SigningKey::generate(),
        SigningKey::generate(),
        SigningKey::generate(),
    );
    let policy = format!(
        "[credentials.\"{}\"]\ntypes = [\"ReputationScore\"]\nallowance_day_max_msat = 80_000\n\
         [allowance]\nmsat_per_day = 50_000\nscore_min = 400\n",
        scorer.did()
    );
    let relay = Setup::new(&policy, "").start();
    let jwt = |holder: &SigningKey, by: &SigningKey, score: i64| scored(&relay, holder, by, score);
    let status = |holder: &SigningKey, jwt: &str| {
        relay
            .signed(holder, Some(jwt), "POST", "/v1/turn/credentials", b"")
            .status
    };
    assert_eq!(
        status(&alice, &jwt(&alice, &scorer, 399)),
        402,
        "a score that is too low"
    );
    assert_eq!(
        status(&alice, &jwt(&alice, &alice, 999)),
        402,
        "a score of her own making"
    );
    assert_eq!(status(&alice, &jwt(&alice, &scorer, 400)), 200);
    let available = |key: &SigningKey| {
        relay.signed(key, None, "GET", "/v1/account", b"").json()["available_msat"].as_u64()
    };
    assert_eq!(status(&alice, &jwt(&alice, &scorer, 401)), 200);
    assert_eq!(available(&alice), Some(50_000), "once a day");
    assert_eq!(
        status(&bob, &jwt(&bob, &scorer, 900)),
        402,
        "its scorer's word is used up for today"
    );
}

#[test]
fn a_communitys_signed_list_is_fetched_and_ends_live_sessions() {
    let site = Site::start();
    let (community, alice) = (site.key(5, ":community"), SigningKey::generate());
    let policy = format!(
        "[[lists]]\ndid = \"{}\"\nurl = \"https://site.example:{}/deny.jws\"\nrefresh_seconds = 1\n",
        community.did(),
        site.port
    );
    let more = format!(
        "[did]\nca_file = \"{}\"\nhosts = [\"site.example=127.0.0.1\"]\nallow_addresses = [\"127.0.0.1/32\"]\n",
        site.ca_file().display()
    );
    let setup = Setup::new(&policy, &more);
    let relay = setup.start();
    let jwt = issue(&relay.issuer(), &wanted(&alice, &relay, 100_000));
    assert_eq!(join(&relay, &alice, &jwt, "alice").status, 201);
    let mut deny = DenyList::default();
    deny.add(Kind::Sub, alice.did().as_str()).unwrap();
    site.publish("/deny.jws", sign_list(&community, &deny, &[], now(), now() + 600));
    until("the community's list", Duration::from_secs(10), || {
        sessions(&relay, &alice) == 0
    });
    assert_eq!(join(&relay, &alice, &jwt, "alice").slug(), "denied");
    // The operator knows better.
    setup.write(&format!("{policy}[allow]\nsub = [\"{}\"]\n", alice.did()));
    relay.signal("HUP");
    until("the reload", Duration::from_secs(5), || {
        join(&relay, &alice, &jwt, "alice").status == 201
    });
}

#[test]
fn the_policy_explains_itself_and_as_it_decides() {
    let (alice, setup) = (
        SigningKey::generate(),
        Setup::new("[sfu]\nreputation_min = 500\n", ""),
    );
    let relay = setup.start();
    let jwt = issue(&relay.issuer(), &wanted(&alice, &relay, 50_000));
    let explain = |jwt: &str| {
        let configuration = setup.path("relay.toml");
        let output = milliway(
            &["policy", "explain", "--config", &configuration, "--token", jwt],
            relay.data.path(),
        );
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = explain(&jwt);
    assert_eq!(code, Some(1));
    for line in [
        "pass   token        form, issuer",
        "REFUSE reputation   none that counts here, and sfu asks for 500",
        "not admitted: reputation-too-low",
        "turn:\n",
        "  admitted, with a proof",
    ] {
        assert!(text.contains(line), "{line:?} in {text}");
    }
    assert_eq!(join(&relay, &alice, &jwt, "alice").slug(), "reputation-too-low");
    let mut good = wanted(&alice, &relay, 50_000);
    good.reputation = Some(600);
    let (code, text) = explain(&issue(&relay.issuer(), &good));
    assert_eq!(code, Some(0), "{text}");
    let stranger = SigningKey::generate();
    let (code, text) = explain(&issue(&stranger, &wanted(&alice, &relay, 1)));
    assert_eq!(code, Some(1));
    assert!(
        text.contains("REFUSE token        token-untrusted-issuer"),
        "{text}"
    );
    assert!(
        milliway(
            &["deny", "add", "iss", relay.issuer().did().as_str()],
            relay.data.path()
        )
        .status
        .success()
    );
    let (_, text) = explain(&issue(&relay.issuer(), &good));
    assert!(
        text.contains("REFUSE deny         the operator denies its iss"),
        "{text}"
    );
}

#[test]
fn a_wrong_policy_is_told_by_check_and_keeps_the_relay_from_starting() {
    let setup = Setup::new("[sfu]\nreputation_min = 1\nreputation_max = 2\n", "");
    let check = Command::new(MILLIWAY)
        .args(["check", "--config", &setup.path("relay.toml")])
        .output()
        .unwrap();
    assert_eq!(check.status.code(), Some(1));
    let said = String::from_utf8_lossy(&check.stderr).into_owned();
    assert!(
        said.contains("policy.toml:3: unknown field `reputation_max`"),
        "{said}"
    );
}
