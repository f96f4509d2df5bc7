//! Is a voucher ever credited twice? Writers that race to credit the same vouchers, batch by batch in random order.
//!
//!     cargo run --release -p ledger-postgres --example ledger_race -- redb FOLDER [ATTEMPTS]
//!     cargo run --release -p ledger-postgres --example ledger_race -- postgres postgres://... [ATTEMPTS]
//!
//! A million attempts unless said otherwise, on an empty ledger: for redb from four threads that share the one writer, for
//! PostgreSQL from three nodes. Prints one JSON object and fails on any double credit.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::{Arc, Mutex};

use ledger_postgres::{Options, Postgres};
use metering::ledger::{Command, Outcome, Refusal};
use metering::{Embedded, Ledger, Msat, Voucher};

const ATTEMPTS: u64 = 1_000_000;
/// Each is tried a hundred times in a run of a million.
const VOUCHERS: u64 = 10_000;
const ACCOUNTS: u64 = 500;
const BATCH: u64 = 50;

fn voucher(number: u64) -> Voucher {
    let account = format!("did:key:z6Mk{}", number % ACCOUNTS);
    Voucher {
        iss: "did:key:z6MkIssuer".into(),
        jti: number.to_string(),
        sub: account.clone(),
        payer: None,
        aud: "did:key:z6MkRelay".into(),
        balance: Msat::new(1 + number),
        account: account.as_str().into(),
        refundable: true,
    }
}

/// SplitMix64.
fn luck(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut word = *state;
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

type Apply<'a> = Box<dyn FnMut(&[Command]) -> Vec<Result<Outcome, Refusal>> + Send + 'a>;

/// What the writers heard: first credits, repetitions, and what the first ones added.
fn race(writers: Vec<Apply<'_>>, attempts: u64) -> (u64, u64, u64) {
    let each = attempts.div_ceil(writers.len() as u64 * BATCH);
    std::thread::scope(|scope| {
        let threads: Vec<_> = writers
            .into_iter()
            .enumerate()
            .map(|(seed, mut apply)| {
                scope.spawn(move || {
                    let (mut state, mut heard) = (seed as u64, (0, 0, 0));
                    for _ in 0..each {
                        let batch: Vec<Command> = (0..BATCH)
                            .map(|_| Command::Credit(voucher(luck(&mut state) % VOUCHERS)))
                            .collect();
                        for (command, result) in batch.iter().zip(apply(&batch)) {
                            let (Command::Credit(voucher), Outcome::Credited(credited)) =
                                (command, result.unwrap())
                            else {
                                panic!("a credit is answered as one");
                            };
                            if credited.repeated {
                                heard.1 += 1;
                            } else {
                                heard.0 += 1;
                                heard.2 += voucher.balance.get();
                            }
                        }
                    }
                    heard
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .fold((0, 0, 0), |sum, one| {
                (sum.0 + one.0, sum.1 + one.1, sum.2 + one.2)
            })
    })
}

fn report(ledger: &str, writers: usize, books: &dyn Ledger, (first, repeated, added): (u64, u64, u64)) {
    let proof = books.verify().unwrap();
    println!(
        r#"{{"ledger":"{ledger}","writers":{writers},"attempts":{},"vouchers":{VOUCHERS},"credited":{first},"repeated":{repeated},"issued_msat":{},"double_credits":{}}}"#,
        first + repeated,
        proof.totals.issued.get(),
        first.saturating_sub(VOUCHERS)
    );
    assert!(first <= VOUCHERS, "a voucher was credited twice");
    assert_eq!(
        proof.totals.issued.get(),
        added,
        "what was credited is what was heard"
    );
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let attempts = arguments.get(2).map_or(ATTEMPTS, |count| count.parse().unwrap());
    match (arguments.first().map(String::as_str), arguments.get(1)) {
        (Some("redb"), Some(folder)) => {
            let file = Path::new(folder).join("ledger-race.redb");
            let books = Arc::new(Mutex::new(Embedded::open(&file, 1).unwrap().0));
            let writers = (0..4).map(|_| -> Apply<'_> {
                let books = books.clone();
                Box::new(move |batch| books.lock().unwrap().apply(batch, 2).unwrap())
            });
            let heard = race(writers.collect(), attempts);
            report("redb", 4, &*books.lock().unwrap(), heard);
            std::fs::remove_file(file).unwrap();
        }
        (Some("postgres"), Some(url)) => {
            let open = |node: usize| {
                Postgres::open(url, Options::new(format!("race-{node}")), 1)
                    .unwrap()
                    .0
            };
            let mut nodes: Vec<Postgres> = (0..3).map(open).collect();
            let writers = nodes
                .iter_mut()
                .map(|books| -> Apply<'_> { Box::new(move |batch| books.apply(batch, 2).unwrap()) });
            let heard = race(writers.collect(), attempts);
            report("postgres", 3, &nodes[0], heard);
        }
        _ => {
            eprintln!("ledger_race redb FOLDER | postgres URL, [ATTEMPTS]");
            std::process::exit(2);
        }
    }
}
