//! `milliway did`: identities of issuers, operators and holders.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use identity::{Did, SigningKey};
use serde_json::json;

use super::Failure;
use crate::config::Config;
use crate::resolver::{Alias, Resolver};
use crate::start;

#[derive(Subcommand)]
pub(super) enum DidCommand {
    /// Make a new Ed25519 key and print its did:key; an existing file is never overwritten
    New {
        /// Where the private JWK goes (mode 0600)
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Find the DID behind a name like alice@voice.example (WebFinger, then DNS), or the keys behind a DID
    Resolve {
        /// The name, or a DID
        name: String,
        /// The relay's TOML configuration, for its section `did`
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Print the operator's DID document with this node's key in it, for `milliway serve`
    Document {
        /// The node's TOML configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The document that lists the operator's other nodes; this node is added, or brought up to date
        #[arg(long, value_name = "FILE")]
        with: Option<PathBuf>,
    },
    /// Print the DID and public key of a private JWK
    Show {
        /// The private JWK
        file: PathBuf,
    },
}

/// A DID, or the one behind a name that somebody typed. A DNS record alone is nobody's word: its DID must know the
/// name.
pub(super) fn did_or_alias(flag: &str, text: &str) -> Result<Did, Failure> {
    let Some(alias) = Alias::parse(text) else {
        return Did::parse(text).map_err(|error| format!("{flag}: {error}"));
    };
    let config = Config::load(None, std::env::vars()).map_err(|mistakes| start::said(&mistakes))?;
    let resolver = Resolver::new(&config.did)?;
    let found = waiting(resolver.alias(&alias)).map_err(|error| format!("{flag} {text}: {error}"))?;
    if found.via == "dns" && !found.confirmed {
        return Err(format!(
            "{flag} {text}: only DNS names {}, whose document does not name the alias; use the DID itself",
            found.did
        ));
    }
    eprintln!("milliway: {flag} {text} is {}", found.did);
    Ok(found.did)
}

/// Runs what needs a network to its end.
fn waiting<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(work)
}

/// What a name or DID comes to, on standard output.
fn resolve(name: &str, config: Option<&Path>) -> Result<(), Failure> {
    let config = Config::load(config, std::env::vars()).map_err(|mistakes| start::said(&mistakes))?;
    let resolver = Resolver::new(&config.did)?;
    let found = async {
        let (did, alias) = match Alias::parse(name) {
            Some(alias) => {
                let found = resolver.alias(&alias).await?;
                let said = json!({ "via": found.via, "confirmed": found.confirmed });
                (found.did, Some(said))
            }
            None => (Did::parse(name).map_err(|error| error.to_string())?, None),
        };
        let document = resolver
            .resolve(&did)
            .await
            .map_err(|error| format!("{did}: {error}"))?;
        let keys = document.authentication.iter();
        let keys: Vec<_> = keys
            .map(|method| json!({ "kid": method.id, "jwk": method.key.to_jwk() }))
            .collect();
        Ok(json!({ "did": did, "alias": alias, "authentication": keys }))
    };
    println!("{}", waiting(found)?);
    Ok(())
}

/// The operator's document.
fn document(config: &Path, with: Option<&Path>) -> Result<(), Failure> {
    let config = Config::load(Some(config), std::env::vars()).map_err(|mistakes| start::said(&mistakes))?;
    let with = with.map(|path| {
        let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| named(&error))?;
        serde_json::from_str(&text).map_err(|error| named(&error))
    });
    let document = crate::serve::document(&config, with.transpose()?)?;
    println!("{document:#}");
    Ok(())
}

pub(super) fn run(command: DidCommand) -> Result<(), Failure> {
    let key = match command {
        DidCommand::Resolve { name, config } => return resolve(&name, config.as_deref()),
        DidCommand::Document { config, with } => return document(&config, with.as_deref()),
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
