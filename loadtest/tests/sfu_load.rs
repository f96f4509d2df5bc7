//! The load scenarios for a few seconds each, with the light clients: what they report adds up, and a loss that is made
//! on purpose is made good again.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn report(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(arguments)
        .output()
        .expect("the program of this package");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    serde_json::from_slice(&output.stdout).expect("JSON on standard output")
}

fn number(report: &Value, name: &str) -> f64 {
    report[name]
        .as_f64()
        .unwrap_or_else(|| panic!("{name} is a number: {report}"))
}

/// Everything that was sent arrived everywhere, but for what a busy machine may cost.
fn assert_complete(report: &Value) {
    assert!(number(report, "expected_packets") > 100.0, "{report}");
    assert!(number(report, "loss_percent") < 0.5, "{report}");
    assert!(number(report, "frames_complete_percent") > 99.0, "{report}");
    assert_eq!(number(report, "unopened_packets"), 0.0, "{report}");
    assert!(
        number(&report["latency_audio_microseconds"], "p50") > 0.0,
        "{report}"
    );
    assert!(number(&report["relay"], "resident_kib") > 0.0, "{report}");
}

#[test]
fn a_broadcast_reaches_every_subscriber() {
    let report = report(&["sfu", "broadcast", "--subscribers", "4", "--seconds", "2"]);
    assert_complete(&report);
    let published = number(&report, "published_packets");
    assert_eq!(number(&report, "expected_packets"), 4.0 * published);
    assert!(
        (50..=70).contains(&(number(&report, "frames_sent") as u32)),
        "{report}"
    );
}

#[test]
fn a_paced_broadcast_arrives_too_and_the_page_has_its_plots() {
    let folder = tempfile::tempdir().expect("a folder");
    let (json, html) = (
        folder.path().join("report.json"),
        folder.path().join("report.html"),
    );
    let path = |path: &Path| path.to_str().expect("a path of letters").to_owned();
    let status = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["sfu", "broadcast", "--subscribers", "2", "--seconds", "1"])
        .args([
            "--arrival",
            "paced",
            "--report",
            &path(&json),
            "--html",
            &path(&html),
        ])
        .status()
        .expect("the program of this package");
    assert!(status.success());
    let report: Value = serde_json::from_slice(&std::fs::read(&json).expect("the report")).expect("JSON");
    assert_complete(&report);
    assert_eq!(report["arrival"], "paced");
    let page = std::fs::read_to_string(&html).expect("the page");
    assert!(page.contains("<svg") && !page.contains("http://") && !page.contains("https://"));
}

#[test]
fn in_a_conference_everybody_receives_everybody_else() {
    let report = report(&["sfu", "conference", "--participants", "3", "--seconds", "2"]);
    assert_complete(&report);
    assert_eq!(
        (number(&report, "publishers"), number(&report, "subscribers")),
        (3.0, 3.0)
    );
    // Each packet is received by two.
    assert_eq!(
        number(&report, "expected_packets"),
        2.0 * number(&report, "published_packets")
    );
}

#[test]
fn rooms_do_not_mix() {
    let report = report(&[
        "sfu",
        "rooms",
        "--rooms",
        "3",
        "--participants",
        "2",
        "--seconds",
        "1",
    ]);
    assert_complete(&report);
    assert_eq!(
        number(&report, "expected_packets"),
        number(&report, "published_packets")
    );
}

#[test]
fn one_packet_in_a_hundred_lost_at_every_subscriber_is_sent_again() {
    let report = report(&[
        "sfu",
        "broadcast",
        "--subscribers",
        "3",
        "--seconds",
        "3",
        "--loss-percent",
        "1",
    ]);
    assert!(number(&report, "injected_losses") > 5.0, "{report}");
    assert!(number(&report, "nacked_packets") > 2.0, "{report}");
    assert!(number(&report, "frames_complete_percent") >= 99.0, "{report}");
    assert!(
        number(&report["latency_recovered_microseconds"], "max") > 0.0,
        "{report}"
    );
}

#[test]
fn janus_carries_the_same_load_in_a_network_of_its_own() {
    for load in [
        &["broadcast", "--subscribers", "3"][..],
        &["conference", "--participants", "3"],
    ] {
        let report = report(&[&["sfu"], load, &["--seconds", "1", "--target", "janus"]].concat());
        assert_complete(&report);
        assert_eq!(report["target"], "janus");
        assert!(
            report["profile"] == "gcm256" || report["profile"] == "gcm128",
            "{report}"
        );
    }
}
