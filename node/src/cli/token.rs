//! `milliway token`: what an issuer does (issue), and a look into a token without checking it (show).

use std::path::PathBuf;

use clap::{Args, Subcommand};
use identity::did_web::Location;
use identity::{SigningKey, token};
use serde_json::json;

use super::Failure;
use super::did::did_or_alias;
use crate::clock;

#[derive(Subcommand)]
pub(super) enum TokenCommand {
    /// Sign a relay token and print it
    Issue(Box<IssueArguments>),
    /// Print a token's header and claims, unchecked
    Show {
        /// The compact JWT
        jwt: String,
    },
}

#[derive(Args)]
pub(super) struct IssueArguments {
    /// The issuer's private JWK (`milliway did new`, or the ready line's `issuer_key`)
    #[arg(long, value_name = "FILE")]
    issuer_key: PathBuf,
    /// DID of the holder, or a name like alice@voice.example
    #[arg(long, value_name = "DID")]
    sub: String,
    /// DID of the operator (the ready line's `did`)
    #[arg(long, value_name = "DID")]
    aud: String,
    /// The voucher, in millisatoshi; credited once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=BALANCE_MAX))]
    balance_msat: u64,
    /// How long the token is valid: a number with s, m, h or d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = seconds)]
    ttl: u64,
    /// What it opens
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "sfu,turn", value_parser = ["sfu", "turn"])]
    service: Vec<String>,
    /// The only room it opens
    #[arg(long, value_name = "ROOM")]
    room: Option<String>,
    /// The tariff that was quoted
    #[arg(long, value_name = "ID")]
    tariff: Option<String>,
    /// DID or name of the account that pays, if not the holder's; needs --payer-grant
    #[arg(long, value_name = "DID", requires = "payer_grant")]
    payer: Option<String>,
    /// The payer's consent: a JWS by its key
    #[arg(long, value_name = "JWS", requires = "payer")]
    payer_grant: Option<String>,
    /// The holder's reputation, in the issuer's opinion
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    reputation: Option<i64>,
    /// Usable without a proof of possession, for tools that cannot sign; spends only its own voucher
    #[arg(long, conflicts_with = "payer")]
    bearer: bool,
}

/// The largest balance: every JSON reader can hold it exactly.
const BALANCE_MAX: u64 = (1 << 53) - 1;

/// "90", "90s", "15m", "1h" or "7d" in seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || "must be a number with s, m, h or d, like 1h".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let (number, factor) = match unit {
        's' => (&text[..text.len() - 1], 1),
        'm' => (&text[..text.len() - 1], 60),
        'h' => (&text[..text.len() - 1], 3600),
        'd' => (&text[..text.len() - 1], 86_400),
        _ => (text, 1),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number
        .checked_mul(factor)
        .filter(|seconds| (1..=31_536_000).contains(seconds))
        .ok_or_else(wrong)
}

pub(super) fn run(command: TokenCommand) -> Result<(), Failure> {
    match command {
        TokenCommand::Issue(arguments) => issue(*arguments),
        TokenCommand::Show { jwt } => {
            let (header, claims) = token::show_unverified(&jwt)
                .ok_or("this is no JWT: it must be three parts of base64url with dots between them")?;
            let shown = json!({ "header": header, "claims": claims });
            println!(
                "{}",
                serde_json::to_string_pretty(&shown).map_err(|error| error.to_string())?
            );
            eprintln!("milliway: the signature was not checked");
            Ok(())
        }
    }
}

fn issue(arguments: IssueArguments) -> Result<(), Failure> {
    let file = arguments.issuer_key.display();
    let key = SigningKey::load(&arguments.issuer_key).map_err(|error| format!("{file}: {error}"))?;
    let subject = did_or_alias("--sub", &arguments.sub)?;
    let usable = match subject.needs_network() {
        true => Location::of(&subject).map(drop),
        false => identity::resolve(&subject).map(drop),
    };
    usable.map_err(|error| format!("--sub has no usable key: {error}"))?;
    let audience = did_or_alias("--aud", &arguments.aud)?;
    let mut wanted = token::Issue::new(subject, audience, arguments.balance_msat, clock::unix());
    wanted.lifetime = arguments.ttl;
    wanted.services = (arguments.service.len() < 2).then_some(arguments.service);
    wanted.room = arguments.room;
    wanted.tariff = arguments.tariff;
    wanted.reputation = arguments.reputation;
    wanted.bearer = arguments.bearer;
    if let Some(payer) = arguments.payer {
        wanted.payer = Some((did_or_alias("--payer", &payer)?, arguments.payer_grant));
    }
    println!("{}", token::issue(&key, &wanted));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(seconds("90"), Ok(90));
        assert_eq!(seconds("15m"), Ok(900));
        assert_eq!(seconds("1h"), Ok(3600));
        assert_eq!(seconds("7d"), Ok(604_800));
        for wrong in ["", "h", "-1h", "1.5h", "0", "1y", "99999999999999999999d", "1é"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
