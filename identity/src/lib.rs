//! Who is asking: DIDs, relay tokens, proofs of possession, [`Permit`].
//!
//! The way in, read from the outside: a relay token ([`token::verify`]) says what an issuer granted, a proof
//! ([`proof::Verifier`] over HTTP, [`proof::HolderProof`] over DSIP) says that the holder's key is here now, and
//! the two together make a [`Permit`]. Nothing else makes one, and the cores take nothing else.
//!
//! The algorithm of a signature always comes from the key, never from a header: Ed25519 (EdDSA), P-256 (ES256) and
//! secp256k1 (ES256K). There are no symmetric algorithms, no `none`, and no key ever comes from a relay token's header.
//! Clocks are arguments; randomness is used only to make keys and nonces. No socket is opened here: where a decision
//! needs a document from a network, it says which ([`token::lacking`]), and takes what the caller fetched
//! ([`Documents`]).

mod base64url;
pub mod cose;
pub mod credential;
mod date;
pub mod detached;
mod did;
pub mod did_web;
pub mod document;
mod documents;
pub mod json;
pub mod jws;
mod key;
mod owner;
mod permit;
pub mod policy;
mod presentation;
pub mod proof;
mod random;
mod refusal;
mod signing_key;
pub mod statement;
pub mod token;

pub use did::{DID_LENGTH_MAX, Did, DidError, resolve};
pub use document::Document;
pub use documents::{Documents, did_of};
pub use key::{KeyError, PublicKey, Thumbprint};
pub use owner::Owner;
pub use permit::{Permit, VoucherClaims};
pub use presentation::Presentation;
pub use refusal::Refusal;
pub use signing_key::{SigningKey, SigningKeyError};
pub use token::RelayToken;
