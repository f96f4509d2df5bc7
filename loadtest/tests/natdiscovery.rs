//! Debian's `turnutils_natdiscovery` (RFC 5780) against our relay with a second address, and coturn beside it: both must come
//! to the same verdict about the same network, which here has no NAT.

mod beside;

use std::process::Command;

use beside::{Coturn, free_port, port_of};
use loadtest::relay::Relay;

/// What the tool concludes, without addresses and times.
fn verdicts(port: u16, arguments: &[&str]) -> Vec<String> {
    let output = Command::new("timeout")
        .args(["20", "turnutils_natdiscovery"])
        .args(arguments)
        .args(["-L", "127.0.0.1", "-p", &port.to_string(), "127.0.0.1"])
        .output()
        .expect("turnutils_natdiscovery; `apt-get install coturn` brings it");
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(
        output.status.success(),
        "{arguments:?}: {}\n{said}",
        output.status
    );
    let telling = ["NAT", "RFC 5780 response", "hairpinning", "Discovery"];
    said.lines()
        .filter(|line| telling.iter().any(|word| line.contains(word)))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_discovery_ends_as_it_does_at_coturn() {
    let coturn = Coturn::with(&[
        "-L",
        "127.0.0.2",
        "--alt-listening-port",
        &free_port().to_string(),
    ]);
    let alternate = format!("[\"127.0.0.2:{}\"]", free_port());
    let relay = Relay::start_with(&[("MILLIWAY_TURN__DISCOVERY_ALTERNATE", alternate)]).expect("a relay");
    for (arguments, expected) in [
        (&["-m", "-f"][..], "NAT with Endpoint Independent Filtering!"),
        (&["-m", "-f", "-P"], "NAT with Endpoint Independent Mapping!"),
        (&["-H"], "Received a request (maybe a successful hairpinning)"),
        (&["-c", "-A", "127.0.0.3"], "RFC 5780 response 2"),
        (&["-t", "-T", "1"], "RFC 5780 response 2"),
    ] {
        let theirs = verdicts(coturn.port, arguments);
        let ours = verdicts(port_of(&relay), arguments);
        assert_eq!(theirs, ours, "{arguments:?}");
        assert!(
            ours.iter().any(|line| line == expected),
            "{arguments:?}: {ours:?}"
        );
    }
    assert!(!relay.log().contains("panicked"), "{}", relay.log());
}
