//! `milliway account`: the accounts in a stopped relay's ledger.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use metering::ledger::AccountView;
use metering::{AccountId, Embedded, Ledger};
use serde_json::json;

use super::Failure;
use crate::data::Data;

#[derive(Subcommand)]
pub(super) enum AccountCommand {
    /// One line of JSON for each account
    List {
        /// The relay's data folder
        #[arg(long, value_name = "DIR", default_value = "./milliway-data")]
        data: PathBuf,
    },
    /// One account
    Show {
        /// Its DID, or `bearer:` and the hash
        did: String,
        /// The relay's data folder
        #[arg(long, value_name = "DIR", default_value = "./milliway-data")]
        data: PathBuf,
    },
}

fn open(data: &Path) -> Result<Embedded, Failure> {
    Embedded::reopen(&Data::at(data).existing_ledger()?)
        .map_err(|error| format!("{error}; a running relay keeps its ledger to itself, see GET /v1/account"))
}

fn print(account: &AccountView) {
    let shown = json!({
        "did": account.account,
        "available_msat": account.available,
        "reserved_msat": account.reserved,
        "spent_msat": account.spent,
        "refunded_msat": account.refunded,
        "live_sessions": account.live_sessions,
        "frozen": account.frozen,
    });
    println!("{shown}");
}

pub(super) fn run(command: AccountCommand) -> Result<(), Failure> {
    match command {
        AccountCommand::List { data } => {
            for account in open(&data)?.accounts().map_err(|error| error.to_string())? {
                print(&account);
            }
        }
        AccountCommand::Show { did, data } => {
            let found = open(&data)?
                .account(&AccountId::new(did))
                .map_err(|error| error.to_string())?;
            print(&found.ok_or("no account of that name was ever credited")?);
        }
    }
    Ok(())
}
