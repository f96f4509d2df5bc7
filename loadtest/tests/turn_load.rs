//! The TURN loads for a second each, against our relay and against Debian's coturn: everything that is sent comes
//! through.

use std::process::Command;

use serde_json::Value;

fn report(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .arg("turn")
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

fn comes_through(arguments: &[&str]) {
    let report = report(&[arguments, &["--seconds", "1"]].concat());
    assert!(number(&report, "expected_packets") > 100.0, "{report}");
    assert!(number(&report, "loss_percent") < 1.0, "{report}");
    assert!(number(&report["relay"], "resident_kib") > 0.0, "{report}");
    assert!(number(&report["latency_microseconds"], "p50") > 0.0, "{report}");
}

#[test]
fn many_small_flows_come_through_milliway_and_coturn() {
    for target in ["milliway", "coturn"] {
        comes_through(&["sparse", "--allocations", "40", "--target", target]);
    }
}

#[test]
fn bursts_come_through_milliway_and_coturn() {
    for target in ["milliway", "coturn"] {
        comes_through(&["bursts", "--allocations", "10", "--target", target]);
    }
}

#[test]
fn a_fat_flow_comes_through_each_way() {
    for way in ["up", "down"] {
        comes_through(&["flow", "--megabits", "20", "--way", way]);
    }
}

#[test]
fn streams_come_through_milliway_and_coturn_in_the_clear_and_encrypted() {
    for target in ["milliway", "coturn"] {
        for transport in ["tcp", "tls"] {
            let streams = ["tcp", "--allocations", "4", "--transport", transport];
            comes_through(&[&streams[..], &["--target", target]].concat());
        }
    }
}

#[test]
fn allocations_are_made_and_weighed() {
    for target in ["milliway", "coturn"] {
        // So many that they need memory which the server did not have before.
        let report = report(&["allocations", "--allocations", "1000", "--target", target]);
        assert!(
            number(&report["relay"], "allocations_per_cpu_second") > 100.0,
            "{report}"
        );
        assert!(
            number(&report["relay"], "resident_kib_per_allocation") > 0.0,
            "{report}"
        );
    }
}

/// As many as a node has by default; with the generator's sockets that is what this machine's descriptors allow.
#[test]
fn ten_thousand_allocations_are_open_at_once_and_relay() {
    const ALL: f64 = 10_000.0;
    let report = report(&["allocations", "--allocations", "10000", "--target", "milliway"]);
    assert_eq!(number(&report, "allocations"), ALL, "{report}");
    // A sample of at most 64, evenly spread.
    assert_eq!(number(&report, "relayed_both_ways"), 64.0, "{report}");
    let seconds = number(&report, "seconds");
    let each = number(&report["relay"], "resident_kib_per_allocation");
    println!("opened in {seconds:.1} s; {each:.1} KiB resident each");
}
