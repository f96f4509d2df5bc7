//! `milliway check`: is this configuration usable, and if not, where is it wrong.

use std::path::Path;
use std::sync::Arc;

use identity::SigningKey;

use super::Failure;
use crate::config::Config;
use crate::descriptors;
use crate::http::keys::FrontKeys;
use crate::policy::PolicyFile;
use crate::records::Sink;
use crate::serve;
use crate::turn_keys::TurnKeys;

pub(super) fn run(file: &Path) -> Result<(), Failure> {
    match Config::load(Some(file), std::env::vars()) {
        Ok(config) => {
            // What is wrong with the files is found here and not by the first client.
            TurnKeys::from_config(&config.turn, &[])?;
            Sink::of(&config, &Arc::new(SigningKey::generate()))?;
            FrontKeys::from_config(&config.http)?;
            // Who names an operator wants to serve.
            let wrong = match config.relay.operator.is_empty() {
                true => Vec::new(),
                false => serve::mistakes(&config),
            };
            for mistake in &wrong {
                eprintln!("{}: {mistake}", file.display());
            }
            if !wrong.is_empty() {
                return Err(count(wrong.len()));
            }
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
            Err(count(mistakes.len()))
        }
    }
}

fn count(mistakes: usize) -> Failure {
    let plural = if mistakes == 1 { "" } else { "s" };
    format!("{mistakes} mistake{plural}")
}
