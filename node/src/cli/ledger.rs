//! `milliway ledger`: proves the books, copies them, and moves them from one ledger to another.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use metering::ledger::{DumpRow, LedgerError};
use metering::{Embedded, Ledger};

use super::Failure;
use super::account::{Books, OPERATOR_SEAT};
use super::replay::Replay;
use crate::cashier::backup;
use crate::cashier::errand::Errand;
use crate::cashier::place::Place;
use crate::clock;

#[derive(Subcommand)]
pub(super) enum LedgerCommand {
    /// Prove that issued = available + reserved + earned + refunded at every commit; exit 1 if not
    Verify {
        #[command(flatten)]
        books: Books,
    },
    /// Write every row of the books to a new file, as of one moment; the relay may run
    Backup {
        /// The file, readable by its owner only
        file: PathBuf,
        #[command(flatten)]
        books: Books,
    },
    /// Fill an empty ledger from a backup; no relay may run. Tokens issued before now are refused afterwards
    Restore {
        /// The backup
        file: PathBuf,
        /// Do again what happened since, from the usage records that had left the relay (`records.file`, rotated
        /// ones too)
        #[arg(long, value_name = "FILE")]
        journal: Vec<PathBuf>,
        /// Which sink those records were for: file, webhook or nats
        #[arg(long, value_name = "SINK", default_value = "file", requires = "journal")]
        sink: String,
        /// You vouch that nothing was credited after the last of them. Then, if none is missing, tokens issued
        /// before now are not refused
        #[arg(long, requires = "journal")]
        complete: bool,
        #[command(flatten)]
        books: Books,
    },
    /// Copy the books of a stopped relay into an empty ledger
    Migrate {
        /// redb:PATH or postgres://...
        #[arg(long, value_name = "URL")]
        from: String,
        /// redb:PATH or postgres://...
        #[arg(long, value_name = "URL")]
        to: String,
    },
}

pub(super) fn run(command: LedgerCommand) -> Result<(), Failure> {
    match command {
        LedgerCommand::Verify { books } => verify(&books),
        LedgerCommand::Backup { file, books } => {
            let file = std::path::absolute(&file).map_err(|error| error.to_string())?;
            books.print(Errand::Backup { file })
        }
        LedgerCommand::Restore {
            file,
            journal,
            sink,
            complete,
            books,
        } => {
            let rows = backup::read(&file).map_err(|error| error.to_string())?;
            let place = books.stopped()?;
            match journal.is_empty() {
                true => fill(&place, rows, Some(clock::unix())),
                false => restore(&place, rows, &journal, &sink, complete),
            }
        }
        LedgerCommand::Migrate { from, to } => {
            let place = |url: &str| match url {
                "" => Err("name both ledgers, like redb:PATH or postgres://...".to_owned()),
                url => Place::parse(url, OPERATOR_SEAT, Path::new("")),
            };
            let (from, to) = (place(&from)?, place(&to)?);
            if let Place::File(path) = &from
                && !path.is_file()
            {
                return Err(format!("{} does not exist", path.display()));
            }
            let source = from
                .open_for_operator(clock::unix_ns())
                .map_err(|error| error.to_string())?;
            source.verify().map_err(|fault| fault.to_string())?;
            let mut rows = Vec::new();
            let dumped = source.dump(&mut |row| {
                rows.push(row);
                Ok(())
            });
            dumped.map_err(|error| error.to_string())?;
            drop(source);
            fill(&to, rows, None)
        }
    }
}

/// Loads, does again what happened since, and proves. First in memory: what cannot be done again must be known before the
/// books say whether tokens from before are refused.
fn restore(
    place: &Place,
    mut rows: Vec<DumpRow>,
    journal: &[PathBuf],
    sink: &str,
    complete: bool,
) -> Result<(), Failure> {
    let now = clock::unix_ns();
    let replay = Replay::plan(journal, sink, &mut rows)?;
    let said = |error: LedgerError| error.to_string();
    let mut trial = Embedded::in_memory(now).map_err(said)?;
    trial
        .load(&mut rows.iter().cloned().map(Ok), None, now)
        .map_err(said)?;
    let whole = replay.is_whole(&replay.run(&mut trial, now)?);
    let restored = (!whole || !complete).then(clock::unix);

    let mut ledger = place.open_for_operator(now).map_err(said)?;
    ledger
        .load(&mut rows.into_iter().map(Ok), restored, now)
        .map_err(said)?;
    let replayed = replay.run(&mut *ledger, now)?;
    for line in replay.told(&replayed) {
        println!("{line}");
    }
    println!(
        "{}",
        match (whole, complete) {
            (true, true) => "no record is missing: tokens issued before now are accepted",
            (true, false) =>
                "no record is missing up to the last; tokens issued before now are refused, because more may have been \
                 credited after it (--complete, if you know better)",
            (false, _) => "not all could be replayed: tokens issued before now are refused",
        }
    );
    println!("{}", ledger.verify().map_err(|fault| fault.to_string())?);
    Ok(())
}

/// Loads and proves.
fn fill(place: &Place, rows: Vec<DumpRow>, restored: Option<u64>) -> Result<(), Failure> {
    let now = clock::unix_ns();
    let mut ledger = place.open_for_operator(now).map_err(|error| error.to_string())?;
    ledger
        .load(&mut rows.into_iter().map(Ok), restored, now)
        .map_err(|error| error.to_string())?;
    println!("{}", ledger.verify().map_err(|fault| fault.to_string())?);
    Ok(())
}

fn verify(books: &Books) -> Result<(), Failure> {
    // The database trusts what it finds in its own file: damage there ends in a panic, which is an answer as well.
    std::panic::set_hook(Box::new(|_| {}));
    let proof = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| books.run(Errand::Verify)))
        .map_err(|_| "the ledger is damaged; restore it from a backup".to_owned())??;
    for line in proof {
        println!("{}", line.as_str().unwrap_or_default());
    }
    Ok(())
}
