//! The rows of one commit, in memory: fetched and locked before the rules run, written in a few statements after.
//!
//! Locks are taken in one order, so that nodes wait for each other rather than lock each other out: the node's own row,
//! accounts by name, leases by number, sessions, payers' grants, issuers, sums with a ceiling. A row that is not there cannot be locked: it
//! is inserted, and where another node was first the unique key says so and the commit is tried again.

use std::collections::{BTreeMap, HashMap};

use metering::ledger::{
    AccountView, Ceiling, Denied, DumpRow, Entry, EntryId, LeaseState, LeaseView, LedgerError, Rows,
    SessionRow, SignedReceipt, Sums, Tally, TopUp, VoucherName, VoucherRow,
};
use metering::receipt::Segment;
use metering::{AccountId, LeaseId, Msat, SessionId};
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;

use crate::column::{
    LEASE_BITS, LEASES_FOR_UPDATE, Terms, amount, id, lease, msat, number, parse, state, store, top_up_state,
};
use crate::keys::Keys;
use crate::link::Link;

/// Old sums are looked for once in so many commits.
const FORGET_EVERY: u64 = 64;

/// What a node has written in all: its part of every sum, and its own counts. Only it writes this row.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct NodeRow {
    pub(crate) sums: Sums,
    pub(crate) commits: u64,
    pub(crate) next_lease: u64,
    pub(crate) next_entry: u64,
}

/// A row, and what is to become of it.
#[derive(Debug)]
struct Slot<T> {
    row: Option<T>,
    was_there: bool,
    changed: bool,
}

impl<T> Slot<T> {
    fn read(row: Option<T>) -> Self {
        Self {
            was_there: row.is_some(),
            row,
            changed: false,
        }
    }

    fn new(row: T) -> Self {
        Self {
            row: Some(row),
            was_there: false,
            changed: true,
        }
    }

    fn put(&mut self, row: T) {
        self.row = Some(row);
        self.changed = true;
    }
}

/// The rows.
#[derive(Debug, Default)]
pub(crate) struct Page {
    shard: u32,
    pub(crate) node: NodeRow,
    accounts: HashMap<String, Slot<AccountView>>,
    leases: BTreeMap<i64, Slot<LeaseView>>,
    sessions: BTreeMap<String, Slot<SessionRow>>,
    grants: BTreeMap<String, Slot<Msat>>,
    vouchers: BTreeMap<VoucherName, Slot<VoucherRow>>,
    receipts: BTreeMap<(String, i32), Slot<SignedReceipt>>,
    denied: BTreeMap<Denied, Slot<()>>,
    top_ups: BTreeMap<String, Slot<TopUp>>,
    tallies: BTreeMap<String, Tally>,
    ceilings: BTreeMap<String, Slot<(u64, Msat)>>,
    segments: Vec<(String, i32, String)>,
    entries: Vec<(i64, Entry)>,
    deny_changes: i64,
    freezes: i64,
}

impl Page {
    /// Reads and locks what `keys` names. The node's own row was locked before: whoever holds it is the node.
    pub(crate) async fn fetch(
        link: &Link,
        shard: u32,
        node: NodeRow,
        mut keys: Keys,
        unix_seconds: u64,
        limited: impl Fn(&str) -> bool,
    ) -> Result<Self, LedgerError> {
        let mut page = Self {
            shard,
            node,
            ..Self::default()
        };
        if !keys.leases.is_empty() {
            // Whose they are never changes, so that it can be read before the accounts are locked.
            let ids: Vec<i64> = keys.leases.iter().copied().collect();
            let rows = link
                .query(
                    "SELECT account, session, payer_grant FROM leases WHERE id = ANY($1)",
                    &[&ids],
                )
                .await?;
            for row in rows {
                keys.note_lease(&row);
            }
        }
        let names: Vec<&str> = keys.accounts.iter().map(String::as_str).collect();
        if !names.is_empty() {
            let rows = link
                .query(
                    "SELECT account, row::text FROM accounts WHERE account = ANY($1) ORDER BY account FOR UPDATE",
                    &[&names],
                )
                .await?;
            for row in rows {
                let view: AccountView = parse(row.get(1))?;
                // Whoever has no credit never comes near its sums.
                view.credit.iter().for_each(|line| keys.ceiling(&line.within));
                page.accounts.insert(row.get(0), Slot::read(Some(view)));
            }
        }
        for name in &keys.accounts {
            page.accounts
                .entry(name.clone())
                .or_insert_with(|| Slot::read(None));
        }
        if !keys.closing.is_empty() {
            let closing: Vec<&str> = keys.closing.iter().map(String::as_str).collect();
            let rows = link
                .query(
                    "SELECT account, session, payer_grant, id FROM leases WHERE account = ANY($1) AND state = 'open'",
                    &[&closing],
                )
                .await?;
            for row in rows {
                keys.note_lease(&row);
                keys.leases.insert(row.get(3));
            }
        }
        page.fetch_rest(link, &keys).await?;
        let limited: Vec<&str> = keys
            .issuers
            .iter()
            .map(String::as_str)
            .filter(|iss| limited(iss) || keys.limited.contains(*iss))
            .collect();
        if !limited.is_empty() {
            link.query(
                "INSERT INTO issuer_locks SELECT unnest($1::text[]) ON CONFLICT (iss) DO NOTHING",
                &[&limited],
            )
            .await?;
            link.query(
                "SELECT iss FROM issuer_locks WHERE iss = ANY($1) ORDER BY iss FOR UPDATE",
                &[&limited],
            )
            .await?;
            page.tallies = tallies(link, Some(&limited)).await?.into_iter().collect();
            for iss in limited {
                page.tallies.entry(iss.to_owned()).or_default();
            }
        }
        page.fetch_ceilings(link, &keys.ceilings, unix_seconds).await?;
        Ok(page)
    }

    /// Sums that nobody has counted yet are begun, so that they can be locked.
    async fn fetch_ceilings(
        &mut self,
        link: &Link,
        keys: &BTreeMap<String, u64>,
        unix_seconds: u64,
    ) -> Result<(), LedgerError> {
        if keys.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = keys.keys().map(String::as_str).collect();
        let untils: Vec<i64> = keys.values().map(|until| *until as i64).collect();
        link.query(
            "INSERT INTO ceilings SELECT unnest($1::text[]), unnest($2::int8[]), 0 ON CONFLICT (name) DO NOTHING",
            &[&names, &untils],
        )
        .await?;
        let sql = "SELECT name, until, used FROM ceilings WHERE name = ANY($1) ORDER BY name FOR UPDATE";
        for row in link.query(sql, &[&names]).await? {
            let sum = (row.get::<_, i64>(1) as u64, msat(row.get(2)));
            self.ceilings.insert(row.get(0), Slot::read(Some(sum)));
        }
        if self.node.commits.is_multiple_of(FORGET_EVERY) {
            // Whoever else asks for these is a node that forgets them too: then one of the two tries again.
            link.query(
                "DELETE FROM ceilings WHERE name IN (SELECT name FROM ceilings WHERE until < $1 ORDER BY until LIMIT 1000)",
                &[&(unix_seconds as i64)],
            )
            .await?;
        }
        Ok(())
    }

    async fn fetch_rest(&mut self, link: &Link, keys: &Keys) -> Result<(), LedgerError> {
        if !keys.leases.is_empty() {
            let ids: Vec<i64> = keys.leases.iter().copied().collect();
            for row in link.query(LEASES_FOR_UPDATE, &[&ids]).await? {
                self.leases.insert(row.get(0), Slot::read(Some(lease(&row)?)));
            }
        }
        for id in &keys.leases {
            self.leases.entry(*id).or_insert_with(|| Slot::read(None));
        }
        if !keys.sessions.is_empty() {
            let names: Vec<&str> = keys.sessions.iter().map(String::as_str).collect();
            let sql =
                "SELECT session, row::text FROM sessions WHERE session = ANY($1) ORDER BY session FOR UPDATE";
            for row in link.query(sql, &[&names]).await? {
                let session = parse(row.get(1))?;
                self.sessions.insert(row.get(0), Slot::read(Some(session)));
            }
        }
        for session in &keys.sessions {
            self.sessions
                .entry(session.clone())
                .or_insert_with(|| Slot::read(None));
        }
        if !keys.grants.is_empty() {
            let names: Vec<&str> = keys.grants.iter().map(String::as_str).collect();
            let sql = "SELECT payer_grant, used FROM payer_grants WHERE payer_grant = ANY($1) ORDER BY payer_grant FOR UPDATE";
            for row in link.query(sql, &[&names]).await? {
                self.grants.insert(row.get(0), Slot::read(Some(msat(row.get(1)))));
            }
        }
        for grant in &keys.grants {
            self.grants
                .entry(grant.clone())
                .or_insert_with(|| Slot::read(None));
        }
        if !keys.vouchers.is_empty() {
            let isses: Vec<&str> = keys.vouchers.iter().map(|name| name.iss.as_str()).collect();
            let jtis: Vec<&str> = keys.vouchers.iter().map(|name| name.jti.as_str()).collect();
            let sql = "SELECT v.iss, v.jti, v.row::text FROM vouchers v
                 JOIN (SELECT unnest($1::text[]) AS iss, unnest($2::text[]) AS jti) k ON v.iss = k.iss AND v.jti = k.jti";
            for row in link.query(sql, &[&isses, &jtis]).await? {
                let name = VoucherName {
                    iss: row.get(0),
                    jti: row.get(1),
                };
                self.vouchers.insert(name, Slot::read(Some(parse(row.get(2))?)));
            }
        }
        for name in &keys.vouchers {
            self.vouchers
                .entry(name.clone())
                .or_insert_with(|| Slot::read(None));
        }
        for key in &keys.receipts {
            let sql = "SELECT row::text FROM receipts WHERE session = $1 AND number = $2";
            let rows = link.query(sql, &[&key.0, &key.1]).await?;
            let row = rows.first().map(|row| parse(row.get(0))).transpose()?;
            self.receipts.insert(key.clone(), Slot::read(row));
        }
        if !keys.top_ups.is_empty() {
            let names: Vec<&str> = keys.top_ups.iter().map(String::as_str).collect();
            let sql = "SELECT id, row::text FROM top_ups WHERE id = ANY($1) ORDER BY id FOR UPDATE";
            for row in link.query(sql, &[&names]).await? {
                let top_up = parse(row.get(1))?;
                self.top_ups.insert(row.get(0), Slot::read(Some(top_up)));
            }
        }
        for id in &keys.top_ups {
            self.top_ups.entry(id.clone()).or_insert_with(|| Slot::read(None));
        }
        for denied in &keys.denied {
            let sql = "SELECT 1 FROM denied WHERE kind = $1 AND value = $2";
            let rows = link.query(sql, &[&denied.kind, &denied.value]).await?;
            self.denied
                .insert(denied.clone(), Slot::read(rows.first().map(drop)));
        }
        Ok(())
    }

    /// No rows yet.
    pub(crate) fn of(shard: u32) -> Self {
        Self {
            shard,
            ..Self::default()
        }
    }

    /// A row of other books, to be inserted.
    pub(crate) fn bring(&mut self, row: DumpRow) {
        match row {
            DumpRow::Entry(id, entry) => self.entries.push((id.number as i64, *entry)),
            DumpRow::Account(row) => {
                self.accounts
                    .insert(row.account.as_str().to_owned(), Slot::new(*row));
            }
            DumpRow::Voucher(row) => {
                let name = VoucherName {
                    iss: row.voucher.iss.clone(),
                    jti: row.voucher.jti.clone(),
                };
                self.vouchers.insert(name, Slot::new(*row));
            }
            DumpRow::Lease(lease, row) => {
                self.leases.insert(id(lease), Slot::new(*row));
            }
            DumpRow::Session(session, row) => {
                self.sessions.insert(session.to_string(), Slot::new(*row));
            }
            DumpRow::Segment(session, place, row) => {
                self.segments
                    .push((session.to_string(), number(place), store(&row)));
            }
            DumpRow::PayerGrant(grant, used) => {
                self.grants.insert(grant, Slot::new(used));
            }
            DumpRow::Receipt(session, row) => {
                let key = (session.to_string(), number(row.number));
                self.receipts.insert(key, Slot::new(*row));
            }
            DumpRow::TopUp(row) => {
                self.top_ups.insert(row.id.clone(), Slot::new(*row));
            }
            DumpRow::Denied(denied) => {
                self.denied.insert(denied, Slot::new(()));
                self.deny_changes += 1;
            }
            DumpRow::Ceiling(name, until, used) => {
                self.ceilings.insert(name, Slot::new((until, used)));
            }
            // Tallies are no rows of a page: they only ever add up. Sinks are written by who loads.
            DumpRow::Issuer(..) | DumpRow::Sink(..) => {}
        }
    }

    /// Writes what changed, each table in one statement.
    pub(crate) async fn flush(
        mut self,
        link: &Link,
        moved: &Sums,
        tallies: &BTreeMap<String, Tally>,
    ) -> Result<Vec<AccountView>, LedgerError> {
        let sums = self.node.sums.plus(moved);
        self.node.sums = sums.ok_or_else(|| LedgerError::Corrupt("a sum overflows".to_owned()))?;
        self.node.commits += u64::from(!self.entries.is_empty());
        self.node.next_entry += self.entries.len() as u64;
        let shard = i32::try_from(self.shard).unwrap_or(i32::MAX);

        let (new, old) = keyed(&self.accounts);
        insert(
            link,
            "INSERT INTO accounts SELECT unnest($1::text[]), unnest($2::text[])::jsonb",
            &new,
        )
        .await?;
        update(
            link,
            "UPDATE accounts SET row = v.row::jsonb FROM (SELECT unnest($1::text[]) AS key, unnest($2::text[]) AS row) v
             WHERE account = v.key",
            &old,
        )
        .await?;
        let (new, old) = keyed(&self.sessions);
        insert(
            link,
            "INSERT INTO sessions SELECT unnest($1::text[]), unnest($2::text[])::jsonb",
            &new,
        )
        .await?;
        update(
            link,
            "UPDATE sessions SET row = v.row::jsonb FROM (SELECT unnest($1::text[]) AS key, unnest($2::text[]) AS row) v
             WHERE session = v.key",
            &old,
        )
        .await?;
        self.flush_leases(link, shard).await?;
        for (grant, slot) in &self.grants {
            if let (Some(used), true) = (slot.row, slot.changed) {
                let sql = if slot.was_there {
                    "UPDATE payer_grants SET used = $2 WHERE payer_grant = $1"
                } else {
                    "INSERT INTO payer_grants VALUES ($1, $2)"
                };
                link.query(sql, &[grant, &amount(used)]).await?;
            }
        }
        self.flush_vouchers(link).await?;
        for (name, slot) in &self.ceilings {
            if let (Some((until, used)), true) = (slot.row, slot.changed) {
                let sql = "INSERT INTO ceilings VALUES ($1, $2, $3) ON CONFLICT (name) DO UPDATE SET used = excluded.used";
                link.query(sql, &[name, &(until as i64), &amount(used)]).await?;
            }
        }
        if !self.segments.is_empty() {
            let sessions: Vec<&str> = self.segments.iter().map(|row| row.0.as_str()).collect();
            let numbers: Vec<i32> = self.segments.iter().map(|row| row.1).collect();
            let rows: Vec<&str> = self.segments.iter().map(|row| row.2.as_str()).collect();
            link.query(
                "INSERT INTO segments SELECT unnest($1::text[]), unnest($2::int4[]), unnest($3::text[])::jsonb",
                &[&sessions, &numbers, &rows],
            )
            .await?;
        }
        if !self.entries.is_empty() {
            let numbers: Vec<i64> = self.entries.iter().map(|entry| entry.0).collect();
            let accounts: Vec<&str> = self
                .entries
                .iter()
                .map(|entry| entry.1.account.as_str())
                .collect();
            let rows: Vec<String> = self.entries.iter().map(|entry| store(&entry.1)).collect();
            link.query(
                "INSERT INTO journal SELECT $1, unnest($2::int8[]), unnest($3::text[]), unnest($4::text[])::jsonb",
                &[&shard, &numbers, &accounts, &rows],
            )
            .await?;
        }
        if !tallies.is_empty() {
            let isses: Vec<&str> = tallies.keys().map(String::as_str).collect();
            let of = |of: fn(&Tally) -> u64| {
                tallies
                    .values()
                    .map(|tally| of(tally) as i64)
                    .collect::<Vec<i64>>()
            };
            let (vouchers, credited) = (of(|tally| tally.vouchers), of(|tally| tally.credited.get()));
            let (spent, refunded) = (of(|tally| tally.spent.get()), of(|tally| tally.refunded.get()));
            link.query(
                "INSERT INTO issuers AS i SELECT $1, unnest($2::text[]), unnest($3::int8[]), unnest($4::int8[]),
                 unnest($5::int8[]), unnest($6::int8[]) ON CONFLICT (shard, iss) DO UPDATE SET
                 vouchers = i.vouchers + excluded.vouchers, credited = i.credited + excluded.credited,
                 spent = i.spent + excluded.spent, refunded = i.refunded + excluded.refunded",
                &[&shard, &isses, &vouchers, &credited, &spent, &refunded],
            )
            .await?;
        }
        for (counter, by) in [("deny", self.deny_changes), ("freeze", self.freezes)] {
            if by > 0 {
                link.query(
                    "UPDATE counters SET value = value + $2 WHERE name = $1",
                    &[&counter, &by],
                )
                .await?;
            }
        }
        link.query(
            "UPDATE nodes SET beat = beat + 1, row = $2::text::jsonb WHERE shard = $1",
            &[&shard, &store(&self.node)],
        )
        .await?;
        Ok(self.accounts.into_values().filter_map(|slot| slot.row).collect())
    }

    async fn flush_leases(&self, link: &Link, shard: i32) -> Result<(), LedgerError> {
        let changed = |there: bool| {
            self.leases
                .iter()
                .filter(move |(_, slot)| slot.changed && slot.was_there == there)
                .filter_map(|(id, slot)| Some((*id, slot.row.as_ref()?)))
                .collect::<Vec<_>>()
        };
        for (id, lease) in changed(false) {
            let terms = Terms {
                service: lease.service,
                tariff: lease.tariff.clone(),
                rates: lease.rates,
                cap_max: lease.cap.as_ref().map(|cap| cap.max),
                free_instead_of: lease.free_instead_of,
            };
            link.query(
                "INSERT INTO leases VALUES ($1, $2, $3, $4, $5, $6::text::jsonb, $7, $8, $9, $10, $11, $12, $13, $14, $15,
                 $16, $17)",
                &[
                    &id,
                    &shard,
                    &lease.account.as_str(),
                    &lease.session.to_string(),
                    &lease.cap.as_ref().map(|cap| cap.grant.as_str()),
                    &store(&terms),
                    &amount(lease.granted),
                    &amount(lease.settled),
                    &i64::from(lease.segment),
                    &(lease.reported.bytes_out as i64),
                    &(lease.reported.bytes_in as i64),
                    &(lease.reported.nanoseconds as i64),
                    &(lease.sequence as i64),
                    &i64::from(lease.epoch),
                    &state(lease.state),
                    &amount(lease.memo),
                    &(lease.touched_at as i64),
                ],
            )
            .await?;
        }
        let old = changed(true);
        if old.is_empty() {
            return Ok(());
        }
        let ids: Vec<i64> = old.iter().map(|(id, _)| *id).collect();
        let of = |of: fn(&LeaseView) -> i64| old.iter().map(|(_, lease)| of(lease)).collect::<Vec<i64>>();
        let states: Vec<&str> = old.iter().map(|(_, lease)| state(lease.state)).collect();
        link.query(
            "UPDATE leases SET granted = v.granted, settled = v.settled, segment = v.segment, bytes_out = v.bytes_out,
             bytes_in = v.bytes_in, nanoseconds = v.nanoseconds, sequence = v.sequence, epoch = v.epoch, state = v.state,
             memo = v.memo, touched_at = v.touched_at
             FROM (SELECT unnest($1::int8[]) AS key, unnest($2::int8[]) AS granted, unnest($3::int8[]) AS settled,
             unnest($4::int8[]) AS segment, unnest($5::int8[]) AS bytes_out, unnest($6::int8[]) AS bytes_in,
             unnest($7::int8[]) AS nanoseconds, unnest($8::int8[]) AS sequence, unnest($9::int8[]) AS epoch,
             unnest($10::text[]) AS state, unnest($11::int8[]) AS memo, unnest($12::int8[]) AS touched_at) v
             WHERE id = v.key",
            &[
                &ids,
                &of(|lease| amount(lease.granted)),
                &of(|lease| amount(lease.settled)),
                &of(|lease| i64::from(lease.segment)),
                &of(|lease| lease.reported.bytes_out as i64),
                &of(|lease| lease.reported.bytes_in as i64),
                &of(|lease| lease.reported.nanoseconds as i64),
                &of(|lease| lease.sequence as i64),
                &of(|lease| i64::from(lease.epoch)),
                &states,
                &of(|lease| amount(lease.memo)),
                &of(|lease| lease.touched_at as i64),
            ],
        )
        .await?;
        Ok(())
    }

    async fn flush_vouchers(&self, link: &Link) -> Result<(), LedgerError> {
        let new: Vec<_> = self
            .vouchers
            .iter()
            .filter(|(_, slot)| slot.changed)
            .filter_map(|(name, slot)| Some((name, slot.row.as_ref()?)))
            .collect();
        if !new.is_empty() {
            let isses: Vec<&str> = new.iter().map(|(name, _)| name.iss.as_str()).collect();
            let jtis: Vec<&str> = new.iter().map(|(name, _)| name.jti.as_str()).collect();
            let rows: Vec<String> = new.iter().map(|(_, row)| store(row)).collect();
            link.query(
                "INSERT INTO vouchers SELECT unnest($1::text[]), unnest($2::text[]), unnest($3::text[])::jsonb",
                &[&isses, &jtis, &rows],
            )
            .await?;
        }
        for ((session, number), slot) in &self.receipts {
            if let (Some(row), true) = (&slot.row, slot.changed) {
                let sql = "INSERT INTO receipts VALUES ($1, $2, $3::text::jsonb)";
                link.query(sql, &[session, number, &store(row)]).await?;
            }
        }
        for (id, slot) in &self.top_ups {
            if let (Some(row), true) = (&slot.row, slot.changed) {
                let sql = if slot.was_there {
                    "UPDATE top_ups SET state = $2, row = $3::text::jsonb WHERE id = $1"
                } else {
                    "INSERT INTO top_ups VALUES ($1, $2, $3::text::jsonb)"
                };
                link.query(sql, &[id, &top_up_state(row.state), &store(row)])
                    .await?;
            }
        }
        for (denied, slot) in &self.denied {
            if slot.changed && slot.was_there != slot.row.is_some() {
                let sql = if slot.was_there {
                    "DELETE FROM denied WHERE kind = $1 AND value = $2"
                } else {
                    "INSERT INTO denied VALUES ($1, $2)"
                };
                link.query(sql, &[&denied.kind, &denied.value]).await?;
            }
        }
        Ok(())
    }
}

impl Rows for Page {
    fn account(&mut self, account: &AccountId) -> Result<Option<AccountView>, LedgerError> {
        read(self.accounts.get(account.as_str()))
    }

    fn put_account(&mut self, row: &AccountView) -> Result<(), LedgerError> {
        put(self.accounts.get_mut(row.account.as_str()), row.clone())
    }

    fn voucher(&mut self, name: &VoucherName) -> Result<Option<VoucherRow>, LedgerError> {
        read(self.vouchers.get(name))
    }

    fn put_voucher(&mut self, name: &VoucherName, row: &VoucherRow) -> Result<(), LedgerError> {
        put(self.vouchers.get_mut(name), row.clone())
    }

    fn top_up(&mut self, id: &str) -> Result<Option<TopUp>, LedgerError> {
        read(self.top_ups.get(id))
    }

    fn put_top_up(&mut self, row: &TopUp) -> Result<(), LedgerError> {
        put(self.top_ups.get_mut(&row.id), row.clone())
    }

    fn lease(&mut self, lease: LeaseId) -> Result<Option<LeaseView>, LedgerError> {
        read(self.leases.get(&id(lease)))
    }

    fn put_lease(&mut self, lease: LeaseId, row: &LeaseView) -> Result<(), LedgerError> {
        let slot = self.leases.entry(id(lease)).or_insert_with(|| Slot::read(None));
        slot.put(row.clone());
        Ok(())
    }

    fn new_lease(&mut self) -> Result<LeaseId, LedgerError> {
        self.node.next_lease += 1;
        if self.node.next_lease >> LEASE_BITS != 0 {
            return Err(LedgerError::Corrupt(
                "this node has no more numbers for leases".to_owned(),
            ));
        }
        Ok(LeaseId::new(
            (u64::from(self.shard) << LEASE_BITS) | self.node.next_lease,
        ))
    }

    fn list_lease(&mut self, _: LeaseId, _: bool) -> Result<(), LedgerError> {
        // The index over the open ones follows the row.
        Ok(())
    }

    fn open_leases_of(&mut self, account: &AccountId) -> Result<Vec<LeaseId>, LedgerError> {
        let open = self.leases.iter().filter(|(_, slot)| {
            slot.row
                .as_ref()
                .is_some_and(|lease| lease.account == *account && lease.state == LeaseState::Open)
        });
        Ok(open.map(|(id, _)| LeaseId::new(*id as u64)).collect())
    }

    fn session(&mut self, session: SessionId) -> Result<Option<SessionRow>, LedgerError> {
        read(self.sessions.get(&session.to_string()))
    }

    fn put_session(&mut self, session: SessionId, row: &SessionRow) -> Result<(), LedgerError> {
        put(self.sessions.get_mut(&session.to_string()), row.clone())
    }

    fn put_segment(&mut self, session: SessionId, segment: u32, row: &Segment) -> Result<(), LedgerError> {
        self.segments
            .push((session.to_string(), number(segment), store(row)));
        Ok(())
    }

    fn grant_used(&mut self, grant: &str) -> Result<Msat, LedgerError> {
        Ok(read(self.grants.get(grant))?.unwrap_or_default())
    }

    fn put_grant_used(&mut self, grant: &str, used: Msat) -> Result<(), LedgerError> {
        put(self.grants.get_mut(grant), used)
    }

    fn post(&mut self, mut entry: Entry) -> Result<EntryId, LedgerError> {
        entry.commit = self.node.commits;
        let number = self.node.next_entry + self.entries.len() as u64;
        self.entries.push((number as i64, entry));
        Ok(EntryId {
            shard: self.shard,
            number,
        })
    }

    fn tally(&mut self, iss: &str) -> Result<Tally, LedgerError> {
        self.tallies
            .get(iss)
            .copied()
            .ok_or_else(|| not_fetched("an issuer's tally"))
    }

    fn ceiling(&mut self, ceiling: &Ceiling) -> Result<Msat, LedgerError> {
        let sum = read(self.ceilings.get(&ceiling.name))?;
        Ok(sum.map_or(Msat::ZERO, |(_, used)| used))
    }

    fn put_ceiling(&mut self, ceiling: &Ceiling, used: Msat, _: u64) -> Result<(), LedgerError> {
        put(self.ceilings.get_mut(&ceiling.name), (ceiling.until, used))
    }

    fn put_receipt(&mut self, session: SessionId, row: &SignedReceipt) -> Result<bool, LedgerError> {
        let key = (session.to_string(), number(row.number));
        let slot = self.receipts.get_mut(&key);
        let slot = slot.ok_or_else(|| not_fetched("a receipt"))?;
        if slot.row.is_some() {
            return Ok(false);
        }
        slot.put(row.clone());
        Ok(true)
    }

    fn is_denied(&mut self, denied: &Denied) -> Result<bool, LedgerError> {
        Ok(read(self.denied.get(denied))?.is_some())
    }

    fn put_denied(&mut self, denied: &Denied, on: bool) -> Result<(), LedgerError> {
        let slot = self.denied.get_mut(denied);
        let slot = slot.ok_or_else(|| not_fetched("a denial"))?;
        slot.row = on.then_some(());
        slot.changed = true;
        self.deny_changes += 1;
        Ok(())
    }

    fn note_freeze(&mut self) -> Result<(), LedgerError> {
        self.freezes += 1;
        Ok(())
    }

    fn issued(&self) -> i64 {
        self.node.sums.issued
    }
}

fn not_fetched(what: &str) -> LedgerError {
    LedgerError::Corrupt(format!("{what} was not fetched for its commit"))
}

fn read<T: Clone>(slot: Option<&Slot<T>>) -> Result<Option<T>, LedgerError> {
    Ok(slot.ok_or_else(|| not_fetched("a row"))?.row.clone())
}

fn put<T>(slot: Option<&mut Slot<T>>, row: T) -> Result<(), LedgerError> {
    slot.ok_or_else(|| not_fetched("a row"))?.put(row);
    Ok(())
}

type Written<'p> = (Vec<&'p str>, Vec<String>);

/// Rows that are new, and rows that changed, as their keys and their JSON.
fn keyed<'p, T: Serialize + 'p>(
    rows: impl IntoIterator<Item = (&'p String, &'p Slot<T>)>,
) -> (Written<'p>, Written<'p>) {
    let (mut new, mut old): (Written<'p>, Written<'p>) = Default::default();
    for (key, slot) in rows {
        if let (Some(row), true) = (&slot.row, slot.changed) {
            let to = if slot.was_there { &mut old } else { &mut new };
            to.0.push(key);
            to.1.push(store(row));
        }
    }
    (new, old)
}

async fn insert(link: &Link, sql: &'static str, (keys, rows): &Written<'_>) -> Result<(), LedgerError> {
    if !keys.is_empty() {
        link.query(sql, &[keys, rows]).await?;
    }
    Ok(())
}

async fn update(link: &Link, sql: &'static str, written: &Written<'_>) -> Result<(), LedgerError> {
    insert(link, sql, written).await
}

/// Issuers' tallies, over all nodes; of all issuers, or of some.
pub(crate) async fn tallies(link: &Link, of: Option<&[&str]>) -> Result<Vec<(String, Tally)>, LedgerError> {
    let rows = link
        .query(
            "SELECT iss, sum(vouchers)::int8, sum(credited)::int8, sum(spent)::int8, sum(refunded)::int8 FROM issuers
             WHERE $1 OR iss = ANY($2) GROUP BY iss ORDER BY iss",
            &[&of.is_none(), &of.unwrap_or_default()],
        )
        .await?;
    let tally = |row: &Row| Tally {
        vouchers: row.get::<_, i64>(1) as u64,
        credited: msat(row.get(2)),
        spent: msat(row.get(3)),
        refunded: msat(row.get(4)),
    };
    Ok(rows.iter().map(|row| (row.get(0), tally(row))).collect())
}
