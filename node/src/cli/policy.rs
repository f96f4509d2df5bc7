//! `milliway policy explain`: why a token is admitted or not, rule by rule, by the very decision that the relay makes.
//! Sums of the day and the rate of admissions are a running relay's to know.

use clap::Subcommand;
use identity::credential::{self, Rules as CredentialRules};
use identity::policy::{DenyList, Finding, Service, Verdict};
use identity::{Did, Documents, SigningKey, token};
use serde_json::Value;

use super::account::Books;
use super::{Failure, deny};
use crate::config::Config;
use crate::data::Data;
use crate::policy::{Policies, Rules, deny_list};
use crate::resolver::Resolver;
use crate::{clock, start};

#[derive(Subcommand)]
pub(super) enum PolicyCommand {
    /// Say rule by rule why a token is admitted or not; exit 1 if it is not
    Explain {
        /// The compact JWT
        #[arg(long, value_name = "JWT")]
        token: String,
        #[command(flatten)]
        books: Books,
        /// Only for this service [default: those that the token opens]
        #[arg(long, value_name = "SERVICE", value_parser = ["sfu", "turn"])]
        service: Option<String>,
    },
}

pub(super) fn run(command: PolicyCommand) -> Result<(), Failure> {
    let PolicyCommand::Explain {
        token,
        books,
        service,
    } = command;
    let mut config =
        Config::load(books.config.as_deref(), std::env::vars()).map_err(|mistakes| start::said(&mistakes))?;
    let data = Data::at(books.data.as_ref().unwrap_or(&config.relay.data));
    // A folder that no relay has used yet has no key, and must not get one here.
    let operator = match data.path("relay.jwk").is_file() {
        true => data.relay_key()?,
        false => return Err("the relay's key is not in its data folder; name the folder with --data".into()),
    };
    // `milliway dev` lists its own issuer.
    if let Ok(issuer) = SigningKey::load(&data.path("issuer.jwk")) {
        config.auth.issuers.push(issuer.did().clone());
    }
    let base = start::token_policy(&config, operator.did(), 0);
    // Books that nobody has opened yet deny nobody.
    let denied = match config.ledger.url.is_empty() && !data.ledger().is_file() {
        true => DenyList::default(),
        false => deny_list(&deny::denied(&books)?),
    };
    let policies = Policies::open(&config, base, denied).map_err(|mistakes| start::said(&mistakes))?;
    let resolver = Resolver::new(&config.did)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let rules = policies.rules();
    let documents = runtime.block_on(resolver.documents_for(&token, &rules.token));
    explain(&token, &rules, documents, service.as_deref())
}

fn explain(
    jwt: &str,
    rules: &Rules,
    documents: Result<Documents, identity::Refusal>,
    only: Option<&str>,
) -> Result<(), Failure> {
    let now = clock::unix();
    let verified = documents
        .and_then(|documents| Ok((token::verify_with(jwt, &rules.token, &documents, now)?, documents)));
    let (token, documents) = match verified {
        Ok(verified) => verified,
        Err(refusal) => {
            print("token", Verdict::Refuse, format!("{}: {refusal}", refusal.slug()));
            return Err(format!("not admitted: {}", refusal.slug()));
        }
    };
    print(
        "token",
        Verdict::Pass,
        "form, issuer, signature, audience and times are good".into(),
    );
    for (number, why) in credentials(jwt, token.subject(), rules, &documents, now)
        .into_iter()
        .enumerate()
    {
        let (verdict, why) = match why {
            Ok(why) => (Verdict::Pass, why),
            Err(why) => (Verdict::Term, format!("counts as absent: {why}")),
        };
        print("credential", verdict, format!("vc[{number}]: {why}"));
    }
    let services = [
        (Service::Sfu, token.services().sfu),
        (Service::Turn, token.services().turn),
    ];
    let mut refused = Vec::new();
    for (service, opened) in services {
        if only.map_or(!opened, |only| only != service.name()) {
            continue;
        }
        let decision = rules.decide(&token, service, now);
        println!("{}:", service.name());
        for finding in &decision.findings {
            println!("  {finding}");
        }
        match decision.refusal {
            None => println!("  admitted, with a proof of the holder's key and enough money"),
            Some(refusal) => {
                println!("  not admitted: {}", refusal.slug());
                refused.push(format!("{}: {}", service.name(), refusal.slug()));
            }
        }
    }
    match refused.as_slice() {
        [] => Ok(()),
        refused => Err(format!("not admitted: {}", refused.join(", "))),
    }
}

fn print(rule: &'static str, verdict: Verdict, why: String) {
    println!("{}", Finding { rule, verdict, why });
}

/// What came of each credential in the token.
fn credentials(
    jwt: &str,
    subject: &Did,
    rules: &Rules,
    documents: &Documents,
    now: u64,
) -> Vec<Result<String, String>> {
    let claims = token::show_unverified(jwt).map(|(_, claims)| claims);
    let list = claims
        .as_ref()
        .and_then(|claims| claims.get("vc"))
        .and_then(Value::as_array);
    let rules = CredentialRules {
        issuers: &rules.token.credential_issuers,
        subject,
        leeway: rules.token.leeway,
        now,
    };
    let texts = list.into_iter().flatten().filter_map(Value::as_str);
    texts
        .map(|text| match credential::verify(text, &rules, documents) {
            Ok(credential) => Ok(format!("verified, by {}", credential.issuer())),
            Err(fault) => Err(fault.to_string()),
        })
        .collect()
}
