//! The operators' page on billing: every worked figure on it, recomputed.
#![allow(clippy::unwrap_used)]

use metering::{Msat, Tariff, meter};

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
