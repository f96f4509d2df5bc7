//! Top-ups over Lightning: an invoice of the operator's node, looked up until it is paid.
//!
//! The node makes the invoice first, then the ledger takes it down, then the client sees it: an invoice that a crash
//! lost was seen by nobody.

use std::path::Path;

use metering::ledger::TopUp;
use metering::{AccountId, Msat};
use serde_json::json;
use topup::lightning::{CoreLightning, LightningNode, Lnd, Payment, Terms, Wanted};

use super::counterpart::{Base, Counterpart};
use super::{Done, TopUps, random_name};
use crate::clock;
use crate::config::TopUpSettings;
use crate::http::problem::Problem;

/// After an invoice has expired it is looked up for so long: a payment that was under way then is either in or back.
const GRACE_SECONDS: u64 = 3600;

/// What payers are shown.
const DESCRIPTION: &str = "Relay top-up";

/// The operator's node.
pub(super) struct Node {
    api: Box<dyn LightningNode>,
    http: Counterpart,
    terms: Terms,
    invoice_seconds: u64,
}

impl Node {
    /// As configured; none if it is not.
    pub(super) fn open(settings: &TopUpSettings) -> Result<Option<Node>, String> {
        let secret = || {
            let path = &settings.lightning_secret_file;
            std::fs::read(Path::new(path))
                .map_err(|error| format!("topup.lightning_secret_file {path}: {error}"))
        };
        let api: Box<dyn LightningNode> = match settings.lightning.as_str() {
            "" => return Ok(None),
            "lnd" => Box::new(Lnd::new(&secret()?)),
            _ => Box::new(CoreLightning::new(&String::from_utf8_lossy(&secret()?))),
        };
        let base = Base::parse(&settings.lightning_url).ok_or("topup.lightning_url is no address")?;
        let http = Counterpart::new(base, &settings.lightning_certificate)
            .map_err(|error| format!("topup.lightning_certificate {error}"))?;
        Ok(Some(Node {
            api,
            http,
            terms: Terms {
                network: settings.lightning_network.clone(),
                payee: Some(settings.lightning_payee.clone()).filter(|payee| !payee.is_empty()),
            },
            invoice_seconds: settings.invoice_seconds,
        }))
    }

    /// A new invoice, not yet in the ledger.
    pub(super) async fn invoice(&self, account: &AccountId, msat: u64) -> Result<TopUp, Problem> {
        let wanted = Wanted {
            msat,
            expiry: self.invoice_seconds,
            description: DESCRIPTION.to_owned(),
            label: format!("milliway-{}", random_name()),
        };
        let answer = self.http.call(&self.api.ask(&wanted)).await.map_err(|failure| {
            tracing::warn!(failure, "the Lightning node was not asked for an invoice");
            unavailable()
        })?;
        let checked = self
            .api
            .asked(&answer)
            .and_then(|bolt11| self.terms.check(&bolt11, &wanted, clock::unix()));
        let invoice = checked.map_err(|fault| {
            tracing::error!(%fault, "the Lightning node gave no invoice that can be used");
            unavailable()
        })?;
        let detail = json!({ "invoice": invoice.bolt11 });
        Ok(TopUp {
            expires: invoice.expires,
            ..TopUp::new(
                &invoice.payment_hash,
                TopUps::LIGHTNING,
                account,
                Msat::new(msat),
                detail,
            )
        })
    }

    /// Looks an invoice up.
    pub(super) async fn look_up(&self, row: &TopUp) -> Done {
        let answer = match self.http.call(&self.api.look_up(&row.id)).await {
            Ok(answer) => answer,
            Err(failure) => {
                tracing::debug!(failure, "an invoice could not be looked up");
                return Done::Trouble;
            }
        };
        let over = clock::unix() > row.expires.saturating_add(GRACE_SECONDS);
        match self.api.looked_up(&row.id, &answer) {
            Ok(Payment::Paid { msat }) if msat >= row.msat.get() => Done::Paid(row.detail.clone()),
            Ok(Payment::Paid { msat }) => {
                tracing::error!(
                    msat,
                    wanted = row.msat.get(),
                    "an invoice was paid with too little; see to it"
                );
                Done::Trouble
            }
            Ok(Payment::Gone) => Done::Failed("expired"),
            Ok(Payment::Awaited) if over => Done::Failed("expired"),
            Ok(Payment::Awaited) => Done::Awaited,
            Err(topup::Fault::Refused { status: 404, .. }) if over => Done::Failed("expired"),
            Err(fault) => {
                tracing::warn!(%fault, "the Lightning node's word on an invoice is of no use");
                Done::Trouble
            }
        }
    }
}

fn unavailable() -> Problem {
    Problem::new(
        "capacity",
        "The relay's Lightning node gives no invoices at the moment; try again later.",
    )
}
