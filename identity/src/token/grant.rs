//! What only the people concerned can sign: a payer's consent to pay for a holder (`payer_grant`), a holder's
//! consent that another key acts for it (`delegation`).

use serde_json::{Map, Value, json};

use super::claims::confirmation;
use super::issue::Confirmation;
use crate::did::Did;
use crate::document::Document;
use crate::documents::Documents;
use crate::json::INTEGER_MAX;
use crate::jws::Jws;
use crate::refusal::Refusal;
use crate::signing_key::SigningKey;

const PAYER_GRANT_TYP: &str = "payer-grant+jwt";
const DELEGATION_TYP: &str = "delegation+jwt";

/// A payer's consent, verified.
#[derive(Clone, PartialEq, Eq)]
pub struct PayerGrant {
    /// `jti`: the ledger sums what was spent under it.
    pub id: String,
    /// The most that may ever be spent under it.
    pub max_msat: u64,
    /// Unix seconds.
    pub expires: u64,
}

/// By the payer's key: `sub` may spend up to `max_msat` of my account at `aud` until `exp`.
pub fn payer_grant(key: &SigningKey, sub: &Did, aud: &Did, exp: u64, jti: &str, max_msat: u64) -> String {
    let claims = json!({"sub": sub, "aud": aud, "exp": exp, "jti": jti, "max_msat": max_msat});
    key.sign_jws(PAYER_GRANT_TYP, claims.to_string().as_bytes())
}

/// By the holder's key: the key in `cnf` may act for me at `aud` until `exp`.
pub fn delegation(key: &SigningKey, cnf: &Confirmation, aud: &Did, exp: u64) -> String {
    let claims = json!({"cnf": cnf.to_json(), "aud": aud, "exp": exp});
    key.sign_jws(DELEGATION_TYP, claims.to_string().as_bytes())
}

pub(super) fn verify_payer_grant(
    text: Option<&str>,
    payer: &Did,
    sub: &Did,
    aud: &Did,
    documents: &Documents,
) -> Result<PayerGrant, Refusal> {
    let refusal = |fix| Refusal::PayerGrant { fix };
    let text = text.ok_or(refusal("send `payer_grant`, a JWS by a key of `payer`"))?;
    let document = documents
        .resolve(payer)
        .map_err(|_| refusal("`payer` must be a DID that resolves here"))?;
    let claims = signed_claims(text, PAYER_GRANT_TYP, &document).ok_or(refusal(
        "it must be a compact JWS that verifies under a key of `payer`",
    ))?;
    if !is(&claims, "sub", sub.as_str()) || !is(&claims, "aud", aud.as_str()) {
        return Err(refusal("its `sub` and `aud` must equal the token's"));
    }
    let id = claims
        .get("jti")
        .and_then(Value::as_str)
        .filter(|id| (1..=super::NAME_LENGTH_MAX).contains(&id.len()));
    let (Some(id), Some(max_msat), Some(expires)) =
        (id, integer(&claims, "max_msat"), integer(&claims, "exp"))
    else {
        return Err(refusal(
            "it needs `jti` (a string), `exp` and `max_msat` (integers from 0 to 2^53-1)",
        ));
    };
    Ok(PayerGrant {
        id: id.to_owned(),
        max_msat,
        expires,
    })
}

/// Returns when the delegation expires.
pub(super) fn verify_delegation(
    text: Option<&str>,
    cnf: &Confirmation,
    holder: &Document,
    aud: &Did,
) -> Result<u64, Refusal> {
    let refusal = |fix| Refusal::Delegation { fix };
    let text = text.ok_or(refusal(
        "send `delegation`, a JWS by a key of `sub` over `cnf`, `aud`, `exp`",
    ))?;
    let claims = signed_claims(text, DELEGATION_TYP, holder).ok_or(refusal(
        "it must be a compact JWS that verifies under a key of `sub`",
    ))?;
    if claims
        .get("cnf")
        .and_then(|value| confirmation(value).ok())
        .as_ref()
        != Some(cnf)
        || !is(&claims, "aud", aud.as_str())
    {
        return Err(refusal("its `cnf` and `aud` must equal the token's"));
    }
    integer(&claims, "exp").ok_or(refusal("it needs `exp`, an integer"))
}

/// The claims of a JWS by one of the document's keys. `typ` may be left out; a JWS made for another purpose (a
/// relay token, a proof) does not pass for a grant.
fn signed_claims(text: &str, typ: &str, document: &Document) -> Option<Map<String, Value>> {
    let jws = Jws::parse(text, "alg, kid, typ").ok()?;
    match jws.header_value("typ") {
        None => {}
        Some(Value::String(named)) if named == typ || named == "JWT" => {}
        Some(_) => return None,
    }
    let verified = match jws.header_value("kid") {
        Some(Value::String(kid)) => jws.verify(document.key(kid)?).is_ok(),
        Some(_) => false,
        None => document
            .authentication
            .iter()
            .any(|method| jws.verify(&method.key).is_ok()),
    };
    if verified { jws.claims().ok() } else { None }
}

fn is(claims: &Map<String, Value>, name: &str, expected: &str) -> bool {
    claims.get(name).and_then(Value::as_str) == Some(expected)
}

fn integer(claims: &Map<String, Value>, name: &str) -> Option<u64> {
    claims
        .get(name)
        .and_then(Value::as_u64)
        .filter(|integer| *integer <= INTEGER_MAX)
}
