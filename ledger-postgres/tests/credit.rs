//! Credit lines and sums with a ceiling, asked of both ledgers; and their races on several nodes.
#![allow(clippy::unwrap_used)]

mod server;

use std::sync::Barrier;

use ledger_postgres::{Options, Postgres};
use metering::ledger::{Bounds, Ceiling, Command, Conditions, CreditLine, DumpRow, Open, Outcome, Refusal};
use metering::{
    AccountId, Embedded, LeaseId, Ledger, Msat, Rates, Report, Service, SessionId, Usage, Voucher,
};

const RATES: Rates = Rates {
    out: 50,
    in_: 50,
    second: 8,
};
const ANNA: &str = "did:key:z6MkAnna";
const BERT: &str = "did:key:z6MkBert";
const ISSUER: &str = "did:key:z6MkIssuer";
/// Unix seconds of every command, unless it says otherwise.
const NOW: u64 = 1_000_000;

/// Books, and what keeps them.
struct Kept {
    ledger: Box<dyn Ledger>,
    _folder: tempfile::TempDir,
}

fn node(url: &str, name: &str) -> Postgres {
    Postgres::open(url, Options::new(name), 1).unwrap().0
}

fn both() -> [Kept; 2] {
    let folder = tempfile::tempdir().unwrap();
    let (file, _) = Embedded::open(&folder.path().join("ledger.redb"), 1).unwrap();
    let kept = |ledger: Box<dyn Ledger>, _folder| Kept { ledger, _folder };
    [
        kept(Box::new(file), folder),
        kept(
            Box::new(node(&server::fresh(), "node-a")),
            tempfile::tempdir().unwrap(),
        ),
    ]
}

fn voucher(jti: &str, account: &str, msat: u64) -> Voucher {
    Voucher {
        iss: ISSUER.into(),
        jti: jti.into(),
        sub: account.into(),
        payer: None,
        aud: "did:key:z6MkRelay".into(),
        balance: Msat::new(msat),
        account: account.into(),
        refundable: true,
    }
}

fn line(scorer: &str, msat: u64, most: u64) -> CreditLine {
    CreditLine {
        msat: Msat::new(msat),
        within: Ceiling {
            name: format!("credit {scorer}"),
            max: Msat::new(most),
            until: Ceiling::LASTING,
        },
        until: NOW + 3_600,
    }
}

fn open(session: u64, account: &str, want: u64, credit: Option<CreditLine>) -> Command {
    Command::Open(Box::new(Open {
        session: SessionId::new(session),
        account: account.into(),
        voucher: None,
        service: Service::Turn,
        tariff: "turn-1".into(),
        rates: RATES,
        want: Msat::new(want),
        minimum: Msat::new(want.min(42)),
        cap: None,
        conditions: Conditions {
            credit,
            ..Conditions::default()
        },
    }))
}

/// Ends a lease after so many seconds at 8 msat each.
fn settle(lease: LeaseId, session: u64, seconds: u64) -> Command {
    Command::Settle {
        report: Report {
            lease,
            session: SessionId::new(session),
            epoch: 0,
            sequence: 1,
            segment: 0,
            usage: Usage {
                nanoseconds: seconds * 1_000_000_000,
                ..Usage::default()
            },
            granted: Msat::ZERO,
            exhausted: false,
            renew: false,
            closed: true,
            held: false,
            last: true,
        },
        reason: "bye".into(),
    }
}

fn at(ledger: &mut dyn Ledger, seconds: u64, command: Command) -> Result<Outcome, Refusal> {
    let result = ledger
        .apply(&[command], seconds * 1_000_000_000)
        .unwrap()
        .remove(0);
    ledger.verify().unwrap();
    result
}

fn one(ledger: &mut dyn Ledger, command: Command) -> Result<Outcome, Refusal> {
    at(ledger, NOW, command)
}

fn opened(result: Result<Outcome, Refusal>) -> (LeaseId, u64) {
    match result {
        Ok(Outcome::Opened { lease, granted, .. }) => (lease, granted.get()),
        other => panic!("not opened: {other:?}"),
    }
}

/// What it has (below zero: owes), has reserved, and has spent.
fn money(ledger: &dyn Ledger, account: &str) -> (i64, u64, u64) {
    let account = ledger.account(&account.into()).unwrap().unwrap();
    (account.balance(), account.reserved.get(), account.spent.get())
}

fn outstanding(ledger: &dyn Ledger) -> (u64, u64) {
    let issuers = ledger.issuers().unwrap();
    let (_, tally) = issuers.into_iter().find(|(iss, _)| iss == ISSUER).unwrap();
    (tally.spent.get(), tally.outstanding().get())
}

fn counted(ledger: &dyn Ledger, name: &str) -> Option<u64> {
    let mut found = None;
    let look = &mut |row| {
        if let DumpRow::Ceiling(of, _, used) = row
            && of == name
        {
            found = Some(used.get());
        }
        Ok(())
    };
    ledger.dump(look).unwrap();
    found
}

#[test]
fn an_account_goes_below_zero_by_its_line_and_no_further_and_the_next_top_up_fills_it_first() {
    for mut kept in both() {
        let books = &mut *kept.ledger;
        let refused = Err(Refusal::BalanceExhausted {
            available: Msat::ZERO,
        });
        assert_eq!(one(books, open(1, ANNA, 100, None)), refused, "no line, no lease");
        let (lease, granted) = opened(one(books, open(1, ANNA, 100, Some(line("scorer", 100, 1_000)))));
        assert_eq!(
            granted, 50,
            "a share, as of money: the next session finds the rest"
        );
        assert_eq!(money(books, ANNA), (-50, 50, 0));
        let renew = Command::Renew {
            lease,
            want: Msat::new(5_000),
            minimum: Msat::new(5_000),
        };
        assert_eq!(
            one(books, renew.clone()),
            Ok(Outcome::Renewed {
                granted: Msat::new(100),
                available: Msat::ZERO
            })
        );
        assert_eq!(
            money(books, ANNA),
            (-100, 100, 0),
            "minus the line, and no further"
        );
        assert_eq!(
            one(books, renew),
            Ok(Outcome::Renewed {
                granted: Msat::new(100),
                available: Msat::ZERO
            })
        );
        one(books, settle(lease, 1, 10)).unwrap();
        assert_eq!(money(books, ANNA), (-80, 0, 80), "what was not used is not owed");
        assert_eq!(counted(books, "credit scorer"), Some(80));
        let refund = Command::Refund {
            account: ANNA.into(),
            reason: "asked".into(),
        };
        assert_eq!(one(books, refund.clone()), refused, "credit is never paid out");

        one(books, Command::Credit(voucher("a", ANNA, 50))).unwrap();
        assert_eq!(money(books, ANNA), (-30, 0, 80), "filled first");
        assert_eq!(
            outstanding(books),
            (50, 0),
            "the issuer's voucher was spent as it came"
        );
        let promotional = Voucher {
            refundable: false,
            ..voucher("b", ANNA, 10)
        };
        one(books, Command::Credit(promotional)).unwrap();
        assert_eq!(
            money(books, ANNA),
            (-20, 0, 80),
            "what is promotional fills it too"
        );
        one(books, Command::Credit(voucher("c", ANNA, 100))).unwrap();
        assert_eq!(money(books, ANNA), (80, 0, 80));
        assert_eq!(counted(books, "credit scorer"), Some(0));
        assert_eq!(
            one(books, refund),
            Ok(Outcome::Released(Msat::new(80))),
            "what is left is money"
        );
        assert_eq!(outstanding(books), (80, 0));
    }
}

#[test]
fn own_money_goes_first_and_a_line_ends_with_what_it_was_granted_for() {
    for mut kept in both() {
        let books = &mut *kept.ledger;
        one(books, Command::Credit(voucher("a", ANNA, 60))).unwrap();
        let granted = one(
            books,
            Command::GrantLine {
                account: ANNA.into(),
                line: line("scorer", 100, 1_000),
            },
        );
        assert_eq!(granted, Ok(Outcome::LineGranted(Msat::new(100))));
        let (lease, _) = opened(one(books, open(1, ANNA, 50, None)));
        assert_eq!(
            money(books, ANNA),
            (10, 50, 0),
            "nothing is drawn while there is money"
        );
        let renew = |want| Command::Renew {
            lease,
            want: Msat::new(want),
            minimum: Msat::new(want),
        };
        one(books, renew(70)).unwrap();
        assert_eq!(money(books, ANNA), (-10, 70, 0));
        assert_eq!(counted(books, "credit scorer"), Some(10));
        let late = at(books, NOW + 3_600, renew(100));
        assert_eq!(
            late,
            Ok(Outcome::Renewed {
                granted: Msat::new(70),
                available: Msat::ZERO
            })
        );
        at(books, NOW + 3_600, settle(lease, 1, 8)).unwrap();
        assert_eq!(
            money(books, ANNA),
            (-4, 0, 64),
            "what is owed stays owed past the line's end"
        );
        let again = at(books, NOW + 3_600, open(2, ANNA, 42, None));
        assert_eq!(
            again,
            Err(Refusal::BalanceExhausted {
                available: Msat::ZERO
            })
        );
    }
}

#[test]
fn all_that_is_owed_on_one_word_stays_within_its_ceiling() {
    for mut kept in both() {
        let books = &mut *kept.ledger;
        let word = |scorer| Some(line(scorer, 100, 120));
        opened(one(books, open(1, ANNA, 50, word("a"))));
        opened(one(books, open(2, BERT, 50, word("a"))));
        let third = one(books, open(3, "did:key:z6MkCarl", 42, word("a")));
        assert!(
            matches!(third, Err(Refusal::BalanceExhausted { .. })),
            "28 are left on that word: {third:?}"
        );
        assert_eq!(
            counted(books, "credit a"),
            Some(92),
            "Bert got a share of what was left"
        );
        // Another scorer's word takes over what is owed, where there is room for it.
        let other = |most| Command::GrantLine {
            account: ANNA.into(),
            line: line("b", 70, most),
        };
        assert_eq!(
            one(books, other(49)),
            Ok(Outcome::LineGranted(Msat::new(100))),
            "no room: as it was"
        );
        assert_eq!(one(books, other(50)), Ok(Outcome::LineGranted(Msat::new(70))));
        assert_eq!(
            (counted(books, "credit a"), counted(books, "credit b")),
            (Some(42), Some(50))
        );
        opened(one(books, open(3, "did:key:z6MkCarl", 42, word("a"))));
    }
}

fn bounds(sums: &[(&str, u64)], until: u64) -> Bounds {
    let ceiling = |(name, max): &(&str, u64)| Ceiling {
        name: (*name).to_owned(),
        max: Msat::new(*max),
        until,
    };
    Bounds {
        ceilings: sums.iter().map(ceiling).collect(),
        ..Bounds::default()
    }
}

#[test]
fn a_voucher_counts_once_against_every_sum_or_against_none() {
    for mut kept in both() {
        let books = &mut *kept.ledger;
        let both = |jti: &str, msat| Command::CreditWithin {
            voucher: voucher(jti, ANNA, msat),
            bounds: bounds(&[("issuer", 100), ("holder", 60)], NOW + 86_400),
        };
        one(books, both("a", 60)).unwrap();
        one(books, both("a", 60)).unwrap();
        assert_eq!(one(books, both("b", 1)), Err(Refusal::CeilingReached));
        assert_eq!(
            (counted(books, "issuer"), counted(books, "holder")),
            (Some(60), Some(60))
        );
        let issuer = |jti: &str, msat| Command::CreditWithin {
            voucher: voucher(jti, BERT, msat),
            bounds: bounds(&[("issuer", 100)], NOW + 86_400),
        };
        one(books, issuer("c", 40)).unwrap();
        assert_eq!(one(books, issuer("d", 1)), Err(Refusal::CeilingReached));
        assert_eq!(one(books, issuer("e", 1 << 52)), Err(Refusal::CeilingReached));
        // In an admission, what does not fit is left, and the account may have money all the same.
        let Command::Open(mut open) = open(1, ANNA, 42, None) else {
            unreachable!()
        };
        open.voucher = Some(voucher("f", ANNA, 5));
        open.conditions.bounds = bounds(&[("issuer", 100)], NOW + 86_400);
        opened(one(books, Command::Open(open)));
        assert_eq!(counted(books, "issuer"), Some(100));
        assert_eq!(money(books, ANNA).0 + money(books, ANNA).1 as i64, 60);
    }
}

#[test]
fn sums_of_days_gone_by_are_forgotten_and_what_is_owed_is_not() {
    for mut kept in both() {
        let books = &mut *kept.ledger;
        opened(one(books, open(1, ANNA, 50, Some(line("scorer", 100, 1_000)))));
        for day in 0..200_u64 {
            let credit = Command::CreditWithin {
                voucher: voucher(&format!("v{day}"), BERT, 1),
                bounds: bounds(&[(&format!("issuer {day}"), 1)], NOW + (day + 2) * 86_400),
            };
            let now = (NOW + day * 86_400) * 1_000_000_000;
            books.apply(&[credit], now).unwrap().remove(0).unwrap();
        }
        assert_eq!(counted(books, "issuer 0"), None);
        assert_eq!(counted(books, "issuer 199"), Some(1));
        assert_eq!(counted(books, "credit scorer"), Some(50));
        books.verify().unwrap();
    }
}

#[test]
fn an_issuers_limit_may_come_with_the_voucher() {
    for mut kept in both() {
        let books = &mut *kept.ledger;
        let credit = |jti: &str, msat| Command::CreditWithin {
            voucher: voucher(jti, ANNA, msat),
            bounds: Bounds {
                outstanding_max: Some(Msat::new(100)),
                ..Bounds::default()
            },
        };
        one(books, credit("a", 100)).unwrap();
        assert_eq!(one(books, credit("b", 1)), Err(Refusal::IssuerLimit));
        let (lease, _) = opened(one(books, open(1, ANNA, 48, None)));
        one(books, settle(lease, 1, 6)).unwrap();
        one(books, credit("b", 48)).unwrap();
        assert_eq!(one(books, credit("c", 1)), Err(Refusal::IssuerLimit));
    }
}

#[test]
fn what_is_given_for_nothing_and_what_emergencies_cost_stands_in_the_memo_accounts() {
    for mut kept in both() {
        let books = &mut *kept.ledger;
        let gift = Command::CreditWithin {
            voucher: Voucher {
                refundable: false,
                ..voucher("allowance 11 anna", ANNA, 30)
            },
            bounds: Bounds {
                allowance: true,
                ..bounds(&[("allowance scorer 11", 30)], NOW + 86_400)
            },
        };
        one(books, gift.clone()).unwrap();
        one(books, gift).unwrap();
        // A free lease of somebody who has nothing.
        let Command::Open(mut free) = open(1, BERT, 0, None) else {
            unreachable!()
        };
        free.rates = Rates {
            out: 0,
            in_: 0,
            second: 0,
        };
        (free.minimum, free.conditions.free_instead_of) = (Msat::ZERO, Some(RATES));
        let (lease, granted) = opened(one(books, Command::Open(free)));
        assert_eq!(granted, 0);
        let earned = one(books, settle(lease, 1, 60));
        assert_eq!(
            earned,
            Ok(Outcome::Settled {
                earned: Msat::ZERO,
                uncollected: Msat::ZERO
            })
        );
        let memo = books.totals().unwrap().memo_accounts();
        assert_eq!(
            (memo["allowance"], memo["emergency"]),
            (Msat::new(30), Msat::new(480))
        );
        let receipt = books.receipt(SessionId::new(1)).unwrap().unwrap();
        assert_eq!(
            (receipt.msat, receipt.segments[0].nanoseconds),
            (Msat::ZERO, 60_000_000_000)
        );
    }
}

#[test]
fn credit_survives_a_migration_either_way() {
    let [mut file, mut shared] = both();
    opened(one(
        &mut *file.ledger,
        open(1, ANNA, 50, Some(line("scorer", 100, 1_000))),
    ));
    let mut from = file.ledger;
    for _ in 0..2 {
        let mut rows = Vec::new();
        from.dump(&mut |row| {
            rows.push(Ok(row));
            Ok(())
        })
        .unwrap();
        shared.ledger.load(&mut rows.into_iter(), None, NOW).unwrap();
        shared.ledger.verify().unwrap();
        assert_eq!(
            counted(&*shared.ledger, "credit scorer"),
            Some(0),
            "the lease was taken back"
        );
        let account = shared.ledger.account(&AccountId::new(ANNA)).unwrap().unwrap();
        assert_eq!(account.credit.unwrap().msat, Msat::new(100));
        let [empty, _] = both();
        from = std::mem::replace(&mut shared.ledger, empty.ledger);
        shared._folder = empty._folder;
    }
}

#[test]
fn racing_nodes_never_draw_or_credit_past_a_ceiling() {
    const NODES: u64 = 3;
    const ACCOUNTS: u64 = 40;
    let url = server::fresh();
    let nodes: Vec<Postgres> = (0..NODES)
        .map(|place| node(&url, &format!("node-{place}")))
        .collect();
    let barrier = Barrier::new(NODES as usize);
    let granted: u64 = std::thread::scope(|scope| {
        let race = |(place, mut books): (usize, Postgres)| {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                let mut granted = 0;
                for number in 0..ACCOUNTS {
                    // Every account is shown to every node, in another order.
                    let account = format!("did:key:z6Mk{}", (number * 7 + place as u64 * 13) % ACCOUNTS);
                    let session = place as u64 * 1_000 + number;
                    let commands = [
                        open(session, &account, 50, Some(line("scorer", 150, 1_010))),
                        Command::CreditWithin {
                            voucher: voucher(&format!("{place} {number}"), "did:key:z6MkRich", 10),
                            bounds: bounds(&[("issuer 11", 505)], NOW + 86_400),
                        },
                    ];
                    for result in books.apply(&commands, NOW * 1_000_000_000).unwrap() {
                        if let Ok(Outcome::Opened { granted: more, .. }) = result {
                            granted += more.get();
                        }
                    }
                }
                granted
            })
        };
        let threads: Vec<_> = nodes.into_iter().enumerate().map(race).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let auditor = node(&url, "auditor");
    let proof = auditor.verify().unwrap();
    assert_eq!(counted(&auditor, "credit scorer"), Some(granted));
    assert!(
        (969..=1_010).contains(&granted),
        "{granted}: to the ceiling, less than a minimum short of it"
    );
    assert_eq!(counted(&auditor, "issuer 11"), Some(500));
    assert_eq!(proof.totals.issued, Msat::new(500));
    assert_eq!(proof.totals.available, 500 - granted as i64);
}
