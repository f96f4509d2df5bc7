//! What the books say, without changing them.

use std::collections::{BTreeMap, HashMap};

use metering::ledger::{
    AccountView, Denied, DumpRow, Entry, EntryId, Fault, LeaseState, LeaseView, LedgerError, News, Proof,
    Prover, SessionRow, SignedReceipt, Sums, TopUp, Totals,
};
use metering::receipt::Receipt;
use metering::{AccountId, LeaseId, Msat, SessionId};

use crate::Dead;
use crate::column::{self, parse};
use crate::link::Link;
use crate::outbox;
use crate::page::{self, NodeRow};

/// Every statement until its end sees the same moment, and nobody waits for it.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

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
    let rows = link.query(column::LEASE, &[&column::id(lease)]).await?;
    rows.first().map(column::lease).transpose()
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

/// A top-up.
pub(crate) async fn top_up(link: &Link, id: &str) -> Result<Option<TopUp>, LedgerError> {
    let rows = link
        .query("SELECT row::text FROM top_ups WHERE id = $1", &[&id])
        .await?;
    rows.first().map(|row| parse(row.get(0))).transpose()
}

/// The top-ups that are open.
pub(crate) async fn open_top_ups(link: &Link) -> Result<Vec<TopUp>, LedgerError> {
    let sql = "SELECT row::text FROM top_ups WHERE state = 'open' ORDER BY id";
    let rows = link.query(sql, &[]).await?;
    rows.iter().map(|row| parse(row.get(0))).collect()
}

/// Top-ups after one of this name, at most so many.
pub(crate) async fn top_ups(
    link: &Link,
    after: Option<&str>,
    most: usize,
) -> Result<Vec<TopUp>, LedgerError> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let sql = "SELECT row::text FROM top_ups WHERE id > $1 ORDER BY id LIMIT $2";
    let rows = link.query(sql, &[&after.unwrap_or_default(), &most]).await?;
    rows.iter().map(|row| parse(row.get(0))).collect()
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

/// Every sum with a ceiling: its name, until when it is asked for, what it came to.
async fn ceilings(link: &Link) -> Result<Vec<(String, u64, Msat)>, LedgerError> {
    let rows = link
        .query("SELECT name, until, used FROM ceilings ORDER BY name", &[])
        .await?;
    let number = |row: &tokio_postgres::Row, column: usize| row.get::<_, i64>(column) as u64;
    Ok(rows
        .iter()
        .map(|row| (row.get(0), number(row, 1), Msat::new(number(row, 2))))
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
    link.run(SNAPSHOT).await?;
    let mut prover = Prover::default();
    in_order(journals(link).await?, |id, entry| prover.entry(id, entry))?;
    for account in accounts(link, None).await? {
        prover.account(&account)?;
    }
    for row in link.query(column::LEASES, &[]).await? {
        let id = LeaseId::new(row.get::<_, i64>(0) as u64);
        let lease = column::lease(&row)?;
        // The index over the open ones is the database's own, and cannot differ from the rows.
        prover.lease(id, &lease, lease.state == LeaseState::Open)?;
    }
    for (name, until, used) in ceilings(link).await? {
        prover.ceiling(&name, until, used);
    }
    let rows = link.query("SELECT count(*) FROM vouchers", &[]).await?;
    let vouchers = rows.first().map_or(0, |row| row.get::<_, i64>(0) as u64);
    prover.finish(&totals(link).await?, vouchers)
}

/// Every row, as of one moment.
pub(crate) async fn dump(
    link: &Link,
    to: &mut (dyn FnMut(DumpRow) -> Result<(), LedgerError> + '_),
) -> Result<(), LedgerError> {
    link.run(SNAPSHOT).await?;
    let entries = in_order(journals(link).await?, |id, entry| {
        Ok(to(DumpRow::Entry(id, Box::new(entry.clone())))?)
    });
    entries.map_err(|fault| match fault {
        Fault::Unreadable(error) => error,
        Fault::Broken(what) => LedgerError::Corrupt(what),
    })?;
    for account in accounts(link, None).await? {
        to(DumpRow::Account(Box::new(account)))?;
    }
    for row in link
        .query("SELECT row::text FROM vouchers ORDER BY iss, jti", &[])
        .await?
    {
        to(DumpRow::Voucher(parse(row.get(0))?))?;
    }
    for row in link.query(column::LEASES, &[]).await? {
        let id = LeaseId::new(row.get::<_, i64>(0) as u64);
        to(DumpRow::Lease(id, Box::new(column::lease(&row)?)))?;
    }
    for row in link
        .query("SELECT session, row::text FROM sessions ORDER BY session", &[])
        .await?
    {
        to(DumpRow::Session(session(row.get(0))?, parse(row.get(1))?))?;
    }
    let sql = "SELECT session, number, row::text FROM segments ORDER BY session, number";
    for row in link.query(sql, &[]).await? {
        let number = row.get::<_, i32>(1) as u32;
        to(DumpRow::Segment(session(row.get(0))?, number, parse(row.get(2))?))?;
    }
    let sql = "SELECT payer_grant, used FROM payer_grants ORDER BY payer_grant";
    for row in link.query(sql, &[]).await? {
        to(DumpRow::PayerGrant(
            row.get(0),
            Msat::new(row.get::<_, i64>(1) as u64),
        ))?;
    }
    for (name, until, used) in ceilings(link).await? {
        to(DumpRow::Ceiling(name, until, used))?;
    }
    for (iss, tally) in page::tallies(link, None).await? {
        to(DumpRow::Issuer(iss, tally))?;
    }
    let sql = "SELECT session, row::text FROM receipts ORDER BY session, number";
    for row in link.query(sql, &[]).await? {
        to(DumpRow::Receipt(session(row.get(0))?, parse(row.get(1))?))?;
    }
    for row in link
        .query("SELECT row::text FROM top_ups ORDER BY id", &[])
        .await?
    {
        to(DumpRow::TopUp(parse(row.get(0))?))?;
    }
    denied(link)
        .await?
        .into_iter()
        .try_for_each(|denied| to(DumpRow::Denied(denied)))?;
    outbox::sinks(link)
        .await?
        .into_iter()
        .try_for_each(|view| to(DumpRow::Sink(view.sink, view.cursor)))
}

fn session(name: &str) -> Result<SessionId, LedgerError> {
    name.parse()
        .map_err(|_| LedgerError::Corrupt(format!("a session is called {name:?}")))
}

async fn journals(link: &Link) -> Result<BTreeMap<u32, Vec<(EntryId, Entry)>>, LedgerError> {
    let mut journals: BTreeMap<u32, Vec<(EntryId, Entry)>> = BTreeMap::new();
    let mut after = None;
    loop {
        let chunk = journal(link, after, CHUNK).await?;
        let Some((last, _)) = chunk.last() else {
            return Ok(journals);
        };
        after = Some(*last);
        for entry in chunk {
            journals.entry(entry.0.shard).or_default().push(entry);
        }
    }
}

/// Nodes' journals, in an order in which the commits can have happened: each account's entries are numbered, and an
/// account is locked by every commit that moves it, so that there is one.
fn in_order(
    journals: BTreeMap<u32, Vec<(EntryId, Entry)>>,
    mut next: impl FnMut(EntryId, &Entry) -> Result<(), Fault>,
) -> Result<(), Fault> {
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
                    let last = after
                        .entry(&entry.account)
                        .or_insert_with(|| numbers.get(&entry.account).copied().unwrap_or_default());
                    *last += 1;
                    *last == number
                });
                if !fits {
                    left = Some(*id);
                    break;
                }
                for (id, entry) in &commit {
                    next(*id, entry)?;
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
