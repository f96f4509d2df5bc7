//! DID documents from the network, for decisions that need them: fetched once for all who wait, kept for at most five
//! minutes, failures too (negative caching, RFC 9520 in spirit), and never more of them than fit.
//!
//! What is worth fetching is not decided here: identity names it, issuer before holder ([`identity::token::lacking`]).

mod alias;
pub(crate) mod https;
pub(crate) mod names;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::resolv::stub::conf::ResolvConf;
use identity::did_web::Location;
use identity::token::{self, TokenPolicy};
use identity::{Did, DidError, Document, Documents, Refusal};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::config::DidWeb;
pub(crate) use alias::Alias;
use https::Https;
use names::Names;

/// Documents kept, failures included. Past it those that expire first go.
const ENTRIES_MAX: usize = 10_000;
/// Rounds of asking what a token lacks: the issuer, then whom it names. More would be a mistake of ours.
const ROUNDS_MAX: usize = 4;
/// What is asked for, best first (DID Core section 6, did:web).
const ACCEPT: &str =
    "application/did+json, application/did+ld+json, application/json, application/did-resolution";

/// What came of a fetch, and until when that holds.
type Fetched = (Result<Arc<Document>, DidError>, Instant);

/// Resolves DIDs.
pub(crate) struct Resolver {
    https: Https,
    enabled: bool,
    /// Who is asked for other methods (DIF Universal Resolver), and for which.
    universal: Option<Location>,
    universal_methods: Vec<String>,
    lifetime: Duration,
    failure_lifetime: Duration,
    /// Who is asked for TXT records.
    dns: ResolvConf,
    /// Where a test has its WebFinger; 443 everywhere else.
    webfinger_port: Option<u16>,
    entries: Mutex<HashMap<Did, Arc<OnceCell<Fetched>>>>,
}

impl Resolver {
    /// As configured, with the system's DNS.
    pub(crate) fn new(config: &DidWeb) -> Result<Resolver, String> {
        Resolver::with_lookup(config, names::system())
    }

    fn with_lookup(config: &DidWeb, lookup: names::Lookup) -> Result<Resolver, String> {
        let exceptions = config
            .allow_addresses
            .iter()
            .map(|network| network.prefix)
            .collect();
        let names = Names::new(&config.hosts, exceptions, lookup);
        Ok(Resolver {
            https: Https::new(names, &config.ca_file).map_err(|why| format!("did.ca_file {why}"))?,
            enabled: config.web,
            universal: Location::of_url(&config.universal_resolver).ok(),
            universal_methods: config.universal_methods.clone(),
            lifetime: Duration::from_secs(config.cache_seconds),
            failure_lifetime: Duration::from_secs(config.failure_cache_seconds),
            dns: alias::system_dns(),
            webfinger_port: None,
            entries: Mutex::new(HashMap::new()),
        })
    }

    /// Everything that a token needs to be verified, in the order that identity asks for it.
    pub(crate) async fn documents_for(&self, jwt: &str, policy: &TokenPolicy) -> Result<Documents, Refusal> {
        let mut documents = Documents::none();
        for _ in 0..ROUNDS_MAX {
            let lacking = token::lacking(jwt, policy, &documents)?;
            if lacking.is_empty() {
                break;
            }
            self.add(&mut documents, &lacking).await;
        }
        Ok(documents)
    }

    /// Adds what can be had of these.
    pub(crate) async fn add(&self, documents: &mut Documents, dids: &[Did]) {
        for did in dids {
            let fetched = self.resolve(did).await;
            documents.insert(did.clone(), fetched);
        }
    }

    /// The document of a DID: from the DID itself, from memory, or from where it lies.
    pub(crate) async fn resolve(&self, did: &Did) -> Result<Arc<Document>, DidError> {
        if !did.needs_network() {
            return identity::resolve(did).map(Arc::new);
        }
        let location = self.location(did)?;
        let entry = self.entry(did);
        // Whoever comes first fetches; the others wait for the same answer. If the first gives up, the next goes on.
        let fetch = async {
            let fetched = self.https.get(&location, ACCEPT).await.map_err(DidError::Fetch);
            let document = fetched.and_then(|text| read(did, &text)).map(Arc::new);
            let lifetime = match &document {
                Ok(_) => self.lifetime,
                Err(error) => {
                    tracing::debug!(did = did.redacted(), %error, "did:web");
                    self.failure_lifetime
                }
            };
            (document, Instant::now() + lifetime)
        };
        entry.get_or_init(|| fetch).await.0.clone()
    }

    /// Where the document of a DID is fetched from.
    fn location(&self, did: &Did) -> Result<Location, DidError> {
        if did.method() == "web" && self.enabled {
            return Location::of(did);
        }
        let asked = self.universal_methods.iter().any(|method| method == did.method());
        match &self.universal {
            // A DID has no character that a path would have to encode (DID Core section 3.1).
            Some(resolver) if asked => Ok(Location {
                path: format!("{}{did}", resolver.path),
                ..resolver.clone()
            }),
            _ => Err(DidError::Method),
        }
    }

    /// A small text from an https server that the operator named.
    pub(crate) async fn text(&self, location: &Location) -> Result<String, &'static str> {
        self.https.get(location, "application/jose, text/plain").await
    }

    /// Is a document at hand without any fetch?
    pub(crate) fn knows(&self, did: &Did) -> bool {
        let entries = self.entries();
        let known = entries.get(did).and_then(|entry| entry.get());
        known.is_some_and(|(document, until)| document.is_ok() && *until > Instant::now())
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Did, Arc<OnceCell<Fetched>>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, did: &Did) -> Arc<OnceCell<Fetched>> {
        let now = Instant::now();
        let mut entries = self.entries();
        let fresh = |entry: &Arc<OnceCell<Fetched>>| entry.get().is_none_or(|(_, until)| *until > now);
        if let Some(entry) = entries.get(did).filter(|entry| fresh(entry)) {
            return entry.clone();
        }
        if entries.len() >= ENTRIES_MAX && !entries.contains_key(did) {
            entries.retain(|_, entry| fresh(entry));
            make_room(&mut entries);
        }
        let entry = Arc::new(OnceCell::new());
        entries.insert(did.clone(), entry.clone());
        entry
    }
}

/// A document as it lies on a did:web server, or inside a universal resolver's result (DID Resolution, `didDocument`).
fn read(did: &Did, text: &str) -> Result<Document, DidError> {
    if did.method() == "web" {
        return Document::parse(did, text);
    }
    let result = identity::json::parse_object(text)
        .map_err(|_| DidError::Document("the universal resolver's answer is no JSON object"))?;
    let deactivated = |metadata: &serde_json::Value| metadata.get("deactivated") == Some(&true.into());
    if result.get("didDocumentMetadata").is_some_and(deactivated) {
        return Err(DidError::Document("its owner has deactivated it"));
    }
    match result.get("didDocument") {
        Some(document) => Document::parse(did, &document.to_string()),
        None => Document::parse(did, text),
    }
}

/// Drops a tenth: failures first, then what would expire first. What is being fetched stays, for those who wait.
fn make_room(entries: &mut HashMap<Did, Arc<OnceCell<Fetched>>>) {
    if entries.len() < ENTRIES_MAX {
        return;
    }
    let mut order: Vec<(bool, Instant, Did)> = entries
        .iter()
        .filter_map(|(did, entry)| {
            entry
                .get()
                .map(|(document, until)| (document.is_ok(), *until, did.clone()))
        })
        .collect();
    order.sort();
    for (_, _, did) in order.into_iter().take(ENTRIES_MAX / 10) {
        entries.remove(&did);
    }
    if entries.len() >= ENTRIES_MAX {
        // All of it under way, which the bound on requests makes impossible.
        entries.clear();
    }
}

#[cfg(test)]
mod tests;
