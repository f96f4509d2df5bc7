//! What an operator asks of the books: through the socket of a running relay, or of a stopped one's ledger directly.
//! Either way it is the same errand, done by the same code.

use std::path::PathBuf;

use identity::policy::{DenyList, ENTRIES_MAX as ENTRIES_OF_LIST_MAX, ListFull};
use metering::ledger::{AccountView, Command, Denied, Entry, EntryId, Kind, Ledger, Outcome, Refusal, TopUp};
use metering::{AccountId, Msat, Voucher};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use topup::cashu::Coins;

use super::backup;

/// Journal entries in one answer: the cashier must not be kept from its rounds for long.
pub(crate) const ENTRIES_MAX: usize = 2_000;

/// One errand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub(crate) enum Errand {
    /// Every account.
    Accounts,
    /// One.
    Account {
        /// Its name.
        did: String,
    },
    /// Promotional credit: spent first, never paid back as money.
    Credit {
        /// Whom.
        did: String,
        /// How much.
        msat: u64,
        /// Why.
        reason: String,
        /// Names this credit: the same one again changes nothing.
        id: String,
    },
    /// Stops an account's spending, or allows it again.
    Freeze {
        /// Whose.
        did: String,
        /// Which of the two.
        frozen: bool,
    },
    /// Pays back what is available and refundable.
    Refund {
        /// Whom.
        did: String,
        /// Why.
        reason: String,
        /// First freeze the account and settle what is live.
        all: bool,
    },
    /// The deny list.
    Denials,
    /// Puts something on the deny list, or takes it off.
    Deny {
        /// `jti`, `sub`, `kid` or `iss`.
        kind: String,
        /// Which.
        value: String,
        /// Whether it is to be on the list.
        on: bool,
    },
    /// What an issuer's vouchers came to.
    Issuer {
        /// Which.
        did: String,
    },
    /// The usage journal after an entry.
    Journal {
        /// The last entry that is known.
        after: Option<EntryId>,
    },
    /// How far the sinks of usage records are.
    Sinks,
    /// Everything that is live: a running relay's to answer, which is not in the books.
    Live,
    /// Top-ups after one of this id, without what makes them money.
    TopUps {
        /// The last that is known.
        after: Option<String>,
    },
    /// The same, with the coins that the relay has of them.
    Coins {
        /// The last that is known.
        after: Option<String>,
    },
    /// The operator has taken a top-up's coins out.
    CoinsTaken {
        /// Which.
        id: String,
    },
    /// Gives up on an open top-up.
    DropTopUp {
        /// Which.
        id: String,
        /// Why.
        reason: String,
    },
    /// The proof.
    Verify,
    /// Writes a backup.
    Backup {
        /// The file, which must not be there yet.
        file: PathBuf,
    },
}

/// Does it. `operator`: the DID in whose name promotional credit is given. Each value is a line of the answer.
pub(crate) fn run(
    errand: Errand,
    ledger: &mut dyn Ledger,
    operator: &str,
    unix_ns: u64,
) -> Result<Vec<Value>, String> {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    match errand {
        Errand::Accounts => {
            let accounts = ledger.accounts().map_err(|error| said(&error))?;
            Ok(accounts.iter().map(shown).collect())
        }
        Errand::Account { did } => one(ledger, &did),
        Errand::Credit {
            did,
            msat,
            reason,
            id,
        } => {
            let voucher = Voucher {
                iss: operator.to_owned(),
                jti: format!("operator {id}"),
                sub: did.clone(),
                payer: None,
                aud: operator.to_owned(),
                balance: Msat::new(msat),
                account: AccountId::new(did.as_str()),
                refundable: false,
            };
            apply(ledger, vec![Command::Gift { voucher, reason }], unix_ns)?;
            one(ledger, &did)
        }
        Errand::Freeze { did, frozen } => {
            // Only what exists: a name that was mistyped must not look frozen.
            one(ledger, &did)?;
            let account = AccountId::new(did.as_str());
            apply(ledger, vec![Command::Freeze { account, frozen }], unix_ns)?;
            one(ledger, &did)
        }
        Errand::Refund { did, reason, all } => {
            one(ledger, &did)?;
            let account = AccountId::new(did.as_str());
            let mut commands = Vec::new();
            if all {
                commands.push(Command::Freeze {
                    account: account.clone(),
                    frozen: true,
                });
                commands.push(Command::CloseAccount {
                    account: account.clone(),
                    reason: "refunded".to_owned(),
                });
            }
            commands.push(Command::Refund { account, reason });
            let results = ledger.apply(&commands, unix_ns).map_err(|error| said(&error))?;
            let refunded = match results.into_iter().last() {
                Some(Ok(Outcome::Released(msat))) => msat,
                // Frozen and settled all the same, which is what was asked for.
                Some(Err(Refusal::BalanceExhausted { .. })) if all => Msat::ZERO,
                Some(Err(refusal)) => return Err(said(&refusal)),
                other => return Err(format!("the ledger answered {other:?}")),
            };
            let mut answer = one(ledger, &did)?;
            answer.insert(0, json!({ "did": did, "refunded_now_msat": refunded }));
            Ok(answer)
        }
        Errand::Denials => {
            let denied = ledger.denied().map_err(|error| said(&error))?;
            Ok(denied.into_iter().map(|denied| json!(denied)).collect())
        }
        Errand::Deny { kind, value, on } => {
            let checked = kind.parse().map_err(|error: &str| error.to_owned())?;
            let mut list = DenyList::default();
            list.add(checked, &value).map_err(|error| said(&error))?;
            let denied = ledger.denied().map_err(|error| said(&error))?;
            if on && denied.len() >= ENTRIES_OF_LIST_MAX {
                return Err(ListFull.to_string());
            }
            let denied = Denied { kind, value };
            match apply(ledger, vec![Command::Deny { denied, on }], unix_ns)? {
                Outcome::Denied { changed } => Ok(vec![json!({ "changed": changed })]),
                other => Err(format!("the ledger answered {other:?}")),
            }
        }
        Errand::Issuer { did } => {
            let issuers = ledger.issuers().map_err(|error| said(&error))?;
            let (_, tally) = issuers
                .into_iter()
                .find(|(iss, _)| *iss == did)
                .ok_or("no voucher of this issuer was ever credited")?;
            Ok(vec![json!({
                "issuer": did,
                "vouchers": tally.vouchers,
                "credited_msat": tally.credited,
                "spent_msat": tally.spent,
                "refunded_msat": tally.refunded,
                "outstanding_msat": tally.outstanding(),
            })])
        }
        Errand::Journal { after } => {
            let entries = ledger.journal(after, ENTRIES_MAX).map_err(|error| said(&error))?;
            Ok(entries
                .into_iter()
                .map(|(id, entry)| json!({ "id": id, "entry": entry }))
                .collect())
        }
        Errand::Sinks => {
            let sinks = ledger.sinks().map_err(|error| said(&error))?;
            Ok(sinks
                .into_iter()
                .map(|view| {
                    json!({
                        "sink": view.sink,
                        "records": view.cursor.records,
                        "behind_entries": view.behind,
                    })
                })
                .collect())
        }
        Errand::TopUps { after } => {
            let rows = ledger.top_ups(after.as_deref(), ENTRIES_MAX);
            let rows = rows.map_err(|error| said(&error))?;
            Ok(rows.iter().map(top_up).collect())
        }
        Errand::Coins { after } => {
            let rows = ledger.top_ups(after.as_deref(), ENTRIES_MAX);
            let rows = rows.map_err(|error| said(&error))?;
            rows.iter().map(coins).collect()
        }
        Errand::CoinsTaken { id } => match apply(ledger, vec![Command::ExportTopUp { id }], unix_ns)? {
            Outcome::ToppedUp { top_up: row, .. } => Ok(vec![top_up(&row)]),
            other => Err(format!("the ledger answered {other:?}")),
        },
        Errand::DropTopUp { id, reason } => {
            let row = ledger.top_up(&id).map_err(|error| said(&error))?;
            let account = row.ok_or("there is no top-up of that id")?.account;
            match apply(ledger, vec![Command::FailTopUp { id, account, reason }], unix_ns)? {
                Outcome::ToppedUp { top_up: row, .. } => Ok(vec![top_up(&row)]),
                other => Err(format!("the ledger answered {other:?}")),
            }
        }
        Errand::Backup { file } => {
            let rows = backup::write(ledger, &file, unix_ns).map_err(|error| said(&error))?;
            Ok(vec![json!({ "backup": file, "rows": rows })])
        }
        Errand::Live => Err("no relay runs there, so nothing is live".to_owned()),
        Errand::Verify => match ledger.verify() {
            Ok(proof) => Ok(vec![Value::String(proof.to_string())]),
            Err(fault) => Err(fault.to_string()),
        },
    }
}

/// In one commit; the last outcome.
fn apply(ledger: &mut dyn Ledger, commands: Vec<Command>, unix_ns: u64) -> Result<Outcome, String> {
    let results = ledger
        .apply(&commands, unix_ns)
        .map_err(|error| error.to_string())?;
    let mut last = Err("nothing was done".to_owned());
    for result in results {
        last = Ok(result.map_err(|refusal| refusal.to_string())?);
    }
    last
}

fn one(ledger: &dyn Ledger, did: &str) -> Result<Vec<Value>, String> {
    let found = ledger
        .account(&AccountId::new(did))
        .map_err(|error| error.to_string())?;
    Ok(vec![shown(
        &found.ok_or("no account of that name was ever credited")?,
    )])
}

fn shown(account: &AccountView) -> Value {
    json!({
        "did": account.account,
        "available_msat": account.balance(),
        "credit_line_msat": account.credit.as_ref().map_or(Msat::ZERO, |line| line.msat),
        "credit_until": account.credit.as_ref().map(|line| line.until),
        "reserved_msat": account.reserved,
        "spent_msat": account.spent,
        "refunded_msat": account.refunded,
        "refundable_msat": account.refundable(),
        "live_sessions": account.live_sessions,
        "settlements": account.settlements,
        "frozen": account.frozen,
    })
}

fn top_up(row: &TopUp) -> Value {
    json!({
        "id": row.id,
        "method": row.method,
        "did": row.account,
        "msat": row.msat,
        "state": row.state,
        "reason": row.reason,
        "begun_at_ns": row.begun,
        "changed_at_ns": row.changed,
        "exported": row.exported,
    })
}

/// A top-up with its coins as a token, where it has some.
fn coins(row: &TopUp) -> Result<Value, String> {
    let Some(coins) = row.detail.get("coins") else {
        return Ok(json!({ "id": row.id }));
    };
    let coins: Coins = serde_json::from_value(coins.clone()).map_err(|error| error.to_string())?;
    let amount: u64 = coins.proofs.iter().map(|proof| proof.amount).sum();
    Ok(json!({
        "id": row.id,
        "mint": coins.mint,
        "unit": coins.unit,
        "amount": amount,
        "exported": row.exported,
        "token": topup::cashu::export(&coins.mint, &coins.unit, &coins.proofs),
    }))
}

/// One settled segment, as it is exported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct UsageRecord {
    /// The journal entry.
    pub(crate) entry: String,
    /// RFC 3339 would lose the nanoseconds that receipts have: Unix nanoseconds.
    pub(crate) settled_at_ns: u64,
    /// Who paid.
    pub(crate) account: String,
    /// The account's settlement, numbered without gaps.
    pub(crate) settlement: u64,
    /// The session.
    pub(crate) session: String,
    /// Which relay.
    pub(crate) service: &'static str,
    /// Bytes to the client.
    pub(crate) bytes_out: u64,
    /// Bytes from the client.
    pub(crate) bytes_in: u64,
    /// Time that counted.
    pub(crate) nanoseconds: u64,
    /// What was paid.
    pub(crate) msat: u64,
}

impl UsageRecord {
    /// The columns of a CSV.
    pub(crate) const COLUMNS: &str =
        "entry,settled_at_ns,account,settlement,session,service,bytes_out,bytes_in,nanoseconds,msat";

    /// What an entry says of use; none for any other entry.
    pub(crate) fn of(id: EntryId, entry: &Entry) -> Option<Self> {
        let usage = entry.usage.filter(|_| entry.kind == Kind::Settle)?;
        Some(Self {
            entry: id.to_string(),
            settled_at_ns: entry.at,
            account: entry.account.as_str().to_owned(),
            settlement: entry.settlement.unwrap_or_default(),
            session: entry.session?.to_string(),
            service: entry.service?.as_str(),
            bytes_out: usage.bytes_out,
            bytes_in: usage.bytes_in,
            nanoseconds: usage.nanoseconds,
            msat: entry.msat.get(),
        })
    }

    /// A line of a CSV (RFC 4180). Only an account's name can hold what needs quotes.
    pub(crate) fn csv(&self) -> String {
        format!(
            "{},{},\"{}\",{},{},{},{},{},{},{}",
            self.entry,
            self.settled_at_ns,
            self.account.replace('"', "\"\""),
            self.settlement,
            self.session,
            self.service,
            self.bytes_out,
            self.bytes_in,
            self.nanoseconds,
            self.msat
        )
    }
}
