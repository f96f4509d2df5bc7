//! The tables of one comparison's folder, as Markdown on standard output: `compare benches/runs/DATE-MACHINE`.

use std::path::PathBuf;
use std::process::ExitCode;

use benches::comparison;
use clap::Parser;

#[derive(Parser)]
#[command(about = "Sets relays beside the floor, from the reports in a folder")]
struct Arguments {
    /// Where compare.sh left the reports.
    folder: PathBuf,
}

fn main() -> ExitCode {
    match comparison::tables(&Arguments::parse().folder) {
        Ok(tables) => {
            print!("{tables}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}
