//! Empty books, filled with the rows of others.
//!
//! They become those of one node that is gone: it has their journal and their sums, and no process holds its seat. Nodes
//! that come later get higher numbers, so that no lease of theirs has the name of one that was brought along.

use std::collections::BTreeMap;

use metering::LeaseId;
use metering::ledger::{DumpRow, LeaseState, LedgerError, Renumbering, Sums, Tally};

use crate::column::{self, LEASE_BITS};
use crate::link::Link;
use crate::outbox;
use crate::page::{NodeRow, Page};

/// The name of the node that is gone.
const NAME: &str = "imported";

/// In one commit; the leases that the rows have open.
pub(crate) async fn load(
    link: &Link,
    rows: Vec<DumpRow>,
    restored: Option<u64>,
) -> Result<Vec<LeaseId>, LedgerError> {
    link.run("BEGIN").await?;
    let found = link
        .query(
            "SELECT (SELECT count(*) FROM journal), count(*), max(shard) FROM nodes",
            &[],
        )
        .await?;
    let (entries, nodes, last): (i64, i64, Option<i32>) = found
        .first()
        .map_or((0, 0, None), |row| (row.get(0), row.get(1), row.get(2)));
    if entries > 0 || nodes > 1 {
        return Err(LedgerError::Corrupt(
            "only empty books can be filled, before any relay has used them".to_owned(),
        ));
    }
    let of_lease = |row: &DumpRow| match row {
        DumpRow::Lease(id, _) => (id.get() >> LEASE_BITS) as i32,
        _ => 0,
    };
    let shard = match rows.iter().map(of_lease).max().unwrap_or(0) {
        // Nobody else is called 0, and an embedded ledger's entries keep their names.
        0 => 0,
        highest => highest.max(last.unwrap_or(0) + 1),
    };
    if let Some(last) = last {
        // The node that loads may go on to open leases itself: its count goes on after those that came with its number.
        let own = rows.iter().filter_map(|row| match row {
            DumpRow::Lease(id, _) if of_lease(row) == last => Some(id.get() & ((1 << LEASE_BITS) - 1)),
            _ => None,
        });
        let next_lease = own.max().unwrap_or(0);
        let row = NodeRow {
            next_lease,
            ..NodeRow::default()
        };
        link.query(
            "UPDATE nodes SET row = $2::text::jsonb WHERE shard = $1",
            &[&last, &column::store(&row)],
        )
        .await?;
    }
    link.query(
        "INSERT INTO nodes (shard, name, row) VALUES ($1, $2, $3::text::jsonb)",
        &[&shard, &NAME, &column::store(&NodeRow::default())],
    )
    .await?;
    let mut renumbering = Renumbering::new(shard as u32);
    let mut page = Page::of(shard as u32);
    let (mut open, mut sinks, mut tallies) = (Vec::new(), Vec::new(), BTreeMap::<String, Tally>::new());
    for row in rows {
        let row = renumbering.take(row)?;
        match row {
            DumpRow::Issuer(iss, tally) => {
                tallies.insert(iss, tally);
            }
            DumpRow::Lease(id, ref lease) if lease.state == LeaseState::Open => {
                open.push(id);
                page.bring(row);
            }
            DumpRow::Sink(sink, cursor) => sinks.push((sink, cursor)),
            row => page.bring(row),
        }
    }
    let (sums, commits, _, _) = renumbering.finish();
    page.node.sums = sums;
    // The flush counts itself as one.
    page.node.commits = commits.saturating_sub(1);
    page.flush(link, &Sums::default(), &tallies).await?;
    for (sink, cursor) in sinks {
        outbox::put(link, &sink, &cursor).await?;
    }
    if let Some(restored) = restored {
        link.query(
            "UPDATE counters SET value = $1 WHERE name = 'restored'",
            &[&(restored as i64)],
        )
        .await?;
    }
    link.run("COMMIT").await?;
    Ok(open)
}
