//! What the books say, without changing them.

use std::collections::{BTreeMap, HashMap};

use metering::ledger::{
    AccountView, Denied, Entry, EntryId, Fault, LeaseState, LeaseView, LedgerError, News, Proof, Prover,
    SessionRow, SignedReceipt, Sums, Totals,
};
use metering::receipt::Receipt;
use metering::{AccountId, LeaseId, SessionId};

use crate::Dead;
use crate::link::Link;
use crate::page::{self, NodeRow, parse};

/// Rows that are fetched at once from tables that only ever grow.
const CHUNK: usize = 10_000;

/// The accounts of these names, or all of them.
pub(crate) async fn accounts(link: &Link, names: Option<&[&str]>) -> Result<Vec<AccountView>, LedgerError> {
    let rows = link
        .query(
            "SELECT row::text FROM accounts WHERE $1 OR account = ANY($2) ORDER BY account",
            &[&names.is_none(), &names.unwrap_or_default()],
        )
        .await?;
    rows.iter().map(|row| parse(row.get(0))).collect()
}

/// How these accounts stand, what changed for everybody, and the nodes; in one query.
pub(crate) async fn news(link: &Link, accounts: &[AccountId]) -> Result<(News, Vec<Dead>), LedgerError> {
    let names: Vec<&str> = accounts.iter().map(AccountId::as_str).collect();
    let rows = link
        .query(
            "SELECT 0 AS what, shard, holder, beat, '' AS row FROM nodes WHERE holder IS NOT NULL
             UNION ALL SELECT 1, 0, name, value, '' FROM counters
             UNION ALL SELECT 2, 0, '', 0, row::text FROM accounts WHERE account = ANY($1)",
            &[&names],
        )
        .await?;
    let (mut news, mut nodes) = (News::default(), Vec::new());
    for row in rows {
        let (name, number): (String, i64) = (row.get(2), row.get(3));
        match row.get::<_, i32>(0) {
            0 => nodes.push(Dead {
                shard: row.get(1),
                holder: name,
                beat: number,
            }),
            1 if name == "deny" => news.deny_version = number as u64,
            1 if name == "freeze" => news.freeze_version = number as u64,
            1 => {}
            _ => news.accounts.push(parse(row.get(4))?),
        }
    }
    Ok((news, nodes))
}

/// A lease.
pub(crate) async fn lease(link: &Link, lease: LeaseId) -> Result<Option<LeaseView>, LedgerError> {
    let rows = link.query(page::LEASE, &[&page::id(lease)]).await?;
    rows.first().map(page::lease).transpose()
}

/// A node's open leases.
pub(crate) async fn open_leases(link: &Link, shard: i32) -> Result<Vec<LeaseId>, LedgerError> {
    let rows = link
        .query(
            "SELECT id FROM leases WHERE node = $1 AND state = 'open' ORDER BY id",
            &[&shard],
        )
        .await?;
    Ok(rows
        .iter()
        .map(|row| LeaseId::new(row.get::<_, i64>(0) as u64))
        .collect())
}

/// What a session has cost.
pub(crate) async fn receipt(link: &Link, session: SessionId) -> Result<Option<Receipt>, LedgerError> {
    // The session first: a segment that is settled in between is one more than its row knows, and is left out.
    let name = session.to_string();
    let rows = link
        .query("SELECT row::text FROM sessions WHERE session = $1", &[&name])
        .await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let row: SessionRow = parse(row.get(0))?;
    let segments = link
        .query(
            "SELECT row::text FROM segments WHERE session = $1 AND number < $2 ORDER BY number",
            &[&name, &i32::try_from(row.segments).unwrap_or(i32::MAX)],
        )
        .await?;
    let segments = segments
        .iter()
        .map(|row| parse(row.get(0)))
        .collect::<Result<_, _>>()?;
    Ok(Some(metering::ledger::receipt(session, row, segments)))
}

/// The latest receipt that was signed.
pub(crate) async fn signed_receipt(
    link: &Link,
    session: SessionId,
) -> Result<Option<SignedReceipt>, LedgerError> {
    let rows = link
        .query(
            "SELECT row::text FROM receipts WHERE session = $1 ORDER BY number DESC LIMIT 1",
            &[&session.to_string()],
        )
        .await?;
    rows.first().map(|row| parse(row.get(0))).transpose()
}

/// The sums over all nodes.
pub(crate) async fn totals(link: &Link) -> Result<Totals, LedgerError> {
    let (mut sums, mut commits, mut leases) = (Sums::default(), 0, 0);
    for row in link.query("SELECT row::text FROM nodes", &[]).await? {
        let node: NodeRow = parse(row.get(0))?;
        let sum = sums.plus(&node.sums);
        sums = sum.ok_or_else(|| LedgerError::Corrupt("a sum overflows".to_owned()))?;
        commits += node.commits;
        leases += node.next_lease;
    }
    sums.totals(commits, leases)
}

/// The deny list.
pub(crate) async fn denied(link: &Link) -> Result<Vec<Denied>, LedgerError> {
    let rows = link
        .query("SELECT kind, value FROM denied ORDER BY kind, value", &[])
        .await?;
    Ok(rows
        .iter()
        .map(|row| Denied {
            kind: row.get(0),
            value: row.get(1),
        })
        .collect())
}

/// When these books were restored from a backup.
pub(crate) async fn restored_at(link: &Link) -> Result<u64, LedgerError> {
    let rows = link
        .query("SELECT value FROM counters WHERE name = 'restored'", &[])
        .await?;
    Ok(rows.first().map_or(0, |row| row.get::<_, i64>(0) as u64))
}

/// Entries after one, each node's after another's.
pub(crate) async fn journal(
    link: &Link,
    after: Option<EntryId>,
    most: usize,
) -> Result<Vec<(EntryId, Entry)>, LedgerError> {
    let shard = after.map_or(-1, |after| i32::try_from(after.shard).unwrap_or(i32::MAX));
    let number = after.map_or(-1, |after| after.number as i64);
    let rows = link
        .query(
            "SELECT shard, number, row::text FROM journal WHERE shard > $1 OR (shard = $1 AND number > $2)
             ORDER BY shard, number LIMIT $3",
            &[&shard, &number, &i64::try_from(most).unwrap_or(i64::MAX)],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let id = EntryId {
                shard: row.get::<_, i32>(0) as u32,
                number: row.get::<_, i64>(1) as u64,
            };
            Ok((id, parse(row.get(2))?))
        })
        .collect()
}

/// The proof, over one snapshot of all tables.
pub(crate) async fn verify(link: &Link) -> Result<Proof, Fault> {
    link.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await?;
    let mut prover = Prover::default();
    let mut journals: BTreeMap<u32, Vec<(EntryId, Entry)>> = BTreeMap::new();
    let mut after = None;
    loop {
        let chunk = journal(link, after, CHUNK).await?;
        let Some((last, _)) = chunk.last() else { break };
        after = Some(*last);
        for entry in chunk {
            journals.entry(entry.0.shard).or_default().push(entry);
        }
    }
    replay(journals, &mut prover)?;
    for account in accounts(link, None).await? {
        prover.account(&account)?;
    }
    for row in link.query(page::LEASES, &[]).await? {
        let id = LeaseId::new(row.get::<_, i64>(0) as u64);
        let lease = page::lease(&row)?;
        // The index over the open ones is the database's own, and cannot differ from the rows.
        prover.lease(id, &lease, lease.state == LeaseState::Open)?;
    }
    let rows = link.query("SELECT count(*) FROM vouchers", &[]).await?;
    let vouchers = rows.first().map_or(0, |row| row.get::<_, i64>(0) as u64);
    prover.finish(&totals(link).await?, vouchers)
}

/// Nodes' journals, in an order in which the commits can have happened: each account's entries are numbered, and an
/// account is locked by every commit that moves it, so that there is one.
fn replay(journals: BTreeMap<u32, Vec<(EntryId, Entry)>>, prover: &mut Prover) -> Result<(), Fault> {
    let mut places: BTreeMap<u32, usize> = BTreeMap::new();
    let mut numbers: HashMap<AccountId, u64> = HashMap::new();
    loop {
        let mut moved = false;
        let mut left = None;
        for (shard, journal) in &journals {
            let place = places.entry(*shard).or_default();
            while let Some((id, first)) = journal.get(*place) {
                let commit = journal[*place..]
                    .iter()
                    .take_while(|(_, entry)| entry.commit == first.commit);
                let commit: Vec<_> = commit.collect();
                let mut after: HashMap<&AccountId, u64> = HashMap::new();
                let fits = commit.iter().all(|(_, entry)| {
                    let Some(number) = entry.number else { return true };
                    let next = after
                        .entry(&entry.account)
                        .or_insert_with(|| numbers.get(&entry.account).copied().unwrap_or_default());
                    *next += 1;
                    *next == number
                });
                if !fits {
                    left = Some(*id);
                    break;
                }
                for (id, entry) in &commit {
                    prover.entry(*id, entry)?;
                }
                *place += commit.len();
                let after: Vec<_> = after
                    .into_iter()
                    .map(|(name, number)| (name.clone(), number))
                    .collect();
                numbers.extend(after);
                moved = true;
            }
        }
        match (moved, left) {
            (_, None) => return Ok(()),
            (true, Some(_)) => {}
            (false, Some(id)) => {
                return Err(Fault::Broken(format!(
                    "an entry before {id} is missing from the journal"
                )));
            }
        }
    }
}
