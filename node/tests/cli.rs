//! The command line, driven as an operator drives it.
#![allow(clippy::unwrap_used)]

mod relay;

use std::process::{Command, Output};

use serde_json::Value;

const MILLIWAY: &str = env!("CARGO_BIN_EXE_milliway");

fn milliway(arguments: &[&str]) -> Output {
    Command::new(MILLIWAY)
        .args(arguments)
        .env_remove("MILLIWAY_LOG")
        .output()
        .unwrap()
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn every_command_explains_itself() {
    for command in [
        &["--help"][..],
        &["dev", "--help"],
        &["check", "--help"],
        &["did", "new", "--help"],
        &["token", "issue", "--help"],
        &["token", "show", "--help"],
        &["ledger", "verify", "--help"],
        &["account", "list", "--help"],
        &["serve", "--help"],
        &["top", "--help"],
        &["did", "document", "--help"],
    ] {
        let output = milliway(command);
        assert!(output.status.success(), "{command:?}");
        let undocumented = out(&output).lines().find(|line| {
            // A flag whose line says nothing and whose next lines say nothing is undocumented.
            line.trim_start().starts_with("--") && !line.contains("  ") && line.trim().len() < 3
        });
        assert_eq!(undocumented, None, "{command:?}");
    }
    let help = milliway(&["dev", "--help"]);
    for flag in [
        "--data",
        "--config",
        "--http",
        "--sfu",
        "--turn",
        "--quic",
        "--advertise",
    ] {
        assert!(out(&help).contains(flag), "{flag}");
    }
}

#[test]
fn a_key_is_made_once_shown_and_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.jwk");
    let file = file.to_str().unwrap();
    let made = milliway(&["did", "new", "--out", file]);
    assert!(made.status.success(), "{}", err(&made));
    let did: Value = serde_json::from_str(out(&made)).unwrap();
    assert!(did["did"].as_str().unwrap().starts_with("did:key:z6Mk"));
    assert!(did["jwk"].get("d").is_none(), "the private part is not shown");
    let shown = milliway(&["did", "show", file]);
    assert_eq!(out(&made), out(&shown));
    assert!(!milliway(&["did", "new", "--out", file]).status.success());
    assert_eq!(out(&milliway(&["did", "show", file])), out(&shown));
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.jwk");
    assert!(
        milliway(&["did", "new", "--out", file.to_str().unwrap()])
            .status
            .success()
    );
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let shown = milliway(&["did", "show", file.to_str().unwrap()]);
    assert_eq!(shown.status.code(), Some(1));
    assert!(err(&shown).contains("chmod 600"), "{}", err(&shown));
}

#[test]
fn a_token_is_issued_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = folder.path().join("issuer.jwk");
    let issuer = issuer.to_str().unwrap();
    let made: Value = serde_json::from_str(out(&milliway(&["did", "new", "--out", issuer]))).unwrap();
    let did = made["did"].as_str().unwrap();
    let arguments = [
        "token",
        "issue",
        "--issuer-key",
        issuer,
        "--sub",
        did,
        "--aud",
        did,
        "--balance-msat",
        "1000",
    ];
    let issued = milliway(
        &[
            &arguments[..],
            &["--ttl", "10m", "--service", "sfu", "--room", "den"],
        ]
        .concat(),
    );
    assert!(issued.status.success(), "{}", err(&issued));
    let shown = milliway(&["token", "show", out(&issued).trim()]);
    let token: Value = serde_json::from_str(out(&shown)).unwrap();
    assert_eq!(token["header"]["typ"], "relay+jwt");
    assert_eq!(token["header"]["alg"], "EdDSA");
    let claims = &token["claims"];
    assert_eq!(claims["balance_msat"], 1000);
    assert_eq!(claims["room"], "den");
    assert_eq!(claims["service"], serde_json::json!(["sfu"]));
    assert_eq!(
        claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(),
        600
    );
    for claim in ["iss", "sub", "aud", "nbf", "jti"] {
        assert!(claims[claim].is_string() || claims[claim].is_u64(), "{claim}");
    }
}

#[test]
fn wrong_token_arguments_are_refused_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = folder.path().join("issuer.jwk");
    let issuer = issuer.to_str().unwrap();
    let made: Value = serde_json::from_str(out(&milliway(&["did", "new", "--out", issuer]))).unwrap();
    let did = made["did"].as_str().unwrap();
    let issue = |changed: &[&str]| {
        let given = ["token", "issue", "--issuer-key", issuer, "--aud", did];
        milliway(&[&given[..], changed].concat())
    };
    for wrong in [
        &["--sub", "somebody", "--balance-msat", "1"][..],
        &["--sub", did, "--balance-msat", "-1"],
        &["--sub", did, "--balance-msat", "9007199254740992"],
        &["--sub", did, "--balance-msat", "1", "--ttl", "soon"],
        &["--sub", did, "--balance-msat", "1", "--service", "mcu"],
        &["--sub", did, "--balance-msat", "1", "--payer", did],
    ] {
        let output = issue(wrong);
        assert!(!output.status.success(), "{wrong:?}");
        assert!(
            err(&output).len() > 10 && out(&output).is_empty(),
            "{wrong:?}: {}",
            err(&output)
        );
    }
}

#[test]
fn check_says_every_mistake_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.toml");
    let name = file.to_str().unwrap();
    std::fs::write(&file, "[http]\nlisten = 1\n\n[sfu]\nlissten = \"127.0.0.1:1\"\n").unwrap();
    let checked = milliway(&["check", "--config", name]);
    assert_eq!(checked.status.code(), Some(1));
    for place in [format!("{name}:2: "), format!("{name}:5: ")] {
        assert!(err(&checked).contains(&place), "{}", err(&checked));
    }
    std::fs::write(&file, "[http]\nlisten = \"127.0.0.1:0\"\n").unwrap();
    assert!(milliway(&["check", "--config", name]).status.success());
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/milliway.example.toml");
    assert!(milliway(&["check", "--config", example]).status.success());
    assert_eq!(
        milliway(&["check", "--config", "/no/such/file"]).status.code(),
        Some(1)
    );
}

#[test]
fn dev_does_not_start_with_a_wrong_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.toml");
    std::fs::write(&file, "[tariff]\nsfu_msat_per_secnd = 1\n").unwrap();
    let data = folder.path().join("data");
    let started = milliway(&[
        "dev",
        "--config",
        file.to_str().unwrap(),
        "--data",
        data.to_str().unwrap(),
    ]);
    assert_eq!(started.status.code(), Some(1));
    assert!(err(&started).contains("m.toml:2"), "{}", err(&started));
    assert!(out(&started).is_empty() && !data.exists());
}

#[test]
fn verify_says_of_a_damaged_ledger_that_it_is_damaged() {
    let data = tempfile::tempdir().unwrap();
    let mut relay = relay::Relay::start_with(data, &[], &[]);
    relay.signal("TERM");
    assert_eq!(relay.wait(std::time::Duration::from_secs(30)), Some(0));
    let folder = relay.data.path().to_str().unwrap();
    let file = relay.data.path().join("ledger.redb");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes
        .iter_mut()
        .skip(4096)
        .step_by(97)
        .for_each(|byte| *byte ^= 0x55);
    std::fs::write(&file, bytes).unwrap();
    let output = milliway(&["ledger", "verify", "--data", folder]);
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    assert!(!err(&output).contains("panicked"), "{}", err(&output));
}

#[test]
fn verify_wants_a_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let verified = milliway(&["ledger", "verify", "--data", folder.path().to_str().unwrap()]);
    assert_eq!(verified.status.code(), Some(1));
    assert!(err(&verified).contains("does not exist"), "{}", err(&verified));
}

#[test]
fn a_restored_backup_has_the_accounts_and_refuses_the_tokens_from_before() {
    use identity::SigningKey;
    let (key, relay) = (SigningKey::generate(), relay::Relay::start());
    let did = key.did().as_str();
    let old = relay.faucet(did, 5_000, false);
    let shown = relay.signed(&key, Some(&old), "GET", "/v1/account", b"");
    assert_eq!(shown.json()["available_msat"], 5_000);
    let backups = tempfile::tempdir().unwrap();
    let file = backups.path().join("books.jsonl");
    let file = file.to_str().unwrap();
    let running = relay.data.path().to_str().unwrap().to_owned();
    let made = milliway(&["ledger", "backup", file, "--data", &running]);
    assert!(made.status.success(), "{}", err(&made));
    assert!(
        !milliway(&["ledger", "backup", file, "--data", &running])
            .status
            .success()
    );
    assert!(
        !milliway(&["ledger", "restore", file, "--data", &running])
            .status
            .success()
    );
    // Credited after the backup, so that the restored books do not know it.
    let since = relay.faucet(did, 700, false);
    assert_eq!(
        relay.signed(&key, Some(&since), "GET", "/v1/account", b"").status,
        200
    );
    let data = relay.stop();
    let folder = data.path().to_str().unwrap().to_owned();
    assert!(
        !milliway(&["ledger", "restore", file, "--data", &folder])
            .status
            .success(),
        "not empty"
    );
    std::fs::remove_file(data.path().join("ledger.redb")).unwrap();
    let restored = milliway(&["ledger", "restore", file, "--data", &folder]);
    assert!(restored.status.success(), "{}", err(&restored));
    assert!(
        out(&restored).contains("5000 = 5000 + 0 + 0 + 0"),
        "{}",
        out(&restored)
    );

    let relay = relay::Relay::start_with(data, &[], &[]);
    for token in [&old, &since] {
        let refused = relay.signed(
            &key,
            Some(token),
            "POST",
            "/whip/den/a",
            relay::offer().as_bytes(),
        );
        assert_eq!(refused.slug(), "token-expired");
    }
    let account = relay.signed(&key, None, "GET", "/v1/account", b"");
    assert_eq!(
        account.json()["available_msat"],
        5_000,
        "the balance itself is not stranded"
    );

    let text = std::fs::read_to_string(file).unwrap().replace("5000", "6000");
    std::fs::write(file, text).unwrap();
    let empty = tempfile::tempdir().unwrap();
    let tampered = milliway(&[
        "ledger",
        "restore",
        file,
        "--data",
        empty.path().to_str().unwrap(),
    ]);
    assert!(err(&tampered).contains("damaged"), "{}", err(&tampered));
}
