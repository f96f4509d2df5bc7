//! Tokens as people pass them on: `cashuA` (V3, JSON) and `cashuB` (V4, CBOR), and coins as mints take them (NUT-00).

use std::collections::BTreeSet;

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bitcoin::hashes::{Hash, HashEngine, sha256};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{PROOFS_MAX, TOKEN_LENGTH_MAX, TokenFault, cbor, curve, keyset::Keyset};
use crate::hex;

/// Longest secret; wallets make them of 64 characters.
const SECRET_LENGTH_MAX: usize = 512;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// A mint's proof that it signed with the key that it publishes (NUT-12). `r`: the blinding factor, on coins.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dleq {
    pub(super) e: String,
    pub(super) s: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) r: Option<String>,
}

/// A coin. Whoever knows it can spend it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Its worth, in its keyset's unit.
    pub amount: u64,
    /// Its keyset.
    pub id: String,
    /// What makes it one coin and no other.
    pub secret: String,
    /// The mint's signature.
    #[serde(rename = "C")]
    pub c: String,
    /// The mint's proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dleq: Option<Dleq>,
}

// Money does not print.
impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proof({} of {})", self.amount, self.id)
    }
}

impl Proof {
    /// Y, which mints know a coin's state by (NUT-07).
    pub(super) fn y(&self) -> Option<String> {
        curve::hash_to_curve(self.secret.as_bytes()).map(|y| curve::text(&y))
    }

    /// What a mint needs to see of it.
    pub(super) fn shown(&self) -> Value {
        json!({"amount": self.amount, "id": self.id, "secret": self.secret, "C": self.c})
    }

    /// Holds the mint's proof against its key, where there is one.
    pub(super) fn check(&self, keyset: &Keyset) -> Result<(), TokenFault> {
        let key = keyset.key(self.amount).ok_or(TokenFault::Keyset)?;
        let Some(Dleq { e, s, r: Some(r) }) = &self.dleq else {
            return Ok(());
        };
        let (e, s, r) = (curve::scalar(e), curve::scalar(s), curve::scalar(r));
        let (Some(e), Some(s), Some(r), Some(c)) = (e, s, r, curve::point(&self.c)) else {
            return Err(TokenFault::Proof);
        };
        if curve::is_proved_of_coin(&e, &s, &r, key, self.secret.as_bytes(), &c) {
            Ok(())
        } else {
            Err(TokenFault::Proof)
        }
    }
}

/// A token of one mint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The mint's address, without a final slash.
    pub mint: String,
    /// "sat" or "msat".
    pub unit: String,
    /// Its coins.
    pub proofs: Vec<Proof>,
}

#[derive(Deserialize)]
struct V3 {
    token: Vec<V3Entry>,
    unit: Option<String>,
}

#[derive(Deserialize)]
struct V3Entry {
    mint: String,
    proofs: Vec<Value>,
}

impl Token {
    /// Reads a token.
    pub fn parse(text: &str) -> Result<Self, TokenFault> {
        let text = text.trim();
        if text.len() > TOKEN_LENGTH_MAX {
            return Err(TokenFault::Malformed("it is too long"));
        }
        let text = text.strip_prefix("cashu:").unwrap_or(text);
        let bytes = |encoded: &str| {
            let alphabet = if encoded.contains(['+', '/']) {
                &STANDARD
            } else {
                &URL_SAFE
            };
            let decoded = GeneralPurpose::new(alphabet, LENIENT).decode(encoded);
            decoded.map_err(|_| TokenFault::Malformed("it is no base64"))
        };
        let token = if let Some(encoded) = text.strip_prefix("cashuA") {
            Self::of_v3(&bytes(encoded)?)?
        } else if let Some(encoded) = text.strip_prefix("cashuB") {
            Self::of_v4(&bytes(encoded)?)?
        } else {
            return Err(TokenFault::Malformed("it begins with neither cashuA nor cashuB"));
        };
        token.checked()
    }

    fn of_v3(bytes: &[u8]) -> Result<Self, TokenFault> {
        let V3 { token, unit } =
            serde_json::from_slice(bytes).map_err(|_| TokenFault::Malformed("it is no V3 token"))?;
        let mut entries = token.into_iter();
        let (Some(V3Entry { mint, proofs }), None) = (entries.next(), entries.next()) else {
            return Err(TokenFault::Malformed("it is not of one mint"));
        };
        let proofs = proofs.into_iter().map(|proof| {
            if proof.get("witness").is_some_and(|witness| !witness.is_null()) {
                return Err(TokenFault::Locked);
            }
            serde_json::from_value(proof).map_err(|_| TokenFault::Malformed("a coin"))
        });
        Ok(Self {
            mint,
            unit: unit.unwrap_or_else(|| "sat".to_owned()),
            proofs: proofs.collect::<Result<_, _>>()?,
        })
    }

    fn of_v4(bytes: &[u8]) -> Result<Self, TokenFault> {
        let malformed = |_| TokenFault::Malformed("it is no V4 token");
        let token: cbor::V4 = ciborium::from_reader(bytes).map_err(malformed)?;
        if token
            .t
            .iter()
            .flat_map(|group| &group.p)
            .any(|proof| proof.w.is_some())
        {
            return Err(TokenFault::Locked);
        }
        Ok(token.into())
    }

    fn checked(mut self) -> Result<Self, TokenFault> {
        self.mint.truncate(self.mint.trim_end_matches('/').len());
        if self.proofs.is_empty() || self.proofs.len() > PROOFS_MAX {
            return Err(TokenFault::Malformed("it has no coins, or too many"));
        }
        let mut secrets = BTreeSet::new();
        for proof in &self.proofs {
            let known_form = !proof.secret.is_empty()
                && proof.secret.len() <= SECRET_LENGTH_MAX
                && (1..=1 << 52).contains(&proof.amount)
                && curve::point(&proof.c).is_some()
                && matches!(proof.id.len(), 16 | 66)
                && hex::decode(&proof.id).is_some();
            if !known_form || !secrets.insert(&proof.secret) {
                return Err(TokenFault::Malformed("a coin"));
            }
            // NUT-10: a well-known secret is a JSON array of its kind and its data.
            if matches!(serde_json::from_str(&proof.secret), Ok(Value::Array(_))) {
                return Err(TokenFault::Locked);
            }
        }
        Ok(self)
    }

    /// Names these coins at this mint for ever, in whatever form and order they come.
    pub fn name(&self) -> String {
        let mut secrets: Vec<&str> = self.proofs.iter().map(|proof| proof.secret.as_str()).collect();
        secrets.sort_unstable();
        let mut engine = sha256::Hash::engine();
        for part in ["milliway-cashu", &self.mint].into_iter().chain(secrets) {
            engine.input(&(part.len() as u64).to_be_bytes());
            engine.input(part.as_bytes());
        }
        hex::encode(sha256::Hash::from_engine(engine).as_byte_array())
    }

    /// What the coins say they are worth, in their unit.
    pub fn amount(&self) -> u64 {
        self.proofs.iter().map(|proof| proof.amount).sum()
    }
}

/// Coins as a token that every wallet reads (V3).
pub fn export(mint: &str, unit: &str, proofs: &[Proof]) -> String {
    let proofs: Vec<Value> = proofs.iter().map(Proof::shown).collect();
    let token = json!({"token": [{"mint": mint, "proofs": proofs}], "unit": unit});
    let engine = GeneralPurpose::new(&URL_SAFE, LENIENT);
    format!("cashuA{}", engine.encode(token.to_string()))
}
