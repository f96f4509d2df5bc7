//! Which rows a batch of commands reads and writes, as far as the commands alone say it.

use std::collections::{BTreeMap, BTreeSet};

use metering::AccountId;
use metering::ledger::{Bounds, Ceiling, Command, Denied, VoucherName};
use tokio_postgres::Row;

use crate::column::{id, number};

/// How a top-up may be paid, as the issuer of its voucher.
const TOP_UP_METHODS: [&str; 2] = ["lightning", "cashu"];

/// What a batch reads and writes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    pub(crate) accounts: BTreeSet<String>,
    pub(crate) leases: BTreeSet<i64>,
    pub(crate) sessions: BTreeSet<String>,
    pub(crate) grants: BTreeSet<String>,
    pub(crate) vouchers: BTreeSet<VoucherName>,
    pub(crate) issuers: BTreeSet<String>,
    /// Issuers whose limit the command itself brings.
    pub(crate) limited: BTreeSet<String>,
    /// Sums with a ceiling, and until when they are asked for.
    pub(crate) ceilings: BTreeMap<String, u64>,
    pub(crate) receipts: Vec<(String, i32)>,
    pub(crate) denied: BTreeSet<Denied>,
    pub(crate) top_ups: BTreeSet<String>,
    /// All of whose open leases are meant.
    pub(crate) closing: BTreeSet<String>,
}

impl Keys {
    /// Of these commands.
    pub(crate) fn of<'c>(commands: impl IntoIterator<Item = &'c Command>) -> Self {
        let mut keys = Self::default();
        for command in commands {
            match command {
                Command::Credit(voucher) | Command::Gift { voucher, .. } => keys.voucher(voucher),
                Command::CreditWithin { voucher, bounds } => {
                    keys.voucher(voucher);
                    keys.bounds(&voucher.iss, bounds);
                }
                Command::GrantLine { account, line } => {
                    keys.accounts.insert(account.as_str().to_owned());
                    keys.ceiling(&line.within);
                }
                Command::Open(open) => {
                    let conditions = &open.conditions;
                    if let Some(voucher) = &open.voucher {
                        keys.voucher(voucher);
                        keys.bounds(&voucher.iss, &conditions.bounds);
                    }
                    conditions
                        .credit
                        .iter()
                        .for_each(|line| keys.ceiling(&line.within));
                    keys.accounts.insert(open.account.as_str().to_owned());
                    keys.sessions.insert(open.session.to_string());
                    keys.grants.extend(open.cap.iter().map(|cap| cap.grant.clone()));
                }
                Command::Report(report) | Command::Settle { report, .. } => {
                    keys.leases.insert(id(report.lease));
                }
                Command::Renew { lease, .. }
                | Command::Release { lease }
                | Command::Reclaim { lease, .. } => {
                    keys.leases.insert(id(*lease));
                }
                Command::Freeze { account, .. } | Command::Refund { account, .. } => {
                    keys.accounts.insert(account.as_str().to_owned());
                }
                Command::CloseAccount { account, .. } => {
                    keys.accounts.insert(account.as_str().to_owned());
                    keys.closing.insert(account.as_str().to_owned());
                }
                Command::Replay(record) => {
                    record.claims.iter().for_each(|voucher| keys.voucher(voucher));
                    keys.accounts.insert(record.entry.account.as_str().to_owned());
                    keys.sessions
                        .extend(record.entry.session.map(|session| session.to_string()));
                }
                Command::KeepReceipt { session, receipt } => {
                    keys.receipts.push((session.to_string(), number(receipt.number)));
                }
                Command::Deny { denied, .. } => {
                    keys.denied.insert(denied.clone());
                }
                Command::BeginTopUp { top_up, .. } => keys.top_up(&top_up.id, &top_up.account),
                Command::SettleTopUp { id, account, .. } => {
                    keys.top_up(id, account);
                    // Its voucher is of its method, which is one of these.
                    for iss in TOP_UP_METHODS {
                        keys.vouchers.insert(VoucherName {
                            iss: iss.to_owned(),
                            jti: id.clone(),
                        });
                    }
                }
                Command::FailTopUp { id, account, .. } => keys.top_up(id, account),
                Command::ExportTopUp { id } => {
                    keys.top_ups.insert(id.clone());
                }
            }
        }
        keys
    }

    fn top_up(&mut self, id: &str, account: &AccountId) {
        self.top_ups.insert(id.to_owned());
        self.accounts.insert(account.as_str().to_owned());
    }

    fn bounds(&mut self, iss: &str, bounds: &Bounds) {
        bounds.ceilings.iter().for_each(|ceiling| self.ceiling(ceiling));
        self.limited
            .extend(bounds.outstanding_max.map(|_| iss.to_owned()));
    }

    pub(crate) fn ceiling(&mut self, ceiling: &Ceiling) {
        self.ceilings.insert(ceiling.name.clone(), ceiling.until);
    }

    fn voucher(&mut self, voucher: &metering::Voucher) {
        self.accounts.insert(voucher.account.as_str().to_owned());
        self.issuers.insert(voucher.iss.clone());
        self.vouchers.insert(VoucherName {
            iss: voucher.iss.clone(),
            jti: voucher.jti.clone(),
        });
    }
}

impl Keys {
    /// Account, session and payer's grant of a lease, as the first three columns.
    pub(crate) fn note_lease(&mut self, row: &Row) {
        self.accounts.insert(row.get(0));
        self.sessions.insert(row.get(1));
        self.grants.extend(row.get::<_, Option<String>>(2));
    }
}
