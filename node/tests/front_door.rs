//! The front door over HTTP, against a really started relay: what it serves, whom it lets in, and how it refuses.
#![allow(clippy::unwrap_used)]

mod relay;

use identity::{SigningKey, proof, token};
use relay::{Relay, now, offer};
use serde_json::{Value, json};

/// A fresh holder.
fn holder() -> SigningKey {
    SigningKey::generate()
}

fn did(key: &SigningKey) -> &str {
    key.did().as_str()
}

#[test]
fn the_ready_line_names_what_is_open() {
    let relay = Relay::start();
    assert_eq!(relay.ready["ready"], true);
    for member in [
        "http",
        "sfu",
        "turn",
        "quic",
        "did",
        "issuer_key",
        "admin_token_file",
    ] {
        assert!(relay.ready[member].is_string(), "{member}");
    }
    assert!(relay.ready["pid"].is_u64());
    assert_eq!(relay.get("/healthz").status, 200);
    assert_eq!(relay.get("/readyz").status, 200);
    let document = relay.get("/.well-known/did.json").json();
    assert_eq!(document["id"], relay.did());
    let endpoint = &document["service"][0]["serviceEndpoint"];
    assert_eq!(document["service"][0]["type"], "DSIPService");
    assert_eq!(endpoint["http"][0], format!("http://{}", relay.host()));
    assert_eq!(endpoint["ws"][0], format!("ws://{}/v1/dsip", relay.host()));
    assert_eq!(endpoint["sfu"][0], relay.ready["sfu"]);
    relay.stop();
}

#[test]
fn pages_carry_a_strict_policy_and_nothing_else_of_the_disk() {
    let relay = Relay::start();
    for path in [
        "/",
        "/room/den",
        "/room/%3Cscript%3E",
        "/static/milliway.js",
        "/static/style.css",
        "/nothing",
        "/v1/tariff",
    ] {
        let answer = relay.get(path);
        let policy = &answer.headers["content-security-policy"];
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self'"),
            "{path}"
        );
        assert!(!policy.contains("unsafe"), "{path}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        assert_eq!(answer.headers["referrer-policy"], "no-referrer");
    }
    assert_eq!(
        relay.get("/static/milliway.js").headers["content-type"],
        "text/javascript; charset=utf-8"
    );
    assert!(
        !relay.get("/room/%3Cscript%3E").text().contains("<script>alert"),
        "a room's name is never in the page"
    );
    for path in [
        "/static/../Cargo.toml",
        "/static/%2e%2e/Cargo.toml",
        "/static/..%2fCargo.toml",
        "/static//etc/passwd",
        "/static/package.json",
        "/static/tests/e2e/call.test.mjs",
        "/static/lib/../../node/Cargo.toml",
    ] {
        assert_eq!(relay.get(path).status, 404, "{path}");
    }
}

#[test]
fn the_tariff_is_the_configured_one() {
    let data = tempfile::tempdir().unwrap();
    let relay = Relay::start_with(data, &[], &[("MILLIWAY_TARIFF__SFU_MSAT_PER_SECOND", "9")]);
    let tariffs = relay.get("/v1/tariff").json()["tariffs"].clone();
    assert_eq!(tariffs[0]["service"], "sfu");
    assert_eq!(tariffs[0]["msat_per_megabyte_out"], 50);
    assert_eq!(tariffs[0]["msat_per_megabyte_in"], 0);
    assert_eq!(tariffs[0]["msat_per_second"], 9);
    assert_eq!(tariffs[1]["service"], "turn");
    assert_eq!(tariffs[1]["msat_per_megabyte_in"], 50);
    assert!(tariffs[1]["valid_until"].as_u64().unwrap() > now());
}

#[test]
fn a_voucher_is_credited_once_and_a_restart_keeps_the_balance() {
    let (key, relay) = (holder(), Relay::start());
    let token = relay.faucet(did(&key), 50_000, false);
    let body = json!({ "token": token }).to_string();
    let first = relay
        .signed(&key, None, "POST", "/v1/topup", body.as_bytes())
        .json();
    assert_eq!(
        first,
        json!({ "credited_msat": 50_000, "available_msat": 50_000 })
    );
    let again = relay
        .signed(&key, None, "POST", "/v1/topup", body.as_bytes())
        .json();
    assert_eq!(
        again,
        json!({ "credited_msat": 50_000, "available_msat": 50_000, "repeated": true })
    );
    let data = relay.stop();

    let relay = Relay::start_with(data, &[], &[]);
    let account = relay.signed(&key, None, "GET", "/v1/account", b"").json();
    assert_eq!(account["did"], did(&key));
    assert_eq!(account["available_msat"], 50_000);
    assert_eq!(account["spent_msat"], 0);
    assert_eq!(account["sessions"], json!([]));
    let data = relay.kill();

    let relay = Relay::start_with(data, &[], &[]);
    assert_eq!(
        relay.signed(&key, None, "GET", "/v1/account", b"").json()["available_msat"],
        50_000
    );
    let data = relay.stop();
    let verified = std::process::Command::new(relay::MILLIWAY)
        .args(["ledger", "verify", "--data", data.path().to_str().unwrap()])
        .output()
        .unwrap();
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stderr)
    );
    let proof = String::from_utf8(verified.stdout).unwrap();
    assert!(
        proof.contains("issued = available + reserved + earned + refunded") && proof.contains("memo"),
        "{proof}"
    );
    let listed = std::process::Command::new(relay::MILLIWAY)
        .args(["account", "list", "--data", data.path().to_str().unwrap()])
        .output()
        .unwrap();
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed["available_msat"], 50_000);
}

#[test]
fn a_permit_is_exchanged_for_a_turn_username() {
    let (key, relay) = (holder(), Relay::start());
    let token = relay.faucet(did(&key), 50_000, false);
    let answer = relay.signed(&key, Some(&token), "POST", "/v1/turn/credentials", b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let turn = answer.json();
    let server = &turn["iceServers"][0];
    assert_eq!(
        server["urls"][0],
        format!("turn:{}?transport=udp", relay.ready["turn"].as_str().unwrap())
    );
    assert_eq!(server["username"], turn["session"]);
    assert!(server["credential"].as_str().unwrap().len() >= 20);
    assert_eq!(turn["ttl"], 600);
    let poor = relay.faucet(did(&holder()), 0, true);
    let refused = relay.call(
        "POST",
        "/v1/turn/credentials",
        &[("Authorization", &format!("Bearer {poor}"))],
        b"",
    );
    assert_eq!(
        (refused.status, refused.slug().as_str()),
        (402, "balance-exhausted")
    );
    assert_eq!(refused.json()["topup"], "/v1/topup");
}

#[test]
fn a_stolen_token_opens_nothing() {
    let (key, thief, relay) = (holder(), holder(), Relay::start());
    let token = relay.faucet(did(&key), 50_000, false);
    let path = "/v1/turn/credentials";
    let bare = relay.call("POST", path, &[("Authorization", &format!("DPoP {token}"))], b"");
    assert_eq!((bare.status, bare.slug().as_str()), (401, "proof-missing"));
    let bearer = relay.call(
        "POST",
        path,
        &[("Authorization", &format!("Bearer {token}"))],
        b"",
    );
    assert_eq!((bearer.status, bearer.slug().as_str()), (401, "proof-missing"));
    let stolen = relay.signed(&thief, Some(&token), "POST", path, b"");
    assert_eq!(stolen.status, 401);
    assert!(stolen.headers["www-authenticate"].starts_with("DPoP "));
    assert_eq!(
        relay.signed(&key, None, "GET", "/v1/account", b"").json()["available_msat"],
        0
    );
}

#[test]
fn a_proof_serves_one_request_and_no_other() {
    let (key, relay) = (holder(), Relay::start());
    let token = relay.faucet(did(&key), 50_000, false);
    let (path, nonce) = ("/v1/turn/credentials", relay.nonce());
    let url = relay.url(path);
    let sign = |method: &str, url: &str, nonce: &str| {
        proof::sign_dpop(
            &key,
            &proof::Request {
                method,
                url,
                body: b"",
            },
            Some(&token),
            nonce,
            now(),
        )
    };
    let authorization = format!("DPoP {token}");
    let call = |dpop: &str| {
        relay.call(
            "POST",
            path,
            &[("Authorization", &authorization), ("DPoP", dpop)],
            b"",
        )
    };
    let good = sign("POST", &url, &nonce);
    assert_eq!(call(&good).status, 200);
    assert_eq!(call(&good).slug(), "proof-replayed");
    let stale = call(&sign("POST", &url, "no-nonce-of-this-relay"));
    assert_eq!((stale.status, stale.slug().as_str()), (401, "use_dpop_nonce"));
    assert!(stale.headers["www-authenticate"].contains("use_dpop_nonce"));
    assert!(!stale.headers["dpop-nonce"].is_empty());
    assert_eq!(call(&sign("GET", &url, &nonce)).status, 401);
    assert_eq!(call(&sign("POST", &relay.url("/v1/topup"), &nonce)).status, 401);
    assert_eq!(
        call(&sign(
            "POST",
            "https://another.example/v1/turn/credentials",
            &nonce
        ))
        .status,
        401
    );
    let two = [
        ("Authorization", authorization.as_str()),
        ("DPoP", good.as_str()),
        ("DPoP", good.as_str()),
    ];
    assert_eq!(relay.call("POST", path, &two, b"").slug(), "proof-missing");
}

#[test]
fn a_body_that_was_swapped_on_the_way_is_refused() {
    let (key, relay) = (holder(), Relay::start());
    let token = relay.faucet(did(&key), 50_000, false);
    let url = relay.url("/v1/topup");
    let request = proof::Request {
        method: "POST",
        url: &url,
        body: b"{\"token\":\"mine\"}",
    };
    let dpop = proof::sign_dpop(&key, &request, Some(&token), &relay.nonce(), now());
    let headers = [("Authorization", format!("DPoP {token}")), ("DPoP", dpop)];
    let headers: Vec<(&str, &str)> = headers
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let answer = relay.call("POST", "/v1/topup", &headers, b"{\"token\":\"evil\"}");
    assert_eq!((answer.status, answer.slug().as_str()), (401, "proof-mismatch"));
}

#[test]
fn tokens_that_are_not_for_this_relay_are_refused_by_cause() {
    let (key, relay) = (holder(), Relay::start());
    let issuer = relay.issuer();
    let relay_did = identity::Did::parse(relay.did()).unwrap();
    let issue = |issuer: &SigningKey, change: &dyn Fn(&mut token::Issue)| {
        let mut wanted = token::Issue::new(key.did().clone(), relay_did.clone(), 1000, now());
        change(&mut wanted);
        token::issue(issuer, &wanted)
    };
    let slug = |token: &str| {
        let answer = relay.signed(&key, Some(token), "POST", "/v1/turn/credentials", b"");
        (answer.status, answer.slug())
    };
    let expect =
        |token: String, status: u16, expected: &str| assert_eq!(slug(&token), (status, expected.to_owned()));
    expect(
        issue(&SigningKey::generate(), &|_| {}),
        401,
        "token-untrusted-issuer",
    );
    expect(
        issue(&issuer, &|wanted| wanted.audience = key.did().clone()),
        401,
        "token-audience",
    );
    expect(
        issue(&issuer, &|wanted| wanted.issued_at -= 7200),
        401,
        "token-expired",
    );
    expect(
        issue(&issuer, &|wanted| wanted.services = Some(vec!["sfu".into()])),
        403,
        "service-forbidden",
    );
    expect(
        issue(&issuer, &|wanted| wanted.tariff = Some("last-year".into())),
        403,
        "tariff-unavailable",
    );
    expect("nonsense".into(), 401, "token-malformed");
    let mut flipped = issue(&issuer, &|_| {});
    let last = if flipped.ends_with('A') { 'B' } else { 'A' };
    flipped.replace_range(flipped.len() - 5..flipped.len() - 4, &last.to_string());
    assert_eq!(slug(&flipped).0, 401);
    // The same id with other claims: credited once, then refused.
    let named = |balance: u64| {
        issue(&issuer, &move |wanted: &mut token::Issue| {
            wanted.id = Some("one".into());
            wanted.balance_msat = balance;
        })
    };
    let first = relay.signed(&key, Some(&named(1000)), "POST", "/v1/turn/credentials", b"");
    assert_eq!(first.status, 200, "{}", first.text());
    expect(named(2000), 409, "voucher-conflict");
}

#[test]
fn a_rogue_issuer_gets_nothing_of_a_victim() {
    let (victim, thief, relay) = (holder(), holder(), Relay::start());
    let funds = json!({ "token": relay.faucet(did(&victim), 80_000, false) }).to_string();
    assert_eq!(
        relay
            .signed(&victim, None, "POST", "/v1/topup", funds.as_bytes())
            .status,
        200
    );
    let relay_did = identity::Did::parse(relay.did()).unwrap();
    let issuer = relay.issuer();
    let mut named = token::Issue::new(victim.did().clone(), relay_did.clone(), 0, now());
    named.confirmation = Some((
        token::Confirmation::Thumbprint(thief.public_key().thumbprint()),
        None,
    ));
    let mut paying = token::Issue::new(thief.did().clone(), relay_did.clone(), 0, now());
    paying.payer = Some((victim.did().clone(), None));
    let mut bearer = token::Issue::new(victim.did().clone(), relay_did, 0, now());
    bearer.bearer = true;
    for wanted in [&named, &paying] {
        let token = token::issue(&issuer, wanted);
        assert_eq!(
            relay
                .signed(&thief, Some(&token), "POST", "/v1/turn/credentials", b"")
                .status,
            401
        );
        assert_ne!(
            relay
                .signed(&thief, Some(&token), "GET", "/v1/account", b"")
                .status,
            200
        );
    }
    let authorization = format!("Bearer {}", token::issue(&issuer, &bearer));
    let refused = relay.call(
        "POST",
        "/v1/turn/credentials",
        &[("Authorization", &authorization)],
        b"",
    );
    assert_eq!(refused.slug(), "balance-exhausted");
    let seen = relay
        .call("GET", "/v1/account", &[("Authorization", &authorization)], b"")
        .json();
    assert_eq!(seen["available_msat"], 0);
    assert_eq!(
        relay.signed(&victim, None, "GET", "/v1/account", b"").json()["available_msat"],
        80_000
    );
    // A voucher can be given to anybody, but only to the one whom it names.
    let gift = json!({ "token": relay.faucet(did(&victim), 1, false) }).to_string();
    assert_eq!(
        relay
            .signed(&thief, None, "POST", "/v1/topup", gift.as_bytes())
            .slug(),
        "token-subject"
    );
}

#[test]
fn a_balance_does_not_strand_behind_an_expired_token() {
    let (key, relay) = (holder(), Relay::start());
    let funds = json!({ "token": relay.faucet(did(&key), 80_000, false) }).to_string();
    let funded = relay.signed(&key, None, "POST", "/v1/topup", funds.as_bytes());
    assert_eq!(funded.status, 200, "{}", funded.text());
    let operator = identity::Did::parse(relay.did()).unwrap();
    let mut wanted = token::Issue::new(key.did().clone(), operator, 0, now() - 7200);
    wanted.lifetime = 3600;
    let expired = token::issue(&relay.issuer(), &wanted);
    let refused = relay.signed(&key, Some(&expired), "POST", "/v1/turn/credentials", b"");
    assert_eq!(refused.slug(), "token-expired");
    let account = relay.signed(&key, Some(&expired), "GET", "/v1/account", b"");
    assert_eq!(account.status, 200, "{}", account.text());
    assert_eq!(account.json()["available_msat"], 80_000);
    assert_eq!(account.headers["cache-control"], "no-store");
    let thief = relay.signed(&holder(), Some(&expired), "GET", "/v1/account", b"");
    assert_eq!(thief.slug(), "proof-key");
}

#[test]
fn a_payers_account_is_charged_and_not_shown() {
    let (payer, key, relay) = (holder(), holder(), Relay::start());
    let operator = identity::Did::parse(relay.did()).unwrap();
    let grant = token::payer_grant(&payer, key.did(), &operator, now() + 60, "g", 50_000);
    let mut wanted = token::Issue::new(key.did().clone(), operator, 70_000, now());
    wanted.payer = Some((payer.did().clone(), Some(grant)));
    let token = token::issue(&relay.issuer(), &wanted);
    let opened = relay.signed(&key, Some(&token), "POST", "/v1/turn/credentials", b"");
    assert_eq!(opened.status, 200, "{}", opened.text());
    let seen = relay.signed(&key, Some(&token), "GET", "/v1/account", b"").json();
    assert_eq!(
        (&seen["did"], &seen["available_msat"]),
        (&json!(key.did()), &json!(0))
    );
    let own = relay.signed(&payer, None, "GET", "/v1/account", b"").json();
    assert_eq!(own["available_msat"], 70_000);
}

#[test]
fn what_is_advertised_for_media_does_not_move_the_front_door() {
    let data = tempfile::tempdir().unwrap();
    let relay = Relay::start_with(data, &["--advertise", "192.0.2.7"], &[]);
    let key = holder();
    let token = relay.faucet(did(&key), 50_000, false);
    let answer = relay.signed(&key, Some(&token), "POST", "/v1/turn/credentials", b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let url = answer.json()["iceServers"][0]["urls"][0].clone();
    assert!(url.as_str().unwrap().starts_with("turn:192.0.2.7:"), "{url}");
}

#[test]
fn receipts_are_only_for_who_paid() {
    let (key, relay) = (holder(), Relay::start());
    for session in ["0123456789abcdef", "nonsense", "..", "%00"] {
        let answer = relay.signed(&key, None, "GET", &format!("/v1/receipts/{session}"), b"");
        assert!(
            [400, 404].contains(&answer.status),
            "{session}: {}",
            answer.text()
        );
    }
}

#[test]
fn bad_bodies_are_refused_and_disturb_nothing() {
    let (key, relay) = (holder(), Relay::start());
    let faucet = |body: &[u8]| {
        relay.call(
            "POST",
            "/v1/dev/faucet",
            &[("Content-Type", "application/json")],
            body,
        )
    };
    for body in [
        &b""[..],
        b"{",
        b"[]",
        b"{\"sub\":1}",
        b"{\"sub\":\"did:key:zz\"}",
        b"\xff\xfe",
        b"{\"sub\":\"did:web:a\"}",
    ] {
        let answer = faucet(body);
        assert_eq!(
            (answer.status, answer.slug().as_str()),
            (400, "bad-request"),
            "{body:?}"
        );
    }
    for balance in ["-1", "1.5", "1e3", "\"1\"", "9007199254740993"] {
        let wish = format!("{{\"sub\":\"{}\",\"balance_msat\":{balance}}}", did(&key));
        assert_eq!(faucet(wish.as_bytes()).status, 400, "{balance}");
    }
    let large = vec![b' '; 1_000_000];
    for _ in 0..20 {
        // Each time: a connection that is closed while the body is on its way would lose the answer now and then.
        assert_eq!(faucet(&large).slug(), "too-large");
    }
    let chunked = [
        &b"POST /v1/dev/faucet HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"[..],
        format!("{:x}\r\n", large.len()).as_bytes(),
        &large,
        b"\r\n0\r\n\r\n",
    ]
    .concat();
    assert_eq!(relay.raw(&chunked).map(|answer| answer.status), Some(413));
    let half = b"POST /v1/dev/faucet HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{\"sub\":";
    let _ = relay.raw(half);
    let _ = relay.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    let _ = relay.raw(format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(200_000)).as_bytes());
    let refused = relay.signed(&key, None, "POST", "/v1/topup", b"{\"tokn\":\"x\"}");
    assert_eq!(refused.slug(), "bad-request");
    assert_eq!(
        relay.call("DELETE", "/v1/tariff", &[], b"").slug(),
        "method-not-allowed"
    );
    assert_eq!(relay.get("/v1/nothing").slug(), "not-found");
    assert_eq!(relay.get("/v1/dsip").slug(), "bad-request");
    assert_eq!(relay.get("/healthz").status, 200);
}

#[test]
fn a_slow_client_is_not_waited_for() {
    let data = tempfile::tempdir().unwrap();
    let relay = Relay::start_with(data, &[], &[("MILLIWAY_HTTP__REQUEST_TIMEOUT_SECONDS", "1")]);
    let began = std::time::Instant::now();
    // A head that never ends is cut; a body that never ends is told so.
    let _ = relay.raw(b"GET / HTTP/1.1\r\nHost:");
    let answer = relay
        .raw(b"POST /v1/dev/faucet HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nConnection: close\r\n\r\n{");
    assert_eq!(answer.map(|answer| answer.slug()), Some("request-timeout".into()));
    assert!(began.elapsed().as_secs() < 10);
}

#[test]
fn a_client_that_reads_nothing_of_its_answers_is_let_go() {
    use std::io::{ErrorKind, Write};
    let data = tempfile::tempdir().unwrap();
    let relay = Relay::start_with(data, &[], &[("MILLIWAY_HTTP__REQUEST_TIMEOUT_SECONDS", "1")]);
    let mut stream = std::net::TcpStream::connect(relay.host()).unwrap();
    stream
        .set_write_timeout(Some(std::time::Duration::from_millis(500)))
        .unwrap();
    let requests = "GET /static/page.js HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1_000);
    let began = std::time::Instant::now();
    // Its requests pile up behind the answers that it does not read, until the relay has had enough.
    let end = loop {
        match stream.write(requests.as_bytes()) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => break error.kind(),
            Ok(_) => {}
        }
        assert!(began.elapsed().as_secs() < 20, "it is served for ever");
    };
    assert!(
        matches!(end, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
        "{end}"
    );
    assert_eq!(relay.get("/").status, 200);
}

#[test]
fn one_source_that_asks_too_often_waits() {
    let data = tempfile::tempdir().unwrap();
    let environment = [
        ("MILLIWAY_HTTP__REQUESTS_PER_SECOND", "1"),
        ("MILLIWAY_HTTP__REQUESTS_BURST", "5"),
    ];
    let relay = Relay::start_with(data, &[], &environment);
    let answers: Vec<_> = (0..8).map(|_| relay.get("/v1/tariff")).collect();
    assert_eq!(answers[0].status, 200);
    let limited = answers.last().unwrap();
    assert_eq!((limited.status, limited.slug().as_str()), (429, "rate-limited"));
    assert!(limited.headers.contains_key("retry-after"));
    let limited = relay.call("OPTIONS", "/whip/den/cam", &[], b"");
    assert_eq!(limited.status, 429);
    assert_eq!(
        limited.headers["access-control-allow-origin"], "*",
        "pages may read why"
    );
    assert_eq!(relay.get("/healthz").status, 200, "probes are not limited");
}

#[test]
fn metrics_have_no_label_that_users_choose() {
    let (key, relay) = (holder(), Relay::start());
    let token = relay.faucet(did(&key), 1000, false);
    let _ = relay.call(
        "POST",
        "/v1/turn/credentials",
        &[("Authorization", &format!("DPoP {token}"))],
        b"",
    );
    let names = [
        "milliway_sfu_sessions",
        "milliway_sfu_rooms",
        "milliway_leases_active",
        "milliway_ledger_up",
    ];
    let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
    let metrics = loop {
        // Cashier and shards publish once a second.
        let metrics = relay.get("/metrics");
        if names.iter().all(|name| metrics.text().contains(name)) {
            break metrics;
        }
        assert!(std::time::Instant::now() < until, "{}", metrics.text());
    };
    assert!(metrics.headers["content-type"].starts_with("text/plain; version=0.0.4"));
    let text = metrics.text();
    assert!(
        text.contains("milliway_auth_failures_total{reason=\"proof-missing\"} 1"),
        "{text}"
    );
    for line in text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        assert!(line.starts_with("milliway_"), "{line}");
        assert!(!line.contains("did:"), "{line}");
    }
}

#[test]
fn whip_is_refused_by_cause_before_anything_is_spent() {
    let (key, relay) = (holder(), Relay::start());
    let token = relay.faucet(did(&key), 50_000, false);
    let sdp = offer();
    let publish = |path: &str, body: &[u8]| relay.signed(&key, Some(&token), "POST", path, body);
    assert_eq!(publish("/whip/den/alice", b"nonsense").slug(), "bad-sdp");
    assert_eq!(publish("/whip/den/%3Cimg%3E", sdp.as_bytes()).slug(), "bad-name");
    let wrong_media = sdp.replace("m=", "m=x");
    assert_eq!(publish("/whip/den/alice", wrong_media.as_bytes()).status, 400);
    let many = format!("{sdp}{}", "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n".repeat(1000));
    assert!([400, 413].contains(&publish("/whip/den/alice", many.as_bytes()).status));
    assert_eq!(
        publish("/whip/den/alice", &vec![b'v'; 1_000_000]).slug(),
        "too-large"
    );
    assert_eq!(
        publish("/whip/den/alice", &sdp.as_bytes()[..sdp.len() / 2]).status / 100,
        4
    );
    let account = relay.signed(&key, None, "GET", "/v1/account", b"").json();
    assert_eq!(account["reserved_msat"], 0);
    let elsewhere = {
        let mut wanted = token::Issue::new(
            key.did().clone(),
            identity::Did::parse(relay.did()).unwrap(),
            50_000,
            now(),
        );
        wanted.room = Some("attic".into());
        token::issue(&relay.issuer(), &wanted)
    };
    let refused = relay.signed(&key, Some(&elsewhere), "POST", "/whip/den/alice", sdp.as_bytes());
    assert_eq!((refused.status, refused.slug().as_str()), (403, "room-forbidden"));
    let poor = holder();
    let refused = relay.signed(
        &poor,
        Some(&relay.faucet(did(&poor), 1, false)),
        "POST",
        "/whip/den/bob",
        sdp.as_bytes(),
    );
    assert_eq!(
        (refused.status, refused.slug().as_str()),
        (402, "balance-exhausted")
    );
}

#[test]
fn a_name_belongs_to_who_has_it_until_the_same_holder_comes_again() {
    let (key, other, relay) = (holder(), holder(), Relay::start());
    let (mine, theirs) = (
        relay.faucet(did(&key), 50_000, false),
        relay.faucet(did(&other), 50_000, false),
    );
    let sdp = offer();
    let first = relay.signed(&key, Some(&mine), "POST", "/whip/den/alice", sdp.as_bytes());
    assert_eq!(first.status, 201, "{}", first.text());
    assert!(first.headers.contains_key("location") && first.headers.contains_key("etag"));
    let taken = relay.signed(&other, Some(&theirs), "POST", "/whip/den/alice", sdp.as_bytes());
    assert_eq!((taken.status, taken.slug().as_str()), (409, "name-taken"));
    let again = relay.signed(&key, Some(&mine), "POST", "/whip/den/alice", sdp.as_bytes());
    assert_eq!(again.status, 201, "{}", again.text());
    assert_ne!(first.headers["location"], again.headers["location"]);
    let sessions = relay.signed(&key, None, "GET", "/v1/account", b"").json()["sessions"].clone();
    assert_eq!(
        sessions.as_array().unwrap().len(),
        1,
        "the old one has ended: {sessions}"
    );
    relay.stop();
}

#[test]
fn the_token_that_is_shown_is_credited_whatever_the_call() {
    let (key, relay) = (holder(), Relay::start());
    let top_up = |shown: Option<&str>, token: &str| {
        let body = json!({ "token": token }).to_string();
        relay
            .signed(&key, shown, "POST", "/v1/topup", body.as_bytes())
            .json()
    };
    let first = relay.faucet(did(&key), 30_000, false);
    let seen = relay.signed(&key, Some(&first), "GET", "/v1/account", b"").json();
    assert_eq!(seen["available_msat"], 30_000);
    assert_eq!(top_up(None, &first)["repeated"], true);

    let (shown, further) = (
        relay.faucet(did(&key), 10_000, false),
        relay.faucet(did(&key), 5_000, false),
    );
    assert_eq!(
        top_up(Some(&shown), &further),
        json!({ "credited_msat": 5_000, "available_msat": 45_000 })
    );
    let both = relay.faucet(did(&key), 1_000, false);
    assert_eq!(
        top_up(Some(&both), &both),
        json!({ "credited_msat": 1_000, "available_msat": 46_000 })
    );
}
