//! A holder's reputation: the issuer's own score, or ReputationScore credentials (W3C VC as JWT) by scorers that
//! the operator lists.

use serde_json::Value;

use super::TokenPolicy;
use super::claims::Claims;
use crate::did::{Did, resolve};
use crate::jws::Jws;
use crate::refusal::Refusal;

/// Most credentials looked at in one token: each costs a signature check.
const CREDENTIALS_MAX: usize = 4;

/// The score that counts: the token's own, else the highest of its trusted credentials.
pub(super) fn score(
    claims: &Claims,
    issuer: &Did,
    subject: &Did,
    policy: &TokenPolicy,
    now: u64,
) -> Result<Option<i64>, Refusal> {
    if let Some(reputation) = claims.value("reputation") {
        let score = reputation.get("score").and_then(Value::as_i64);
        let by_issuer = reputation.get("iss").and_then(Value::as_str) == Some(issuer.as_str());
        return match score {
            Some(score) if by_issuer => Ok(Some(score)),
            _ => Err(Refusal::TokenMalformed {
                field: "reputation",
                fix: "it must be {\"score\": integer, \"iss\": the token's own `iss`}; put other scorers into `vc`",
            }),
        };
    }
    let list = match claims.value("vc") {
        None => return Ok(None),
        Some(Value::Array(list)) if list.len() <= CREDENTIALS_MAX => list,
        Some(_) => {
            return Err(Refusal::TokenMalformed {
                field: "vc",
                fix: "it must be an array of at most 4 VC-JWTs",
            });
        }
    };
    Ok(list
        .iter()
        .filter_map(Value::as_str)
        .filter_map(|credential| credential_score(credential, subject, policy, now))
        .max())
}

/// A credential that does not verify, or whose scorer is not listed, counts as absent: it could only have helped.
fn credential_score(credential: &str, subject: &Did, policy: &TokenPolicy, now: u64) -> Option<i64> {
    let jws = Jws::parse(credential, "alg, kid, typ, cty").ok()?;
    if jws
        .header("typ")
        .is_some_and(|typ| !matches!(typ, "JWT" | "vc+jwt" | "vc+ld+json+jwt"))
    {
        return None;
    }
    let claims = jws.claims().ok()?;
    // VC 1.1 puts the credential under `vc`, VC 2.0 (vc-jose-cose) at the top.
    let body = claims.get("vc").and_then(Value::as_object).unwrap_or(&claims);
    let scorer = claims
        .get("iss")
        .or(body.get("issuer"))?
        .as_str()
        .and_then(|text| Did::parse(text).ok())?;
    if !policy.reputation_issuers.contains(&scorer) {
        return None;
    }
    let document = resolve(&scorer).ok()?;
    jws.verify(document.key(jws.header("kid")?)?).ok()?;
    let time = |name: &str| claims.get(name).map(Value::as_u64);
    if time("exp").is_some_and(|exp| exp.is_none_or(|exp| exp.saturating_add(policy.leeway) <= now))
        || time("nbf").is_some_and(|nbf| nbf.is_none_or(|nbf| nbf > now.saturating_add(policy.leeway)))
        || claims.get("sub").is_some_and(|sub| sub != subject.as_str())
    {
        return None;
    }
    let about = body.get("credentialSubject")?;
    let is_score = body
        .get("type")?
        .as_array()?
        .iter()
        .any(|name| name == "ReputationScore");
    if is_score && about.get("id")? == subject.as_str() {
        about.get("score")?.as_i64()
    } else {
        None
    }
}
