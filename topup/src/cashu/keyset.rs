//! A mint's keysets and keys (NUT-01, NUT-02).

use std::collections::BTreeMap;

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::PublicKey;
use serde_json::Value;

use super::curve;
use crate::{Answer, Call, Fault, hex};

/// Keysets of one mint that are looked at: those of decades.
const KEYSETS_MAX: usize = 256;
/// Keys of one keyset: one for each power of two.
const KEYS_MAX: usize = 64;
/// The highest fee that is believed, in thousandths of a unit a coin: one unit. More would be a way to burn coins.
const FEE_MAX: u64 = 1_000;

/// What a mint says of a keyset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysetInfo {
    /// Its name.
    pub id: String,
    /// "sat", "msat" or another.
    pub unit: String,
    /// Whether the mint still signs with it.
    pub active: bool,
    /// What spending one of its coins costs, in thousandths of a unit.
    pub fee: u64,
}

/// A keyset and its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyset {
    /// What the mint says of it.
    pub info: KeysetInfo,
    keys: BTreeMap<u64, PublicKey>,
}

impl Keyset {
    /// The key for coins of this worth.
    pub(super) fn key(&self, amount: u64) -> Option<&PublicKey> {
        self.keys.get(&amount)
    }

    /// The worths that add up to `amount`, smallest first, which say nothing of what was paid with.
    pub(super) fn split(&self, amount: u64) -> Option<Vec<u64>> {
        let mut left = amount;
        let mut parts = Vec::new();
        for worth in self.keys.keys().rev() {
            while *worth <= left {
                left -= worth;
                parts.push(*worth);
                if parts.len() > super::PROOFS_MAX {
                    return None;
                }
            }
        }
        parts.reverse();
        (left == 0).then_some(parts)
    }
}

/// Asks for the keysets.
pub fn keysets_call() -> Call {
    Call::get("/v1/keysets")
}

/// The keysets.
pub fn keysets_answer(answer: &Answer) -> Result<Vec<KeysetInfo>, Fault> {
    let listed = answer.ok()?.get("keysets").and_then(Value::as_array);
    let listed = listed.filter(|listed| listed.len() <= KEYSETS_MAX);
    listed
        .ok_or(Fault::Malformed("keysets"))?
        .iter()
        .map(|keyset| {
            let text = |name| keyset.get(name).and_then(Value::as_str).map(str::to_owned);
            let fee = match keyset.get("input_fee_ppk") {
                None | Some(Value::Null) => Some(0),
                Some(fee) => fee.as_u64().filter(|fee| *fee <= FEE_MAX),
            };
            Some(KeysetInfo {
                id: text("id").filter(|id| matches!(id.len(), 16 | 66) && hex::decode(id).is_some())?,
                unit: text("unit")?,
                active: keyset.get("active")?.as_bool()?,
                fee: fee?,
            })
        })
        // Those that do not read (the oldest keysets had other names) are no use, and no reason to take none.
        .filter(Option::is_some)
        .map(|keyset| keyset.ok_or(Fault::Malformed("keysets")))
        .collect()
}

/// Asks for a keyset's keys.
pub fn keys_call(id: &str) -> Call {
    Call::get(format!("/v1/keys/{id}"))
}

/// The keys of a keyset.
pub fn keys_answer(info: &KeysetInfo, answer: &Answer) -> Result<Keyset, Fault> {
    let listed = answer.ok()?.get("keysets").and_then(Value::as_array);
    let keyset = listed
        .ok_or(Fault::Malformed("keysets"))?
        .iter()
        .find(|keyset| keyset.get("id").and_then(Value::as_str) == Some(info.id.as_str()))
        .ok_or(Fault::Lied("it shows another keyset"))?;
    let keys = keyset.get("keys").and_then(Value::as_object);
    let keys = keys
        .filter(|keys| keys.len() <= KEYS_MAX)
        .ok_or(Fault::Malformed("keys"))?;
    let keys: BTreeMap<u64, PublicKey> = keys
        .iter()
        .filter_map(|(amount, key)| {
            Some((
                amount.parse().ok().filter(|amount| *amount > 0)?,
                curve::point(key.as_str()?)?,
            ))
        })
        .collect();
    let keyset = Keyset {
        info: info.clone(),
        keys,
    };
    // The older names are a hash of the keys; the newer ones also of what the mint says around them.
    if info.id.len() == 16 && info.id.starts_with("00") && keyset.name() != info.id {
        return Err(Fault::Lied("the keys are not those of their keyset"));
    }
    Ok(keyset)
}

impl Keyset {
    /// The name that the keys give it (NUT-02, version 00).
    fn name(&self) -> String {
        let mut engine = sha256::Hash::engine();
        for key in self.keys.values() {
            engine.input(&key.serialize());
        }
        let hash = hex::encode(sha256::Hash::from_engine(engine).as_byte_array());
        format!("00{}", &hash[..14])
    }
}
