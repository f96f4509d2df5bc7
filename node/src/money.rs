//! Where the front door meets the ledger: vouchers out of tokens, prices and balances as clients see them, and what
//! the ledger's refusals mean over HTTP.

use dsip::message::{Credited, Economics};
use identity::{Permit, token};
use metering::{Msat, Step};
use serde_json::json;

use crate::cashier::{Admitted, Refused};
use crate::clock;
use crate::http::problem::Problem;
use crate::relay::Relay;

/// A token that was quoted a tariff is admitted under that tariff or not at all.
pub(crate) fn require_tariff(relay: &Relay, permit: &Permit) -> Result<(), Problem> {
    match permit.tariff() {
        Some(quoted) if !relay.prices.iter().any(|tariff| tariff.id == quoted) => Err(Problem::new(
            "tariff-unavailable",
            "The tariff that the token names is no longer offered; get a token for one of /v1/tariff.",
        )),
        _ => Ok(()),
    }
}

/// What a session costs and what its account can spend, as told at admission.
pub(crate) fn economics(admitted: &Admitted) -> Economics {
    Economics {
        tariff: admitted.tariff_id.clone(),
        available_msat: admitted.account.balance(),
        runway_seconds: admitted.account.runway_seconds,
        step: word(admitted.step),
    }
}

/// An amount in DSIP's signed integers, which leave room for credit lines.
pub(crate) fn signed(amount: Msat) -> i64 {
    i64::try_from(amount.get()).unwrap_or(i64::MAX)
}

/// A step of the ladder as its word.
pub(crate) fn word(step: Step) -> String {
    json!(step).as_str().unwrap_or_default().to_owned()
}

/// Credits a further token to `account`, once; again, the first answer again.
pub(crate) async fn top_up(relay: &Relay, jwt: &str, account: &str) -> Result<Credited, Problem> {
    let rules = relay.policies.rules();
    let documents = relay.resolver.documents_for(jwt, &rules.token).await?;
    let token = token::verify_with(jwt, &rules.token, &documents, clock::unix())?;
    token.voucher_for(account)?;
    let credited = relay.credit(&token).await?;
    Ok(Credited {
        credited_msat: credited.credited.get(),
        available_msat: signed(credited.available),
        repeated: credited.repeated,
    })
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Problem {
        let problem = Problem::new(refused.slug(), refused.to_string());
        match refused {
            Refused::BalanceExhausted { available } => problem
                .with("available_msat", available.get())
                .with("topup", "/v1/topup"),
            Refused::GrantUsedUp => problem.with("topup", "/v1/topup"),
            _ => problem,
        }
    }
}
