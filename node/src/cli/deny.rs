//! `milliway deny`: who is not served. The list stands in the ledger, so that every node of a shared one takes it up in
//! its next look, live sessions included; a running relay is asked through its socket, a stopped one's ledger directly.

use clap::{Args, Subcommand};
use identity::policy::Kind;
use metering::ledger::Denied;

use super::Failure;
use super::account::Books;
use crate::cashier::errand::Errand;

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
        #[command(flatten)]
        books: Books,
    },
}

#[derive(Args)]
pub(super) struct Entry {
    /// jti: a token or credential; sub: a holder or payer; kid: an issuer's key; iss: an issuer
    #[arg(value_name = "jti|sub|kid|iss")]
    kind: Kind,
    /// The id, DID or DID URL
    value: String,
    #[command(flatten)]
    books: Books,
}

impl Entry {
    /// Puts it on the list or takes it off; whether that changed anything.
    fn put(self, on: bool) -> Result<bool, Failure> {
        let answer = self.books.run(Errand::Deny {
            kind: self.kind.name().to_owned(),
            value: self.value,
            on,
        })?;
        Ok(answer.first().is_some_and(|line| line["changed"] == true))
    }
}

pub(super) fn run(command: DenyCommand) -> Result<(), Failure> {
    match command {
        DenyCommand::Add(entry) => entry.put(true).map(drop),
        DenyCommand::Remove(entry) => {
            let kind = entry.kind;
            match entry.put(false)? {
                true => Ok(()),
                false => Err(format!("this {kind} is not on the list")),
            }
        }
        DenyCommand::List { kind: only, books } => {
            for Denied { kind, value } in denied(&books)? {
                if only.is_none_or(|only| only.name() == kind) {
                    println!("{kind} {value}");
                }
            }
            Ok(())
        }
    }
}

/// The list.
pub(super) fn denied(books: &Books) -> Result<Vec<Denied>, Failure> {
    let lines = books.run(Errand::Denials)?;
    let read = |line| serde_json::from_value(line).map_err(|error| error.to_string());
    lines.into_iter().map(read).collect()
}
