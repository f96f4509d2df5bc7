//! Who comes for what they have already: an account to look at, a receipt, a live session to steer or end. `exp`
//! gates admission, not these, so an expired token still says who its holder is. No [`crate::Permit`] comes from an
//! [`Owner`]: it opens nothing new.

use std::fmt;

use crate::did::Did;
use crate::documents::Documents;
use crate::permit::{Permit, VoucherClaims};
use crate::proof::{AccountProof, Request, Verifier};
use crate::refusal::Refusal;
use crate::token::{self, RelayToken, TokenPolicy};

/// Somebody who proved a key, or shows a bearer token.
pub struct Owner {
    own: String,
    charged: String,
    others: Vec<Did>,
    token: Option<RelayToken>,
}

impl Owner {
    /// A key alone, which owns the account of its DID.
    pub fn from_key(proof: &AccountProof) -> Owner {
        let did = proof.did().as_str().to_owned();
        Owner {
            charged: did.clone(),
            own: did,
            others: proof.others().to_vec(),
            token: None,
        }
    }

    /// A token, expired or not, and a proof by its holder's key for this request.
    pub fn from_token(
        jwt: &str,
        dpop: &str,
        request: &Request<'_>,
        verifier: &Verifier,
        policy: &TokenPolicy,
        documents: &Documents,
        now: u64,
    ) -> Result<Owner, Refusal> {
        let token = token::verify_but_for_expiry(jwt, policy, documents, now)?;
        verifier.possession(dpop, &token, request, now)?;
        Ok(Owner::of(&token, policy, now))
    }

    /// A bearer token, expired or not.
    pub fn from_bearer(
        jwt: &str,
        policy: &TokenPolicy,
        documents: &Documents,
        now: u64,
    ) -> Result<Owner, Refusal> {
        let token = token::verify_but_for_expiry(jwt, policy, documents, now)?;
        if token.is_bearer() {
            Ok(Owner::of(&token, policy, now))
        } else {
            Err(Refusal::ProofMissing)
        }
    }

    /// Of a bearer's permit: it is shown whole with every call.
    pub fn from_permit(permit: &Permit) -> Owner {
        Owner {
            own: permit.subject().to_owned(),
            charged: permit.account().to_owned(),
            others: Vec::new(),
            token: None,
        }
    }

    fn of(token: &RelayToken, policy: &TokenPolicy, now: u64) -> Owner {
        let charged = token.account();
        Owner {
            own: if token.is_bearer() {
                charged.clone()
            } else {
                token.subject().as_str().to_owned()
            },
            charged,
            others: Vec::new(),
            token: (!token.has_expired(policy, now)).then(|| token.clone()),
        }
    }

    /// The token, if it has not expired: its voucher is credited whatever the call it comes with.
    pub fn token(&self) -> Option<&RelayToken> {
        self.token.as_ref()
    }

    /// Its voucher.
    pub fn voucher(&self) -> Option<VoucherClaims> {
        self.token.as_ref().map(RelayToken::voucher)
    }

    /// The owner's own account, and the owner of sessions as in [`crate::Permit::subject`]: the DID whose key was
    /// proven, or a bearer account.
    pub fn own(&self) -> &str {
        &self.own
    }

    /// Further accounts of the same key, where the proof did not say which of its DIDs it means.
    pub fn others(&self) -> impl Iterator<Item = &str> {
        self.others.iter().map(Did::as_str)
    }

    /// Is this account the owner's own, or one that the owner may charge?
    pub fn may_see(&self, account: &str) -> bool {
        self.own == account || self.charged == account || self.others().any(|other| other == account)
    }

    /// The account that sessions under the token are charged to, which a grant may make somebody else's.
    pub fn charged(&self) -> &str {
        &self.charged
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Owner(…)")
    }
}
