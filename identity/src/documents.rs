//! The DID documents that a decision may look at: those that somebody fetched for it, and those that did:key and
//! did:jwk carry inside. Deciding itself opens no socket; what it lacks it names, and the caller fetches that.

use std::collections::HashMap;
use std::sync::Arc;

use crate::did::{Did, DidError, resolve};
use crate::document::Document;

/// What is known of DIDs that need a network, failures included.
#[derive(Clone, Debug, Default)]
pub struct Documents(HashMap<Did, Result<Arc<Document>, DidError>>);

impl Documents {
    /// Nothing was fetched: did:key and did:jwk only.
    pub fn none() -> Documents {
        Documents::default()
    }

    /// Notes what came of fetching a document.
    pub fn insert(&mut self, did: Did, fetched: Result<Arc<Document>, DidError>) {
        self.0.insert(did, fetched);
    }

    /// Takes what others know as well.
    pub fn extend(&mut self, others: Documents) {
        self.0.extend(others.0);
    }

    /// The document of a DID.
    pub fn resolve(&self, did: &Did) -> Result<Arc<Document>, DidError> {
        match self.0.get(did) {
            Some(known) => known.clone(),
            None => resolve(did).map(Arc::new),
        }
    }

    /// Would [`Documents::resolve`] need a document that nobody fetched yet?
    pub fn lacks(&self, did: &Did) -> bool {
        did.needs_network() && !self.0.contains_key(did)
    }

    /// The key that a DID URL names, if it is an authentication key.
    pub fn key(&self, url: &str) -> Option<crate::PublicKey> {
        self.resolve(&did_of(url)?).ok()?.key(url).cloned()
    }
}

/// The DID of a DID URL with a fragment.
pub fn did_of(url: &str) -> Option<Did> {
    Did::parse(url.split_once('#')?.0).ok()
}
