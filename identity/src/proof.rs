//! Proofs that a key is here, now, for this request: DPoP over HTTP (RFC 9449) and a signature over a challenge
//! (DSIP).

mod dpop;
mod holder;
mod nonce;
mod replay;

pub use dpop::{AccountProof, Possession, Request, Verifier, account_named, sign_dpop};
pub use holder::{CHALLENGE_LIFETIME, Challenge, HolderProof};
