//! `milliway did`: identities of issuers, operators and holders.

use std::path::PathBuf;

use clap::Subcommand;
use identity::SigningKey;
use serde_json::json;

use super::Failure;

#[derive(Subcommand)]
pub(super) enum DidCommand {
    /// Make a new Ed25519 key and print its did:key; an existing file is never overwritten
    New {
        /// Where the private JWK goes (mode 0600)
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Print the DID and public key of a private JWK
    Show {
        /// The private JWK
        file: PathBuf,
    },
}

pub(super) fn run(command: DidCommand) -> Result<(), Failure> {
    let key = match command {
        DidCommand::New { out } => {
            let key = SigningKey::generate();
            key.save(&out)
                .map_err(|error| format!("cannot write {}: {error}", out.display()))?;
            key
        }
        DidCommand::Show { file } => {
            SigningKey::load(&file).map_err(|error| format!("{}: {error}", file.display()))?
        }
    };
    println!(
        "{}",
        json!({ "did": key.did().as_str(), "kid": key.kid(), "jwk": key.public_key().to_jwk() })
    );
    Ok(())
}
