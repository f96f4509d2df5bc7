//! A 402 in the form of L402 (bLIP-26), for clients that ask with `Accept-Authenticate: L402`.
//!
//! The challenge is `L402 version="0", token="T", macaroon="T", invoice="lnbc..."`: pay the invoice, then send
//! `Authorization: L402 T:PREIMAGE`. T is opaque to clients. Here it is a JWS by the relay that names the payment's hash
//! and the account that the payment tops up:
//!
//! - Who comes without any token gets an account of its own, named by the first payment's hash. Whoever shows T and the
//!   preimage spends it, like a bearer token spends its voucher, so the operator must allow bearer tokens.
//! - Who has shown its token and its proof tops its own account up, and sends the same call again with a new proof. T
//!   opens nothing then: spending needs the account's key (an issuer, and so a payment, can only add money).

use std::sync::{Arc, OnceLock};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use identity::document::Document;
use identity::jws::Jws;
use identity::token::{self, Issue, TokenPolicy};
use identity::{Documents, Permit, Refusal};
use serde_json::json;

use super::random_name;
use crate::clock;
use crate::http::problem::Problem;
use crate::relay::Relay;

/// How clients ask for the form.
const ACCEPT_AUTHENTICATE: HeaderName = HeaderName::from_static("accept-authenticate");
/// The JWS `typ` of T.
const TYP: &str = "milliway-l402+jws";
/// Longest T with its preimage.
const LENGTH_MAX: usize = 2_048;

/// Whom a call is charged to, once that is known: set where the permit is made, read where a 402 leaves.
#[derive(Clone, Default)]
pub(crate) struct Payer(Arc<OnceLock<Account>>);

/// An account that an invoice may be for.
enum Account {
    /// A holder's, or a bearer token's, by its name.
    Named(String),
    /// One that a payment opened, by that payment's hash.
    OfPayment(String),
}

impl Payer {
    /// Notes the account of a permit.
    pub(crate) fn note(&self, permit: &Permit) {
        let _ = self.0.set(Account::Named(permit.account().to_owned()));
    }

    /// Notes an account that a payment opened.
    pub(crate) fn note_payment(&self, opened: String) {
        let _ = self.0.set(Account::OfPayment(opened));
    }
}

/// What T says.
struct Ticket {
    /// The payment's hash.
    payment_hash: String,
    /// The account, by the hash of the payment that opened it; none where T opens nothing.
    opened: Option<String>,
}

/// Puts the challenge on a 402, and on a 401 of somebody who came with nothing, where the client asks for it.
pub(crate) async fn offer(State(relay): State<Arc<Relay>>, mut request: Request, next: Next) -> Response {
    let asks = relay.config.topup.l402 && asks_for_it(request.headers());
    if !asks {
        return next.run(request).await;
    }
    let payer = Payer::default();
    let nothing_shown = !request.headers().contains_key(header::AUTHORIZATION)
        && !request.headers().contains_key(HeaderName::from_static("dpop"));
    request.extensions_mut().insert(payer.clone());
    let response = next.run(request).await;
    let newcomer =
        nothing_shown && response.status() == StatusCode::UNAUTHORIZED && relay.config.auth.allow_bearer;
    if response.status() != StatusCode::PAYMENT_REQUIRED && !newcomer {
        return response;
    }
    match (payer.0.get(), newcomer) {
        (None, false) => response,
        (account, _) => match relay.challenge(account).await {
            Ok(challenged) => challenged,
            // Without an invoice the answer is what it would have been.
            Err(problem) => {
                tracing::warn!(slug = problem.slug(), "no invoice for an L402 challenge");
                response
            }
        },
    }
}

fn asks_for_it(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT_AUTHENTICATE).iter().any(|value| {
        let schemes = value.to_str().unwrap_or_default().split(',');
        schemes
            .map(str::trim)
            .any(|scheme| scheme.eq_ignore_ascii_case("L402"))
    })
}

impl Relay {
    async fn challenge(&self, account: Option<&Account>) -> Result<Response, Problem> {
        // A newcomer's account has the name of its first payment, which is only known once there is an invoice. So the
        // account is named by a number that is drawn first, and T ties the two together.
        let opened = match account {
            None => Some(random_name()),
            Some(Account::OfPayment(opened)) => Some(opened.clone()),
            Some(Account::Named(_)) => None,
        };
        let name = match (&opened, account) {
            (Some(opened), _) => self.l402_permit(opened)?.account().to_owned(),
            (None, Some(Account::Named(name))) => name.clone(),
            (None, _) => {
                return Err(Problem::new(
                    "balance-exhausted",
                    "Nobody is known who could pay.",
                ));
            }
        };
        let begun = self.begin_lightning(&name, self.config.topup.l402_msat).await?;
        let row = &begun.top_up;
        let invoice = row.detail["invoice"].as_str().unwrap_or_default();
        let claims = json!({ "payment_hash": row.id, "opened": opened, "iat": clock::unix() });
        let ticket = self.key.sign_jws(TYP, claims.to_string().as_bytes());
        let challenge =
            format!("L402 version=\"0\", token=\"{ticket}\", macaroon=\"{ticket}\", invoice=\"{invoice}\"");
        let detail = match opened {
            Some(_) => {
                "Pay the invoice, then send the call again with Authorization: L402 and the token, a colon and the preimage."
            }
            None => "Pay the invoice, then send the call again as it was, with a new proof.",
        };
        Ok(Problem::new("balance-exhausted", detail)
            .with("topup", format!("/v1/topups/{}", row.id))
            .with("invoice", invoice)
            .with("amount_msat", row.msat.get())
            .with("expires", row.expires)
            .header(header::WWW_AUTHENTICATE, &challenge)
            .into_response())
    }

    /// The permit of who shows T and the preimage. The payment is looked up if it is not in yet.
    pub(crate) async fn l402(self: &Arc<Relay>, shown: &str) -> Result<(Permit, String), Refusal> {
        let malformed = |fix| Refusal::TokenMalformed { field: "L402", fix };
        if shown.len() > LENGTH_MAX {
            return Err(malformed("it is too long"));
        }
        let (ticket, preimage) = shown
            .rsplit_once(':')
            .ok_or(malformed("send the token, a colon and the preimage"))?;
        let ticket = self
            .ticket(ticket)
            .ok_or(malformed("it is no token of this relay"))?;
        if !topup::lightning::is_preimage(preimage, &ticket.payment_hash) {
            return Err(malformed("the preimage is not that of the token's invoice"));
        }
        let opened = ticket.opened.ok_or(malformed(
            "this payment topped an account up; send that account's proof",
        ))?;
        self.hurry(&ticket.payment_hash).await;
        Ok((self.l402_permit(&opened)?, opened))
    }

    fn ticket(&self, text: &str) -> Option<Ticket> {
        let jws = Jws::parse(text, "alg, typ, kid").ok()?;
        if jws.header("typ") != Some(TYP) {
            return None;
        }
        // Any node of the operator's may have signed it.
        let documents = self.own_documents();
        let document = documents.resolve(self.key.did()).ok()?;
        let key = match jws.header("kid") {
            Some(kid) if kid == self.key.kid() => self.key.public_key().clone(),
            Some(kid) => document.key(kid)?.clone(),
            None => return None,
        };
        jws.verify(&key).ok()?;
        let claims = jws.claims().ok()?;
        let text = |name| {
            claims
                .get(name)
                .and_then(serde_json::Value::as_str)
                .map(str::to_owned)
        };
        Some(Ticket {
            payment_hash: text("payment_hash")?,
            opened: text("opened"),
        })
    }

    fn own_documents(&self) -> Documents {
        let mut documents = Documents::none();
        if self.key.did().needs_network() {
            let document = Document::parse(self.key.did(), &self.did_document);
            documents.insert(self.key.did().clone(), document.map(Arc::new));
        }
        documents
    }

    /// The permit of an account that a payment opened: that of a bearer token without a balance, by the relay itself.
    fn l402_permit(&self, opened: &str) -> Result<Permit, Refusal> {
        let operator = self.key.did().clone();
        let now = clock::unix();
        let issue = Issue {
            id: Some(format!("l402 {opened}")),
            bearer: true,
            ..Issue::new(operator.clone(), operator.clone(), 0, now)
        };
        let mut policy = TokenPolicy::new(operator.clone(), vec![operator]);
        policy.allow_bearer = self.config.auth.allow_bearer;
        let jwt = token::issue(&self.key, &issue);
        let token = token::verify_with(&jwt, &policy, &self.own_documents(), now)?;
        Permit::from_bearer(token)
    }

    /// Looks a payment up at once.
    async fn hurry(self: &Arc<Relay>, payment_hash: &str) {
        let row = self
            .top_ups
            .followed()
            .get(payment_hash)
            .map(|followed| followed.row.clone());
        if let Some(row) = row {
            self.clone().see_to(row, false).await;
        }
    }
}
