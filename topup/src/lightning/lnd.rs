//! LND's REST interface: `POST /v1/invoices` (AddInvoice) and `GET /v1/invoice/{r_hash}` (LookupInvoice), with a macaroon
//! that may do just these: `lncli bakemacaroon invoices:read invoices:write`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{LightningNode, Payment, Wanted, amount, proved};
use crate::{Answer, Call, Fault, hex};

const MACAROON: &str = "grpc-metadata-macaroon";

/// An LND node.
pub struct Lnd {
    macaroon: String,
}

impl Lnd {
    /// `macaroon`: the bytes of the file.
    pub fn new(macaroon: &[u8]) -> Self {
        Self {
            macaroon: hex::encode(macaroon),
        }
    }
}

impl LightningNode for Lnd {
    fn ask(&self, wanted: &Wanted) -> Call {
        let body = json!({
            // 64-bit numbers travel as text (proto3's JSON).
            "value_msat": wanted.msat.to_string(),
            "expiry": wanted.expiry.to_string(),
            "memo": wanted.description,
            // Hints for payers where all channels are unannounced.
            "private": true,
        });
        Call::post("/v1/invoices", body).with_secret(MACAROON, &self.macaroon)
    }

    fn asked(&self, answer: &Answer) -> Result<String, Fault> {
        let invoice = answer.ok()?.get("payment_request").and_then(Value::as_str);
        Ok(invoice.ok_or(Fault::Malformed("payment_request"))?.to_owned())
    }

    fn look_up(&self, payment_hash: &str) -> Call {
        Call::get(format!("/v1/invoice/{payment_hash}")).with_secret(MACAROON, &self.macaroon)
    }

    fn looked_up(&self, payment_hash: &str, answer: &Answer) -> Result<Payment, Fault> {
        let body = answer.ok()?;
        let bytes = |name| {
            let text = body.get(name).and_then(Value::as_str)?;
            STANDARD.decode(text).ok()
        };
        let hash = bytes("r_hash").ok_or(Fault::Malformed("r_hash"))?;
        if hex::encode(&hash) != payment_hash {
            return Err(Fault::Lied("it shows another invoice"));
        }
        match body.get("state").and_then(Value::as_str) {
            // Held payments are not settled yet, and may go back.
            Some("OPEN" | "ACCEPTED") => Ok(Payment::Awaited),
            Some("CANCELED") => Ok(Payment::Gone),
            Some("SETTLED") => proved(
                bytes("r_preimage"),
                payment_hash,
                amount(body.get("amt_paid_msat")),
            ),
            _ => Err(Fault::Malformed("state")),
        }
    }
}
