//! A presentation: credentials that a holder shows after the token, for a service that asks for more or because others
//! expired. That the holder shows them, to this relay and now, is said by whoever carries them: in DSIP the signature of
//! the envelope, over its receiver and over the nonce that the relay asked with. So there is no wrapper (a VP-JWT) around
//! them that would say the same again.

use crate::credential::{self, Credential, CredentialFault, Rules};
use crate::did::Did;
use crate::documents::Documents;
use crate::permit::Permit;
use crate::refusal::Refusal;
use crate::token::{CREDENTIALS_MAX, TokenPolicy};

/// What came of looking at each credential. Only [`Presentation::verify`] makes one.
#[derive(Clone, Debug)]
pub struct Presentation {
    subject: Did,
    results: Vec<Result<Credential, CredentialFault>>,
}

impl Presentation {
    /// Verifies VC-JWTs about the holder of a permit, the first [`CREDENTIALS_MAX`] of them. One that does not verify
    /// counts as absent, and says why.
    ///
    /// # Errors
    /// A bearer, who is nobody that a credential could be about.
    pub fn verify(
        texts: &[String],
        permit: &Permit,
        policy: &TokenPolicy,
        documents: &Documents,
        now: u64,
    ) -> Result<Presentation, Refusal> {
        let holder = permit.holder().ok_or(Refusal::ProofMissing)?;
        let rules = Rules {
            issuers: &policy.credential_issuers,
            subject: holder,
            leeway: policy.leeway,
            now,
        };
        let looked_at = texts.iter().take(CREDENTIALS_MAX);
        let results = looked_at.map(|text| credential::verify(text, &rules, documents));
        Ok(Presentation {
            subject: holder.clone(),
            results: results.collect(),
        })
    }

    /// Whose documents are needed to verify these: those of issuers that the operator lists, which a network has.
    pub fn issuers_named(texts: &[String], policy: &TokenPolicy) -> Vec<Did> {
        let named = texts.iter().take(CREDENTIALS_MAX);
        let mut issuers: Vec<Did> = named
            .filter_map(|text| credential::issuer_named(text))
            .filter(|issuer| issuer.needs_network() && policy.credential_issuers.contains(issuer))
            .collect();
        issuers.sort();
        issuers.dedup();
        issuers
    }

    /// Whom they are about.
    pub fn subject(&self) -> &Did {
        &self.subject
    }

    /// Of each, in order, what came of it.
    pub fn results(&self) -> &[Result<Credential, CredentialFault>] {
        &self.results
    }

    /// Those that verify.
    pub(crate) fn accepted(&self) -> Vec<Credential> {
        let accepted = self.results.iter().filter_map(|result| result.as_ref().ok());
        accepted.cloned().collect()
    }
}
