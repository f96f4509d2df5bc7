//! `milliway topup`: money from outside, as an operator sees it, and the coins that came of Cashu tokens.

use clap::Subcommand;

use super::Failure;
use super::account::Books;
use crate::cashier::errand::{ENTRIES_MAX, Errand};

#[derive(Subcommand)]
pub(super) enum TopUpCommand {
    /// One line of JSON for each top-up
    List {
        #[command(flatten)]
        books: Books,
    },
    /// The relay's Cashu coins as tokens, one a line. Whoever has a line has its money
    Export {
        /// Also those that were exported before
        #[arg(long)]
        again: bool,
        #[command(flatten)]
        books: Books,
    },
    /// Give up on a top-up that stays open, so that its account may begin others
    Drop {
        /// Its id
        id: String,
        /// Why; it stands in the ledger
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        books: Books,
    },
}

pub(super) fn run(command: TopUpCommand) -> Result<(), Failure> {
    match command {
        TopUpCommand::List { books } => all(
            &books,
            |after| Errand::TopUps { after },
            |line| {
                println!("{line}");
                Ok(())
            },
        ),
        TopUpCommand::Export { again, books } => all(
            &books,
            |after| Errand::Coins { after },
            |line| {
                let (Some(id), Some(_)) = (line["id"].as_str(), line.get("token")) else {
                    return Ok(());
                };
                if line["exported"] == true && !again {
                    return Ok(());
                }
                // Shown first: a crash in between shows it once more, and loses nothing.
                println!("{line}");
                books.run(Errand::CoinsTaken { id: id.to_owned() }).map(drop)
            },
        ),
        TopUpCommand::Drop { id, reason, books } => books.print(Errand::DropTopUp { id, reason }),
    }
}

/// Everything, a page at a time.
fn all(
    books: &Books,
    page: impl Fn(Option<String>) -> Errand,
    mut each: impl FnMut(&serde_json::Value) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut after = None;
    loop {
        let lines = books.run(page(after.take()))?;
        lines.iter().try_for_each(&mut each)?;
        match lines.last().and_then(|line| line["id"].as_str()) {
            Some(last) if lines.len() >= ENTRIES_MAX => after = Some(last.to_owned()),
            _ => return Ok(()),
        }
    }
}
