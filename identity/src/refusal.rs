//! Why somebody does not get in. Each refusal has a stable slug (the end of a problem type, RFC 9457), an HTTP
//! status and a sentence that says what to do. No refusal repeats what the caller sent.

use crate::did::DidError;
use crate::jws::ALGORITHMS;
use crate::key::KeyError;

/// One variant per cause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No token where one is needed.
    #[error(
        "no relay token was sent; send `Authorization: DPoP <token>` with a token from an issuer of this relay"
    )]
    TokenMissing,
    /// A claim or header member is missing or wrong.
    #[error("the relay token's `{field}` is not usable: {fix}")]
    TokenMalformed {
        /// The claim or header member.
        field: &'static str,
        /// What to change.
        fix: &'static str,
    },
    /// The issuer's signature does not verify.
    #[error(
        "the relay token's signature does not verify under the issuer's key named in `kid`; get a new token"
    )]
    TokenSignature,
    /// `iss` is not on the operator's list.
    #[error(
        "this relay does not take tokens of this issuer; get one from an issuer that the relay's operator lists"
    )]
    TokenUntrustedIssuer,
    /// `aud` is another operator.
    #[error("the relay token is for another relay; get one whose `aud` is this relay's DID")]
    TokenAudience,
    /// `exp` has passed, of the token or of a grant in it.
    #[error("the `exp` of the relay token, or of a grant inside it, has passed; get a new one")]
    TokenExpired,
    /// `nbf` or `iat` lies ahead.
    #[error(
        "the relay token is not valid yet (`nbf` or `iat` lies ahead); wait, or set the issuer's clock right"
    )]
    TokenNotYetValid,
    /// `exp - iat` is above the operator's maximum.
    #[error(
        "the relay token lives longer than this relay allows; issue it with `exp - iat` of at most {maximum} seconds"
    )]
    TokenLifetime {
        /// Seconds.
        maximum: u64,
    },
    /// The issuer's document cannot be had or used.
    #[error("the issuer's DID document cannot be used now, so its token cannot be checked: {0}")]
    TokenIssuer(DidError),
    /// `sub` has no usable key.
    #[error("the holder's DID in `sub` has no usable key: {0}")]
    TokenHolder(DidError),
    /// The token belongs to somebody else than the caller.
    #[error("this token credits another account; send one with the same `sub` and `payer` as your session's")]
    TokenSubject,
    /// `payer` without a valid `payer_grant`.
    #[error("`payer` is not `sub` and `payer_grant` does not prove the payer's consent: {fix}")]
    PayerGrant {
        /// What to change.
        fix: &'static str,
    },
    /// `cnf` names a key that is not the holder's, without a valid `delegation`.
    #[error("`cnf` is not a key of `sub` and `delegation` does not prove the holder's consent: {fix}")]
    Delegation {
        /// What to change.
        fix: &'static str,
    },
    /// The operator does not allow bearer tokens.
    #[error("this relay does not allow bearer tokens; get a token without `bearer` and send a DPoP proof")]
    BearerNotAllowed,
    /// A token that needs a proof came without one.
    #[error(
        "this token needs a proof of its holder's key; send `Authorization: DPoP <token>` and a `DPoP` header"
    )]
    ProofMissing,
    /// The proof is not well formed.
    #[error("the proof's `{field}` is not usable: {fix}")]
    ProofMalformed {
        /// The claim or header member.
        field: &'static str,
        /// What to change.
        fix: &'static str,
    },
    /// The proof's key is refused.
    #[error("the proof's `jwk` is refused: {0}")]
    ProofKeyRefused(KeyError),
    /// The proof's signature does not verify.
    #[error("the proof's signature does not verify under its key; sign again with the holder's key")]
    ProofSignature,
    /// The proof is by another key than the token's holder.
    #[error(
        "the proof is signed by a key that is not the token holder's; sign with a key of `sub`, or the one in `cnf`"
    )]
    ProofKey,
    /// The proof was made for another request or token.
    #[error("the proof's `{field}` is for something else: {fix}")]
    ProofMismatch {
        /// The claim.
        field: &'static str,
        /// What to change.
        fix: &'static str,
    },
    /// The proof's `iat` is too far from now.
    #[error("the proof's `iat` is too far from this relay's time; set the clock right and sign again")]
    ProofExpired,
    /// The proof was used before.
    #[error("this proof was used before; make a new one, with its own `jti`, for every request")]
    ProofReplayed,
    /// No nonce of this node, or one that is too old.
    #[error(
        "the proof needs a fresh `nonce` of this relay; take the one in the `DPoP-Nonce` header and sign again"
    )]
    NonceRequired,
    /// More proofs than the relay can remember.
    #[error("too many proofs in a short time; wait a minute and try again")]
    ProofsExhausted,
    /// The token does not open this service.
    #[error("the token does not open this service; get one whose `service` lists it")]
    ServiceForbidden,
    /// The operator, or a list that the operator listens to, denies the token, its holder, its issuer or a key.
    #[error(
        "the operator of this relay does not serve this token, its holder or its issuer; ask the operator why"
    )]
    Denied,
    /// A cap on what the issuer may give.
    #[error(
        "the token's voucher is above what the operator takes from its issuer; ask the issuer for a smaller one, or wait a day"
    )]
    IssuerLimit,
    /// The reputation, role or organization that the service asks for is missing.
    #[error(
        "this service asks for more reputation, or for a credential, than the token brings; see the operator's policy"
    )]
    ReputationTooLow,
    /// The token opens another room.
    #[error("the token opens another room; join the one in its `room`, or get a token for this one")]
    RoomForbidden,
}

impl Refusal {
    /// Every slug, for those who explain them.
    pub const SLUGS: &[&str] = &[
        "bearer-not-allowed",
        "delegation",
        "denied",
        "issuer-limit",
        "payer-grant",
        "proof-expired",
        "proof-key",
        "proof-malformed",
        "proof-mismatch",
        "proof-missing",
        "proof-replayed",
        "proof-signature",
        "rate-limited",
        "reputation-too-low",
        "room-forbidden",
        "service-forbidden",
        "token-audience",
        "token-expired",
        "token-holder",
        "token-issuer",
        "token-lifetime",
        "token-malformed",
        "token-missing",
        "token-not-yet-valid",
        "token-signature",
        "token-subject",
        "token-untrusted-issuer",
        "use_dpop_nonce",
    ];

    /// The end of the problem type.
    pub fn slug(&self) -> &'static str {
        match self {
            Refusal::TokenMissing => "token-missing",
            Refusal::TokenMalformed { .. } => "token-malformed",
            Refusal::TokenSignature => "token-signature",
            Refusal::TokenUntrustedIssuer => "token-untrusted-issuer",
            Refusal::TokenAudience => "token-audience",
            Refusal::TokenExpired => "token-expired",
            Refusal::TokenNotYetValid => "token-not-yet-valid",
            Refusal::TokenLifetime { .. } => "token-lifetime",
            Refusal::TokenIssuer(_) => "token-issuer",
            Refusal::TokenHolder(_) => "token-holder",
            Refusal::TokenSubject => "token-subject",
            Refusal::PayerGrant { .. } => "payer-grant",
            Refusal::Delegation { .. } => "delegation",
            Refusal::BearerNotAllowed => "bearer-not-allowed",
            Refusal::ProofMissing => "proof-missing",
            Refusal::ProofMalformed { .. } | Refusal::ProofKeyRefused(_) => "proof-malformed",
            Refusal::ProofSignature => "proof-signature",
            Refusal::ProofKey => "proof-key",
            Refusal::ProofMismatch { .. } => "proof-mismatch",
            Refusal::ProofExpired => "proof-expired",
            Refusal::ProofReplayed => "proof-replayed",
            Refusal::NonceRequired => "use_dpop_nonce",
            Refusal::ProofsExhausted => "rate-limited",
            Refusal::ServiceForbidden => "service-forbidden",
            Refusal::RoomForbidden => "room-forbidden",
            Refusal::Denied => "denied",
            Refusal::IssuerLimit => "issuer-limit",
            Refusal::ReputationTooLow => "reputation-too-low",
        }
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Refusal::ServiceForbidden
            | Refusal::RoomForbidden
            | Refusal::TokenSubject
            | Refusal::Denied
            | Refusal::IssuerLimit
            | Refusal::ReputationTooLow => 403,
            Refusal::ProofsExhausted => 429,
            _ => 401,
        }
    }

    /// The `WWW-Authenticate` value that goes with a 401 (RFC 9449 sections 7.1 and 9).
    pub fn www_authenticate(&self) -> Option<String> {
        let error = match self {
            _ if self.status() != 401 => return None,
            Refusal::TokenMissing => return Some(format!(r#"DPoP algs="{ALGORITHMS}""#)),
            Refusal::NonceRequired => "use_dpop_nonce",
            Refusal::ProofMissing
            | Refusal::ProofMalformed { .. }
            | Refusal::ProofKeyRefused(_)
            | Refusal::ProofSignature
            | Refusal::ProofMismatch { .. }
            | Refusal::ProofExpired
            | Refusal::ProofReplayed => "invalid_dpop_proof",
            _ => "invalid_token",
        };
        Some(format!(r#"DPoP error="{error}", algs="{ALGORITHMS}""#))
    }
}
