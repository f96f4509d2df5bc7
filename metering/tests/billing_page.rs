//! The operators' page on billing: every worked figure on it, recomputed.
#![allow(clippy::unwrap_used)]

use metering::ledger::{Ceiling, Command, Conditions, CreditLine, Open, Outcome};
use metering::{Embedded, Ledger, Msat, Rates, Report, Service, SessionId, Tariff, Usage, Voucher, meter};

const PAGE: &str = include_str!("../../docs/billing.md");

#[test]
fn every_worked_figure_on_the_page_is_what_the_meter_reckons() {
    let mut figures = 0;
    for line in PAGE.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", use_, service @ ("sfu" | "turn"), numbers @ .., ""] = cells.as_slice() else {
            continue;
        };
        let numbers: Vec<u64> = numbers
            .iter()
            .map(|cell| cell.replace(',', "").parse().unwrap())
            .collect();
        let &[out, in_, nanoseconds, running, closed] = numbers.as_slice() else {
            panic!("{line}");
        };
        let tariff = if *service == "sfu" {
            Tariff::sfu(0)
        } else {
            Tariff::turn(0)
        };
        let owed = meter::owed(&tariff.rates().unwrap(), out, in_, nanoseconds);
        assert_eq!(
            (meter::running(owed), meter::closing(owed)),
            (Msat::new(running), Msat::new(closed)),
            "{use_}"
        );
        figures += 1;
    }
    assert_eq!(figures, 6, "the table is where it was");
}

#[test]
fn the_tariff_on_the_page_is_the_default_one() {
    for (tariff, row) in [
        (Tariff::sfu(0), "| `sfu` | 50 | 0 | 8 |"),
        (Tariff::turn(0), "| `turn` | 50 | 50 | 2 |"),
    ] {
        let shown = format!(
            "| `{}` | {} | {} | {} |",
            tariff.service, tariff.msat_per_megabyte_out, tariff.msat_per_megabyte_in, tariff.msat_per_second
        );
        assert_eq!(shown, row);
        assert!(PAGE.contains(row), "{row}");
    }
}

/// The rows of the table on credit: available, reserved, spent, refundable.
fn credit_rows() -> Vec<[i64; 4]> {
    let table = PAGE
        .lines()
        .skip_while(|line| !line.starts_with("| step | available"));
    let rows = table.skip(2).take_while(|line| line.starts_with('|'));
    let number = |cell: &str| cell.trim().replace(',', "").parse().unwrap();
    rows.map(|line| {
        let cells: Vec<i64> = line.trim_matches('|').split('|').skip(1).map(number).collect();
        cells.try_into().unwrap()
    })
    .collect()
}

#[test]
fn the_account_on_credit_goes_the_way_that_the_page_says() {
    let (mut books, _) = Embedded::open_on(redb::backends::InMemoryBackend::new(), 1).unwrap();
    let account = "did:key:z6MkAnna";
    let second = Rates {
        out: 0,
        in_: 0,
        second: 8,
    };
    let voucher = |jti: &str, msat, refundable| Voucher {
        iss: "did:key:z6MkIssuer".into(),
        jti: jti.into(),
        sub: account.into(),
        payer: None,
        aud: "did:key:z6MkRelay".into(),
        balance: Msat::new(msat),
        account: account.into(),
        refundable,
    };
    let open = Open {
        session: SessionId::new(1),
        account: account.into(),
        voucher: None,
        service: Service::Sfu,
        tariff: "sfu-1".into(),
        rates: second,
        want: Msat::new(5_000),
        minimum: Msat::new(42),
        cap: None,
        conditions: Conditions {
            credit: Some(CreditLine {
                msat: Msat::new(10_000),
                within: Ceiling {
                    name: "credit scorer".into(),
                    max: Msat::new(1_000_000),
                    until: Ceiling::LASTING,
                },
                until: u64::MAX,
            }),
            ..Conditions::default()
        },
    };
    let Ok(Outcome::Opened { lease, .. }) = books
        .apply(&[Command::Open(Box::new(open))], 2)
        .unwrap()
        .remove(0)
    else {
        panic!("not opened");
    };
    let ended = Report {
        lease,
        session: SessionId::new(1),
        epoch: 0,
        sequence: 1,
        segment: 0,
        usage: Usage {
            nanoseconds: 800_000_000_000,
            ..Usage::default()
        },
        granted: Msat::ZERO,
        exhausted: false,
        renew: false,
        closed: true,
        held: false,
        last: true,
    };
    let steps = [
        None,
        Some(Command::Renew {
            lease,
            want: Msat::new(10_000),
            minimum: Msat::new(10_000),
        }),
        Some(Command::Settle {
            report: ended,
            reason: "bye".into(),
        }),
        Some(Command::Credit(voucher("gift", 1_000, false))),
        Some(Command::Credit(voucher("bought", 20_000, true))),
        Some(Command::Refund {
            account: account.into(),
            reason: "asked".into(),
        }),
    ];
    let rows = credit_rows();
    assert_eq!(rows.len(), steps.len());
    for (step, row) in steps.into_iter().zip(rows) {
        if let Some(command) = step {
            books.apply(&[command], 2).unwrap().remove(0).unwrap();
        }
        let view = books.account(&account.into()).unwrap().unwrap();
        let signed = |msat: Msat| i64::try_from(msat.get()).unwrap();
        let held = [view.reserved, view.spent, view.refundable()].map(signed);
        assert_eq!([view.balance(), held[0], held[1], held[2]], row);
    }
    books.verify().unwrap();
}
