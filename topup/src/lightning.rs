//! Invoices (BOLT 11) of a Lightning node that the operator runs: asked for, checked, and looked up until they are paid.
//!
//! A node is believed about one thing only, that it was paid, and that with a preimage which hashes to the invoice's
//! payment hash. What an invoice says is read out of its signed text, not out of the answer around it.

mod core_lightning;
mod lnd;

use std::str::FromStr;
use std::time::Duration;

use bitcoin::hashes::{Hash, sha256};
use lightning_invoice::{Bolt11Invoice, Currency};
use serde_json::Value;

use crate::{Answer, Call, Fault, hex};
pub use core_lightning::CoreLightning;
pub use lnd::Lnd;

/// The longest invoice that is read: with route hints they have some hundred characters.
const INVOICE_LENGTH_MAX: usize = 4_096;

/// What an invoice is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The amount.
    pub msat: u64,
    /// Seconds that it can be paid.
    pub expiry: u64,
    /// What payers are shown.
    pub description: String,
    /// Names it at the node, once.
    pub label: String,
}

/// What a node says of an invoice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payment {
    /// It can still be paid, or is being paid.
    Awaited,
    /// It cannot be paid any more.
    Gone,
    /// It was paid.
    Paid {
        /// With so much.
        msat: u64,
    },
}

/// A Lightning node's HTTP interface.
pub trait LightningNode: Send + Sync {
    /// Asks for an invoice.
    fn ask(&self, wanted: &Wanted) -> Call;

    /// The invoice's text.
    fn asked(&self, answer: &Answer) -> Result<String, Fault>;

    /// Asks how an invoice stands.
    fn look_up(&self, payment_hash: &str) -> Call;

    /// How it stands. `payment_hash` is the one that was asked for.
    fn looked_up(&self, payment_hash: &str, answer: &Answer) -> Result<Payment, Fault>;
}

/// An invoice that says what it was to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoice {
    /// Its text.
    pub bolt11: String,
    /// What names its payment for ever, in hexadecimal.
    pub payment_hash: String,
    /// Unix seconds: not to be paid later.
    pub expires: u64,
}

/// Which invoices are taken from a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Of which network: "bitcoin", "testnet", "signet" or "regtest".
    pub network: String,
    /// The node's key in hexadecimal, if the operator named it.
    pub payee: Option<String>,
}

impl Terms {
    /// The networks' names.
    pub const NETWORKS: [&str; 4] = ["bitcoin", "testnet", "signet", "regtest"];

    /// Reads an invoice and holds it against what was asked for, at `now` (Unix seconds).
    pub fn check(&self, bolt11: &str, wanted: &Wanted, now: u64) -> Result<Invoice, Fault> {
        if bolt11.len() > INVOICE_LENGTH_MAX {
            return Err(Fault::Malformed("the invoice"));
        }
        // Parsing checks the signature.
        let invoice = Bolt11Invoice::from_str(bolt11).map_err(|_| Fault::Malformed("the invoice"))?;
        let network = match invoice.currency() {
            Currency::Bitcoin => "bitcoin",
            Currency::BitcoinTestnet => "testnet",
            Currency::Signet => "signet",
            Currency::Regtest => "regtest",
            Currency::Simnet => "simnet",
        };
        if network != self.network {
            return Err(Fault::Lied("the invoice is of another network"));
        }
        if invoice.amount_milli_satoshis() != Some(wanted.msat) {
            return Err(Fault::Lied("the invoice is over another amount"));
        }
        let payee = hex::encode(&invoice.get_payee_pub_key().serialize());
        if self
            .payee
            .as_ref()
            .is_some_and(|known| !known.eq_ignore_ascii_case(&payee))
        {
            return Err(Fault::Lied("the invoice is another node's"));
        }
        if invoice.would_expire(Duration::from_secs(now)) || invoice.expiry_time().as_secs() > wanted.expiry {
            return Err(Fault::Lied("the invoice expires at another time"));
        }
        let expires = invoice.expires_at().ok_or(Fault::Malformed("the invoice"))?;
        Ok(Invoice {
            bolt11: bolt11.to_owned(),
            payment_hash: hex::encode(invoice.payment_hash().as_ref()),
            // A node's clock that runs ahead makes nobody wait longer than was agreed.
            expires: expires.as_secs().min(now.saturating_add(wanted.expiry)),
        })
    }
}

/// Does the preimage belong to the payment hash? Both in hexadecimal.
pub fn is_preimage(preimage: &str, payment_hash: &str) -> bool {
    hex::decode_32(preimage).is_some_and(|preimage| is_preimage_of(&preimage, payment_hash))
}

fn is_preimage_of(preimage: &[u8], payment_hash: &str) -> bool {
    hex::encode(sha256::Hash::hash(preimage).as_byte_array()) == payment_hash
}

/// A payment, proved by its preimage.
fn proved(preimage: Option<Vec<u8>>, payment_hash: &str, msat: Option<u64>) -> Result<Payment, Fault> {
    let preimage = preimage.ok_or(Fault::Malformed("the preimage"))?;
    if !is_preimage_of(&preimage, payment_hash) {
        return Err(Fault::Lied("the preimage is of another payment"));
    }
    let msat = msat.ok_or(Fault::Malformed("the amount paid"))?;
    Ok(Payment::Paid { msat })
}

/// An amount that is a number, or a text as proto3's JSON has 64 bits, or one that ends in "msat".
fn amount(value: Option<&Value>) -> Option<u64> {
    match value? {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.strip_suffix("msat").unwrap_or(text).parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
