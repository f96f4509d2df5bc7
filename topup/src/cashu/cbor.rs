//! The V4 token's form (NUT-00): CBOR with one-letter names, coins grouped by keyset.

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

use super::token::{Dleq, Proof, Token};
use crate::hex;

/// The token.
#[derive(Deserialize)]
pub(super) struct V4 {
    m: String,
    u: String,
    pub(super) t: Vec<Group>,
}

/// Coins of one keyset.
#[derive(Deserialize)]
pub(super) struct Group {
    i: Bytes,
    pub(super) p: Vec<Coin>,
}

/// A coin.
#[derive(Deserialize)]
pub(super) struct Coin {
    a: u64,
    s: String,
    c: Bytes,
    d: Option<Proved>,
    /// A witness, of coins with conditions.
    pub(super) w: Option<String>,
}

#[derive(Deserialize)]
struct Proved {
    e: Bytes,
    s: Bytes,
    r: Bytes,
}

/// A byte string.
struct Bytes(Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Take;
        impl Visitor<'_> for Take {
            type Value = Bytes;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a byte string")
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_owned()))
            }
            fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(Bytes(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Take)
    }
}

impl From<V4> for Token {
    fn from(token: V4) -> Self {
        let mut proofs = Vec::new();
        for Group { i, p } in token.t {
            let id = hex::encode(&i.0);
            proofs.extend(p.into_iter().map(|coin| Proof {
                amount: coin.a,
                id: id.clone(),
                secret: coin.s,
                c: hex::encode(&coin.c.0),
                dleq: coin.d.map(|proved| Dleq {
                    e: hex::encode(&proved.e.0),
                    s: hex::encode(&proved.s.0),
                    r: Some(hex::encode(&proved.r.0)),
                }),
            }));
        }
        Self {
            mint: token.m,
            unit: token.u,
            proofs,
        }
    }
}
