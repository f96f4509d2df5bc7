//! Verifiable credentials as JWTs: the W3C data model 2.0 secured with JOSE (vc-jose-cose), and 1.1 as a JWT (section
//! 6.3.1 there). Of their types three mean something to a relay: ReputationScore, Role and Organization (DSIP 6.2
//! and 9).
//!
//! Not here: Data Integrity proofs, selective disclosure, presentations (`presentation`), and status lists. A credential that says
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
    leeway: u64,
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
    /// From when on it counts no longer, unix seconds: when it expires, and the tolerance for clocks.
    pub fn counts_until(&self) -> Option<u64> {
        self.expires.map(|expires| expires.saturating_add(self.leeway))
    }
    /// Has it expired since it was verified?
    pub(crate) fn is_over(&self, now: u64) -> bool {
        self.counts_until().is_some_and(|until| until <= now)
    }
}

impl CredentialFault {
    /// Stable, for programs.
    pub fn slug(&self) -> &'static str {
        match self {
            CredentialFault::Malformed | CredentialFault::NoIssuer => "credential-malformed",
            CredentialFault::Untrusted => "credential-untrusted-issuer",
            CredentialFault::Unresolved(_) => "credential-issuer",
            CredentialFault::Signature => "credential-signature",
            CredentialFault::Subject => "credential-subject",
            CredentialFault::Time => "credential-expired",
            CredentialFault::Status => "credential-status",
            CredentialFault::Type => "credential-type",
        }
    }

    /// As HTTP and DSIP (21.A) have it: whose fault it is.
    pub fn status(&self) -> u16 {
        match self {
            CredentialFault::Malformed | CredentialFault::NoIssuer => 400,
            CredentialFault::Signature => 401,
            CredentialFault::Unresolved(_) => 503,
            _ => 403,
        }
    }
}

/// What a credential says of itself, before anything is checked: for who looks through their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glance {
    /// Who is said to have issued it.
    pub issuer: Did,
    /// Its types.
    pub types: Vec<String>,
    /// When it expires, unix seconds, as far as that can be read.
    pub expires: Option<u64>,
}

/// Looks at a VC-JWT without checking it.
pub fn glance(text: &str) -> Option<Glance> {
    let (_, claims) = parse(text).ok()?;
    let issuer = issuer(&claims).ok()?;
    let types = one_or_many(body(&claims).get("type"));
    let types = types.into_iter().map(str::to_owned).collect();
    let expires = ends(&claims).ok()?;
    Some(Glance {
        issuer,
        types,
        expires,
    })
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
        leeway: rules.leeway,
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
    let from = times(claims, "nbf", ["validFrom", "issuanceDate"])?
        .into_iter()
        .max();
    let until = ends(claims)?;
    let begun = from.is_none_or(|from| from <= rules.now.saturating_add(rules.leeway));
    let over = until.is_some_and(|until| until.saturating_add(rules.leeway) <= rules.now);
    if begun && !over {
        Ok(until)
    } else {
        Err(CredentialFault::Time)
    }
}

fn ends(claims: &Map<String, Value>) -> Result<Option<u64>, CredentialFault> {
    let ends = times(claims, "exp", ["validUntil", "expirationDate"])?;
    Ok(ends.into_iter().min())
}

/// Those of a claim and two dates that are named. One that cannot be read is as bad as one that has passed.
fn times(claims: &Map<String, Value>, claim: &str, dates: [&str; 2]) -> Result<Vec<u64>, CredentialFault> {
    let body = body(claims);
    let seconds = claims.get(claim).map(Value::as_u64);
    let dates = dates.map(|name| body.get(name).map(|value| value.as_str().and_then(unix)));
    let named = [seconds, dates[0], dates[1]].into_iter().flatten();
    named.map(|time| time.ok_or(CredentialFault::Time)).collect()
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
