//! `milliway check`: is this configuration usable, and if not, where is it wrong.

use std::path::Path;

use super::Failure;
use crate::config::Config;

pub(super) fn run(file: &Path) -> Result<(), Failure> {
    match Config::load(Some(file), std::env::vars()) {
        Ok(_) => {
            println!("{}: good", file.display());
            Ok(())
        }
        Err(mistakes) => {
            for mistake in &mistakes {
                eprintln!("{mistake}");
            }
            let plural = if mistakes.len() == 1 { "" } else { "s" };
            Err(format!("{} mistake{plural}", mistakes.len()))
        }
    }
}
