//! Running reports: many leases in one statement, which reads nothing first.
//!
//! The row itself says whether a report is news: of its epoch and segment, and with a higher number than it has. What
//! is not so is left to the rules, which know what else it can mean.

use std::collections::BTreeSet;

use metering::Report;
use metering::ledger::{Command, LedgerError};

use crate::column;
use crate::link::Link;

/// Which commands of a batch are reports that may go ahead of the others: the first that is said of their lease.
/// What is said of other leases does not care about the order.
pub(crate) fn quick(batch: &[Command]) -> BTreeSet<usize> {
    let mut quick = BTreeSet::new();
    let mut spoken_of = BTreeSet::new();
    for (index, command) in batch.iter().enumerate() {
        let (lease, is_report) = match command {
            Command::Report(report) => (report.lease, true),
            Command::Settle { report, .. } => (report.lease, false),
            Command::Renew { lease, .. } | Command::Release { lease } | Command::Reclaim { lease, .. } => {
                (*lease, false)
            }
            // It may be about any lease.
            Command::CloseAccount { .. } => return BTreeSet::new(),
            _ => continue,
        };
        if spoken_of.insert(lease) && is_report {
            quick.insert(index);
        }
    }
    quick
}

/// Writes what is news, and says of each report whether it was.
pub(crate) async fn take(link: &Link, reports: &[&Report], now: u64) -> Result<Vec<bool>, LedgerError> {
    let of = |of: fn(&Report) -> i64| reports.iter().map(|report| of(report)).collect::<Vec<i64>>();
    let rows = link
        .query(
            "UPDATE leases AS l SET bytes_out = v.bytes_out, bytes_in = v.bytes_in, nanoseconds = v.nanoseconds,
             sequence = v.sequence, touched_at = $1
             FROM (SELECT unnest($2::int8[]) AS key, unnest($3::int8[]) AS epoch, unnest($4::int8[]) AS segment,
             unnest($5::int8[]) AS sequence, unnest($6::int8[]) AS bytes_out, unnest($7::int8[]) AS bytes_in,
             unnest($8::int8[]) AS nanoseconds) v
             WHERE l.id = v.key AND l.state = 'open' AND l.epoch = v.epoch AND l.segment = v.segment
             AND l.sequence < v.sequence RETURNING l.id",
            &[
                &(now as i64),
                &of(|report| column::id(report.lease)),
                &of(|report| i64::from(report.epoch)),
                &of(|report| i64::from(report.segment)),
                &of(|report| report.sequence as i64),
                &of(|report| report.usage.bytes_out as i64),
                &of(|report| report.usage.bytes_in as i64),
                &of(|report| report.usage.nanoseconds as i64),
            ],
        )
        .await?;
    let taken: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
    Ok(reports
        .iter()
        .map(|report| taken.contains(&column::id(report.lease)))
        .collect())
}
