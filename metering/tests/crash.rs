//! A kill at any point: between any two writes of the file, with writes that were lost, applied or torn.
//! Whatever survives, the books balance, no credited voucher is forgotten, and no user pays for what was not used.
#![allow(clippy::unwrap_used)]

mod disk;

use disk::Disk;
use metering::{
    AccountId, Embedded, LeaseId, Ledger, Msat, Rates, Report, Service, SessionId, Usage, Voucher,
    ledger::{Command, Open, Outcome},
};
use proptest::prelude::*;
use redb::backends::InMemoryBackend;
use std::io;

const RATES: Rates = Rates {
    out: 50,
    in_: 50,
    second: 8,
};

fn account(index: u8) -> AccountId {
    AccountId::new(format!("did:key:z6Mk{index}"))
}

/// What a random history does next; indices are taken modulo what there is.
#[derive(Clone, Debug)]
enum Deed {
    Credit {
        account: u8,
        jti: u8,
        msat: u64,
        refundable: bool,
    },
    Open {
        account: u8,
        session: u8,
        want: u64,
    },
    Renew {
        lease: u8,
        want: u64,
    },
    Use {
        lease: u8,
        bytes: u64,
        milliseconds: u64,
        closed: bool,
        last: bool,
        repeat: bool,
    },
    Release {
        lease: u8,
    },
    Reclaim {
        lease: u8,
    },
    Freeze {
        account: u8,
        frozen: bool,
    },
    Refund {
        account: u8,
    },
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        3 => (0u8..3, 0u8..12, 0u64..5_000, any::<bool>())
            .prop_map(|(account, jti, msat, refundable)| Deed::Credit { account, jti, msat, refundable }),
        4 => (0u8..3, 0u8..6, 0u64..500).prop_map(|(account, session, want)| Deed::Open { account, session, want }),
        3 => (any::<u8>(), 0u64..800).prop_map(|(lease, want)| Deed::Renew { lease, want }),
        8 => (any::<u8>(), 0u64..2_000_000, 0u64..4_000, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
            |(lease, bytes, milliseconds, closed, last, repeat)| Deed::Use {
                lease, bytes, milliseconds, closed, last: closed && last, repeat
            }
        ),
        1 => any::<u8>().prop_map(|lease| Deed::Release { lease }),
        1 => any::<u8>().prop_map(|lease| Deed::Reclaim { lease }),
        1 => (0u8..3, any::<bool>()).prop_map(|(account, frozen)| Deed::Freeze { account, frozen }),
        1 => (0u8..3).prop_map(|account| Deed::Refund { account }),
    ]
}

/// Turns deeds into commands, as the shards' meters would.
#[derive(Clone, Default)]
struct Meters {
    leases: Vec<Meter>,
}

#[derive(Clone)]
struct Meter {
    lease: LeaseId,
    session: SessionId,
    sequence: u64,
    segment: u32,
    usage: Usage,
}

impl Meters {
    fn command(&mut self, deed: &Deed) -> Option<Command> {
        let count = self.leases.len();
        let pick = |index: u8| (count > 0).then(|| usize::from(index) % count);
        Some(match *deed {
            Deed::Credit {
                account: index,
                jti,
                msat,
                refundable,
            } => Command::Credit(Voucher {
                iss: "did:key:z6MkIssuer".into(),
                jti: format!("{jti}"),
                sub: account(index).as_str().into(),
                payer: None,
                aud: "did:key:z6MkRelay".into(),
                balance: Msat::new(msat),
                account: account(index),
                refundable,
            }),
            Deed::Open {
                account: index,
                session,
                want,
            } => Command::Open(Box::new(Open {
                session: SessionId::new(u64::from(session)),
                account: account(index),
                voucher: None,
                service: Service::Turn,
                tariff: "turn-default".into(),
                rates: RATES,
                want: Msat::new(want),
                minimum: Msat::new(10),
                cap: None,
                conditions: metering::ledger::Conditions::default(),
            })),
            Deed::Renew { lease, want } => {
                let lease = self.leases[pick(lease)?].lease;
                Command::Renew {
                    lease,
                    want: Msat::new(want),
                    minimum: Msat::ONE,
                }
            }
            Deed::Use {
                lease,
                bytes,
                milliseconds,
                closed,
                last,
                repeat,
            } => {
                let meter = &mut self.leases[pick(lease)?];
                if !repeat {
                    meter.sequence += 1;
                    meter.usage.bytes_out += bytes;
                    meter.usage.nanoseconds += milliseconds * 1_000_000;
                }
                let report = Report {
                    lease: meter.lease,
                    session: meter.session,
                    epoch: 0,
                    sequence: meter.sequence,
                    segment: meter.segment,
                    usage: meter.usage,
                    granted: Msat::ZERO,
                    exhausted: false,
                    renew: false,
                    closed,
                    held: false,
                    last,
                };
                if !closed {
                    return Some(Command::Report(report));
                }
                meter.segment += 1;
                meter.usage = Usage::default();
                Command::Settle {
                    report,
                    reason: "bye".into(),
                }
            }
            Deed::Release { lease } => Command::Release {
                lease: self.leases[pick(lease)?].lease,
            },
            Deed::Reclaim { lease } => Command::Reclaim {
                lease: self.leases[pick(lease)?].lease,
                reason: "lease-lost".into(),
            },
            Deed::Freeze {
                account: index,
                frozen,
            } => Command::Freeze {
                account: account(index),
                frozen,
            },
            Deed::Refund { account: index } => Command::Refund {
                account: account(index),
                reason: "on request".into(),
            },
        })
    }

    fn learn(&mut self, command: &Command, outcome: &Outcome) {
        if let (Command::Open(open), Outcome::Opened { lease, .. }) = (command, outcome) {
            let (lease, session) = (*lease, open.session);
            self.leases.push(Meter {
                lease,
                session,
                sequence: 0,
                segment: 0,
                usage: Usage::default(),
            });
        }
    }
}

fn batches() -> impl Strategy<Value = Vec<Vec<Deed>>> {
    proptest::collection::vec(proptest::collection::vec(deed(), 1..5), 1..14)
}

/// Credited by vouchers, and spent, per account, as the books say.
fn credited_and_held(books: &Embedded) -> Vec<(AccountId, u64, u64)> {
    books
        .accounts()
        .unwrap()
        .into_iter()
        .map(|account| {
            let held = account.available.get() + account.reserved.get() + account.refunded.get();
            (account.account, held + account.spent.get(), held)
        })
        .collect()
}

fn run(books: &mut Embedded, meters: &mut Meters, deeds: &[Deed], now: u64) -> Result<(), ()> {
    let mut after = meters.clone();
    let commands: Vec<Command> = deeds.iter().filter_map(|deed| after.command(deed)).collect();
    let results = books.apply(&commands, now).map_err(|_| ())?;
    for (command, result) in commands.iter().zip(results) {
        if let Ok(outcome) = result {
            after.learn(command, &outcome);
        }
    }
    *meters = after;
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn every_history_balances_at_every_commit(history in batches()) {
        let mut books = Embedded::open_on(InMemoryBackend::new(), 0).unwrap().0;
        let mut meters = Meters::default();
        for (now, deeds) in history.iter().enumerate() {
            run(&mut books, &mut meters, deeds, now as u64).unwrap();
            let proof = books.verify();
            prop_assert!(proof.is_ok(), "{:?}", proof);
            prop_assert!(books.accounts().unwrap().iter().all(|account| account.available <= Msat::MAX_BALANCE));
        }
        for session in 0..6 {
            if let Some(receipt) = books.receipt(SessionId::new(session)).unwrap() {
                let sum: u64 = receipt.segments.iter().map(|segment| segment.msat.get()).sum();
                prop_assert_eq!(receipt.msat.get(), sum);
            }
        }
        let earned: u64 = (0..6)
            .filter_map(|session| books.receipt(SessionId::new(session)).unwrap())
            .map(|receipt| receipt.msat.get())
            .sum();
        prop_assert_eq!(books.totals().unwrap().earned.get(), earned, "receipts add up to what was earned");
    }

    #[test]
    fn a_kill_at_any_point_leaves_books_that_balance(history in batches(), operations in 0usize..260, luck: u64) {
        let disk = Disk::default();
        let mut books = Embedded::open_on(disk.clone(), 0).unwrap().0;
        let mut shadow = Embedded::open_on(InMemoryBackend::new(), 0).unwrap().0;
        let (mut meters, mut shadow_meters) = (Meters::default(), Meters::default());
        disk.fail_after(operations);
        let mut before = credited_and_held(&shadow);
        for (now, deeds) in history.iter().enumerate() {
            before = credited_and_held(&shadow);
            run(&mut shadow, &mut shadow_meters, deeds, now as u64).unwrap();
            if run(&mut books, &mut meters, deeds, now as u64).is_err() {
                break;
            }
            before = credited_and_held(&shadow);
        }
        let after = credited_and_held(&shadow);
        drop(books);
        let survivor = disk.after_the_crash(luck);
        let (mut books, _) = Embedded::open_on(survivor, 1_000).unwrap();
        let proof = books.verify();
        prop_assert!(proof.is_ok(), "{:?}", proof);
        prop_assert_eq!(books.totals().unwrap().reserved, Msat::ZERO, "recovery leaves nothing set aside");
        // What users ever paid in is what it was before the commit that was cut, or after it.
        let paid_in: Vec<_> = credited_and_held(&books).into_iter().map(|row| (row.0, row.1)).collect();
        let either = [&before, &after].map(|rows| {
            rows.iter().map(|row| (row.0.clone(), row.1)).collect::<Vec<_>>()
        });
        prop_assert!(either.contains(&paid_in), "{:?} is neither {:?}", paid_in, either);
        // And the books go on.
        run(&mut books, &mut Meters::default(), &[Deed::Credit { account: 0, jti: 200, msat: 5, refundable: true }], 1_001)
            .unwrap();
        books.verify().unwrap();
    }
}

#[test]
fn a_full_disk_refuses_the_commit_and_the_books_go_on_when_there_is_space() {
    let disk = Disk::default();
    let mut books = Embedded::open_on(disk.clone(), 0).unwrap().0;
    let credit = |jti| Deed::Credit {
        account: 0,
        jti,
        msat: 100,
        refundable: true,
    };
    run(&mut books, &mut Meters::default(), &[credit(1)], 1).unwrap();
    disk.fail_after(0);
    assert!(run(&mut books, &mut Meters::default(), &[credit(2)], 2).is_err());
    assert!(
        run(&mut books, &mut Meters::default(), &[credit(2)], 3).is_err(),
        "and does not pretend afterwards"
    );
    drop(books);
    disk.heal();
    let mut books = Embedded::open_on(disk, 4).unwrap().0;
    assert_eq!(books.verify().unwrap().totals.issued, Msat::new(100));
    run(&mut books, &mut Meters::default(), &[credit(2)], 5).unwrap();
    assert_eq!(books.verify().unwrap().totals.issued, Msat::new(200));
}

/// The child of the test below: credits vouchers of 1 msat each and says so, until it is killed.
fn keep_crediting(path: &std::path::Path) -> ! {
    let (mut books, _) = Embedded::open(path, 0).unwrap();
    let mut meters = Meters::default();
    run(
        &mut books,
        &mut meters,
        &[Deed::Credit {
            account: 0,
            jti: 0,
            msat: 4_000,
            refundable: true,
        }],
        1,
    )
    .unwrap();
    run(
        &mut books,
        &mut meters,
        &[Deed::Open {
            account: 0,
            session: 1,
            want: 400,
        }],
        1,
    )
    .unwrap();
    for number in 1u64.. {
        let credit = Command::Credit(Voucher {
            iss: "did:key:z6MkIssuer".into(),
            jti: format!("killed-{number}"),
            sub: account(0).as_str().into(),
            payer: None,
            aud: "did:key:z6MkRelay".into(),
            balance: Msat::ONE,
            account: account(1),
            refundable: true,
        });
        let used = Deed::Use {
            lease: 0,
            bytes: 1_000,
            milliseconds: 1,
            closed: false,
            last: false,
            repeat: false,
        };
        let report = meters.command(&used).unwrap();
        books.apply(&[credit, report], 2).unwrap();
        println!("credited {number}");
    }
    unreachable!()
}

#[test]
fn kill_9_of_the_process_loses_no_acknowledged_credit() {
    const CHILD: &str = "METERING_CRASH_TEST_LEDGER";
    if let Some(path) = std::env::var_os(CHILD) {
        keep_crediting(path.as_ref());
    }
    for patience in [1u64, 7, 23] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.redb");
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "kill_9_of_the_process_loses_no_acknowledged_credit",
                "--nocapture",
            ])
            .env(CHILD, &path)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let lines = io::BufRead::lines(io::BufReader::new(child.stdout.take().unwrap()));
        let mut acknowledged = 0;
        let mut last = 0;
        let mut killed = false;
        for line in lines.map_while(Result::ok) {
            if let Some(number) = line
                .strip_prefix("credited ")
                .and_then(|number| number.parse::<u64>().ok())
            {
                last = number;
                acknowledged += 1;
            }
            if acknowledged >= patience && !killed {
                child.kill().unwrap(); // SIGKILL
                killed = true;
            }
        }
        child.wait().unwrap();
        assert!(killed && last >= patience);
        let proof = metering::ledger::verify(&path).unwrap();
        assert_eq!(
            proof.open_leases, 1,
            "before the recovery the lease is still open, and the books balance"
        );
        let (books, recovery) = Embedded::open(&path, 3).unwrap();
        books.verify().unwrap();
        assert_eq!(recovery.leases, 1);
        let credited = books.account(&account(1)).unwrap().unwrap().available.get();
        assert!(
            credited == last || credited == last + 1,
            "{credited} of {last} acknowledged"
        );
        let receipt = books.receipt(SessionId::new(1)).unwrap().unwrap();
        assert!(receipt.recovered && receipt.ended.is_some());
        let spent = books.account(&account(0)).unwrap().unwrap();
        assert_eq!(spent.available.get() + receipt.msat.get(), 4_000);
    }
}

/// THREATS, money: kill -9 between any two steps of a top-up.
#[test]
fn a_payment_is_credited_exactly_once_wherever_the_power_fails() {
    use metering::ledger::{TopUp, TopUpState};
    let begin = || Command::BeginTopUp {
        top_up: Box::new(TopUp::new(
            "aa",
            "cashu",
            &account(0),
            Msat::new(500),
            serde_json::json!({"inputs": ["coin"], "outputs": [1, 2]}),
        )),
        open_max: 1,
    };
    let settle = || Command::SettleTopUp {
        id: "aa".into(),
        account: account(0),
        operator: "did:key:z6MkRelay".into(),
        detail: serde_json::json!({"proofs": ["coin"]}),
    };
    for luck in [0, 0x5555_5555_5555_5555, 0x1234_5678_9abc_def0, u64::MAX] {
        for operations in 0..200 {
            let disk = Disk::default();
            let (mut ledger, _) = Embedded::open_on(disk.clone(), 1).unwrap();
            disk.fail_after(operations);
            let begun = ledger.apply(&[begin()], 2).is_ok();
            // Only what was begun durably is exchanged for coins; that is the whole point.
            let settled = begun && ledger.apply(&[settle()], 3).is_ok();
            drop(ledger);
            let disk = disk.after_the_crash(luck);
            let (mut ledger, _) = Embedded::open_on(disk, 4).unwrap();
            let row = ledger.top_up("aa").unwrap();
            assert!(
                row.is_some() || !begun,
                "{operations} {luck:x}: begun and forgotten"
            );
            if settled {
                assert_eq!(row.as_ref().unwrap().state, TopUpState::Settled);
            }
            if let Some(row) = row {
                let open = ledger.open_top_ups().unwrap().len();
                assert_eq!(open == 1, row.state == TopUpState::Open);
                if open == 1 {
                    assert_eq!(row.detail["outputs"][1], 2);
                }
                ledger.apply(&[settle(), settle()], 5).unwrap();
                let view = ledger.account(&account(0)).unwrap().unwrap();
                assert_eq!((view.available, view.open_top_ups), (Msat::new(500), 0));
            }
            ledger.verify().unwrap();
            if settled {
                // The disk outlived the whole story.
                break;
            }
        }
    }
}
