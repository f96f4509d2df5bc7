//! What every ledger does, asked of both: the embedded one and the one on PostgreSQL give the same answers to the same
//! commands, and their books prove.
#![allow(clippy::unwrap_used)]

#[path = "conformance/replay.rs"]
mod replay;
mod server;
#[path = "conformance/top_ups.rs"]
mod top_ups;

use ledger_postgres::{Options, Postgres};
use metering::ledger::{
    Bounds, Cap, Ceiling, Command, Conditions, CreditLine, Denied, DumpRow, IssuerLimits, LeaseState, Open,
    Outcome, Refusal, SignedReceipt,
};
use metering::{
    AccountId, Embedded, LeaseId, Ledger, Msat, Rates, Report, Service, SessionId, Usage, Voucher,
};
use proptest::prelude::*;

const RATES: Rates = Rates {
    out: 50,
    in_: 50,
    second: 8,
};
const ANNA: &str = "did:key:z6MkAnna";
const ISSUER: &str = "did:key:z6MkIssuer";

/// Books, and what keeps them.
struct Kept {
    ledger: Box<dyn Ledger>,
    _folder: tempfile::TempDir,
}

fn embedded(limits: IssuerLimits) -> Kept {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, _) = Embedded::open(&folder.path().join("ledger.redb"), 1).unwrap();
    Kept {
        ledger: Box::new(ledger.with_limits(limits)),
        _folder: folder,
    }
}

fn postgres(limits: IssuerLimits) -> Kept {
    let options = Options {
        limits,
        ..Options::new("node-a")
    };
    let (ledger, _) = Postgres::open(&server::fresh(), options, 1).unwrap();
    Kept {
        ledger: Box::new(ledger),
        _folder: tempfile::tempdir().unwrap(),
    }
}

fn both(limits: &IssuerLimits) -> [Kept; 2] {
    [embedded(limits.clone()), postgres(limits.clone())]
}

fn voucher(jti: &str, msat: u64) -> Voucher {
    Voucher {
        iss: ISSUER.into(),
        jti: jti.into(),
        sub: ANNA.into(),
        payer: None,
        aud: "did:key:z6MkRelay".into(),
        balance: Msat::new(msat),
        account: ANNA.into(),
        refundable: true,
    }
}

fn open(session: u64, voucher: Option<Voucher>, cap: Option<Cap>) -> Command {
    Command::Open(Box::new(Open {
        session: SessionId::new(session),
        account: ANNA.into(),
        voucher,
        service: Service::Turn,
        tariff: "turn-1".into(),
        rates: RATES,
        want: Msat::new(175),
        minimum: Msat::new(42),
        cap,
        conditions: Conditions::default(),
    }))
}

fn report(lease: LeaseId, sequence: u64, bytes: u64) -> Report {
    Report {
        lease,
        session: SessionId::new(1),
        epoch: 0,
        sequence,
        segment: 0,
        usage: Usage {
            bytes_out: bytes,
            bytes_in: 0,
            nanoseconds: 1_000_000_000,
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

fn last(report: Report) -> Command {
    Command::Settle {
        report: Report {
            closed: true,
            last: true,
            ..report
        },
        reason: "bye".into(),
    }
}

fn one(ledger: &mut dyn Ledger, command: Command) -> Result<Outcome, Refusal> {
    let result = ledger.apply(&[command], 2).unwrap().remove(0);
    ledger.verify().unwrap();
    result
}

fn opened(result: Result<Outcome, Refusal>) -> LeaseId {
    match result {
        Ok(Outcome::Opened { lease, .. }) => lease,
        other => panic!("not opened: {other:?}"),
    }
}

fn money(ledger: &dyn Ledger) -> (u64, u64, u64) {
    let account = ledger.account(&ANNA.into()).unwrap().unwrap();
    (
        account.available.get(),
        account.reserved.get(),
        account.spent.get(),
    )
}

#[test]
fn a_session_is_admitted_reported_settled_and_receipted() {
    for mut kept in both(&IssuerLimits::default()) {
        let books = &mut *kept.ledger;
        let lease = opened(one(books, open(1, Some(voucher("a", 10_000)), None)));
        assert_eq!(money(books), (9_825, 175, 0));
        one(books, Command::Report(report(lease, 1, 1_000_000))).unwrap();
        assert_eq!(books.lease(lease).unwrap().unwrap().reported.bytes_out, 1_000_000);
        let settled = one(books, last(report(lease, 2, 1_000_001)));
        assert!(
            matches!(settled, Ok(Outcome::Settled { earned, .. }) if earned == Msat::new(59)),
            "{settled:?}"
        );
        assert_eq!(money(books), (9_941, 0, 59));
        let receipt = books.receipt(SessionId::new(1)).unwrap().unwrap();
        assert_eq!((receipt.msat, receipt.ended), (Msat::new(59), Some(2)));
        assert_eq!(receipt.segments[0].settlement, 1);
        assert!(receipt.segments[0].entry.is_some());
        assert_eq!(books.open_leases().unwrap(), []);
    }
}

#[test]
fn a_voucher_counts_once_whatever_the_batch() {
    for mut kept in both(&IssuerLimits::default()) {
        let books = &mut *kept.ledger;
        let twice = [
            Command::Credit(voucher("a", 100)),
            Command::Credit(voucher("a", 100)),
            Command::Credit(voucher("a", 101)),
        ];
        let results = books.apply(&twice, 2).unwrap();
        assert!(matches!(results[0], Ok(Outcome::Credited(credited)) if !credited.repeated));
        assert!(matches!(results[1], Ok(Outcome::Credited(credited)) if credited.repeated));
        assert_eq!(results[2], Err(Refusal::VoucherConflict));
        assert_eq!(
            one(books, Command::Credit(voucher("a", 102))),
            Err(Refusal::VoucherConflict)
        );
        assert_eq!(books.totals().unwrap().issued, Msat::new(100));
    }
}

#[test]
fn a_lease_that_was_taken_back_reports_into_the_memo_account_only() {
    for mut kept in both(&IssuerLimits::default()) {
        let books = &mut *kept.ledger;
        let lease = opened(one(books, open(1, Some(voucher("a", 1_000)), None)));
        one(books, Command::Report(report(lease, 1, 1_000_000))).unwrap();
        let reclaim = Command::Reclaim {
            lease,
            reason: "lease-lost".into(),
        };
        one(books, reclaim).unwrap();
        let before = money(books);
        assert_eq!(
            one(books, Command::Report(report(lease, 2, 2_000_000))),
            Ok(Outcome::Ignored)
        );
        assert_eq!(
            one(books, last(report(lease, 3, 3_000_000))),
            Ok(Outcome::Ignored)
        );
        assert_eq!(money(books), before);
        assert_eq!(books.lease(lease).unwrap().unwrap().state, LeaseState::Reclaimed);
        assert!(books.totals().unwrap().memo["old-epoch"] > Msat::ZERO);
    }
}

#[test]
fn refund_all_closes_what_is_live_and_pays_what_is_refundable() {
    for mut kept in both(&IssuerLimits::default()) {
        let books = &mut *kept.ledger;
        let gift = Voucher {
            iss: "did:key:z6MkRelay".into(),
            refundable: false,
            ..voucher("gift", 500)
        };
        let gift = Command::Gift {
            voucher: gift,
            reason: "sorry".into(),
        };
        one(books, gift).unwrap();
        let lease = opened(one(books, open(1, Some(voucher("a", 1_000)), None)));
        one(books, Command::Report(report(lease, 1, 2_000_000))).unwrap();
        let account = AccountId::new(ANNA);
        let frozen = books
            .watch(&[], std::time::Instant::now(), 2)
            .unwrap()
            .freeze_version;
        let batch = [
            Command::Freeze {
                account: account.clone(),
                frozen: true,
            },
            Command::CloseAccount {
                account: account.clone(),
                reason: "refunded".into(),
            },
            Command::Refund {
                account: account.clone(),
                reason: "on request".into(),
            },
        ];
        let results = books.apply(&batch, 3).unwrap();
        assert_eq!(results[2], Ok(Outcome::Released(Msat::new(1_000))), "{results:?}");
        books.verify().unwrap();
        assert_eq!(money(books), (392, 0, 108));
        assert!(
            books
                .watch(&[], std::time::Instant::now(), 2)
                .unwrap()
                .freeze_version
                > frozen
        );
        assert_eq!(one(books, open(2, None, None)), Err(Refusal::Frozen));
        let issuers = books.issuers().unwrap();
        let owed: Vec<u64> = issuers
            .iter()
            .map(|(_, tally)| tally.outstanding().get())
            .collect();
        assert_eq!(owed, [0, 392]);
    }
}

#[test]
fn an_issuer_cannot_have_more_outstanding_than_its_limit() {
    let limits = IssuerLimits {
        each: None,
        named: [(ISSUER.to_owned(), Msat::new(1_000))].into(),
    };
    for mut kept in both(&limits) {
        let books = &mut *kept.ledger;
        one(books, Command::Credit(voucher("a", 900))).unwrap();
        assert_eq!(
            one(books, Command::Credit(voucher("b", 101))),
            Err(Refusal::IssuerLimit)
        );
        let lease = opened(one(books, open(1, None, None)));
        one(books, last(report(lease, 1, 1_000_000))).unwrap();
        // What was spent is settled between the issuer and the operator, and makes room.
        one(books, Command::Credit(voucher("b", 101))).unwrap();
        assert_eq!(
            one(books, Command::Credit(voucher("c", 100))),
            Err(Refusal::IssuerLimit)
        );
    }
}

#[test]
fn a_payers_grant_is_a_ceiling_over_all_its_sessions() {
    for mut kept in both(&IssuerLimits::default()) {
        let books = &mut *kept.ledger;
        one(books, Command::Credit(voucher("a", 10_000))).unwrap();
        let cap = || {
            Some(Cap {
                grant: "anna 1".into(),
                max: Msat::new(200),
            })
        };
        let first = opened(one(books, open(1, None, cap())));
        assert_eq!(one(books, open(2, None, cap())), Err(Refusal::GrantUsedUp));
        one(books, Command::Release { lease: first }).unwrap();
        opened(one(books, open(2, None, cap())));
    }
}

#[test]
fn the_deny_list_and_the_receipts_are_kept() {
    for mut kept in both(&IssuerLimits::default()) {
        let books = &mut *kept.ledger;
        let denied = Denied {
            kind: "jti".into(),
            value: "stolen".into(),
        };
        let deny = |on| Command::Deny {
            denied: denied.clone(),
            on,
        };
        let before = books
            .watch(&[], std::time::Instant::now(), 2)
            .unwrap()
            .deny_version;
        assert_eq!(one(books, deny(true)), Ok(Outcome::Denied { changed: true }));
        assert_eq!(one(books, deny(true)), Ok(Outcome::Denied { changed: false }));
        assert_eq!(books.denied().unwrap(), std::slice::from_ref(&denied));
        assert_eq!(
            books
                .watch(&[], std::time::Instant::now(), 2)
                .unwrap()
                .deny_version,
            before + 1
        );
        one(books, deny(false)).unwrap();
        assert_eq!(books.denied().unwrap(), []);
        let session = SessionId::new(9);
        let keep = |number, jws: &str| Command::KeepReceipt {
            session,
            receipt: SignedReceipt {
                number,
                segments: 1,
                ended: false,
                jws: jws.into(),
            },
        };
        assert_eq!(one(books, keep(0, "a.b.c")), Ok(Outcome::Kept(true)));
        assert_eq!(one(books, keep(0, "d.e.f")), Ok(Outcome::Kept(false)));
        one(books, keep(1, "g.h.i")).unwrap();
        assert_eq!(books.signed_receipt(session).unwrap().unwrap().jws, "g.h.i");
    }
}

/// Books with a bit of everything in them, a lease left open included.
fn furnish(books: &mut dyn Ledger) {
    one(books, Command::Credit(voucher("a", 10_000))).unwrap();
    let cap = Cap {
        grant: "anna 1".into(),
        max: Msat::new(500),
    };
    let lease = opened(one(books, open(1, None, Some(cap))));
    one(books, last(report(lease, 1, 1_000_000))).unwrap();
    let lease = opened(one(books, open(2, None, None)));
    one(books, Command::Report(report(lease, 1, 500_000))).unwrap();
    let denied = Denied {
        kind: "kid".into(),
        value: "lost".into(),
    };
    one(books, Command::Deny { denied, on: true }).unwrap();
    let receipt = SignedReceipt {
        number: 0,
        segments: 1,
        ended: true,
        jws: "a.b.c".into(),
    };
    let session = SessionId::new(1);
    one(books, Command::KeepReceipt { session, receipt }).unwrap();
}

#[test]
fn books_move_into_any_other_ledger_and_prove_there() {
    let limits = IssuerLimits::default();
    for from in 0..2 {
        for to in 0..2 {
            let [mut source, mut target] = [from, to].map(|which| {
                let [embedded, postgres] = both(&limits);
                if which == 0 { embedded } else { postgres }
            });
            furnish(&mut *source.ledger);
            let mut rows = Vec::new();
            source
                .ledger
                .dump(&mut |row| {
                    rows.push(row);
                    Ok(())
                })
                .unwrap();
            let mut stream = rows.clone().into_iter().map(Ok);
            target.ledger.load(&mut stream, Some(77), 9).unwrap();
            let proof = target.ledger.verify().unwrap();
            assert_eq!(proof.open_leases, 0, "what was left open is settled as reported");
            assert_eq!(target.ledger.restored_at().unwrap(), 77);
            let account = target.ledger.account(&ANNA.into()).unwrap().unwrap();
            assert_eq!(
                (account.reserved, account.spent),
                (Msat::ZERO, Msat::new(58 + 33))
            );
            assert_eq!(
                one(&mut *target.ledger, Command::Credit(voucher("a", 9))),
                Err(Refusal::VoucherConflict)
            );
            let receipt = target.ledger.receipt(SessionId::new(1)).unwrap().unwrap();
            assert_eq!(receipt.segments[0].settlement, 1);
            assert!(receipt.segments[0].entry.is_some());
            assert_eq!(
                target
                    .ledger
                    .signed_receipt(SessionId::new(1))
                    .unwrap()
                    .unwrap()
                    .jws,
                "a.b.c"
            );
            assert_eq!(target.ledger.denied().unwrap().len(), 1);
            opened(one(&mut *target.ledger, open(3, None, None)));
            let again = target.ledger.load(&mut rows.into_iter().map(Ok), None, 10);
            assert!(again.is_err(), "books that are in use are not filled");
        }
    }
}

/// Numbers that a random history is made of: which command, for what, how much.
fn history() -> impl Strategy<Value = Vec<Vec<(u8, u8, u64)>>> {
    let deed = (0u8..20, any::<u8>(), 0u64..3_000_000);
    proptest::collection::vec(proptest::collection::vec(deed, 1..8), 1..12)
}

fn credit_line(which: u8, much: u64) -> CreditLine {
    CreditLine {
        msat: Msat::new(much % 1_500),
        within: Ceiling {
            name: format!("credit {}", which % 2),
            max: Msat::new(1_200),
            until: Ceiling::LASTING,
        },
        until: u64::from(!which.is_multiple_of(8)),
    }
}

fn command(deed: (u8, u8, u64), leases: &[LeaseId], sequence: &mut u64) -> Option<Command> {
    let (what, which, much) = deed;
    let account = AccountId::new(format!("did:key:z6Mk{}", which % 3));
    let lease = (!leases.is_empty()).then(|| leases[usize::from(which) % leases.len()]);
    Some(match what {
        0 if which % 3 == 0 => Command::GrantLine {
            account,
            line: credit_line(which, much),
        },
        1 => Command::CreditWithin {
            voucher: Voucher {
                account: account.clone(),
                sub: account.as_str().into(),
                ..voucher(&format!("{}", which % 20), much % 5_000)
            },
            bounds: Bounds {
                ceilings: vec![Ceiling {
                    name: format!("sum {}", which % 2),
                    max: Msat::new(9_000),
                    until: 50,
                }],
                outstanding_max: (which % 5 == 0).then_some(Msat::new(6_000)),
                allowance: which % 7 == 0,
            },
        },
        0..4 => Command::Credit(Voucher {
            account: account.clone(),
            sub: account.as_str().into(),
            refundable: which % 2 == 0,
            ..voucher(&format!("{}", which % 20), much % 5_000)
        }),
        4..8 => Command::Open(Box::new(Open {
            session: SessionId::new(u64::from(which % 6)),
            account,
            voucher: None,
            service: Service::Turn,
            tariff: "turn-1".into(),
            rates: RATES,
            want: Msat::new(much % 500),
            minimum: Msat::new(10),
            cap: (which % 4 == 0).then(|| Cap {
                grant: "a grant".into(),
                max: Msat::new(700),
            }),
            conditions: Conditions {
                credit: (which % 3 == 0).then(|| credit_line(which, much)),
                ..Conditions::default()
            },
        })),
        8..13 => {
            *sequence += u64::from(which % 5 != 0);
            let segment = u32::from(what == 12);
            Command::Report(Report {
                segment,
                ..report(lease?, *sequence, much)
            })
        }
        13 | 14 => {
            *sequence += 1;
            let report = Report {
                closed: true,
                last: which % 2 == 0,
                ..report(lease?, *sequence, much)
            };
            Command::Settle {
                report,
                reason: "bye".into(),
            }
        }
        15 => Command::Renew {
            lease: lease?,
            want: Msat::new(much % 800),
            minimum: Msat::ONE,
        },
        16 => Command::Release { lease: lease? },
        17 => Command::Reclaim {
            lease: lease?,
            reason: "lease-lost".into(),
        },
        18 if which % 3 == 0 => Command::CloseAccount {
            account,
            reason: "closed".into(),
        },
        18 => Command::Freeze {
            account,
            frozen: which % 2 == 0,
        },
        _ => Command::Refund {
            account,
            reason: "on request".into(),
        },
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// The embedded ledger is the reference: same answers, same accounts, same sums, and both prove at every commit.
    #[test]
    fn both_ledgers_do_the_same(history in history()) {
        let [mut reference, mut shared] = both(&IssuerLimits::default());
        let (mut of_reference, mut of_shared): (Vec<LeaseId>, Vec<LeaseId>) = Default::default();
        let mut sequence = 0;
        for (now, deeds) in history.iter().enumerate() {
            let mut again = sequence;
            let commands = |leases: &[LeaseId], sequence: &mut u64| -> Vec<Command> {
                deeds.iter().filter_map(|deed| command(*deed, leases, sequence)).collect()
            };
            let a = reference.ledger.apply(&commands(&of_reference, &mut sequence), now as u64).unwrap();
            let b = shared.ledger.apply(&commands(&of_shared, &mut again), now as u64).unwrap();
            prop_assert_eq!(a.len(), b.len());
            for (a, b) in a.into_iter().zip(b) {
                match (a, b) {
                    (Ok(Outcome::Opened { lease: a, granted, available, credited }), Ok(b)) => {
                        of_reference.push(a);
                        let lease = opened(Ok(b.clone()));
                        of_shared.push(lease);
                        prop_assert_eq!(b, Outcome::Opened { lease, granted, available, credited });
                    }
                    (a, b) => prop_assert_eq!(a, b),
                }
            }
            let proof = shared.ledger.verify();
            prop_assert!(proof.is_ok(), "{:?}", proof);
            prop_assert_eq!(reference.ledger.accounts().unwrap(), shared.ledger.accounts().unwrap());
            let (mut a, mut b) = (reference.ledger.totals().unwrap(), shared.ledger.totals().unwrap());
            (a.commits, b.commits) = (0, 0);
            prop_assert_eq!(a, b);
            prop_assert_eq!(reference.ledger.issuers().unwrap(), shared.ledger.issuers().unwrap());
        }
        reference.ledger.verify().unwrap();
    }
}
