//! The table of one comparison's folder, as Markdown on standard output: `compare benches/runs/DATE-MACHINE`.

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
    match comparison::table(&Arguments::parse().folder) {
        Ok(table) => {
            print!("{table}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}
