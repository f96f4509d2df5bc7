//! Top-ups with money from outside.

use super::*;
use metering::ledger::{TopUp, TopUpState};

fn top_up(id: &str, account: &str, msat: u64) -> Command {
    let detail = serde_json::json!({"invoice": "lnbc1"});
    let top_up = TopUp::new(id, "lightning", &account.into(), Msat::new(msat), detail);
    Command::BeginTopUp {
        top_up: Box::new(top_up),
        open_max: 2,
    }
}

fn paid(id: &str, account: &str) -> Command {
    Command::SettleTopUp {
        id: id.into(),
        account: account.into(),
        operator: "did:key:z6MkRelay".into(),
        detail: serde_json::json!({"paid": true}),
    }
}

fn unpaid(id: &str, account: &str) -> Command {
    Command::FailTopUp {
        id: id.into(),
        account: account.into(),
        reason: "expired".into(),
    }
}

/// The state, and whether it was so before.
fn stands(outcome: Result<Outcome, Refusal>) -> (TopUpState, bool) {
    match outcome {
        Ok(Outcome::ToppedUp { top_up, repeated, .. }) => (top_up.state, repeated),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_payment_is_credited_once_to_whoever_claimed_it_first() {
    const BOB: &str = "did:key:z6MkBob";
    let limits = IssuerLimits {
        each: Some(Msat::new(1)),
        ..IssuerLimits::default()
    };
    for mut kept in both(&limits) {
        let ledger = kept.ledger.as_mut();
        assert_eq!(
            stands(one(ledger, top_up("aa", ANNA, 500))),
            (TopUpState::Open, false)
        );
        assert_eq!(
            stands(one(ledger, top_up("aa", ANNA, 500))),
            (TopUpState::Open, true)
        );
        assert_eq!(one(ledger, top_up("aa", BOB, 500)), Err(Refusal::TopUpTaken));
        assert_eq!(one(ledger, paid("aa", BOB)), Err(Refusal::NoSuchTopUp));
        assert_eq!(one(ledger, paid("zz", ANNA)), Err(Refusal::NoSuchTopUp));
        assert_eq!(ledger.open_top_ups().unwrap().len(), 1);

        // The issuers' limit is about promises; this is money.
        assert_eq!(
            stands(one(ledger, paid("aa", ANNA))),
            (TopUpState::Settled, false)
        );
        assert_eq!(stands(one(ledger, paid("aa", ANNA))), (TopUpState::Settled, true));
        assert_eq!(
            stands(one(ledger, unpaid("aa", ANNA))),
            (TopUpState::Settled, true)
        );
        let anna = ledger.account(&ANNA.into()).unwrap().unwrap();
        assert_eq!((anna.available, anna.open_top_ups), (Msat::new(500), 0));
        assert_eq!(anna.refundable(), Msat::new(500));
        assert!(ledger.open_top_ups().unwrap().is_empty());
        assert_eq!(ledger.top_up("aa").unwrap().unwrap().detail["paid"], true);
        assert_eq!(
            stands(one(ledger, top_up("aa", ANNA, 500))),
            (TopUpState::Settled, true)
        );
        assert_eq!(one(ledger, top_up("aa", BOB, 500)), Err(Refusal::TopUpTaken));

        // One that failed credited nobody: anybody may begin it again, and late money still counts.
        assert_eq!(
            stands(one(ledger, top_up("bb", ANNA, 7))),
            (TopUpState::Open, false)
        );
        assert_eq!(
            stands(one(ledger, unpaid("bb", ANNA))),
            (TopUpState::Failed, false)
        );
        assert_eq!(
            stands(one(ledger, top_up("bb", BOB, 7))),
            (TopUpState::Open, false)
        );
        assert_eq!(
            stands(one(ledger, unpaid("bb", BOB))),
            (TopUpState::Failed, false)
        );
        assert_eq!(stands(one(ledger, paid("bb", BOB))), (TopUpState::Settled, false));
        assert_eq!(
            ledger.account(&BOB.into()).unwrap().unwrap().available,
            Msat::new(7)
        );

        let exported = one(ledger, Command::ExportTopUp { id: "bb".into() });
        assert_eq!(stands(exported), (TopUpState::Settled, false));
        let (first, rest) = (
            ledger.top_ups(None, 1).unwrap(),
            ledger.top_ups(Some("aa"), 9).unwrap(),
        );
        assert_eq!(
            (first[0].id.as_str(), rest[0].id.as_str(), rest.len()),
            ("aa", "bb", 1)
        );
        assert!(rest[0].exported);
    }
}

#[test]
fn an_account_waits_for_no_more_payments_than_it_may_and_they_survive_a_move_to_other_books() {
    for mut kept in both(&IssuerLimits::default()) {
        let ledger = kept.ledger.as_mut();
        for id in ["aa", "bb"] {
            one(ledger, top_up(id, ANNA, 500)).unwrap();
        }
        assert_eq!(one(ledger, top_up("cc", ANNA, 500)), Err(Refusal::TooManyTopUps));
        one(ledger, paid("aa", ANNA)).unwrap();
        one(ledger, top_up("cc", ANNA, 500)).unwrap();
        let too_large = Msat::MAX_BALANCE.get();
        one(ledger, unpaid("bb", ANNA)).unwrap();
        assert_eq!(
            one(ledger, top_up("dd", ANNA, too_large)),
            Err(Refusal::BalanceTooLarge)
        );

        let mut rows = Vec::new();
        ledger
            .dump(&mut |row| {
                rows.push(row);
                Ok(())
            })
            .unwrap();
        for mut other in both(&IssuerLimits::default()) {
            let mut moved = rows.clone().into_iter().map(Ok);
            other.ledger.load(&mut moved, None, 3).unwrap();
            let open = other.ledger.open_top_ups().unwrap();
            assert_eq!(open, vec![ledger.top_up("cc").unwrap().unwrap()]);
            assert_eq!(
                stands(one(other.ledger.as_mut(), paid("aa", ANNA))),
                (TopUpState::Settled, true)
            );
            assert_eq!(
                stands(one(other.ledger.as_mut(), paid("cc", ANNA))),
                (TopUpState::Settled, false)
            );
        }
    }
}
