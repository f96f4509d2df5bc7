//! `GET /metrics` (Prometheus text format). Nothing here is kept per packet: shards and cashier publish their own
//! counters about once a second, and what only the control plane knows is read when it is asked for.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::relay::Relay;

/// Packets in one send: a video frame is a few, GSO takes 64.
const BATCH_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 6.0, 10.0, 20.0, 40.0, 64.0];
/// Seconds from receiving a packet to sending it on.
const FORWARD_BUCKETS: &[f64] = &[1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 5e-2];
/// Seconds of one durable commit.
const COMMIT_BUCKETS: &[f64] = &[5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.5, 1.0];

/// The recorder's reading side.
pub(crate) struct Metrics {
    handle: PrometheusHandle,
}

impl Metrics {
    /// Installs the recorder of this process, once, before anything counts.
    pub(crate) fn install() -> Result<Metrics, String> {
        let buckets = [
            ("milliway_egress_batch_packets", BATCH_BUCKETS),
            ("milliway_forward_seconds", FORWARD_BUCKETS),
            ("milliway_ledger_commit_seconds", COMMIT_BUCKETS),
        ];
        let mut builder = PrometheusBuilder::new();
        for (name, bounds) in buckets {
            builder = builder
                .set_buckets_for_metric(Matcher::Full(name.to_owned()), bounds)
                .map_err(|error| error.to_string())?;
        }
        let handle = builder.install_recorder().map_err(|error| error.to_string())?;
        describe();
        Ok(Metrics { handle })
    }

    /// Counts a caller who was not let in. `reason` is a slug of ours, never what the caller sent.
    pub(crate) fn auth_failure(&self, reason: &'static str) {
        counter!("milliway_auth_failures_total", "reason" => reason).increment(1);
    }

    /// Keeps the histograms small: called every few seconds.
    pub(crate) fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

fn describe() {
    describe_gauge!("milliway_sfu_sessions", "SFU sessions that are open");
    describe_gauge!(
        "milliway_did_document_good",
        "serve: 1 while the operator's published DID document lists this node"
    );
    describe_gauge!("milliway_sfu_rooms", "Rooms with anybody in them");
    describe_counter!("milliway_sfu_packets_total", "Datagrams of the SFU");
    describe_counter!("milliway_sfu_bytes_total", "UDP payload bytes of the SFU");
    describe_gauge!("milliway_turn_allocations", "TURN allocations that are open");
    describe_counter!("milliway_turn_packets_total", "Datagrams that TURN relayed");
    describe_counter!("milliway_turn_bytes_total", "Application bytes that TURN relayed");
    describe_counter!(
        "milliway_discards_total",
        "Datagrams that were dropped, by core and reason"
    );
    describe_histogram!("milliway_egress_batch_packets", "Packets in one send");
    describe_histogram!(
        "milliway_forward_seconds",
        "From receiving a packet to sending it on"
    );
    describe_counter!("milliway_billed_msat_total", "Earned, in millisatoshi");
    describe_counter!(
        "milliway_emergency_sessions_total",
        "Sessions and TURN usernames that are free because of an emergency, by what proved it"
    );
    describe_gauge!("milliway_leases_active", "Leases that sessions hold");
    describe_histogram!("milliway_ledger_commit_seconds", "Time of one durable commit");
    describe_gauge!("milliway_ledger_up", "1 while the ledger can be written");
    describe_gauge!(
        "milliway_throttled_sessions",
        "Sessions below full quality, by step of the ladder"
    );
    describe_gauge!(
        "milliway_records_behind_entries",
        "Journal entries that a sink of usage records has not acknowledged"
    );
    describe_gauge!("milliway_records_behind_seconds", "Age of the oldest of them");
    describe_counter!(
        "milliway_records_delivered_total",
        "Usage records that a sink acknowledged"
    );
    describe_counter!(
        "milliway_records_failures_total",
        "Attempts to deliver usage records that failed"
    );
    describe_gauge!(
        "milliway_memo_msat",
        "Memo accounts of the ledger, outside its sum: what could not be collected"
    );
    describe_counter!(
        "milliway_recovered_leases_total",
        "Leases that were taken back because their relay was killed"
    );
    describe_counter!(
        "milliway_recovered_at_risk_msat_total",
        "At most about so much was used under them and never reported"
    );
    describe_counter!(
        "milliway_auth_failures_total",
        "Callers who were not let in, by reason"
    );
}

/// `GET /metrics`
pub(crate) async fn render(State(relay): State<Arc<Relay>>) -> Response {
    let (sessions, rooms) = relay.registry().live();
    gauge!("milliway_sfu_sessions").set(sessions as f64);
    gauge!("milliway_sfu_rooms").set(rooms as f64);
    let headers = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (headers, relay.metrics.handle.render()).into_response()
}
