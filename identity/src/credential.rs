//! Verifiable credentials as JWTs: the W3C data model 2.0 secured with JOSE (vc-jose-cose), and 1.1 as a JWT (section
//! 6.3.1 there). Of their types three mean something to a relay: ReputationScore, Role and Organization (DSIP 6.2
//! and 9).
//!
//! Not here: Data Integrity proofs, selective disclosure, presentations, and status lists. A credential that says
//! that its status has to be looked up (`credentialStatus`) is not taken, since nobody looks it up; the operator's
//! deny list takes its `jti`.

use std::fmt;

use serde_json::{Map, Value};

use crate::date::unix;
use crate::did::{Did, DidError};
use crate::documents::Documents;
use crate::jws::{Jws, JwsError};

/// Most subjects of one credential that are looked at.
const SUBJECTS_MAX: usize = 16;
/// Longest role, organization and `jti`.
const NAME_LENGTH_MAX: usize = 256;

/// A credential whose signature, issuer, subject and time have been checked. Only [`verify`] makes one.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    issuer: Did,
    kid: String,
    id: Option<String>,
    score: Option<i64>,
    role: Option<String>,
    organization: Option<String>,
    expires: Option<u64>,
}

/// What a credential has to fit.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    /// Who may issue one.
    pub issuers: &'a [Did],
    /// Whom it must be about.
    pub subject: &'a Did,
    /// Tolerance for clocks that differ, seconds.
    pub leeway: u64,
    /// Unix seconds.
    pub now: u64,
}

/// Why a credential does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialFault {
    /// Not a VC-JWT.
    #[error("it is no VC-JWT with one JSON object as claims")]
    Malformed,
    /// `iss` or `issuer` is missing, or the two differ.
    #[error("it names no issuer, or two of them")]
    NoIssuer,
    /// Its issuer is not on the operator's list.
    #[error("the operator does not list its issuer")]
    Untrusted,
    /// The issuer's document cannot be used.
    #[error("its issuer does not resolve: {0}")]
    Unresolved(DidError),
    /// `kid` names no key of the issuer, or the signature is wrong.
    #[error("its signature does not verify under a key of its issuer that may issue")]
    Signature,
    /// It is about somebody else.
    #[error("it is about somebody else than the token's `sub`")]
    Subject,
    /// It has expired, or is not valid yet.
    #[error("it is not valid at this time, or its times cannot be read")]
    Time,
    /// It asks for a status look-up.
    #[error("it has a `credentialStatus`, which this relay does not look up")]
    Status,
    /// None of the types that mean something here, with its member.
    #[error(
        "it is none of ReputationScore (integer `score`), Role (text `role`), Organization (text `organization`)"
    )]
    Type,
}

impl Credential {
    /// Who issued it.
    pub fn issuer(&self) -> &Did {
        &self.issuer
    }
    /// The DID URL of the issuer's key.
    pub fn kid(&self) -> &str {
        &self.kid
    }
    /// Its own name, `jti` or `id`.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }
    /// Of a ReputationScore: the score.
    pub fn score(&self) -> Option<i64> {
        self.score
    }
    /// Of a Role: what the holder is.
    pub fn role(&self) -> Option<&str> {
        self.role.as_deref()
    }
    /// Of an Organization: whom the holder belongs to.
    pub fn organization(&self) -> Option<&str> {
        self.organization.as_deref()
    }
    /// When it expires, unix seconds.
    pub fn expires(&self) -> Option<u64> {
        self.expires
    }
}

/// Neither holder nor issuer print.
impl fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Credential(by {:?})", self.issuer)
    }
}

/// Whom a credential names as its issuer, before anything is checked.
pub fn issuer_named(text: &str) -> Option<Did> {
    issuer(&parse(text).ok()?.1).ok()
}

/// Verifies a VC-JWT.
pub fn verify(text: &str, rules: &Rules<'_>, documents: &Documents) -> Result<Credential, CredentialFault> {
    let (jws, claims) = parse(text)?;
    let issuer = issuer(&claims)?;
    if !rules.issuers.contains(&issuer) {
        return Err(CredentialFault::Untrusted);
    }
    let document = documents.resolve(&issuer).map_err(CredentialFault::Unresolved)?;
    let kid = jws.header("kid").ok_or(CredentialFault::Signature)?;
    let key = document.issuing_key(kid).ok_or(CredentialFault::Signature)?;
    jws.verify(key).map_err(|_| CredentialFault::Signature)?;
    let expires = check_time(&claims, rules)?;
    let body = body(&claims);
    if body.contains_key("credentialStatus") {
        return Err(CredentialFault::Status);
    }
    let about = about(&claims, rules.subject)?;
    let kinds = one_or_many(body.get("type"));
    let is = |kind: &str| kinds.contains(&kind);
    let text = |name: &str| {
        let text = about.get(name).and_then(Value::as_str);
        text.filter(|text| (1..=NAME_LENGTH_MAX).contains(&text.len()))
            .map(str::to_owned)
    };
    let score = about
        .get("score")
        .and_then(Value::as_i64)
        .filter(|_| is("ReputationScore"));
    let role = text("role").filter(|_| is("Role"));
    let organization = text("organization").filter(|_| is("Organization"));
    if !is("VerifiableCredential") || (score.is_none() && role.is_none() && organization.is_none()) {
        return Err(CredentialFault::Type);
    }
    let id = claims.get("jti").or(body.get("id")).and_then(Value::as_str);
    Ok(Credential {
        id: id.filter(|id| id.len() <= NAME_LENGTH_MAX).map(str::to_owned),
        kid: kid.to_owned(),
        issuer,
        score,
        role,
        organization,
        expires,
    })
}

fn parse(text: &str) -> Result<(Jws<'_>, Map<String, Value>), CredentialFault> {
    let jws = Jws::parse(text, "alg, kid, typ, cty").map_err(|_: JwsError| CredentialFault::Malformed)?;
    let typ_ok = match jws.header_value("typ") {
        None => true,
        Some(Value::String(typ)) => matches!(typ.as_str(), "JWT" | "vc+jwt" | "vc+ld+json+jwt"),
        Some(_) => false,
    };
    let claims = jws.claims().map_err(|_| CredentialFault::Malformed)?;
    if typ_ok {
        Ok((jws, claims))
    } else {
        Err(CredentialFault::Malformed)
    }
}

/// VC 1.1 puts the credential under `vc`, VC 2.0 at the top.
fn body(claims: &Map<String, Value>) -> &Map<String, Value> {
    claims.get("vc").and_then(Value::as_object).unwrap_or(claims)
}

/// `iss`, or `issuer` as text or as an object with `id`; where both are there they are one.
fn issuer(claims: &Map<String, Value>) -> Result<Did, CredentialFault> {
    let inner = body(claims).get("issuer");
    let inner = inner.map(|issuer| issuer.get("id").unwrap_or(issuer));
    let named: Vec<&Value> = claims.get("iss").into_iter().chain(inner).collect();
    let first = named.first().and_then(|issuer| issuer.as_str());
    let one = named.windows(2).all(|pair| pair[0] == pair[1]);
    first
        .filter(|_| one)
        .and_then(|text| Did::parse(text).ok())
        .ok_or(CredentialFault::NoIssuer)
}

/// The latest beginning and the earliest end of all that it names: JWT claims and the data model's own dates.
fn check_time(claims: &Map<String, Value>, rules: &Rules<'_>) -> Result<Option<u64>, CredentialFault> {
    let body = body(claims);
    let seconds = |name: &str| claims.get(name).map(Value::as_u64);
    let date = |name: &str| body.get(name).map(|value| value.as_str().and_then(unix));
    let all = |times: [Option<Option<u64>>; 3]| -> Result<Vec<u64>, CredentialFault> {
        let named = times.into_iter().flatten();
        named.map(|time| time.ok_or(CredentialFault::Time)).collect()
    };
    let from = all([seconds("nbf"), date("validFrom"), date("issuanceDate")])?
        .into_iter()
        .max();
    let until = all([seconds("exp"), date("validUntil"), date("expirationDate")])?
        .into_iter()
        .min();
    let begun = from.is_none_or(|from| from <= rules.now.saturating_add(rules.leeway));
    let over = until.is_some_and(|until| until.saturating_add(rules.leeway) <= rules.now);
    if begun && !over {
        Ok(until)
    } else {
        Err(CredentialFault::Time)
    }
}

/// What it says of the holder.
fn about<'a>(
    claims: &'a Map<String, Value>,
    subject: &Did,
) -> Result<&'a Map<String, Value>, CredentialFault> {
    let subject = Some(subject.as_str());
    let is_subject = |value: &&Value| value.get("id").and_then(Value::as_str) == subject;
    let about = match body(claims).get("credentialSubject") {
        Some(Value::Array(list)) if list.len() <= SUBJECTS_MAX => list.iter().find(is_subject),
        Some(one @ Value::Object(_)) => Some(one).filter(is_subject),
        _ => None,
    };
    let named = claims.get("sub").is_none_or(|sub| sub.as_str() == subject);
    about
        .filter(|_| named)
        .and_then(Value::as_object)
        .ok_or(CredentialFault::Subject)
}

fn one_or_many(value: Option<&Value>) -> Vec<&str> {
    match value {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}
