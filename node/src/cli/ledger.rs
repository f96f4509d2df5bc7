//! `milliway ledger verify`: replays the usage journal and proves that no msat was made or lost.

use std::path::PathBuf;

use clap::Subcommand;

use super::Failure;
use crate::data::Data;

#[derive(Subcommand)]
pub(super) enum LedgerCommand {
    /// Prove that issued = available + reserved + earned + refunded at every commit; exit 1 if not
    Verify {
        /// The relay's data folder
        #[arg(long, value_name = "DIR", default_value = "./milliway-data")]
        data: PathBuf,
    },
}

pub(super) fn run(command: LedgerCommand) -> Result<(), Failure> {
    let LedgerCommand::Verify { data } = command;
    let file = Data::at(&data).existing_ledger()?;
    // The database trusts what it finds in its own file: damage there ends in a panic, which is an answer as well.
    std::panic::set_hook(Box::new(|_| {}));
    let proof = std::panic::catch_unwind(|| metering::ledger::verify(&file))
        .map_err(|_| format!("{} is damaged; restore it from a backup", file.display()))?
        .map_err(|fault| fault.to_string())?;
    println!("{proof}");
    Ok(())
}
