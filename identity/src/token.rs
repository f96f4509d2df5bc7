//! Relay tokens: JWTs (RFC 7519) of type "relay+jwt" by an issuer that the operator trusts, for one holder and one
//! operator.
//!
//! An issuer can only add money. Spending an account needs a key of the account's DID: `payer` other than `sub`
//! needs the payer's own grant, a `cnf` key that is not one of `sub`'s needs the holder's own delegation, and a
//! bearer token spends nothing but its own voucher.

mod claims;
mod grant;
mod issue;
mod lacking;
mod reputation;

use std::fmt;

use crate::credential::Credential;
use crate::did::Did;
use crate::documents::Documents;
use crate::jws::{Jws, JwsError};
use crate::key::{Thumbprint, sha256};
use crate::permit::VoucherClaims;
use crate::refusal::Refusal;
use claims::Claims;

pub use grant::{PayerGrant, delegation, payer_grant};
pub use issue::{Confirmation, Issue, issue};
pub use lacking::lacking;
pub use reputation::CREDENTIALS_MAX;

/// The JWS `typ` of a relay token.
pub const TYP: &str = "relay+jwt";
/// Longest token. HTTP servers rarely take longer header lines; without credentials a token has about 700 bytes.
pub const TOKEN_LENGTH_MAX: usize = 16 * 1024;
/// Longest `jti`, `room` and `tariff`.
pub const NAME_LENGTH_MAX: usize = 256;

/// What the operator accepts.
#[derive(Clone, Debug)]
pub struct TokenPolicy {
    /// The DID that `aud` has to name.
    pub operator: Did,
    /// Issuers whose tokens are taken.
    pub issuers: Vec<Did>,
    /// Largest `exp - iat`, seconds.
    pub lifetime_max: u64,
    /// Tolerance for clocks that differ, seconds.
    pub leeway: u64,
    /// Unix seconds: tokens that were issued then or before are refused, for what of them was credited is not known.
    pub issued_after: u64,
    /// May tokens with `bearer` be used?
    pub allow_bearer: bool,
    /// Whose credentials in `vc` are looked at.
    pub credential_issuers: Vec<Did>,
}

impl TokenPolicy {
    /// One operator and its issuers, with the defaults: 24 h, 30 s leeway, no bearer tokens.
    pub fn new(operator: Did, issuers: Vec<Did>) -> TokenPolicy {
        TokenPolicy {
            operator,
            issuers,
            lifetime_max: 24 * 3600,
            leeway: 30,
            issued_after: 0,
            allow_bearer: false,
            credential_issuers: Vec::new(),
        }
    }
}

/// What a token opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Services {
    /// The SFU.
    pub sfu: bool,
    /// The TURN server.
    pub turn: bool,
}

/// A verified relay token. Only [`verify`] makes one.
#[derive(Clone)]
pub struct RelayToken {
    issuer: Did,
    issuer_kid: String,
    subject: Did,
    audience: Did,
    id: String,
    issued_at: u64,
    expires: u64,
    balance_msat: u64,
    payer: Option<(Did, PayerGrant)>,
    /// Keys that prove possession.
    holder_keys: Vec<Thumbprint>,
    services: Services,
    room: Option<String>,
    tariff: Option<String>,
    reputation: Option<i64>,
    issuers_score: Option<i64>,
    /// Those in `vc` first, then those that the holder presented since.
    credentials: Vec<Credential>,
    /// How many of them are the token's own.
    credentials_inside: usize,
    bearer: bool,
    hash: [u8; 32],
}

/// Verifies a token for admission at `now` (unix seconds), where every DID in it is a did:key or did:jwk.
pub fn verify(jwt: &str, policy: &TokenPolicy, now: u64) -> Result<RelayToken, Refusal> {
    verify_with(jwt, policy, &Documents::none(), now)
}

/// Verifies a token for admission at `now` (unix seconds). `documents` holds what [`lacking()`] asked for.
pub fn verify_with(
    jwt: &str,
    policy: &TokenPolicy,
    documents: &Documents,
    now: u64,
) -> Result<RelayToken, Refusal> {
    let token = verify_but_for_expiry(jwt, policy, documents, now)?;
    if token.has_expired(policy, now) {
        return Err(Refusal::TokenExpired);
    }
    Ok(token)
}

/// A token whose form has been checked and whose issuer is on the operator's list. Nothing it says is believed yet.
struct Candidate<'a> {
    jws: Jws<'a>,
    claims: Claims,
    issuer: Did,
    kid: String,
}

impl<'a> Candidate<'a> {
    fn read(jwt: &'a str, policy: &TokenPolicy) -> Result<Candidate<'a>, Refusal> {
        if jwt.len() > TOKEN_LENGTH_MAX {
            return Err(Refusal::TokenMalformed {
                field: "JWT",
                fix: "send at most 16 KiB",
            });
        }
        let jws = Jws::parse(jwt, "alg, typ, kid").map_err(|error| match error {
            JwsError::HeaderMember(_) => Refusal::TokenMalformed {
                field: "header",
                fix: "it may contain `alg`, `typ` and `kid` only; no `jwk`, `jku`, `x5u` or `crit`",
            },
            _ => Refusal::TokenMalformed {
                field: "JWT",
                fix: "send a compact JWS: three base64url parts without padding, with a JSON object as header",
            },
        })?;
        if jws.header("typ") != Some(TYP) {
            return Err(Refusal::TokenMalformed {
                field: "typ",
                fix: "the header's `typ` must be \"relay+jwt\"",
            });
        }
        let claims = Claims::parse(jws.payload())?;
        // The issuer is looked up in the operator's list before anything it named is looked at.
        let issuer = claims.did("iss")?;
        if !policy.issuers.contains(&issuer) {
            return Err(Refusal::TokenUntrustedIssuer);
        }
        let kid = jws.header("kid").ok_or(Refusal::TokenMalformed {
            field: "kid",
            fix: "the header must name the issuer's key as a DID URL, `iss` + `#` + fragment",
        })?;
        let kid = kid.to_owned();
        Ok(Candidate {
            jws,
            claims,
            issuer,
            kid,
        })
    }

    /// Did a key of the issuer sign it, for this operator?
    fn authenticate(&self, policy: &TokenPolicy, documents: &Documents) -> Result<(), Refusal> {
        let document = documents.resolve(&self.issuer).map_err(Refusal::TokenIssuer)?;
        let key = document.issuing_key(&self.kid).ok_or(Refusal::TokenMalformed {
            field: "kid",
            fix: "it must be the DID URL of one of the issuer's own keys",
        })?;
        self.jws.verify(key).map_err(|error| match error {
            JwsError::Algorithm => Refusal::TokenMalformed {
                field: "alg",
                fix: "it must be that of the issuer's key: EdDSA for Ed25519, ES256 for P-256, ES256K for secp256k1",
            },
            _ => Refusal::TokenSignature,
        })?;
        if self.claims.did("aud")? == policy.operator {
            Ok(())
        } else {
            Err(Refusal::TokenAudience)
        }
    }
}

/// For an [`crate::Owner`]: `exp` is not looked at. A delegation that has passed still ends what its key may do.
pub(crate) fn verify_but_for_expiry(
    jwt: &str,
    policy: &TokenPolicy,
    documents: &Documents,
    now: u64,
) -> Result<RelayToken, Refusal> {
    let candidate = Candidate::read(jwt, policy)?;
    candidate.authenticate(policy, documents)?;
    let Candidate {
        claims, issuer, kid, ..
    } = candidate;
    let audience = claims.did("aud")?;
    let (issued_at, not_before) = (claims.integer("iat")?, claims.integer("nbf")?);
    let mut expires = claims.integer("exp")?;
    let lifetime = expires.checked_sub(issued_at).filter(|lifetime| *lifetime > 0);
    let lifetime = lifetime.ok_or(Refusal::TokenMalformed {
        field: "exp",
        fix: "it must be later than `iat`",
    })?;
    if lifetime > policy.lifetime_max {
        return Err(Refusal::TokenLifetime {
            maximum: policy.lifetime_max,
        });
    }
    if issued_at <= policy.issued_after {
        return Err(Refusal::TokenExpired);
    }
    if issued_at.max(not_before) > now.saturating_add(policy.leeway) {
        return Err(Refusal::TokenNotYetValid);
    }
    let id = claims.name("jti")?.ok_or(Refusal::TokenMalformed {
        field: "jti",
        fix: "every token needs one",
    })?;
    let subject = claims.did("sub")?;
    let holder = documents.resolve(&subject).map_err(Refusal::TokenHolder)?;

    let bearer = claims.boolean("bearer")?;
    if bearer && !policy.allow_bearer {
        return Err(Refusal::BearerNotAllowed);
    }
    if bearer
        && ["payer", "payer_grant", "cnf", "delegation"]
            .iter()
            .any(|name| claims.has(name))
    {
        return Err(Refusal::TokenMalformed {
            field: "bearer",
            fix: "a bearer token spends only its own voucher; leave out `payer`, `payer_grant`, `cnf` and `delegation`",
        });
    }
    let payer = match claims.has("payer").then(|| claims.did("payer")).transpose()? {
        Some(payer) if payer != subject => {
            let text = claims.text("payer_grant")?;
            let grant = grant::verify_payer_grant(text, &payer, &subject, &audience, documents)?;
            expires = expires.min(grant.expires);
            Some((payer, grant))
        }
        _ => None,
    };
    let holder_keys = match claims.confirmation()? {
        None => holder
            .authentication
            .iter()
            .map(|method| method.key.thumbprint())
            .collect(),
        Some(confirmation) => {
            let thumbprint = confirmation.thumbprint(documents)?;
            if !holder.has_key(&thumbprint) {
                let text = claims.text("delegation")?;
                let until = grant::verify_delegation(text, &confirmation, &holder, &audience)?;
                if until.saturating_add(policy.leeway) <= now {
                    return Err(Refusal::TokenExpired);
                }
                expires = expires.min(until);
            }
            vec![thumbprint]
        }
    };
    let issuers_score = reputation::issuers_score(&claims, &issuer)?;
    let credentials = reputation::credentials(&claims, &subject, policy, documents, now)?;
    Ok(RelayToken {
        balance_msat: claims.integer("balance_msat")?,
        services: claims.services()?,
        room: claims.name("room")?,
        tariff: claims.name("tariff")?,
        reputation: issuers_score.or(credentials.iter().filter_map(Credential::score).max()),
        issuers_score,
        credentials_inside: credentials.len(),
        credentials,
        issuer_kid: kid,
        hash: sha256(jwt.as_bytes()),
        issuer,
        subject,
        audience,
        id,
        issued_at,
        expires,
        payer,
        holder_keys,
        bearer,
    })
}

impl RelayToken {
    /// `iss`.
    pub fn issuer(&self) -> &Did {
        &self.issuer
    }
    /// The DID URL of the issuer's key, for deny lists.
    pub fn issuer_kid(&self) -> &str {
        &self.issuer_kid
    }
    /// `sub`. Named by the issuer; proven only once a [`crate::Permit`] says so.
    pub fn subject(&self) -> &Did {
        &self.subject
    }
    /// `aud`: the operator.
    pub fn audience(&self) -> &Did {
        &self.audience
    }
    /// `jti`.
    pub fn id(&self) -> &str {
        &self.id
    }
    /// `iat`, unix seconds.
    pub fn issued_at(&self) -> u64 {
        self.issued_at
    }
    /// The earliest of `exp` and the `exp` of grants inside, unix seconds.
    pub fn expires(&self) -> u64 {
        self.expires
    }
    /// The voucher's amount.
    pub fn balance_msat(&self) -> u64 {
        self.balance_msat
    }
    /// The payer and its grant, if it is somebody else than the holder.
    pub fn payer(&self) -> Option<(&Did, &PayerGrant)> {
        self.payer.as_ref().map(|(payer, grant)| (payer, grant))
    }
    /// What it opens.
    pub fn services(&self) -> Services {
        self.services
    }
    /// The only room it opens.
    pub fn room(&self) -> Option<&str> {
        self.room.as_deref()
    }
    /// The tariff that the issuer quoted.
    pub fn tariff(&self) -> Option<&str> {
        self.tariff.as_deref()
    }
    /// The holder's reputation, as far as it is vouched for.
    pub fn reputation(&self) -> Option<i64> {
        self.reputation
    }
    /// The token issuer's own opinion of the holder.
    pub fn issuers_score(&self) -> Option<i64> {
        self.issuers_score
    }
    /// The credentials of the holder that count, in the order of `vc`, then those presented since.
    pub fn credentials(&self) -> &[Credential] {
        &self.credentials
    }
    /// Those of them that were presented.
    pub fn presented(&self) -> &[Credential] {
        &self.credentials[self.credentials_inside..]
    }
    /// The same token with these in place of what was presented before.
    pub(crate) fn with_presented(&self, presented: &[Credential]) -> RelayToken {
        let mut token = self.clone();
        token.credentials.truncate(self.credentials_inside);
        token.credentials.extend_from_slice(presented);
        let scores = token.credentials.iter().filter_map(Credential::score);
        token.reputation = token.issuers_score.or(scores.max());
        token
    }
    /// May it be used without a proof?
    pub fn is_bearer(&self) -> bool {
        self.bearer
    }
    /// SHA-256 of the compact token, as in `ath`.
    pub(crate) fn hash(&self) -> &[u8; 32] {
        &self.hash
    }
    /// Does this key prove possession?
    pub(crate) fn is_held_by(&self, key: &Thumbprint) -> bool {
        self.holder_keys.contains(key)
    }

    /// The account that is credited and charged: the payer's DID, or the holder's, or, for a bearer token,
    /// "bearer:" and a hash over (`iss`, `jti`).
    pub fn account(&self) -> String {
        if self.bearer {
            // NUL is in no DID, so (iss, jti) pairs cannot run into each other.
            let hash = sha256(format!("{}\0{}", self.issuer, self.id).as_bytes());
            let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            return format!("bearer:{hex}");
        }
        self.payer
            .as_ref()
            .map_or(&self.subject, |(payer, _)| payer)
            .as_str()
            .to_owned()
    }

    /// What the ledger credits once.
    pub fn voucher(&self) -> VoucherClaims {
        VoucherClaims {
            issuer: self.issuer.clone(),
            id: self.id.clone(),
            subject: self.subject.clone(),
            payer: self.payer.as_ref().map(|(payer, _)| payer.clone()),
            audience: self.audience.clone(),
            balance_msat: self.balance_msat,
            account: self.account(),
        }
    }

    /// Is `exp`, with the leeway, behind us?
    pub(crate) fn has_expired(&self, policy: &TokenPolicy, now: u64) -> bool {
        self.expires.saturating_add(policy.leeway) <= now
    }

    /// A top-up: the voucher, if it credits `account` (of the caller's permit or proof). A top-up only adds money,
    /// so it needs no proof of its own.
    pub fn voucher_for(&self, account: &str) -> Result<VoucherClaims, Refusal> {
        if self.account() == account {
            Ok(self.voucher())
        } else {
            Err(Refusal::TokenSubject)
        }
    }
}

/// The `jti` only: a token names people.
impl fmt::Debug for RelayToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "RelayToken({:?} for {:?}, {} msat)",
            self.issuer, self.subject, self.balance_msat
        )
    }
}

/// Header and claims as JSON without any check, for `milliway token show`. Not a verification.
pub fn show_unverified(jwt: &str) -> Option<(serde_json::Value, serde_json::Value)> {
    let mut parts = jwt.trim().split('.');
    let mut part = || serde_json::from_slice(&crate::base64url::decode(parts.next()?)?).ok();
    Some((part()?, part()?))
}
