//! What the outbox costs the thread that owns the ledger: a sink that fell behind catches up, in the steps of the relay.
//!
//!     cargo run --release -p ledger-postgres --example outbox_load -- redb FOLDER [ENTRIES]
//!     cargo run --release -p ledger-postgres --example outbox_load -- postgres postgres://... [ENTRIES]
//!
//! 20,000 entries unless said otherwise, on an empty ledger; on PostgreSQL written by three nodes. Prints one JSON object,
//! milliseconds for each step, and fails if anything was left out.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Instant;

use ledger_postgres::{Options, Postgres};
use metering::ledger::Command;
use metering::{Embedded, Ledger, Msat, Voucher};

const ENTRIES: u64 = 20_000;
const ACCOUNTS: u64 = 500;
const BATCH: u64 = 100;
/// What a relay reads at once, of each node's journal.
const STEP: usize = 500;

fn credit(number: u64) -> Command {
    let account = format!("did:key:z6Mk{}", number % ACCOUNTS);
    Command::Credit(Voucher {
        iss: "did:key:z6MkIssuer".into(),
        jti: number.to_string(),
        sub: account.clone(),
        payer: None,
        aud: "did:key:z6MkRelay".into(),
        balance: Msat::new(1),
        account: account.as_str().into(),
        refundable: true,
    })
}

fn milliseconds(times: &mut [f64]) -> serde_json::Value {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    serde_json::json!({ "p50": at(0.5), "p99": at(0.99), "max": at(1.0) })
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, place, rest @ ..] = arguments.as_slice() else {
        panic!("redb FOLDER or postgres URL");
    };
    let entries = rest.first().map_or(ENTRIES, |count| count.parse().unwrap());
    let mut nodes: Vec<Box<dyn Ledger>> = match kind.as_str() {
        "redb" => vec![Box::new(
            Embedded::open(&Path::new(place).join("ledger.redb"), 1)
                .unwrap()
                .0,
        )],
        _ => (0..3)
            .map(|node| -> Box<dyn Ledger> {
                Box::new(
                    Postgres::open(place, Options::new(format!("node-{node}")), 1)
                        .unwrap()
                        .0,
                )
            })
            .collect(),
    };
    let count = nodes.len();
    for batch in 0..entries.div_ceil(BATCH) {
        let first = batch * BATCH;
        let commands: Vec<Command> = (first..entries.min(first + BATCH)).map(credit).collect();
        nodes[batch as usize % count].apply(&commands, 2).unwrap();
    }
    let (mut reads, mut moves, mut delivered) = (Vec::new(), Vec::new(), 0);
    let ledger = &mut nodes[0];
    let began = Instant::now();
    loop {
        let start = Instant::now();
        let unsent = ledger.unsent("webhook", STEP).unwrap().unwrap();
        reads.push(start.elapsed().as_secs_f64() * 1e3);
        if unsent.behind == 0 {
            break;
        }
        delivered += unsent.entries.len() as u64;
        let mut cursor = unsent.cursor;
        unsent.entries.iter().for_each(|leaving| cursor.pass(leaving.id));
        let start = Instant::now();
        assert!(ledger.sent("webhook", &cursor).unwrap());
        moves.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let seconds = began.elapsed().as_secs_f64();
    assert_eq!(delivered, entries);
    let report = serde_json::json!({
        "ledger": kind, "nodes": count, "entries": entries, "entries_per_second": (entries as f64 / seconds) as u64,
        "read_ms": milliseconds(&mut reads), "move_ms": milliseconds(&mut moves),
    });
    println!("{report}");
}
