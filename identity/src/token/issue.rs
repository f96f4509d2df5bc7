//! Issuing relay tokens: the `dev` issuer, the faucet and `milliway token issue`.

use serde_json::{Map, Value, json};

use super::TYP;
use crate::did::Did;
use crate::key::Thumbprint;
use crate::signing_key::SigningKey;
use crate::{base64url, random};

/// The key that proves possession (`cnf`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// A DID URL.
    Kid(String),
    /// An RFC 7638 thumbprint (`jkt`).
    Thumbprint(Thumbprint),
}

impl Confirmation {
    pub(super) fn to_json(&self) -> Value {
        match self {
            Confirmation::Kid(url) => json!({"kid": url}),
            Confirmation::Thumbprint(thumbprint) => json!({"jkt": thumbprint.to_text()}),
        }
    }
}

/// What a new token says. Start from [`Issue::new`] and set what differs.
#[derive(Clone, Debug)]
pub struct Issue {
    /// `sub`.
    pub subject: Did,
    /// `aud`.
    pub audience: Did,
    /// `iat` and `nbf`, unix seconds.
    pub issued_at: u64,
    /// `exp - iat`, seconds.
    pub lifetime: u64,
    /// The voucher, at most 2^53-1.
    pub balance_msat: u64,
    /// `jti`; random if `None`.
    pub id: Option<String>,
    /// `service`; both if `None`.
    pub services: Option<Vec<String>>,
    /// `room`.
    pub room: Option<String>,
    /// `tariff`.
    pub tariff: Option<String>,
    /// `payer` and its `payer_grant`.
    pub payer: Option<(Did, Option<String>)>,
    /// `cnf` and its `delegation`.
    pub confirmation: Option<(Confirmation, Option<String>)>,
    /// `reputation.score`.
    pub reputation: Option<i64>,
    /// `bearer`.
    pub bearer: bool,
}

impl Issue {
    /// A token of one hour for both services.
    pub fn new(subject: Did, audience: Did, balance_msat: u64, issued_at: u64) -> Issue {
        Issue {
            subject,
            audience,
            issued_at,
            lifetime: 3600,
            balance_msat,
            id: None,
            services: None,
            room: None,
            tariff: None,
            payer: None,
            confirmation: None,
            reputation: None,
            bearer: false,
        }
    }
}

/// Signs a token with the issuer's key.
pub fn issue(key: &SigningKey, issue: &Issue) -> String {
    let id = issue
        .id
        .clone()
        .unwrap_or_else(|| base64url::encode(random::bytes::<16>()));
    let mut claims = Map::new();
    let mut set = |name: &str, value: Value| claims.insert(name.to_owned(), value);
    set("iss", json!(key.did()));
    set("sub", json!(issue.subject));
    set("aud", json!(issue.audience));
    set("iat", json!(issue.issued_at));
    set("nbf", json!(issue.issued_at));
    set("exp", json!(issue.issued_at.saturating_add(issue.lifetime)));
    set("jti", json!(id));
    set("balance_msat", json!(issue.balance_msat));
    if let Some(services) = &issue.services {
        set("service", json!(services));
    }
    if let Some(room) = &issue.room {
        set("room", json!(room));
    }
    if let Some(tariff) = &issue.tariff {
        set("tariff", json!(tariff));
    }
    if let Some((payer, grant)) = &issue.payer {
        set("payer", json!(payer));
        if let Some(grant) = grant {
            set("payer_grant", json!(grant));
        }
    }
    if let Some((confirmation, delegation)) = &issue.confirmation {
        set("cnf", confirmation.to_json());
        if let Some(delegation) = delegation {
            set("delegation", json!(delegation));
        }
    }
    if let Some(score) = issue.reputation {
        set("reputation", json!({"score": score, "iss": key.did()}));
    }
    if issue.bearer {
        set("bearer", json!(true));
    }
    key.sign_jws(TYP, Value::Object(claims).to_string().as_bytes())
}
