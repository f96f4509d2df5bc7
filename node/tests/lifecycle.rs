//! Starting and ending: signals, drain, what is left behind.
#![allow(clippy::unwrap_used)]

mod relay;

use std::time::{Duration, Instant};

use identity::SigningKey;
use relay::{Relay, offer};

#[test]
fn sigterm_ends_an_idle_relay_at_once_with_code_0() {
    let relay = Relay::start();
    let began = Instant::now();
    relay.stop();
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_draining_relay_is_not_ready_and_admits_nobody() {
    let (key, mut relay) = (SigningKey::generate(), Relay::start());
    let token = relay.faucet(key.did().as_str(), 50_000, false);
    let joined = relay.signed(&key, Some(&token), "POST", "/whip/den/alice", offer().as_bytes());
    assert_eq!(joined.status, 201, "{}", joined.text());
    relay.signal("TERM");
    let until = Instant::now() + Duration::from_secs(5);
    while relay.get("/readyz").status == 200 {
        assert!(Instant::now() < until, "readyz still says 200");
    }
    assert_eq!(relay.get("/readyz").slug(), "draining");
    let refused = relay.signed(&key, Some(&token), "POST", "/whip/den/bob", offer().as_bytes());
    assert_eq!((refused.status, refused.slug().as_str()), (503, "draining"));
    let ended = Instant::now();
    relay.signal("TERM");
    assert_eq!(
        relay.wait(Duration::from_secs(10)),
        Some(0),
        "a second SIGTERM ends at once"
    );
    assert!(ended.elapsed() < Duration::from_secs(5));
}

#[test]
fn the_drain_has_an_end() {
    let data = tempfile::tempdir().unwrap();
    let (key, mut relay) = (
        SigningKey::generate(),
        Relay::start_with(data, &[], &[("MILLIWAY_RELAY__DRAIN_SECONDS", "4")]),
    );
    let token = relay.faucet(key.did().as_str(), 50_000, false);
    let joined = relay.signed(&key, Some(&token), "POST", "/whip/den/alice", offer().as_bytes());
    assert_eq!(joined.status, 201, "{}", joined.text());
    relay.signal("TERM");
    assert_eq!(relay.wait(Duration::from_secs(8)), Some(0));
}

#[test]
fn what_is_left_behind_is_nobody_elses_to_read() {
    use std::os::unix::fs::PermissionsExt;
    let data = Relay::start().stop();
    for entry in std::fs::read_dir(data.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        let keys = [".jwk", ".token"]
            .iter()
            .any(|end| entry.file_name().to_string_lossy().ends_with(end));
        assert!(!keys || mode == 0o600, "{entry:?}: {mode:o}");
    }
    assert_eq!(
        std::fs::metadata(data.path()).unwrap().permissions().mode() & 0o777,
        0o700
    );
}

#[test]
fn a_second_relay_on_the_same_data_says_so_and_leaves() {
    let relay = Relay::start();
    let second = std::process::Command::new(relay::MILLIWAY)
        .args([
            "dev",
            "--http",
            "127.0.0.1:0",
            "--sfu",
            "127.0.0.1:0",
            "--turn",
            "127.0.0.1:0",
            "--quic",
            "127.0.0.1:0",
            "--data",
        ])
        .arg(relay.data.path())
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(second.stdout.is_empty());
    assert_eq!(relay.get("/healthz").status, 200);
}
