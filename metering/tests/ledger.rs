//! The books, seen by the one who keeps them: credit, lease, report, settle, hold, reclaim, refund.
#![allow(clippy::unwrap_used)]

use metering::{
    AccountId, Embedded, LeaseId, Ledger, Msat, Rates, Report, Service, SessionId, Usage, Voucher,
    ledger::{Cap, Command, Open, Outcome, Refusal},
    meter,
};
use redb::backends::InMemoryBackend;
use std::sync::{Arc, Mutex};

const RATES: Rates = Rates {
    out: 50,
    in_: 0,
    second: 8,
};
const ANNA: &str = "did:key:z6MkAnna";

fn books() -> Embedded {
    Embedded::open_on(InMemoryBackend::new(), 1).unwrap().0
}

fn voucher(jti: &str, msat: u64) -> Voucher {
    Voucher {
        iss: "did:key:z6MkIssuer".into(),
        jti: jti.into(),
        sub: ANNA.into(),
        payer: None,
        aud: "did:key:z6MkRelay".into(),
        balance: Msat::new(msat),
        account: ANNA.into(),
        refundable: true,
    }
}

fn open(session: u64, voucher: Option<Voucher>) -> Command {
    Command::Open(Box::new(Open {
        session: SessionId::new(session),
        account: ANNA.into(),
        voucher,
        service: Service::Sfu,
        tariff: "sfu-default".into(),
        rates: RATES,
        want: Msat::new(175),
        minimum: Msat::new(42),
        cap: None,
        conditions: metering::ledger::Conditions::default(),
    }))
}

fn report(lease: LeaseId, sequence: u64, bytes_out: u64, seconds: u64) -> Report {
    let usage = Usage {
        bytes_out,
        bytes_in: 0,
        nanoseconds: seconds * 1_000_000_000,
        debit: Msat::ZERO,
    };
    Report {
        lease,
        session: SessionId::new(1),
        epoch: 0,
        sequence,
        segment: 0,
        usage,
        granted: Msat::ZERO,
        exhausted: false,
        renew: false,
        closed: false,
        held: false,
        last: false,
    }
}

fn closed(report: Report, last: bool) -> Command {
    Command::Settle {
        report: Report {
            closed: true,
            last,
            ..report
        },
        reason: "bye".into(),
    }
}

fn one(books: &mut Embedded, command: Command) -> Result<Outcome, Refusal> {
    let result = books.apply(&[command], 2).unwrap().remove(0);
    books.verify().unwrap();
    result
}

fn opened(books: &mut Embedded, command: Command) -> (LeaseId, Msat) {
    match one(books, command) {
        Ok(Outcome::Opened { lease, granted, .. }) => (lease, granted),
        other => panic!("not opened: {other:?}"),
    }
}

fn money(books: &Embedded) -> (u64, u64, u64) {
    let account = books.account(&ANNA.into()).unwrap().unwrap();
    (
        account.available.get(),
        account.reserved.get(),
        account.spent.get(),
    )
}

#[test]
fn a_session_is_admitted_reported_and_settled() {
    let mut books = books();
    let (lease, granted) = opened(&mut books, open(1, Some(voucher("a", 10_000))));
    assert_eq!((granted, money(&books)), (Msat::new(175), (9_825, 175, 0)));
    one(&mut books, Command::Report(report(lease, 1, 1_000_000, 1))).unwrap();
    assert_eq!(
        money(&books),
        (9_825, 175, 0),
        "what is reported stays reserved until it settles"
    );
    let outcome = one(&mut books, closed(report(lease, 2, 1_000_001, 2), true));
    assert_eq!(
        outcome,
        Ok(Outcome::Settled {
            earned: Msat::new(67),
            uncollected: Msat::ZERO
        })
    );
    assert_eq!(money(&books), (9_933, 0, 67));
    let receipt = books.receipt(SessionId::new(1)).unwrap().unwrap();
    assert_eq!(
        (receipt.msat, receipt.bytes_out, receipt.segments.len()),
        (Msat::new(67), 1_000_001, 1)
    );
    assert_eq!(
        (receipt.ended, receipt.reason.as_deref(), receipt.recovered),
        (Some(2), Some("bye"), false)
    );
}

#[test]
fn a_session_of_several_leases_has_one_receipt() {
    let mut books = books();
    let (first, _) = opened(&mut books, open(1, Some(voucher("a", 10_000))));
    let (second, _) = opened(&mut books, open(1, None));
    assert_eq!(books.account(&ANNA.into()).unwrap().unwrap().live_sessions, 1);
    one(&mut books, closed(report(first, 1, 1_000_000, 1), true)).unwrap();
    assert_eq!(books.receipt(SessionId::new(1)).unwrap().unwrap().ended, None);
    one(&mut books, closed(report(second, 1, 2_000_000, 1), true)).unwrap();
    let receipt = books.receipt(SessionId::new(1)).unwrap().unwrap();
    assert_eq!(receipt.msat, Msat::new(58 + 108));
    assert_eq!(
        receipt.msat.get(),
        receipt
            .segments
            .iter()
            .map(|segment| segment.msat.get())
            .sum::<u64>()
    );
    assert_eq!(receipt.terms.len(), 1);
    assert!(receipt.ended.is_some());
}

#[test]
fn a_repeated_voucher_gets_its_first_answer_and_no_money() {
    let mut books = books();
    one(&mut books, Command::Credit(voucher("a", 500))).unwrap();
    opened(&mut books, open(1, None));
    let again = one(&mut books, Command::Credit(voucher("a", 500)));
    let Ok(Outcome::Credited(answer)) = again else {
        panic!("{again:?}")
    };
    assert_eq!(
        (answer.credited, answer.available, answer.repeated),
        (Msat::new(500), Msat::new(500), true)
    );
    assert_eq!(books.totals().unwrap().issued, Msat::new(500));
}

#[test]
fn the_same_voucher_id_with_other_claims_is_refused() {
    let mut books = books();
    one(&mut books, Command::Credit(voucher("a", 500))).unwrap();
    assert_eq!(
        one(&mut books, Command::Credit(voucher("a", 501))),
        Err(Refusal::VoucherConflict)
    );
    let other = Voucher {
        sub: "did:key:z6MkMallory".into(),
        ..voucher("a", 500)
    };
    assert_eq!(
        one(&mut books, Command::Credit(other)),
        Err(Refusal::VoucherConflict)
    );
    assert_eq!(
        one(&mut books, open(1, Some(voucher("a", 502)))),
        Err(Refusal::VoucherConflict)
    );
    let elsewhere = Voucher {
        iss: "did:key:z6MkOther".into(),
        ..voucher("a", 501)
    };
    assert!(
        one(&mut books, Command::Credit(elsewhere)).is_ok(),
        "ids are the issuer's own"
    );
}

#[test]
fn one_voucher_redeemed_on_many_threads_is_credited_exactly_once() {
    let books = Arc::new(Mutex::new(books()));
    let first: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|_| {
                scope.spawn(|| {
                    let command = Command::Credit(voucher("race", 1_000));
                    let results = books
                        .lock()
                        .unwrap()
                        .apply(&[command.clone(), command], 2)
                        .unwrap();
                    results
                        .iter()
                        .filter(|result| matches!(result, Ok(Outcome::Credited(answer)) if !answer.repeated))
                        .count()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(first, 1);
    let books = books.lock().unwrap();
    assert_eq!(money(&books), (1_000, 0, 0));
    books.verify().unwrap();
}

#[test]
fn an_empty_account_is_not_admitted_but_keeps_its_voucher() {
    let mut books = books();
    let refusal = one(&mut books, open(1, Some(voucher("a", 41))));
    assert_eq!(
        refusal,
        Err(Refusal::BalanceExhausted {
            available: Msat::new(41)
        })
    );
    assert_eq!(money(&books), (41, 0, 0));
    opened(&mut books, open(1, Some(voucher("b", 1))));
}

#[test]
fn several_sessions_never_reserve_more_than_there_is() {
    let mut books = books();
    one(&mut books, Command::Credit(voucher("a", 300))).unwrap();
    let granted: Vec<u64> = (1..=3)
        .map(|session| opened(&mut books, open(session, None)).1.get())
        .collect();
    assert_eq!(granted, [150, 50, 42]);
    assert!(matches!(
        one(&mut books, open(4, None)),
        Ok(Outcome::Opened { .. })
    ));
    assert!(matches!(
        one(&mut books, open(5, None)),
        Err(Refusal::BalanceExhausted { .. })
    ));
}

#[test]
fn a_renewal_adds_what_is_missing_to_the_wanted() {
    let mut books = books();
    let (lease, granted) = opened(&mut books, open(1, Some(voucher("a", 10_000))));
    one(&mut books, Command::Report(report(lease, 1, 2_000_000, 0))).unwrap();
    let renew = Command::Renew {
        lease,
        want: Msat::new(200),
        minimum: Msat::new(27),
    };
    let outcome = one(&mut books, renew.clone());
    let more = 200 - (granted.get() - 100);
    let total = Msat::new(granted.get() + more);
    assert_eq!(
        outcome,
        Ok(Outcome::Renewed {
            granted: total,
            available: Msat::new(10_000 - total.get())
        })
    );
    assert!(matches!(one(&mut books, renew), Ok(Outcome::Renewed { granted, .. }) if granted == total));
}

#[test]
fn a_hold_gives_the_rest_back_and_a_renewal_resumes() {
    let mut books = books();
    let (lease, _) = opened(&mut books, open(1, Some(voucher("a", 100))));
    one(&mut books, closed(report(lease, 1, 0, 5), false)).unwrap();
    one(&mut books, Command::Release { lease }).unwrap();
    assert_eq!(money(&books), (60, 0, 40));
    one(&mut books, Command::Credit(voucher("b", 1_000))).unwrap();
    let renew = Command::Renew {
        lease,
        want: Msat::new(100),
        minimum: Msat::new(27),
    };
    assert!(
        matches!(one(&mut books, renew), Ok(Outcome::Renewed { granted, .. }) if granted == Msat::new(140))
    );
    let next = Report {
        segment: 1,
        ..report(lease, 2, 0, 1)
    };
    one(&mut books, closed(next, true)).unwrap();
    assert_eq!(money(&books), (1_052, 0, 48));
    assert_eq!(
        books.receipt(SessionId::new(1)).unwrap().unwrap().segments.len(),
        2
    );
}

#[test]
fn what_a_lease_does_not_cover_is_a_memo_and_not_a_debt() {
    let mut books = books();
    let (lease, granted) = opened(&mut books, open(1, Some(voucher("a", 100))));
    let outcome = one(&mut books, closed(report(lease, 1, 10_000_000, 0), true));
    let uncollected = Msat::new(500 - granted.get());
    assert_eq!(
        outcome,
        Ok(Outcome::Settled {
            earned: granted,
            uncollected
        })
    );
    assert_eq!(
        books.totals().unwrap().memo_accounts()["uncollected"],
        uncollected
    );
}

#[test]
fn reports_that_are_repeated_or_out_of_order_change_nothing() {
    let mut books = books();
    let (lease, _) = opened(&mut books, open(1, Some(voucher("a", 10_000))));
    one(&mut books, Command::Report(report(lease, 3, 3_000, 3))).unwrap();
    for sequence in [1, 2, 3] {
        let old = one(&mut books, Command::Report(report(lease, sequence, 1_000, 1)));
        assert_eq!(old, Ok(Outcome::Ignored));
    }
    one(&mut books, closed(report(lease, 4, 4_000, 4), true)).unwrap();
    let after = money(&books);
    assert_eq!(
        one(&mut books, closed(report(lease, 4, 4_000, 4), true)),
        Ok(Outcome::Ignored)
    );
    assert_eq!(money(&books), after);
}

#[test]
fn a_silent_lease_is_reclaimed_and_what_it_reports_later_is_a_memo() {
    let mut books = books();
    let (lease, _) = opened(&mut books, open(1, Some(voucher("a", 1_000))));
    one(&mut books, Command::Report(report(lease, 1, 0, 3))).unwrap();
    let reclaim = Command::Reclaim {
        lease,
        reason: "lease-lost".into(),
    };
    assert!(
        matches!(one(&mut books, reclaim.clone()), Ok(Outcome::Settled { earned, .. }) if earned.get() == 24)
    );
    assert_eq!(money(&books), (976, 0, 24));
    assert_eq!(books.lease(lease).unwrap().unwrap().epoch, 1);
    for sequence in 2..4 {
        one(
            &mut books,
            Command::Report(report(lease, sequence, 0, 3 + sequence)),
        )
        .unwrap();
    }
    one(&mut books, closed(report(lease, 9, 0, 10), true)).unwrap();
    assert_eq!(money(&books), (976, 0, 24));
    assert_eq!(
        books.totals().unwrap().memo_accounts()["old-epoch"],
        Msat::new(80 - 24)
    );
    assert_eq!(one(&mut books, reclaim), Err(Refusal::NoSuchLease));
}

#[test]
fn promotional_credit_is_spent_first_and_never_refunded() {
    let mut books = books();
    one(&mut books, Command::Credit(voucher("paid", 500))).unwrap();
    one(
        &mut books,
        Command::Credit(Voucher {
            refundable: false,
            ..voucher("gift", 100)
        }),
    )
    .unwrap();
    one(&mut books, Command::Credit(voucher("paid-2", 500))).unwrap();
    let lots = |books: &Embedded| -> Vec<(String, u64)> {
        let account = books.account(&ANNA.into()).unwrap().unwrap();
        account
            .lots
            .into_iter()
            .map(|lot| (lot.jti, lot.left.get()))
            .collect()
    };
    let (lease, _) = opened(&mut books, open(1, None));
    one(&mut books, closed(report(lease, 1, 0, 10), true)).unwrap();
    assert_eq!(lots(&books)[0], ("gift".to_owned(), 20));
    assert_eq!(
        one(
            &mut books,
            Command::Refund {
                account: ANNA.into(),
                reason: "on request".into()
            }
        ),
        Ok(Outcome::Released(Msat::new(1_000)))
    );
    assert_eq!(lots(&books), [("gift".to_owned(), 20)]);
    assert!(
        one(
            &mut books,
            Command::Refund {
                account: ANNA.into(),
                reason: "on request".into()
            }
        )
        .is_err()
    );
}

#[test]
fn a_refund_during_a_session_leaves_the_lease_its_money() {
    let mut books = books();
    let (lease, granted) = opened(&mut books, open(1, Some(voucher("a", 1_000))));
    let refunded = one(
        &mut books,
        Command::Refund {
            account: ANNA.into(),
            reason: "on request".into(),
        },
    );
    assert_eq!(refunded, Ok(Outcome::Released(Msat::new(1_000 - granted.get()))));
    one(&mut books, closed(report(lease, 1, 0, 10), true)).unwrap();
    assert_eq!(money(&books), (granted.get() - 80, 0, 80));
}

#[test]
fn a_frozen_account_neither_opens_nor_renews() {
    let mut books = books();
    let (lease, _) = opened(&mut books, open(1, Some(voucher("a", 1_000))));
    one(
        &mut books,
        Command::Freeze {
            account: ANNA.into(),
            frozen: true,
        },
    )
    .unwrap();
    assert_eq!(one(&mut books, open(2, None)), Err(Refusal::Frozen));
    let renew = Command::Renew {
        lease,
        want: Msat::new(900),
        minimum: Msat::ZERO,
    };
    assert_eq!(one(&mut books, renew), Err(Refusal::Frozen));
    one(
        &mut books,
        Command::Freeze {
            account: ANNA.into(),
            frozen: false,
        },
    )
    .unwrap();
    opened(&mut books, open(2, None));
}

#[test]
fn a_payers_ceiling_holds_over_every_session_under_it() {
    let mut books = books();
    one(&mut books, Command::Credit(voucher("a", 10_000))).unwrap();
    let capped = |session| {
        let Command::Open(mut open) = open(session, None) else {
            unreachable!()
        };
        open.cap = Some(Cap {
            grant: "grant-1".into(),
            max: Msat::new(200),
        });
        Command::Open(open)
    };
    let (lease, granted) = opened(&mut books, capped(1));
    assert_eq!(granted, Msat::new(175));
    assert_eq!(one(&mut books, capped(2)), Err(Refusal::GrantUsedUp));
    one(&mut books, closed(report(lease, 1, 0, 10), true)).unwrap();
    // 80 are spent for good, the rest may be spent again.
    assert_eq!(opened(&mut books, capped(3)).1, Msat::new(120));
}

#[test]
fn a_balance_never_passes_what_json_can_carry() {
    let mut books = books();
    one(
        &mut books,
        Command::Credit(voucher("most", Msat::MAX_BALANCE.get())),
    )
    .unwrap();
    assert_eq!(
        one(&mut books, Command::Credit(voucher("more", 1))),
        Err(Refusal::BalanceTooLarge)
    );
    assert_eq!(
        one(&mut books, Command::Credit(voucher("wrap", u64::MAX))),
        Err(Refusal::BalanceTooLarge)
    );
}

#[test]
fn a_session_cannot_be_charged_to_a_second_account() {
    let mut books = books();
    opened(&mut books, open(1, Some(voucher("a", 1_000))));
    let other = AccountId::new("did:key:z6MkMallory");
    let Command::Open(mut theirs) = open(1, None) else {
        unreachable!()
    };
    theirs.voucher = Some(Voucher {
        account: other.clone(),
        ..voucher("theirs", 1_000)
    });
    theirs.account = other;
    assert_eq!(one(&mut books, Command::Open(theirs)), Err(Refusal::OtherAccount));
}

#[test]
fn the_bill_is_the_ledgers_own_reckoning_and_not_the_reports() {
    let mut books = books();
    let (lease, _) = opened(&mut books, open(1, Some(voucher("a", 10_000))));
    let mut lying = report(lease, 1, 1_000_000, 1);
    lying.usage.debit = Msat::new(1);
    one(&mut books, closed(lying, true)).unwrap();
    assert_eq!(money(&books).2, meter::closing(lying.usage.owed(&RATES)).get());
}

#[test]
fn the_proof_names_the_sums_and_the_memo_accounts() {
    let mut books = books();
    opened(&mut books, open(1, Some(voucher("a", 1_000))));
    let proof = books.verify().unwrap().to_string();
    for line in [
        "issued = available + reserved + earned + refunded",
        "1000 = 825 + 175 + 0 + 0 (msat)",
        "  old-epoch: 0 msat",
        "  uncollected: 0 msat",
    ] {
        assert!(
            proof.lines().any(|has| has == line),
            "{line:?} is not in\n{proof}"
        );
    }
}

#[test]
fn thousands_of_tiny_sessions_do_not_round_down_to_nothing() {
    let mut books = books();
    one(&mut books, Command::Credit(voucher("a", 100_000))).unwrap();
    let sessions = 2_000;
    for first in (1..=sessions).step_by(200) {
        let opens: Vec<_> = (first..first + 200).map(|session| open(session, None)).collect();
        let results = books.apply(&opens, 3).unwrap();
        let closes: Vec<_> = results
            .into_iter()
            .map(|result| match result {
                Ok(Outcome::Opened { lease, .. }) => closed(report(lease, 1, 1, 0), true),
                other => panic!("not opened: {other:?}"),
            })
            .collect();
        books.apply(&closes, 3).unwrap();
    }
    assert_eq!(
        books.verify().unwrap().totals.earned,
        Msat::new(sessions),
        "a byte costs a whole msat"
    );
}

#[test]
fn a_receipt_stays_short_however_many_leases_its_session_goes_through() {
    let mut books = books();
    books
        .apply(&[Command::Credit(voucher("a", 1_000_000))], 2)
        .unwrap();
    let open_and_close = |books: &mut Embedded, lease: u64| {
        let closing = closed(report(LeaseId::new(lease), 1, 1, 0), true);
        let outcomes = books.apply(&[open(1, None), closing], 2).unwrap();
        outcomes.into_iter().next().unwrap()
    };
    let opened = (1..=5_000)
        .take_while(|lease| open_and_close(&mut books, *lease).is_ok())
        .count();
    assert_eq!(opened, 1_000);
    assert_eq!(open_and_close(&mut books, 1_001), Err(Refusal::ReceiptFull));
    assert_eq!(
        books.receipt(SessionId::new(1)).unwrap().unwrap().segments.len(),
        1_000
    );
    assert!(
        books.apply(&[open(2, None)], 2).unwrap()[0].is_ok(),
        "the account may open another session"
    );
    assert_eq!(money(&books).2, 1_000);
    books.verify().unwrap();
}

#[test]
fn a_wall_clock_that_jumps_changes_dates_and_no_money() {
    let mut books = books();
    let (lease, _) = opened(&mut books, open(1, Some(voucher("a", 10_000))));
    books
        .apply(&[Command::Report(report(lease, 1, 0, 1))], u64::MAX)
        .unwrap();
    books.apply(&[closed(report(lease, 2, 0, 2), true)], 0).unwrap();
    assert_eq!(books.verify().unwrap().totals.earned, Msat::new(16));
}

#[test]
fn two_nodes_that_report_the_same_lease_bill_it_once() {
    let mut books = books();
    let (lease, _) = opened(&mut books, open(1, Some(voucher("a", 10_000))));
    let (here, there) = (report(lease, 1, 0, 3), report(lease, 1, 0, 4));
    one(&mut books, Command::Report(here)).unwrap();
    assert_eq!(one(&mut books, Command::Report(there)), Ok(Outcome::Ignored));
    one(&mut books, closed(report(lease, 2, 0, 5), true)).unwrap();
    one(&mut books, closed(report(lease, 3, 0, 6), true)).unwrap();
    assert_eq!(money(&books).2, 40);
}

#[test]
fn after_a_kill_the_books_say_what_it_may_have_cost_the_operator() {
    let at_risk = |bytes: u64, seconds: u64| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.redb");
        let (mut books, _) = Embedded::open(&path, 1).unwrap();
        let (lease, _) = opened(&mut books, open(1, Some(voucher("a", 10_000))));
        one(&mut books, Command::Report(report(lease, 1, bytes, seconds))).unwrap();
        drop(books);
        let (_, recovery) = Embedded::open(&path, 3).unwrap();
        assert_eq!(recovery.leases, 1);
        recovery.at_risk.get()
    };
    // 4 MB and 5 s: 200 + 40 msat, 48 a second; but a lease of 175 has nothing left.
    assert_eq!(at_risk(4_000_000, 5), 0);
    // 1 MB and 5 s: 50 + 40 msat, 18 a second, and 85 are left.
    assert_eq!(at_risk(1_000_000, 5), 18);
    // 3 MB and 1 s: 158 msat a second, and 17 are left.
    assert_eq!(at_risk(3_000_000, 1), 17);
    // Nothing was reported yet: nothing is known.
    assert_eq!(at_risk(0, 0), 0);
}
