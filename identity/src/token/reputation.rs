//! A holder's reputation: the issuer's own score, or ReputationScore credentials by those whom the operator lists.

use serde_json::Value;

use super::TokenPolicy;
use super::claims::Claims;
use crate::credential::{self, Credential};
use crate::did::Did;
use crate::documents::Documents;
use crate::refusal::Refusal;

/// Most credentials looked at in one token, and in one presentation: each costs a signature check.
pub const CREDENTIALS_MAX: usize = 4;

/// The token issuer's own score.
pub(super) fn issuers_score(claims: &Claims, issuer: &Did) -> Result<Option<i64>, Refusal> {
    let Some(reputation) = claims.value("reputation") else {
        return Ok(None);
    };
    let score = reputation.get("score").and_then(Value::as_i64);
    let by_issuer = reputation.get("iss").and_then(Value::as_str) == Some(issuer.as_str());
    match score {
        Some(score) if by_issuer => Ok(Some(score)),
        _ => Err(Refusal::TokenMalformed {
            field: "reputation",
            fix: "it must be {\"score\": integer, \"iss\": the token's own `iss`}; put other scorers into `vc`",
        }),
    }
}

/// The credentials in `vc` that verify. One that does not, or whose issuer is not listed, counts as absent: it could
/// only have helped.
pub(super) fn credentials(
    claims: &Claims,
    subject: &Did,
    policy: &TokenPolicy,
    documents: &Documents,
    now: u64,
) -> Result<Vec<Credential>, Refusal> {
    let rules = credential::Rules {
        issuers: &policy.credential_issuers,
        subject,
        leeway: policy.leeway,
        now,
    };
    let texts = texts(claims)?;
    Ok(texts
        .filter_map(|text| credential::verify(text, &rules, documents).ok())
        .collect())
}

/// Issuers of the credentials that are looked at at all.
pub(super) fn issuers_named(claims: &Claims, policy: &TokenPolicy) -> Vec<Did> {
    let issuers = texts(claims)
        .into_iter()
        .flatten()
        .filter_map(credential::issuer_named);
    issuers
        .filter(|issuer| policy.credential_issuers.contains(issuer))
        .collect()
}

fn texts(claims: &Claims) -> Result<impl Iterator<Item = &str>, Refusal> {
    let list: &[Value] = match claims.value("vc") {
        None => &[],
        Some(Value::Array(list)) if list.len() <= CREDENTIALS_MAX => list,
        Some(_) => {
            return Err(Refusal::TokenMalformed {
                field: "vc",
                fix: "it must be an array of at most 4 VC-JWTs",
            });
        }
    };
    Ok(list.iter().filter_map(Value::as_str))
}
