//! Which documents a token needs from a network, asked before it is verified.
//!
//! In this order, so that nobody makes the relay fetch what a stranger names: the issuer must be on the operator's
//! list before its own document is asked for, and must have signed the token for this operator before anything else
//! that the token names is.

use super::claims::confirmation;
use super::issue::Confirmation;
use super::reputation::issuers_named;
use super::{Candidate, TokenPolicy};
use crate::did::Did;
use crate::documents::{Documents, did_of};
use crate::refusal::Refusal;

/// The documents to fetch next; none when the token can be verified. A caller fetches them, notes what came of it in
/// `documents` and asks again.
pub fn lacking(jwt: &str, policy: &TokenPolicy, documents: &Documents) -> Result<Vec<Did>, Refusal> {
    let candidate = Candidate::read(jwt, policy)?;
    if documents.lacks(&candidate.issuer) {
        return Ok(vec![candidate.issuer]);
    }
    let claims = &candidate.claims;
    let mut named: Vec<Did> = ["sub", "payer"]
        .iter()
        .filter_map(|name| claims.did(name).ok())
        .collect();
    let key = claims.value("cnf").and_then(|value| confirmation(value).ok());
    if let Some(Confirmation::Kid(url)) = key {
        named.extend(did_of(&url));
    }
    named.extend(issuers_named(claims, policy));
    named.retain(|did| documents.lacks(did));
    named.sort();
    named.dedup();
    if !named.is_empty() {
        candidate.authenticate(policy, documents)?;
    }
    Ok(named)
}
