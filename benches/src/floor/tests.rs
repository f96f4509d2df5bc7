use super::*;

fn plan(trips: Trips) -> Plan {
    Plan {
        trips,
        subscribers: 3,
        bytes: 200,
        rate: 600.0,
        duration: Duration::from_millis(100),
    }
}

/// What must hold however busy the machine is; how long it took is nobody's business here.
fn holds_together(report: &Report) {
    assert!(report.published_packets > 0);
    assert_eq!(report.expected_packets, report.published_packets * 3);
    assert_eq!(
        report.forwarded_packets + report.lost_packets,
        report.expected_packets
    );
    assert!(report.forwarded_packets > 0 && report.cpu_seconds > 0.0);
}

#[test]
fn single_trips_carry_one_packet_each() {
    let report = run(&plan(Trips::Single)).unwrap();
    holds_together(&report);
    assert_eq!(report.mean_packets_per_send, 1.0);
}

#[test]
fn a_batch_arrives_as_it_was_sent_and_leaves_in_one_send() {
    let report = run(&plan(Trips::Batch(6))).unwrap();
    holds_together(&report);
    assert_eq!(report.published_packets % 6, 0);
    assert_eq!(report.mean_packets_per_send, 6.0);
}

#[test]
fn encryption_alone_counts_what_it_sealed() {
    let report = run_seal(2, 100, Duration::from_millis(5)).unwrap();
    assert!(report.forwarded_packets >= 1_000 && report.cpu_seconds > 0.0);
}

#[test]
fn what_cannot_be_sent_is_refused_before_it_is_tried() {
    for wrong in [
        Plan {
            subscribers: 0,
            ..plan(Trips::Single)
        },
        Plan {
            bytes: 0,
            ..plan(Trips::Single)
        },
        Plan {
            bytes: PAYLOAD_MAX + 1,
            ..plan(Trips::Single)
        },
        Plan {
            rate: 0.0,
            ..plan(Trips::Single)
        },
        Plan {
            rate: f64::NAN,
            ..plan(Trips::Single)
        },
        plan(Trips::Batch(0)),
        plan(Trips::Batch(PACKETS_MAX + 1)),
    ] {
        assert!(run(&wrong).is_err(), "{wrong:?}");
    }
    assert!(run_seal(0, 100, Duration::ZERO).is_err());
}

#[test]
fn a_whole_load_reaches_everybody_but_its_own_publisher() {
    for (scenario, arrival, tick) in [
        (Scenario::Broadcast(3), Arrival::Burst, 0),
        (Scenario::Conference(3), Arrival::Paced, 5),
    ] {
        let report = run_load(&LoadPlan {
            scenario,
            arrival,
            tick: Duration::from_millis(tick),
            duration: Duration::from_millis(200),
        })
        .unwrap();
        let receivers = if scenario == Scenario::Broadcast(3) { 3 } else { 2 };
        assert_eq!(report.expected_packets, report.published_packets * receivers);
        assert!(
            report.forwarded_packets > 0 && report.forwarded_packets <= report.expected_packets,
            "{report:?}"
        );
        assert!(
            report.mean_packets_per_send > 1.0 && report.cpu_seconds > 0.0,
            "{report:?}"
        );
    }
}

#[test]
fn a_conference_of_one_is_refused() {
    let plan = LoadPlan {
        scenario: Scenario::Conference(1),
        arrival: Arrival::Burst,
        tick: Duration::ZERO,
        duration: Duration::ZERO,
    };
    assert!(run_load(&plan).is_err());
}
