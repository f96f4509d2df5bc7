//! Core Lightning's `clnrest`: `POST /v1/invoice` and `POST /v1/listinvoices`, with a rune that may do just these:
//! `lightning-cli createrune restrictions='[["method=invoice","method=listinvoices"]]'`.

use serde_json::{Value, json};

use super::{LightningNode, Payment, Wanted, amount, proved};
use crate::{Answer, Call, Fault, hex};

const RUNE: &str = "rune";

/// A Core Lightning node.
pub struct CoreLightning {
    rune: String,
}

impl CoreLightning {
    /// `rune`: as it is in the file, spaces around it apart.
    pub fn new(rune: &str) -> Self {
        Self {
            rune: rune.trim().to_owned(),
        }
    }
}

impl LightningNode for CoreLightning {
    fn ask(&self, wanted: &Wanted) -> Call {
        let body = json!({
            "amount_msat": wanted.msat,
            "label": wanted.label,
            "description": wanted.description,
            "expiry": wanted.expiry,
        });
        Call::post("/v1/invoice", body).with_secret(RUNE, &self.rune)
    }

    fn asked(&self, answer: &Answer) -> Result<String, Fault> {
        let invoice = answer.ok()?.get("bolt11").and_then(Value::as_str);
        Ok(invoice.ok_or(Fault::Malformed("bolt11"))?.to_owned())
    }

    fn look_up(&self, payment_hash: &str) -> Call {
        let body = json!({ "payment_hash": payment_hash });
        Call::post("/v1/listinvoices", body).with_secret(RUNE, &self.rune)
    }

    fn looked_up(&self, payment_hash: &str, answer: &Answer) -> Result<Payment, Fault> {
        let invoices = answer.ok()?.get("invoices").and_then(Value::as_array);
        let [invoice] = invoices.ok_or(Fault::Malformed("invoices"))?.as_slice() else {
            return Err(Fault::Malformed("the invoice"));
        };
        let text = |name| invoice.get(name).and_then(Value::as_str);
        if text("payment_hash") != Some(payment_hash) {
            return Err(Fault::Lied("it shows another invoice"));
        }
        match text("status") {
            Some("unpaid") => Ok(Payment::Awaited),
            Some("expired") => Ok(Payment::Gone),
            Some("paid") => {
                let preimage = text("payment_preimage").and_then(hex::decode);
                proved(
                    preimage,
                    payment_hash,
                    amount(invoice.get("amount_received_msat")),
                )
            }
            _ => Err(Fault::Malformed("status")),
        }
    }
}
