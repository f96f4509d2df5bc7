//! How much the books take: reports, credits and reserves a second, beside what the disk's fsync costs.
//!
//!     cargo run --release -p ledger-postgres --example ledger_load -- redb FOLDER
//!     cargo run --release -p ledger-postgres --example ledger_load -- postgres postgres://...
//!
//! Prints one JSON object a measurement. The database should be empty; what it leaves behind is proved at the end.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use ledger_postgres::{Options, Postgres};
use metering::ledger::{Command, Open, Outcome};
use metering::{Embedded, LeaseId, Ledger, Msat, Rates, Report, Service, SessionId, Usage, Voucher};

/// Leases that report once a second each.
const LEASES: usize = 20_000;
/// How long each measurement runs.
const SECONDS: u64 = 8;
const NODES: usize = 3;

fn credit(account: &str, jti: String, msat: u64) -> Command {
    Command::Credit(Voucher {
        iss: "did:key:z6MkIssuer".into(),
        jti,
        sub: account.into(),
        payer: None,
        aud: "did:key:z6MkRelay".into(),
        balance: Msat::new(msat),
        account: account.into(),
        refundable: true,
    })
}

fn open(session: u64, account: &str) -> Command {
    Command::Open(Box::new(Open {
        session: SessionId::new(session),
        account: account.into(),
        voucher: None,
        service: Service::Sfu,
        tariff: "sfu-1".into(),
        rates: Rates {
            out: 50,
            in_: 0,
            second: 8,
        },
        want: Msat::new(330),
        minimum: Msat::new(42),
        cap: None,
        conditions: metering::ledger::Conditions::default(),
    }))
}

/// A lease and how far its reports have come.
#[derive(Clone, Copy)]
struct Meter {
    lease: LeaseId,
    session: u64,
    sequence: u64,
}

impl Meter {
    fn report(&mut self) -> Command {
        self.sequence += 1;
        Command::Report(Report {
            lease: self.lease,
            session: SessionId::new(self.session),
            epoch: 0,
            sequence: self.sequence,
            segment: 0,
            usage: Usage {
                bytes_out: self.sequence * 200_000,
                bytes_in: 0,
                nanoseconds: self.sequence * 1_000_000_000,
                debit: Msat::ZERO,
            },
            granted: Msat::ZERO,
            exhausted: false,
            renew: false,
            closed: false,
            held: false,
            last: false,
        })
    }

    fn renew(&self) -> Command {
        Command::Renew {
            lease: self.lease,
            want: Msat::new(330),
            minimum: Msat::ONE,
        }
    }
}

/// Opens leases, `per_account` of them on each account.
fn meters(books: &mut dyn Ledger, first: u64, count: usize, per_account: usize, prefix: &str) -> Vec<Meter> {
    let mut meters = Vec::new();
    let numbers: Vec<u64> = (first..first + count as u64).collect();
    for chunk in numbers.chunks(500) {
        let mut batch = Vec::new();
        for number in chunk {
            let of_all = (number - first) as usize / per_account;
            let account = format!("did:key:z6Mk{prefix}{of_all}");
            if ((number - first) as usize).is_multiple_of(per_account) {
                batch.push(credit(&account, format!("{prefix}{number}"), 10_000_000_000));
            }
            batch.push(open(*number, &account));
        }
        for (result, command) in books.apply(&batch, 1).unwrap().into_iter().zip(&batch) {
            if let (Ok(Outcome::Opened { lease, .. }), Command::Open(open)) = (result, command) {
                meters.push(Meter {
                    lease,
                    session: open.session.get(),
                    sequence: 0,
                });
            }
        }
    }
    assert_eq!(meters.len(), count);
    meters
}

fn quantile(sorted: &[Duration], of: f64) -> f64 {
    let index = ((sorted.len() - 1) as f64 * of).round() as usize;
    sorted[index].as_secs_f64() * 1_000.0
}

/// What one fsync of 4 KiB costs in this folder, in the median.
fn fsync_ms(folder: &Path) -> f64 {
    let path = folder.join("fsync-probe");
    let mut file = std::fs::File::create(&path).unwrap();
    let mut times: Vec<Duration> = (0..100)
        .map(|_| {
            file.write_all(&[0; 4096]).unwrap();
            let began = Instant::now();
            file.sync_data().unwrap();
            began.elapsed()
        })
        .collect();
    std::fs::remove_file(path).unwrap();
    times.sort();
    quantile(&times, 0.5)
}

/// As the cashier does it: reports every 100 ms, a credit and a reserve every 5 ms, whatever is due in one commit.
fn embedded(folder: &Path) {
    let file = folder.join("ledger-load.redb");
    let _ = std::fs::remove_file(&file);
    let mut books = Embedded::open(&file, 1).unwrap().0;
    let mut meters = meters(&mut books, 0, LEASES, 1, "a");
    let (began, mut reports_due, mut money_due) = (Instant::now(), Duration::ZERO, Duration::ZERO);
    let (mut place, mut reports, mut credits) = (0, 0, 0u64);
    let (mut waits, mut report_commits) = (Vec::new(), Vec::new());
    while began.elapsed() < Duration::from_secs(SECONDS) {
        let now = began.elapsed();
        let (mut batch, mut asked) = (Vec::new(), Vec::new());
        while money_due <= now {
            let meter = &meters[credits as usize % LEASES];
            batch.push(credit("did:key:z6MkTopUp", format!("t{credits}"), 1));
            batch.push(meter.renew());
            asked.push(money_due);
            credits += 1;
            money_due += Duration::from_millis(5);
        }
        let with_reports = reports_due <= now;
        if with_reports {
            for _ in 0..LEASES / 10 {
                batch.push(meters[place].report());
                place = (place + 1) % LEASES;
            }
            reports += LEASES / 10;
            reports_due += Duration::from_millis(100);
        }
        if batch.is_empty() {
            std::thread::sleep(Duration::from_micros(200));
            continue;
        }
        let commit = Instant::now();
        books.apply(&batch, 2).unwrap();
        if with_reports {
            report_commits.push(commit.elapsed());
        }
        let done = began.elapsed();
        waits.extend(asked.into_iter().map(|due| done - due));
    }
    let seconds = began.elapsed().as_secs_f64();
    waits.sort();
    report_commits.sort();
    println!(
        r#"{{"ledger":"redb","reports_per_second":{:.0},"credits_and_reserves_per_second":{:.0},"credit_ms_p50":{:.1},"credit_ms_p99":{:.1},"report_commit_ms_p50":{:.1},"fsync_ms":{:.2}}}"#,
        reports as f64 / seconds,
        2.0 * credits as f64 / seconds,
        quantile(&waits, 0.5),
        quantile(&waits, 0.99),
        quantile(&report_commits, 0.5),
        fsync_ms(folder)
    );
    books.verify().unwrap();
    std::fs::remove_file(file).unwrap();
}

/// Runs `work` on every node at once for the time of a measurement; what each did, in all, a second.
fn on_every_node(
    nodes: &mut [(Postgres, Vec<Meter>)],
    work: impl Fn(usize, &mut Postgres, &mut [Meter], u64) -> u64 + Sync,
) -> f64 {
    let barrier = Barrier::new(nodes.len());
    let began = Instant::now();
    let done: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = nodes
            .iter_mut()
            .enumerate()
            .map(|(place, (books, meters))| {
                let (barrier, work) = (&barrier, &work);
                scope.spawn(move || {
                    barrier.wait();
                    let (mut done, mut round) = (0, 0);
                    while began.elapsed() < Duration::from_secs(SECONDS) {
                        done += work(place, books, meters, round);
                        round += 1;
                    }
                    done
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    done as f64 / began.elapsed().as_secs_f64()
}

/// A node's tenth of a second of reports in one commit.
fn report_round(books: &mut Postgres, meters: &mut [Meter], round: u64) -> u64 {
    let part = (meters.len() / 10).max(1);
    let first = (round as usize * part) % meters.len();
    let end = (first + part).min(meters.len());
    let batch: Vec<Command> = meters[first..end].iter_mut().map(Meter::report).collect();
    books.apply(&batch, 2).unwrap();
    batch.len() as u64
}

fn shared(url: &str) {
    let mut nodes: Vec<(Postgres, Vec<Meter>)> = (0..NODES)
        .map(|place| {
            let mut books = Postgres::open(url, Options::new(format!("load-{place}")), 1)
                .unwrap()
                .0;
            let count = LEASES / NODES;
            let meters = meters(
                &mut books,
                (place * LEASES) as u64,
                count,
                1,
                &format!("n{place}-"),
            );
            (books, meters)
        })
        .collect();
    let reports = on_every_node(&mut nodes, |_, books, meters, round| {
        report_round(books, meters, round)
    });
    println!(
        r#"{{"ledger":"postgres","nodes":{NODES},"leases":{LEASES},"reports_per_second":{reports:.0}}}"#
    );

    let credits = on_every_node(&mut nodes, |place, books, _, round| {
        let batch: Vec<Command> = (0..10)
            .map(|number| {
                let account = format!("did:key:z6MkTopUp{}", (round * 10 + number) % 1_000);
                credit(&account, format!("c{place}-{round}-{number}"), 1)
            })
            .collect();
        books.apply(&batch, 2).unwrap().len() as u64
    });
    println!(r#"{{"ledger":"postgres","nodes":{NODES},"voucher_credits_per_second":{credits:.0}}}"#);

    // Reports, with every lease renewed once in five: that is what touches the account.
    let mut of = |per_account: usize, prefix: &str| -> f64 {
        for (place, (books, of_node)) in nodes.iter_mut().enumerate() {
            let first = 1_000_000 + per_account as u64 * 1_000 + place as u64 * 100;
            // The hot account is the same one on every node.
            let prefix = if per_account == 1 {
                format!("{prefix}{place}-")
            } else {
                prefix.to_owned()
            };
            *of_node = meters(books, first, 33, per_account.min(33), &prefix);
        }
        1.0 / on_every_node(&mut nodes, |_, books, meters, round| {
            let mut batch: Vec<Command> = meters.iter_mut().map(Meter::report).collect();
            let renewed = meters.iter().skip(round as usize % 5).step_by(5);
            batch.extend(renewed.map(Meter::renew));
            books.apply(&batch, 2).unwrap();
            meters.len() as u64
        })
    };
    let (cold, hot) = (of(1, "cold"), of(100, "hot"));
    println!(
        r#"{{"ledger":"postgres","sessions":99,"us_per_report_on_accounts_of_their_own":{:.1},"us_per_report_on_one_hot_account":{:.1},"ratio":{:.2}}}"#,
        cold * 1e6,
        hot * 1e6,
        hot / cold
    );
    let proof = nodes[0].0.verify().unwrap();
    println!(
        r#"{{"proved_entries":{},"commits":{}}}"#,
        proof.entries, proof.commits
    );
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["redb", folder] => embedded(Path::new(folder)),
        ["postgres", url] => shared(url),
        _ => {
            eprintln!("ledger_load redb FOLDER | postgres URL");
            std::process::exit(2);
        }
    }
}
