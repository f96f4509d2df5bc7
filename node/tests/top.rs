//! `milliway top`: what is live, through the socket in the data folder.
#![allow(clippy::unwrap_used)]

mod relay;

use std::path::Path;
use std::process::{Command, Output};

use identity::SigningKey;
use relay::{MILLIWAY, Relay, offer};
use serde_json::Value;

fn top(data: &Path, more: &[&str]) -> Output {
    Command::new(MILLIWAY)
        .args(["top", "--once", "--data", data.to_str().unwrap()])
        .args(more)
        .output()
        .unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_snapshot_shows_each_live_session_and_a_stopped_relay_has_none() {
    let drain = [("MILLIWAY_RELAY__DRAIN_SECONDS", "3")];
    let relay = Relay::start_with(tempfile::tempdir().unwrap(), &[], &drain);
    let alice = SigningKey::generate();
    let token = relay.faucet(alice.did().as_str(), 100_000, false);
    let idle = lines(&top(relay.data.path(), &["--json"]));
    assert_eq!((idle.len(), &idle[0]["billed_sessions"]), (1, &Value::from(0)));
    assert!(idle[0]["relay"].as_str().unwrap().starts_with(relay.did()));

    let joined = relay.signed(
        &alice,
        Some(&token),
        "POST",
        "/whip/den/alice",
        offer().as_bytes(),
    );
    assert_eq!(joined.status, 201, "{}", joined.text());
    let live = lines(&top(relay.data.path(), &["--json"]));
    assert_eq!((live.len(), &live[0]["rooms"]), (2, &Value::from(1)));
    let session = &live[1];
    assert_eq!(session["account"], alice.did().as_str());
    assert_eq!(
        (
            session["room"].as_str(),
            session["name"].as_str(),
            session["service"].as_str()
        ),
        (Some("den"), Some("alice"), Some("sfu"))
    );
    assert_eq!(
        (session["step"].as_str(), session["used_msat"].as_u64()),
        (Some("full"), Some(0))
    );
    assert!(joined.headers["location"].ends_with(session["session"].as_str().unwrap()));

    let text = top(relay.data.path(), &[]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("1 sessions of 1 accounts, 1 rooms"), "{text}");
    assert!(
        text.contains("den/alice") && !text.contains('\u{1b}'),
        "a snapshot has no ANSI: {text}"
    );

    let data = relay.stop();
    let stopped = top(data.path(), &["--json"]);
    assert!(!stopped.status.success());
    let said = String::from_utf8_lossy(&stopped.stderr).into_owned();
    assert!(said.contains("no relay runs there"), "{said}");
}
