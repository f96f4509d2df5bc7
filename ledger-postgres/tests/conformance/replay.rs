//! What is done again after a restore, from the records of it.

use super::*;
use metering::ledger::{AccountView, Kind, Record};

/// The rows of books in which something happened, and the records of what happened after the first `before` entries.
fn lived(before: usize) -> (Vec<DumpRow>, Vec<Record>, Vec<AccountView>) {
    let mut ledger = Embedded::in_memory(1).unwrap();
    let (mut rows, mut backed_up) = (Vec::new(), 0);
    let mut lease = None;
    for step in 0..8 {
        if step == before {
            ledger
                .dump(&mut |row| {
                    rows.push(row);
                    Ok(())
                })
                .unwrap();
            backed_up = ledger.journal(None, 1_000).unwrap().len();
        }
        let now = 10 + step as u64;
        let command = match step {
            0 => Command::Credit(voucher("v1", 1_000)),
            1 => open(1, None, None),
            2 => Command::Report(report(lease.unwrap(), 1, 100_000)),
            3 => last(report(lease.unwrap(), 2, 500_000)),
            4 => Command::Gift {
                voucher: Voucher {
                    refundable: false,
                    ..voucher("v2", 77)
                },
                reason: "sorry".into(),
            },
            5 => Command::Refund {
                account: ANNA.into(),
                reason: "asked".into(),
            },
            6 => Command::Freeze {
                account: ANNA.into(),
                frozen: true,
            },
            _ => Command::Credit(voucher("v3", 5)),
        };
        match ledger.apply(&[command], now).unwrap().remove(0).unwrap() {
            Outcome::Opened { lease: id, .. } => lease = Some(id),
            Outcome::Ignored => panic!("step {step} did nothing"),
            _ => {}
        }
    }
    let unsent = ledger.unsent("file", 1_000).unwrap().unwrap();
    let records = unsent
        .entries
        .into_iter()
        .skip(backed_up)
        .filter(|leaving| !matches!(leaving.entry.kind, Kind::Reserve | Kind::Release))
        .map(|leaving| Record {
            entry: leaving.entry,
            claims: leaving.voucher,
        });
    let records = records.collect();
    (rows, records, ledger.accounts().unwrap())
}

#[test]
fn what_is_done_again_after_a_restore_leaves_both_ledgers_as_the_lost_one_was() {
    for before in [1, 2, 3, 4, 6] {
        let (rows, records, accounts) = lived(before);
        let done = both(&IssuerLimits::default()).map(|mut kept| {
            let ledger = &mut *kept.ledger;
            let mut rows = rows.clone();
            for row in &mut rows {
                if let DumpRow::Lease(_, lease) = row {
                    // As `milliway ledger restore` does where the records have the segment's settlement.
                    lease.reported = Usage::default();
                }
            }
            ledger.load(&mut rows.into_iter().map(Ok), None, 20).unwrap();
            for record in &records {
                let result = one(ledger, Command::Replay(Box::new(record.clone())));
                assert_eq!(result, Ok(Outcome::Replayed), "{record:?}");
            }
            let again: Vec<_> = records
                .iter()
                .filter(|record| record.claims.is_some())
                .map(|record| one(ledger, Command::Replay(Box::new(record.clone()))))
                .collect();
            assert!(
                again
                    .iter()
                    .all(|result| matches!(result, Err(Refusal::CannotReplay(_))))
            );
            let settled: Vec<u64> = ledger
                .journal(None, 1_000)
                .unwrap()
                .iter()
                .filter(|(_, entry)| entry.kind == Kind::Settle)
                .map(|(_, entry)| entry.at)
                .collect();
            assert_eq!(settled, [13], "in its billing period");
            let receipt = ledger.receipt(SessionId::new(1)).unwrap().unwrap();
            (
                ledger.accounts().unwrap(),
                ledger.issuers().unwrap(),
                receipt.msat,
                receipt.bytes_out,
            )
        });
        assert_eq!(done[0], done[1]);
        let without_count = |account: &AccountView| AccountView {
            entries: 0,
            ..account.clone()
        };
        let were: Vec<_> = accounts.iter().map(without_count).collect();
        let are: Vec<_> = done[0].0.iter().map(without_count).collect();
        assert_eq!(are, were, "backed up after {before} steps");
    }
}

#[test]
fn a_settlement_whose_money_is_not_there_is_not_done_again() {
    let (_, records, _) = lived(0);
    let settlement = records
        .iter()
        .find(|record| record.entry.kind == Kind::Settle)
        .unwrap();
    for mut kept in both(&IssuerLimits::default()) {
        let result = one(&mut *kept.ledger, Command::Replay(Box::new(settlement.clone())));
        assert!(
            matches!(result, Err(Refusal::BalanceExhausted { .. })),
            "{result:?}"
        );
        assert!(
            kept.ledger.journal(None, 10).unwrap().is_empty(),
            "nothing was moved"
        );
    }
}
