//! `milliway deny`: who is not served. A running relay on the same data folder takes it up within a second, live
//! sessions included.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use identity::policy::Kind;

use super::Failure;
use crate::data::Data;

#[derive(Subcommand)]
pub(super) enum DenyCommand {
    /// Serve this no longer
    Add(Entry),
    /// Serve it again
    Remove(Entry),
    /// Print the list, one `KIND VALUE` a line
    List {
        /// Only these
        #[arg(value_name = "KIND")]
        kind: Option<Kind>,
        /// The relay's data folder
        #[arg(long, value_name = "DIR", default_value = "./milliway-data")]
        data: PathBuf,
    },
}

#[derive(Args)]
pub(super) struct Entry {
    /// jti: a token or credential; sub: a holder or payer; kid: an issuer's key; iss: an issuer
    #[arg(value_name = "jti|sub|kid|iss")]
    kind: Kind,
    /// The id, DID or DID URL
    value: String,
    /// The relay's data folder
    #[arg(long, value_name = "DIR", default_value = "./milliway-data")]
    data: PathBuf,
}

pub(super) fn run(command: DenyCommand) -> Result<(), Failure> {
    match command {
        DenyCommand::Add(Entry { kind, value, data }) => {
            existing(&data)?
                .deny_file()
                .change(|list| list.add(kind, &value).map_err(|error| error.to_string()))?;
        }
        DenyCommand::Remove(Entry { kind, value, data }) => {
            let was_on_it = existing(&data)?
                .deny_file()
                .change(|list| Ok(list.remove(kind, &value)))?;
            if !was_on_it {
                return Err(format!("this {kind} is not on the list"));
            }
        }
        DenyCommand::List { kind: only, data } => {
            let list = existing(&data)?
                .deny_file()
                .read()
                .map_err(|mistake| mistake.to_string())?;
            for (kind, value) in list
                .iter()
                .filter(|(kind, _)| only.is_none_or(|only| only == *kind))
            {
                println!("{kind} {value}");
            }
        }
    }
    Ok(())
}

/// A mistyped folder must not look like a denial.
fn existing(folder: &Path) -> Result<Data, Failure> {
    match folder.is_dir() {
        true => Ok(Data::at(folder)),
        false => Err(format!(
            "{} does not exist; name the relay's folder with --data",
            folder.display()
        )),
    }
}
