//! `milliway check`: is this configuration usable, and if not, where is it wrong.

use std::path::Path;

use super::Failure;
use crate::config::Config;
use crate::policy::PolicyFile;

pub(super) fn run(file: &Path) -> Result<(), Failure> {
    match Config::load(Some(file), std::env::vars()) {
        Ok(config) => {
            if !config.policy.file.is_empty() {
                PolicyFile::read(Path::new(&config.policy.file)).map_err(|mistake| mistake.to_string())?;
            }
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
