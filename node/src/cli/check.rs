//! `milliway check`: is this configuration usable, and if not, where is it wrong.

use std::path::Path;
use std::sync::Arc;

use identity::SigningKey;

use super::Failure;
use crate::config::Config;
use crate::descriptors;
use crate::policy::PolicyFile;
use crate::records::Sink;
use crate::turn_keys::TurnKeys;

pub(super) fn run(file: &Path) -> Result<(), Failure> {
    match Config::load(Some(file), std::env::vars()) {
        Ok(config) => {
            // What is wrong with the files is found here and not by the first client.
            TurnKeys::from_config(&config.turn, &[])?;
            Sink::of(&config, &Arc::new(SigningKey::generate()))?;
            if let Some(warning) = descriptors::warning() {
                eprintln!("warning: {warning}");
            }
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
