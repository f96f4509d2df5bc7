//! Several nodes on one database: they race for vouchers, share accounts, presume each other dead, and come back.
#![allow(clippy::unwrap_used)]

mod server;

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ledger_postgres::{Options, Postgres};
use metering::ledger::{Command, Fault, LedgerError, Open, Outcome, Refusal};
use metering::{LeaseId, Ledger, Msat, Rates, Report, Service, SessionId, Usage, Voucher};

const RATES: Rates = Rates {
    out: 50,
    in_: 0,
    second: 8,
};

fn node(url: &str, name: &str) -> Postgres {
    Postgres::open(url, Options::new(name), 1).unwrap().0
}

fn voucher(jti: &str, account: &str, msat: u64) -> Voucher {
    Voucher {
        iss: "did:key:z6MkIssuer".into(),
        jti: jti.into(),
        sub: account.into(),
        payer: None,
        aud: "did:key:z6MkRelay".into(),
        balance: Msat::new(msat),
        account: account.into(),
        refundable: true,
    }
}

fn open(session: u64, account: &str) -> Command {
    Command::Open(Box::new(Open {
        session: SessionId::new(session),
        account: account.into(),
        voucher: None,
        service: Service::Sfu,
        tariff: "sfu-1".into(),
        rates: RATES,
        want: Msat::new(100),
        minimum: Msat::new(42),
        cap: None,
        conditions: metering::ledger::Conditions::default(),
    }))
}

fn lease_of(results: &[Result<Outcome, Refusal>]) -> LeaseId {
    match results.last() {
        Some(Ok(Outcome::Opened { lease, .. })) => *lease,
        other => panic!("not opened: {other:?}"),
    }
}

fn report(lease: LeaseId, session: u64, sequence: u64, seconds: u64) -> Report {
    Report {
        lease,
        session: SessionId::new(session),
        epoch: 0,
        sequence,
        segment: 0,
        usage: Usage {
            bytes_out: 0,
            bytes_in: 0,
            nanoseconds: seconds * 1_000_000_000,
            debit: Msat::ZERO,
        },
        granted: Msat::ZERO,
        exhausted: false,
        renew: false,
        closed: false,
        held: false,
        last: false,
    }
}

/// Attempts in a default run; `MILLIWAY_RACING_CREDITS=1000000` for the full measure.
const RACING_CREDITS: u64 = 4_000;

#[test]
fn racing_vouchers_are_credited_exactly_once_whichever_node_and_thread() {
    const NODES: usize = 4;
    let attempts = std::env::var("MILLIWAY_RACING_CREDITS")
        .ok()
        .map_or(RACING_CREDITS, |count| count.parse().unwrap());
    let url = server::fresh();
    // Each voucher is shown four times to each of four nodes, in batches of different cuts.
    let vouchers = (attempts / 16).max(1);
    let (first_times, barrier) = (AtomicU64::new(0), Barrier::new(NODES));
    // Opened at the same time, too; one that cannot be opened ends the test and leaves nobody waiting.
    let opened: Vec<Postgres> = std::thread::scope(|scope| {
        let url = &url;
        let open = |place: usize| scope.spawn(move || node(url, &format!("node-{place}")));
        let threads: Vec<_> = (0..NODES).map(open).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    std::thread::scope(|scope| {
        for (place, mut books) in opened.into_iter().enumerate() {
            let (first_times, barrier) = (&first_times, &barrier);
            scope.spawn(move || {
                barrier.wait();
                let credit = |number: u64| {
                    let account = format!("did:key:z6Mk{}", number % 7);
                    Command::Credit(voucher(&format!("v{number}"), &account, 10))
                };
                let commands: Vec<Command> = (0..vouchers)
                    .flat_map(|number| [0; 4].map(|_| credit(number)))
                    .collect();
                for batch in commands.chunks(50 + place * 13) {
                    for result in books.apply(batch, 2).unwrap() {
                        match result {
                            Ok(Outcome::Credited(credited)) => {
                                assert_eq!(credited.credited, Msat::new(10));
                                first_times.fetch_add(u64::from(!credited.repeated), Ordering::Relaxed);
                            }
                            other => panic!("{other:?}"),
                        }
                    }
                }
            });
        }
    });
    assert_eq!(first_times.into_inner(), vouchers);
    let proof = node(&url, "auditor").verify().unwrap();
    assert_eq!(
        (proof.totals.issued, proof.vouchers),
        (Msat::new(vouchers * 10), vouchers)
    );
}

#[test]
fn one_account_pays_for_sessions_on_every_node_and_never_more_than_it_has() {
    let url = server::fresh();
    let mut nodes: Vec<Postgres> = (0..3).map(|place| node(&url, &format!("node-{place}"))).collect();
    nodes[0]
        .apply(&[Command::Credit(voucher("a", "anna", 300))], 2)
        .unwrap();
    let mut granted = 0;
    std::thread::scope(|scope| {
        let threads: Vec<_> = nodes
            .iter_mut()
            .enumerate()
            .map(|(place, books)| {
                scope.spawn(move || {
                    let opens: Vec<Command> = (0..4).map(|n| open(n * 3 + place as u64, "anna")).collect();
                    let results = opens
                        .into_iter()
                        .flat_map(|open| books.apply(&[open], 3).unwrap());
                    results
                        .filter_map(|result| match result {
                            Ok(Outcome::Opened { granted, .. }) => Some(granted.get()),
                            Err(Refusal::BalanceExhausted { .. }) => None,
                            other => panic!("{other:?}"),
                        })
                        .sum::<u64>()
                })
            })
            .collect();
        granted += threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum::<u64>();
    });
    let account = nodes[1].account(&"anna".into()).unwrap().unwrap();
    assert_eq!(account.reserved.get(), granted);
    assert_eq!(account.available.get() + granted, 300);
    nodes[2].verify().unwrap();
}

#[test]
fn a_node_that_stands_still_is_fenced_and_what_it_reports_later_is_a_memo() {
    let url = server::fresh();
    let mut lost = node(&url, "lost");
    let mut other = node(&url, "other");
    lost.apply(&[Command::Credit(voucher("a", "anna", 1_000))], 2)
        .unwrap();
    let lease = lease_of(&lost.apply(&[open(1, "anna")], 2).unwrap());
    lost.apply(&[Command::Report(report(lease, 1, 1, 3))], 2).unwrap();

    // A clock of the test's own: what counts is how long the other has watched the same beat.
    let start = Instant::now();
    assert_eq!(other.watch(&[], start, 3).unwrap().taken_over, 0);
    assert_eq!(
        other
            .watch(&[], start + Duration::from_secs(39), 3)
            .unwrap()
            .taken_over,
        0
    );
    let news = other.watch(&[], start + Duration::from_secs(41), 3).unwrap();
    // It had used 8 msat a second, and may have gone on for one that nobody heard of.
    assert_eq!((news.taken_over, news.at_risk), (1, Msat::new(8)));
    let after = other.account(&"anna".into()).unwrap().unwrap();
    assert_eq!(
        (after.available.get(), after.reserved.get(), after.spent.get()),
        (976, 0, 24)
    );

    // It lives after all: its reports move nothing, its commits are refused, its watch says why.
    let late = lost.apply(&[Command::Report(report(lease, 1, 2, 9))], 4);
    assert!(matches!(late, Err(LedgerError::Fenced)), "{late:?}");
    let late = lost.apply(&[Command::Credit(voucher("b", "anna", 5))], 4);
    assert!(matches!(late, Err(LedgerError::Fenced)), "{late:?}");
    assert!(matches!(lost.watch(&[], start, 4), Err(LedgerError::Fenced)));

    // With a new seat it hears that the lease is gone, and the late report is a memo.
    let mut back = Postgres::reopen(&url, Options::new("lost"), &lost.seat()).unwrap();
    assert_eq!(back.open_leases().unwrap(), []);
    let late = back.apply(&[Command::Report(report(lease, 1, 2, 9))], 5).unwrap();
    assert_eq!(late, [Ok(Outcome::Ignored)]);
    assert_eq!(back.account(&"anna".into()).unwrap().unwrap(), after);
    let proof = back.verify().unwrap();
    assert_eq!(proof.totals.memo["old-epoch"], Msat::new(48));
    let receipt = back.receipt(SessionId::new(1)).unwrap().unwrap();
    assert!(receipt.recovered && receipt.reason.as_deref() == Some("relay-lost"));
}

#[test]
fn a_beat_keeps_a_node_alive_and_a_quiet_one_loses_nothing() {
    let url = server::fresh();
    let (mut alive, mut other) = (node(&url, "alive"), node(&url, "other"));
    alive
        .apply(&[Command::Credit(voucher("a", "anna", 1_000))], 2)
        .unwrap();
    let lease = lease_of(&alive.apply(&[open(1, "anna")], 2).unwrap());
    let start = Instant::now();
    for second in 0..100 {
        let now = start + Duration::from_secs(second);
        alive.watch(&[], now, 3).unwrap();
        assert_eq!(other.watch(&[], now, 3).unwrap().taken_over, 0);
    }
    assert_eq!(alive.open_leases().unwrap(), [lease]);
}

#[test]
fn a_node_that_comes_back_under_its_name_settles_what_it_had_left_open() {
    let url = server::fresh();
    let mut first = node(&url, "node");
    first
        .apply(&[Command::Credit(voucher("a", "anna", 1_000))], 2)
        .unwrap();
    let lease = lease_of(&first.apply(&[open(1, "anna")], 2).unwrap());
    first
        .apply(&[Command::Report(report(lease, 1, 1, 2))], 2)
        .unwrap();
    let (second, recovery) = Postgres::open(&url, Options::new("node"), 3).unwrap();
    assert_eq!(
        (recovery.leases, recovery.earned, recovery.released),
        (1, Msat::new(16), Msat::new(84))
    );
    second.verify().unwrap();
    // And the first one, if it still runs, writes nothing any more and does not get the name back.
    assert!(matches!(
        first.apply(&[open(2, "anna")], 4),
        Err(LedgerError::Fenced)
    ));
    let back = Postgres::reopen(&url, Options::new("node"), &first.seat());
    assert!(matches!(back, Err(LedgerError::Fenced)));
}

#[test]
fn what_one_node_does_another_hears_in_its_next_watch() {
    let url = server::fresh();
    let (mut here, mut there) = (node(&url, "here"), node(&url, "there"));
    here.apply(&[Command::Credit(voucher("a", "anna", 100))], 2)
        .unwrap();
    let anna = ["anna".into()];
    let before = here.watch(&anna, Instant::now(), 3).unwrap();
    assert_eq!(before.accounts[0].available, Msat::new(100));
    let freeze = Command::Freeze {
        account: "anna".into(),
        frozen: true,
    };
    there
        .apply(&[Command::Credit(voucher("b", "anna", 50)), freeze], 3)
        .unwrap();
    let after = here.watch(&anna, Instant::now(), 3).unwrap();
    assert_eq!(after.accounts[0].available, Msat::new(150));
    assert!(after.accounts[0].frozen && after.freeze_version == before.freeze_version + 1);
}

#[test]
fn a_journal_that_was_tampered_with_is_found_out() {
    let url = server::fresh();
    let mut books = node(&url, "node");
    books
        .apply(&[Command::Credit(voucher("a", "anna", 100))], 2)
        .unwrap();
    books
        .apply(&[Command::Credit(voucher("b", "anna", 100))], 2)
        .unwrap();
    books.verify().unwrap();
    for tamper in [
        "UPDATE accounts SET row = jsonb_set(row, '{available}', '201')",
        "DELETE FROM journal WHERE number = 0",
        "UPDATE nodes SET row = jsonb_set(row, '{sums,earned}', '1')",
        "DELETE FROM vouchers WHERE jti = 'a'",
    ] {
        let url = server::fresh();
        let mut books = node(&url, "node");
        books
            .apply(&[Command::Credit(voucher("a", "anna", 100))], 2)
            .unwrap();
        books
            .apply(&[Command::Credit(voucher("b", "anna", 100))], 2)
            .unwrap();
        server::sql(&url, tamper);
        assert!(
            matches!(books.verify(), Err(Fault::Broken(_) | Fault::Unreadable(_))),
            "{tamper}"
        );
    }
}

#[test]
fn migrations_of_several_nodes_at_once_run_once() {
    let url = server::fresh();
    std::thread::scope(|scope| {
        for place in 0..6 {
            let url = &url;
            scope.spawn(move || node(url, &format!("node-{place}")).verify().unwrap());
            // Who only looks comes at the same moment, and makes them too.
            scope.spawn(move || Postgres::look(url).unwrap().verify().unwrap());
        }
    });
    let alone = server::fresh();
    node(&alone, "alone").verify().unwrap();
    let version = |url: &str| server::sql(url, "SELECT version FROM milliway_schema");
    assert_eq!(version(&url), version(&alone));
    assert_eq!(server::sql(&url, "SELECT count(*) FROM nodes"), "6");
}
