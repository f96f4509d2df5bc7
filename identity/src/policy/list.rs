//! Community lists: a compact JWS by somebody whom the operator listens to, that says who is not to be served (DSIP
//! section 8, "community signed block/allow lists").
//!
//! Header `typ` "list+jwt", `kid` a key of the list's DID that may issue. Claims: `iss` that DID, `iat`, `exp`, and
//! `deny` and `allow`, objects with arrays under `jti`, `sub`, `kid`, `iss`; of `allow` only `sub` means anything. A
//! list that is older than the one in force is a replay.

use serde_json::{Map, Value, json};

use super::deny::{DenyList, Kind};
use crate::did::Did;
use crate::document::Document;
use crate::jws::Jws;
use crate::signing_key::SigningKey;

/// The JWS `typ` of a list.
pub const LIST_TYP: &str = "list+jwt";

/// A list whose signature has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedList {
    /// Who signed it.
    pub issuer: Did,
    /// When, unix seconds.
    pub issued_at: u64,
    /// Until when it holds.
    pub expires: u64,
    /// Who is not to be served.
    pub deny: DenyList,
    /// Holders who are to be served all the same.
    pub allow: Vec<Did>,
}

/// Why a list is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListFault {
    /// Not a list.
    #[error("it is no list: a compact JWS of typ list+jwt with iss, iat, exp, deny")]
    Malformed,
    /// `iss` or `kid` is not the DID that it should be by.
    #[error("it is not by the DID that the policy names")]
    Issuer,
    /// The signature does not verify.
    #[error("its signature does not verify under a key of its DID that may issue")]
    Signature,
    /// It has expired, or is from the future.
    #[error("it is not valid at this time")]
    Time,
    /// It has too many entries, or one that cannot be one.
    #[error("it has more than 100000 entries, or one that is no DID, DID URL or id")]
    Entries,
}

impl SignedList {
    /// Reads a list by the DID of this document.
    pub fn verify(text: &str, by: &Document, leeway: u64, now: u64) -> Result<SignedList, ListFault> {
        let jws = Jws::parse(text.trim(), "alg, kid, typ").map_err(|_| ListFault::Malformed)?;
        if jws.header("typ") != Some(LIST_TYP) {
            return Err(ListFault::Malformed);
        }
        let kid = jws.header("kid").ok_or(ListFault::Issuer)?;
        let key = by.issuing_key(kid).ok_or(ListFault::Issuer)?;
        jws.verify(key).map_err(|_| ListFault::Signature)?;
        let claims = jws.claims().map_err(|_| ListFault::Malformed)?;
        if claims.get("iss").and_then(Value::as_str) != Some(by.id.as_str()) {
            return Err(ListFault::Issuer);
        }
        let time = |name: &str| {
            claims
                .get(name)
                .and_then(Value::as_u64)
                .ok_or(ListFault::Malformed)
        };
        let (issued_at, expires) = (time("iat")?, time("exp")?);
        if issued_at > now.saturating_add(leeway) || expires.saturating_add(leeway) <= now {
            return Err(ListFault::Time);
        }
        let allow = read(claims.get("allow"))?;
        let people = allow.iter().filter(|(kind, _)| *kind == Kind::Sub);
        let allow = people.map(|(_, value)| Did::parse(value).map_err(|_| ListFault::Entries));
        Ok(SignedList {
            issuer: by.id.clone(),
            issued_at,
            expires,
            deny: read(claims.get("deny"))?,
            allow: allow.collect::<Result<_, _>>()?,
        })
    }
}

fn read(value: Option<&Value>) -> Result<DenyList, ListFault> {
    let mut list = DenyList::default();
    let Some(value) = value else { return Ok(list) };
    let object = value.as_object().ok_or(ListFault::Malformed)?;
    for (name, values) in object {
        let kind: Kind = name.parse().map_err(|_| ListFault::Malformed)?;
        for value in values.as_array().ok_or(ListFault::Malformed)? {
            let value = value.as_str().ok_or(ListFault::Malformed)?;
            list.add(kind, value).map_err(|_| ListFault::Entries)?;
        }
    }
    Ok(list)
}

/// Signs a list, as its publisher does.
pub fn sign_list(key: &SigningKey, deny: &DenyList, allow: &[Did], issued_at: u64, expires: u64) -> String {
    let mut denied: Map<String, Value> = Map::new();
    for kind in Kind::ALL {
        let values: Vec<&str> = deny
            .iter()
            .filter(|(of, _)| *of == kind)
            .map(|(_, value)| value)
            .collect();
        if !values.is_empty() {
            denied.insert(kind.name().to_owned(), json!(values));
        }
    }
    let claims =
        json!({"iss": key.did(), "iat": issued_at, "exp": expires, "deny": denied, "allow": {"sub": allow}});
    key.sign_jws(LIST_TYP, claims.to_string().as_bytes())
}
