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
    let proof =
        metering::ledger::verify(&Data::at(&data).existing_ledger()?).map_err(|fault| fault.to_string())?;
    println!("{proof}");
    Ok(())
}
