//! The ledger that several relays share: the rules of `metering::ledger` over PostgreSQL, or what speaks its protocol.
//!
//! Nodes meet in rows, and never in one that all of them need: a node keeps its own journal, its own part of every sum
//! and its own count of leases, so that commits of different nodes wait for each other only where they are about the same
//! account. Reports, which are most of what is written, rewrite columns of lease rows and lock nothing else.
//!
//! Fencing: a node's commits hold only while `nodes.holder` is what it put there when it came. Whoever presumes it dead
//! takes that away in the commit that takes its leases back and counts their epochs up; what it still reports then
//! reaches the memo account. Who is dead is judged by the observer's own clock: a beat that does not change.
//!
//! The caller's thread waits for each commit; every wait has an end.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod column;
mod keys;
mod link;
mod load;
mod outbox;
mod page;
mod read;
mod reports;
mod schema;
mod tls;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use metering::lease::RECLAIM_AFTER;
use metering::ledger::{
    AccountView, Books, Command, Cursor, Denied, DumpRow, Entry, EntryId, Fault, IssuerLimits, LeaseView,
    Ledger, LedgerError, News, Outcome, Proof, RECOVERY_REASON, Recovery, Refusal, SignedReceipt, SinkView,
    Tally, TopUp, Totals, Unsent,
};
use metering::receipt::Receipt;
use metering::{AccountId, LeaseId, SessionId};
use tokio::runtime::Runtime;

use column::parse;
use keys::Keys;
use link::{Link, PATIENCE, is_conflict, silent};
use page::{NodeRow, Page};

/// A commit that another one was faster than is tried so often. Each failure means that somebody got on.
const ATTEMPTS_MAX: u32 = 40;

/// The reason on the receipts of sessions whose node was presumed dead.
const PRESUMED_DEAD: &str = "relay-lost";

/// Nodes that have ever had a name of their own; more would make a lease's number too long for JSON.
const NODES_MAX: i32 = 8_191;

/// Which node this is, and how patient it is with others.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node's name, the same after every restart: what it left open under this name it settles when it comes back.
    pub node: String,
    /// A node whose beat has not changed for so long is presumed dead.
    pub presumed_dead_after: Duration,
    /// What issuers may have outstanding.
    pub limits: IssuerLimits,
}

impl Options {
    /// The node of this name.
    pub fn new(node: impl Into<String>) -> Self {
        Self {
            node: node.into(),
            presumed_dead_after: RECLAIM_AFTER,
            limits: IssuerLimits::default(),
        }
    }
}

/// A node's place among the others. Kept while the database is away, and shown when it is back.
#[derive(Clone, Debug, Default)]
pub struct Seat(Arc<Mutex<Seated>>);

#[derive(Clone, Debug, Default)]
struct Seated {
    shard: i32,
    holder: String,
}

impl Seat {
    fn get(&self) -> Seated {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, seated: Seated) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = seated;
    }
}

/// The shared books, as one node has them open.
pub struct Postgres {
    /// Always there, until it is dropped.
    runtime: Option<Runtime>,
    link: Link,
    options: Options,
    seat: Seat,
    /// Of each other node: its beat, and since when it is that.
    beats: HashMap<i32, (i64, Instant)>,
    beaten: Option<Instant>,
    /// The accounts of the last commit, as it left them.
    recent: HashMap<AccountId, AccountView>,
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres")
            .field("node", &self.options.node)
            .finish_non_exhaustive()
    }
}

impl Postgres {
    /// Connects, brings the tables up to date, takes the node's seat, and settles what it had left open.
    pub fn open(url: &str, options: Options, now: u64) -> Result<(Self, Recovery), LedgerError> {
        let mut ledger = Self::connect(url, options, Seat::default())?;
        ledger.migrate()?;
        ledger.wait(async |ledger| {
            retry(async || {
                let seated = ledger.take_seat(false).await;
                roll_back(&ledger.link, seated).await
            })
            .await
        })?;
        let open = ledger.open_leases()?;
        let mut work = Work::new(now);
        work.keys
            .leases
            .extend(open.iter().map(|lease| column::id(*lease)));
        let recovery = ledger.commit(work, |books, _| books.recover(&open, RECOVERY_REASON))?;
        Ok((ledger, recovery))
    }

    /// Connects again after the database was away: the node's leases go on, unless it was presumed dead meanwhile. Then
    /// it takes its seat anew, and none of `open_leases` is its own any more.
    pub fn reopen(url: &str, options: Options, seat: &Seat) -> Result<Self, LedgerError> {
        let ledger = Self::connect(url, options, seat.clone())?;
        ledger.wait(async |ledger| {
            retry(async || {
                let seated = ledger.take_seat(true).await;
                roll_back(&ledger.link, seated).await
            })
            .await
        })?;
        Ok(ledger)
    }

    /// Connects to look, or to copy: takes no seat, so that every commit is refused.
    pub fn look(url: &str) -> Result<Self, LedgerError> {
        let ledger = Self::connect(url, Options::new(""), Seat::default())?;
        ledger.migrate()?;
        Ok(ledger)
    }

    /// Makes the tables, or brings them up to date, beside others who do the same.
    fn migrate(&self) -> Result<(), LedgerError> {
        self.wait(async |ledger| {
            retry(async || {
                let migrated = schema::migrate(&ledger.link).await;
                roll_back(&ledger.link, migrated).await
            })
            .await
        })
    }

    /// The node's place, to be shown to `reopen`.
    pub fn seat(&self) -> Seat {
        self.seat.clone()
    }

    fn connect(url: &str, options: Options, seat: Seat) -> Result<Self, LedgerError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| LedgerError::Storage(Box::new(error)))?;
        let link = runtime.block_on(Link::open(url))?;
        Ok(Self {
            runtime: Some(runtime),
            link,
            options,
            seat,
            beats: HashMap::new(),
            beaten: None,
            recent: HashMap::new(),
        })
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("taken by `drop` alone")
    }

    /// Runs something to its end, or to that of the caller's patience.
    fn wait<T>(&self, work: impl AsyncFnOnce(&Self) -> Result<T, LedgerError>) -> Result<T, LedgerError> {
        self.runtime()
            .block_on(async { tokio::time::timeout(PATIENCE, work(self)).await })
            .map_err(|_| silent())?
    }

    async fn take_seat(&self, again: bool) -> Result<(), LedgerError> {
        let link = &self.link;
        link.run("BEGIN").await?;
        let mine = self.seat.get();
        let rows = link
            .query(
                "SELECT shard, holder, gen_random_uuid()::text FROM nodes WHERE name = $1 FOR UPDATE",
                &[&self.options.node],
            )
            .await?;
        let seated = match rows.first() {
            Some(row) if again => {
                let holder: Option<String> = row.get(1);
                match holder {
                    Some(holder) if holder == mine.holder => mine,
                    // Presumed dead: the leases are gone, the seat is free.
                    None => Seated {
                        shard: row.get(0),
                        holder: row.get(2),
                    },
                    Some(_) => return Err(LedgerError::Fenced),
                }
            }
            Some(row) => Seated {
                shard: row.get(0),
                holder: row.get(2),
            },
            None if again => return Err(LedgerError::Fenced),
            None => {
                let next = "SELECT coalesce(max(shard), 0)::int4 + 1, gen_random_uuid()::text FROM nodes";
                let row = link.query(next, &[]).await?.into_iter().next();
                let row = row.ok_or_else(|| LedgerError::Corrupt("max() of no rows is a row".to_owned()))?;
                let (shard, holder): (i32, String) = (row.get(0), row.get(1));
                if shard > NODES_MAX {
                    return Err(LedgerError::Corrupt(
                        "it has as many nodes as there can be".to_owned(),
                    ));
                }
                let begun = column::store(&NodeRow::default());
                link.query(
                    "INSERT INTO nodes (shard, name, row) VALUES ($1, $2, $3::text::jsonb)",
                    &[&shard, &self.options.node, &begun],
                )
                .await?;
                Seated { shard, holder }
            }
        };
        link.query(
            "UPDATE nodes SET holder = $2, beat = beat + 1 WHERE shard = $1",
            &[&seated.shard, &seated.holder],
        )
        .await?;
        link.run("COMMIT").await?;
        self.seat.set(seated);
        Ok(())
    }

    /// One commit of the rules.
    fn commit<T>(
        &mut self,
        work: Work<'_>,
        rules: impl Fn(&mut Books<Page>, &Found) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let (done, accounts) = self.wait(async |ledger| {
            retry(async || {
                let done = ledger.attempt(&work, &rules).await;
                roll_back(&ledger.link, done).await
            })
            .await
        })?;
        self.recent = accounts
            .into_iter()
            .map(|view| (view.account.clone(), view))
            .collect();
        Ok(done)
    }

    async fn attempt<T>(
        &self,
        work: &Work<'_>,
        rules: &impl Fn(&mut Books<Page>, &Found) -> Result<T, LedgerError>,
    ) -> Result<(T, Vec<AccountView>), LedgerError> {
        let link = &self.link;
        link.run("BEGIN").await?;
        let Seated { shard, holder } = self.seat.get();
        let rows = link
            .query(
                "SELECT row::text FROM nodes WHERE shard = $1 AND holder = $2 FOR UPDATE",
                &[&shard, &holder],
            )
            .await?;
        let node: NodeRow = parse(rows.first().ok_or(LedgerError::Fenced)?.get(0))?;
        let mut keys = work.keys.clone();
        let mut found = Found::default();
        if !work.reports.is_empty() {
            found.taken = reports::take(link, &work.reports, work.now).await?;
            let slow = work
                .reports
                .iter()
                .zip(&found.taken)
                .filter(|(_, taken)| !**taken);
            keys.leases
                .extend(slow.map(|(report, _)| column::id(report.lease)));
        }
        if let Some(dead) = &work.dead {
            found.orphans = dead.declare(link).await?;
            keys.leases
                .extend(found.orphans.iter().map(|lease| column::id(*lease)));
        }
        let limits = &self.options.limits;
        let of_shard = u32::try_from(shard).unwrap_or_default();
        let seconds = work.now / 1_000_000_000;
        let page = Page::fetch(link, of_shard, node, keys, seconds, |iss| {
            limits.of(iss).is_some()
        })
        .await?;
        let mut books = Books::new(page, limits.clone(), work.now);
        let done = rules(&mut books, &found)?;
        books.check()?;
        let Books {
            rows, moved, tallies, ..
        } = books;
        let accounts = rows.flush(link, &moved, &tallies).await?;
        link.run("COMMIT").await?;
        Ok((done, accounts))
    }

    /// Reports alone: one statement, which locks the rows of their leases and nothing else.
    fn apply_reports(&mut self, reports: &[&metering::Report], now: u64) -> Result<Vec<bool>, LedgerError> {
        self.wait(async |ledger| retry(async || reports::take(&ledger.link, reports, now).await).await)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Not waited for: it may be dropped where nothing may block.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What a commit is about.
struct Work<'c> {
    keys: Keys,
    /// Reports that change nothing but their leases' columns, unless there is more to them.
    reports: Vec<&'c metering::Report>,
    dead: Option<Dead>,
    now: u64,
}

impl Work<'_> {
    fn new(now: u64) -> Self {
        Self {
            keys: Keys::default(),
            reports: Vec::new(),
            dead: None,
            now,
        }
    }
}

/// What a commit found before its rules run.
#[derive(Default)]
struct Found {
    /// Which of the reports are done.
    taken: Vec<bool>,
    /// The open leases of the node that was declared dead.
    orphans: Vec<LeaseId>,
}

/// A node whose beat stands still.
struct Dead {
    shard: i32,
    holder: String,
    beat: i64,
}

impl Dead {
    /// Takes its seat away, unless it has moved after all, and says what it leaves behind.
    async fn declare(&self, link: &Link) -> Result<Vec<LeaseId>, LedgerError> {
        let rows = link
            .query(
                "UPDATE nodes SET holder = NULL WHERE shard = $1 AND holder = $2 AND beat = $3 RETURNING shard",
                &[&self.shard, &self.holder, &self.beat],
            )
            .await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        read::open_leases(link, self.shard).await
    }
}

/// How often a node says that it lives.
const BEAT_INTERVAL: Duration = Duration::from_secs(1);

impl Ledger for Postgres {
    fn apply(&mut self, batch: &[Command], now: u64) -> Result<Vec<Result<Outcome, Refusal>>, LedgerError> {
        self.recent.clear();
        let quick = reports::quick(batch);
        let mut work = Work::new(now);
        let is_quick = |index: &usize| quick.contains(index);
        for (index, command) in batch.iter().enumerate() {
            if let (true, Command::Report(report)) = (is_quick(&index), command) {
                work.reports.push(report);
            }
        }
        let mut results = vec![Ok(Outcome::Reported); batch.len()];
        let mut rest: Vec<usize> = (0..batch.len()).filter(|index| !is_quick(index)).collect();
        if rest.is_empty() {
            let taken = self.apply_reports(&work.reports, now)?;
            work.reports.clear();
            rest = quick
                .iter()
                .zip(taken)
                .filter(|(_, taken)| !taken)
                .map(|(index, _)| *index)
                .collect();
            if rest.is_empty() {
                return Ok(results);
            }
        }
        work.keys = Keys::of(rest.iter().map(|index| &batch[*index]));
        let together = !work.reports.is_empty();
        let done = self.commit(work, |books, found| {
            // What the quick statement left, in its place among the others.
            let left = quick.iter().zip(&found.taken).filter(|(_, taken)| !**taken);
            let mut order = rest.clone();
            if together {
                order.extend(left.map(|(index, _)| *index));
                order.sort_unstable();
            }
            order
                .into_iter()
                .map(|index| Ok((index, books.execute(&batch[index])?)))
                .collect::<Result<Vec<_>, LedgerError>>()
        })?;
        for (index, result) in done {
            results[index] = result;
        }
        Ok(results)
    }

    fn watch(&mut self, accounts: &[AccountId], now: Instant, unix_ns: u64) -> Result<News, LedgerError> {
        let seated = self.seat.get();
        let (mut news, nodes) = self.wait(async |ledger| read::news(&ledger.link, accounts).await)?;
        if !nodes
            .iter()
            .any(|node| node.shard == seated.shard && node.holder == seated.holder)
        {
            return Err(LedgerError::Fenced);
        }
        if self
            .beaten
            .is_none_or(|beaten| now.saturating_duration_since(beaten) >= BEAT_INTERVAL)
        {
            self.beaten = Some(now);
            self.wait(async |ledger| {
                let beat = "UPDATE nodes SET beat = beat + 1 WHERE shard = $1 AND holder = $2";
                let arguments: [&(dyn tokio_postgres::types::ToSql + Sync); 2] =
                    [&seated.shard, &seated.holder];
                retry(async || ledger.link.query(beat, &arguments).await.map(drop)).await
            })?;
        }
        self.beats
            .retain(|shard, _| nodes.iter().any(|node| node.shard == *shard));
        let mut dead = Vec::new();
        for node in nodes.into_iter().filter(|node| node.shard != seated.shard) {
            let (beat, since) = self.beats.entry(node.shard).or_insert((node.beat, now));
            if *beat != node.beat {
                (*beat, *since) = (node.beat, now);
            } else if now.saturating_duration_since(*since) >= self.options.presumed_dead_after {
                dead.push(node);
            }
        }
        for node in dead {
            self.beats.remove(&node.shard);
            let mut work = Work::new(unix_ns);
            work.dead = Some(node);
            let taken_over =
                self.commit(work, |books, found| books.recover(&found.orphans, PRESUMED_DEAD))?;
            news.taken_over += taken_over.leases;
            news.at_risk = news.at_risk.saturating_add(taken_over.at_risk);
        }
        Ok(news)
    }

    fn account(&self, account: &AccountId) -> Result<Option<AccountView>, LedgerError> {
        let views =
            self.wait(async |ledger| read::accounts(&ledger.link, Some(&[account.as_str()])).await)?;
        Ok(views.into_iter().next())
    }

    fn accounts_of(&self, accounts: &[AccountId]) -> Result<Vec<AccountView>, LedgerError> {
        // The last commit has just read and written them.
        let known: Option<Vec<AccountView>> = accounts
            .iter()
            .map(|account| self.recent.get(account).cloned())
            .collect();
        match known {
            Some(views) => Ok(views),
            None => {
                let names: Vec<&str> = accounts.iter().map(AccountId::as_str).collect();
                self.wait(async |ledger| read::accounts(&ledger.link, Some(&names)).await)
            }
        }
    }

    fn accounts(&self) -> Result<Vec<AccountView>, LedgerError> {
        self.wait(async |ledger| read::accounts(&ledger.link, None).await)
    }

    fn lease(&self, lease: LeaseId) -> Result<Option<LeaseView>, LedgerError> {
        self.wait(async |ledger| read::lease(&ledger.link, lease).await)
    }

    fn open_leases(&self) -> Result<Vec<LeaseId>, LedgerError> {
        let shard = self.seat.get().shard;
        self.wait(async |ledger| read::open_leases(&ledger.link, shard).await)
    }

    fn receipt(&self, session: SessionId) -> Result<Option<Receipt>, LedgerError> {
        self.wait(async |ledger| read::receipt(&ledger.link, session).await)
    }

    fn signed_receipt(&self, session: SessionId) -> Result<Option<SignedReceipt>, LedgerError> {
        self.wait(async |ledger| read::signed_receipt(&ledger.link, session).await)
    }

    fn totals(&self) -> Result<Totals, LedgerError> {
        self.wait(async |ledger| read::totals(&ledger.link).await)
    }

    fn issuers(&self) -> Result<Vec<(String, Tally)>, LedgerError> {
        self.wait(async |ledger| page::tallies(&ledger.link, None).await)
    }

    fn top_up(&self, id: &str) -> Result<Option<TopUp>, LedgerError> {
        self.wait(async |ledger| read::top_up(&ledger.link, id).await)
    }

    fn open_top_ups(&self) -> Result<Vec<TopUp>, LedgerError> {
        self.wait(async |ledger| read::open_top_ups(&ledger.link).await)
    }

    fn top_ups(&self, after: Option<&str>, most: usize) -> Result<Vec<TopUp>, LedgerError> {
        self.wait(async |ledger| read::top_ups(&ledger.link, after, most).await)
    }

    fn denied(&self) -> Result<Vec<Denied>, LedgerError> {
        self.wait(async |ledger| read::denied(&ledger.link).await)
    }

    fn restored_at(&self) -> Result<u64, LedgerError> {
        self.wait(async |ledger| read::restored_at(&ledger.link).await)
    }

    fn journal(&self, after: Option<EntryId>, most: usize) -> Result<Vec<(EntryId, Entry)>, LedgerError> {
        self.wait(async |ledger| read::journal(&ledger.link, after, most).await)
    }

    fn unsent(&mut self, sink: &str, most: usize) -> Result<Option<Unsent>, LedgerError> {
        let holder = self.seat.get().holder;
        self.wait(async |ledger| outbox::unsent(&ledger.link, sink, &holder, most).await)
    }

    fn sent(&mut self, sink: &str, cursor: &Cursor) -> Result<bool, LedgerError> {
        let holder = self.seat.get().holder;
        self.wait(async |ledger| outbox::sent(&ledger.link, sink, &holder, cursor).await)
    }

    fn sinks(&self) -> Result<Vec<SinkView>, LedgerError> {
        self.wait(async |ledger| outbox::sinks(&ledger.link).await)
    }

    fn verify(&self) -> Result<Proof, Fault> {
        // As long as it takes: each statement of it has its own end.
        self.runtime().block_on(async {
            let proof = read::verify(&self.link).await;
            self.link.run("ROLLBACK").await?;
            proof
        })
    }

    fn dump(&self, to: &mut dyn FnMut(DumpRow) -> Result<(), LedgerError>) -> Result<(), LedgerError> {
        self.runtime().block_on(async {
            let dumped = read::dump(&self.link, to).await;
            self.link.run("ROLLBACK").await?;
            dumped
        })
    }

    fn load(
        &mut self,
        rows: &mut dyn Iterator<Item = Result<DumpRow, LedgerError>>,
        restored: Option<u64>,
        now: u64,
    ) -> Result<(), LedgerError> {
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        let open = self.runtime().block_on(async {
            let loaded = load::load(&self.link, rows, restored).await;
            roll_back(&self.link, loaded).await
        })?;
        let mut work = Work::new(now);
        work.keys
            .leases
            .extend(open.iter().map(|lease| column::id(*lease)));
        self.commit(work, |books, _| books.recover(&open, RECOVERY_REASON))
            .map(drop)
    }
}

/// Tries again while others were faster.
async fn retry<T>(work: impl AsyncFn() -> Result<T, LedgerError>) -> Result<T, LedgerError> {
    for attempt in 1.. {
        match work().await {
            Err(error) if attempt < ATTEMPTS_MAX && is_conflict(&error) => {
                tokio::time::sleep(Duration::from_millis(u64::from(attempt))).await;
            }
            done => return done,
        }
    }
    unreachable!("the last attempt returns")
}

/// Ends a transaction that failed.
async fn roll_back<T>(link: &Link, done: Result<T, LedgerError>) -> Result<T, LedgerError> {
    if done.is_err() {
        // A connection that cannot even do that is lost, and the next statement says so.
        let _ = link.run("ROLLBACK").await;
    }
    done
}
