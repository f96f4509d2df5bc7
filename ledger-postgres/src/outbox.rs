//! Sinks of usage records over the journals of all nodes. One node at a time delivers to a sink, because only who sees
//! every journal can keep an account's records in order: the row of the sink says which, by the same word that holds the
//! node's own seat. So it is fenced as the node is: whoever is presumed dead, or comes back under its name, holds a word
//! that no seat has any more, and the next node that asks takes the sink over.
//!
//! What is read in one statement is a cut that no cause is missing from: a node's entries are committed in their order,
//! and an account's next entry is written after the one before was committed.

use std::collections::BTreeMap;

use metering::ledger::{
    Cursor, Entry, EntryId, Leaving, LedgerError, SinkView, Unsent, VoucherName, VoucherRow, in_account_order,
};
use metering::{AccountId, Voucher};
use tokio_postgres::Row;

use crate::column::{parse, store};
use crate::link::Link;

/// What comes next for a sink, if this node is the one to deliver it.
pub(crate) async fn unsent(
    link: &Link,
    sink: &str,
    holder: &str,
    most: usize,
) -> Result<Option<Unsent>, LedgerError> {
    let Some(cursor) = hold(link, sink, holder).await? else {
        return Ok(None);
    };
    let behind = behind(&ends(link).await?, &cursor);
    let shards: Vec<i32> = cursor.journals.keys().map(|shard| *shard as i32).collect();
    let nexts: Vec<i64> = cursor.journals.values().map(|next| *next as i64).collect();
    let rows = link
        .query(
            "SELECT n.shard, j.number, j.row::text FROM nodes n
             LEFT JOIN (SELECT unnest($1::int4[]) AS shard, unnest($2::int8[]) AS next) c ON c.shard = n.shard
             CROSS JOIN LATERAL (SELECT number, row FROM journal
                 WHERE journal.shard = n.shard AND journal.number >= coalesce(c.next, 0) ORDER BY number LIMIT $3) j
             ORDER BY n.shard, j.number",
            &[&shards, &nexts, &i64::try_from(most).unwrap_or(i64::MAX)],
        )
        .await?;
    let mut journals: BTreeMap<u32, Vec<(EntryId, Entry)>> = BTreeMap::new();
    for row in &rows {
        let id = EntryId {
            shard: row.get::<_, i32>(0) as u32,
            number: row.get::<_, i64>(1) as u64,
        };
        journals
            .entry(id.shard)
            .or_default()
            .push((id, parse(row.get(2))?));
    }
    // What is cut off may hold an entry that comes before one in hand.
    let cut = journals.len() > 1 && journals.values().any(|journal| journal.len() >= most);
    let elsewhere = match cut {
        true => waits_elsewhere(link, &journals, &cursor).await?,
        false => Vec::new(),
    };
    let ordered = in_account_order(journals, &elsewhere);
    let vouchers = vouchers(link, &ordered).await?;
    let entries = ordered.into_iter().map(|(id, entry)| Leaving {
        voucher: entry
            .voucher
            .as_ref()
            .and_then(|name| vouchers.get(name).cloned()),
        id,
        entry,
    });
    Ok(Some(Unsent {
        entries: entries.collect(),
        cursor,
        behind,
    }))
}

/// The sink's cursor, if this node holds it or can take it.
async fn hold(link: &Link, sink: &str, holder: &str) -> Result<Option<Cursor>, LedgerError> {
    let sql = "SELECT row::text FROM sinks WHERE sink = $1 AND holder = $2";
    if let Some(row) = link.query(sql, &[&sink, &holder]).await?.first() {
        return parse(row.get(0)).map(Some);
    }
    let sql = "INSERT INTO sinks VALUES ($1, NULL, $2::text::jsonb) ON CONFLICT (sink) DO NOTHING";
    link.query(sql, &[&sink, &store(&Cursor::default())]).await?;
    let rows = link
        .query(
            "UPDATE sinks SET holder = $2 WHERE sink = $1
             AND NOT EXISTS (SELECT 1 FROM nodes WHERE nodes.holder = sinks.holder)
             AND EXISTS (SELECT 1 FROM nodes WHERE nodes.holder = $2) RETURNING row::text",
            &[&sink, &holder],
        )
        .await?;
    rows.first().map(|row| parse(row.get(0))).transpose()
}

/// Accounts whose first entry in hand follows one that was neither acknowledged nor read.
async fn waits_elsewhere(
    link: &Link,
    journals: &BTreeMap<u32, Vec<(EntryId, Entry)>>,
    cursor: &Cursor,
) -> Result<Vec<AccountId>, LedgerError> {
    let mut first: BTreeMap<&AccountId, u64> = BTreeMap::new();
    for (_, entry) in journals.values().flatten() {
        if let Some(number) = entry.number {
            let known = first.entry(&entry.account).or_insert(number);
            *known = number.min(*known);
        }
    }
    first.retain(|_, number| *number > 1);
    let accounts: Vec<&str> = first.keys().map(|account| account.as_str()).collect();
    let numbers: Vec<i64> = first.values().map(|number| *number as i64 - 1).collect();
    let rows = link
        .query(
            "SELECT j.account, j.shard, j.number
             FROM (SELECT unnest($1::text[]) AS account, unnest($2::int8[]) AS number) w
             JOIN journal j ON j.account = w.account AND (j.row->>'number')::int8 = w.number",
            &[&accounts, &numbers],
        )
        .await?;
    let before = rows.iter().map(|row| {
        let (shard, number): (i32, i64) = (row.get(1), row.get(2));
        let id = EntryId {
            shard: shard as u32,
            number: number as u64,
        };
        (AccountId::new(row.get::<_, &str>(0)), id)
    });
    Ok(before
        .filter(|(_, id)| !cursor.has_passed(*id))
        .map(|(account, _)| account)
        .collect())
}

async fn vouchers(
    link: &Link,
    entries: &[(EntryId, Entry)],
) -> Result<BTreeMap<VoucherName, Voucher>, LedgerError> {
    let names: Vec<&VoucherName> = entries
        .iter()
        .filter_map(|(_, entry)| entry.voucher.as_ref())
        .collect();
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let isses: Vec<&str> = names.iter().map(|name| name.iss.as_str()).collect();
    let jtis: Vec<&str> = names.iter().map(|name| name.jti.as_str()).collect();
    let rows = link
        .query(
            "SELECT v.iss, v.jti, v.row::text FROM vouchers v
             JOIN (SELECT unnest($1::text[]) AS iss, unnest($2::text[]) AS jti) k ON v.iss = k.iss AND v.jti = k.jti",
            &[&isses, &jtis],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let name = VoucherName {
                iss: row.get(0),
                jti: row.get(1),
            };
            let row: VoucherRow = parse(row.get(2))?;
            Ok((name, row.voucher))
        })
        .collect()
}

/// Moves the cursor, if this node still holds the sink.
pub(crate) async fn sent(
    link: &Link,
    sink: &str,
    holder: &str,
    cursor: &Cursor,
) -> Result<bool, LedgerError> {
    let rows = link
        .query(
            "UPDATE sinks SET row = $3::text::jsonb WHERE sink = $1 AND holder = $2
             AND EXISTS (SELECT 1 FROM nodes WHERE nodes.holder = $2) RETURNING sink",
            &[&sink, &holder, &store(cursor)],
        )
        .await?;
    Ok(!rows.is_empty())
}

/// Writes a sink that came with other books.
pub(crate) async fn put(link: &Link, sink: &str, cursor: &Cursor) -> Result<(), LedgerError> {
    let sql = "INSERT INTO sinks VALUES ($1, NULL, $2::text::jsonb)";
    link.query(sql, &[&sink, &store(cursor)]).await.map(drop)
}

/// Every sink.
pub(crate) async fn sinks(link: &Link) -> Result<Vec<SinkView>, LedgerError> {
    let ends = ends(link).await?;
    let rows = link
        .query("SELECT sink, row::text FROM sinks ORDER BY sink", &[])
        .await?;
    rows.iter()
        .map(|row| {
            let cursor: Cursor = parse(row.get(1))?;
            Ok(SinkView {
                sink: row.get(0),
                behind: behind(&ends, &cursor),
                cursor,
            })
        })
        .collect()
}

/// Where each journal ends.
async fn ends(link: &Link) -> Result<Vec<(u32, u64)>, LedgerError> {
    let sql = "SELECT shard, (row->>'next_entry')::int8 FROM nodes";
    let rows = link.query(sql, &[]).await?;
    let end = |row: &Row| (row.get::<_, i32>(0) as u32, row.get::<_, i64>(1) as u64);
    Ok(rows.iter().map(end).collect())
}

fn behind(ends: &[(u32, u64)], cursor: &Cursor) -> u64 {
    ends.iter()
        .map(|(shard, end)| end.saturating_sub(cursor.next(*shard)))
        .sum()
}
