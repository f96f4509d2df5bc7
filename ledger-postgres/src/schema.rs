//! The tables, and how they came to be: numbered migrations, applied in order, each once.
//!
//! The lock that keeps two nodes from migrating at the same time is a row, not an advisory lock, which CockroachDB
//! lacks. Nothing here needs LISTEN, triggers or stored procedures. A row that only its key is asked for is JSON, so that
//! the books can be read without this program; a lease has columns, because reports rewrite some of them every second.

use crate::link::Link;
use metering::ledger::LedgerError;

/// Each brings the tables one version further. Never edited once released; a change is one more.
const MIGRATIONS: &[&str] = &["
CREATE TABLE nodes (
    shard int4 PRIMARY KEY,
    name text NOT NULL UNIQUE,
    holder text,
    beat int8 NOT NULL DEFAULT 0,
    row jsonb NOT NULL
);
CREATE TABLE accounts (account text PRIMARY KEY, row jsonb NOT NULL);
CREATE TABLE vouchers (iss text NOT NULL, jti text NOT NULL, row jsonb NOT NULL, PRIMARY KEY (iss, jti));
CREATE TABLE sessions (session text PRIMARY KEY, row jsonb NOT NULL);
CREATE TABLE segments (session text NOT NULL, number int4 NOT NULL, row jsonb NOT NULL, PRIMARY KEY (session, number));
CREATE TABLE payer_grants (payer_grant text PRIMARY KEY, used int8 NOT NULL);
CREATE TABLE leases (
    id int8 PRIMARY KEY,
    node int4 NOT NULL,
    account text NOT NULL,
    session text NOT NULL,
    payer_grant text,
    terms jsonb NOT NULL,
    granted int8 NOT NULL,
    settled int8 NOT NULL,
    segment int8 NOT NULL,
    bytes_out int8 NOT NULL,
    bytes_in int8 NOT NULL,
    nanoseconds int8 NOT NULL,
    sequence int8 NOT NULL,
    epoch int8 NOT NULL,
    state text NOT NULL,
    memo int8 NOT NULL,
    touched_at int8 NOT NULL
);
CREATE INDEX leases_open_of_node ON leases (node) WHERE state = 'open';
CREATE INDEX leases_open_of_account ON leases (account) WHERE state = 'open';
CREATE TABLE journal (
    shard int4 NOT NULL,
    number int8 NOT NULL,
    account text NOT NULL,
    row jsonb NOT NULL,
    PRIMARY KEY (shard, number)
);
CREATE INDEX journal_number_of_account ON journal (account, ((row->>'number')::int8));
CREATE TABLE issuers (
    shard int4 NOT NULL,
    iss text NOT NULL,
    vouchers int8 NOT NULL,
    credited int8 NOT NULL,
    spent int8 NOT NULL,
    refunded int8 NOT NULL,
    PRIMARY KEY (shard, iss)
);
CREATE TABLE issuer_locks (iss text PRIMARY KEY);
CREATE TABLE ceilings (name text PRIMARY KEY, until int8 NOT NULL, used int8 NOT NULL);
CREATE INDEX ceilings_until ON ceilings (until);
CREATE TABLE receipts (session text NOT NULL, number int4 NOT NULL, row jsonb NOT NULL, PRIMARY KEY (session, number));
CREATE TABLE denied (kind text NOT NULL, value text NOT NULL, PRIMARY KEY (kind, value));
CREATE TABLE sinks (sink text PRIMARY KEY, holder text, row jsonb NOT NULL);
CREATE TABLE counters (name text PRIMARY KEY, value int8 NOT NULL);
INSERT INTO counters VALUES ('deny', 0), ('freeze', 0), ('restored', 0);
", "
CREATE TABLE top_ups (id text PRIMARY KEY, state text NOT NULL, row jsonb NOT NULL);
CREATE INDEX top_ups_open ON top_ups (id) WHERE state = 'open';
"];

/// Brings the tables to the newest version.
pub(crate) async fn migrate(link: &Link) -> Result<(), LedgerError> {
    link.run(
        "CREATE TABLE IF NOT EXISTS milliway_schema (id int4 PRIMARY KEY, version int4 NOT NULL);
         INSERT INTO milliway_schema VALUES (1, 0) ON CONFLICT (id) DO NOTHING;",
    )
    .await?;
    link.run("BEGIN").await?;
    let rows = link
        .query("SELECT version FROM milliway_schema WHERE id = 1 FOR UPDATE", &[])
        .await?;
    let version: i32 = rows.first().map_or(0, |row| row.get(0));
    let done = usize::try_from(version).unwrap_or(usize::MAX);
    if done > MIGRATIONS.len() {
        return Err(LedgerError::Corrupt(format!(
            "its tables are of version {version}, this program knows {}; take a newer one",
            MIGRATIONS.len()
        )));
    }
    for migration in &MIGRATIONS[done..] {
        link.run(migration).await?;
    }
    let newest = i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX);
    link.query("UPDATE milliway_schema SET version = $1 WHERE id = 1", &[&newest])
        .await?;
    link.run("COMMIT").await
}
