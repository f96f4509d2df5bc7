//! The policy's file: TOML, every key optional, an unknown one a mistake with its line. docs/identity.md explains it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use identity::Did;
use identity::did_web::Location;
use identity::json::INTEGER_MAX;
use identity::policy::{
    AllowanceRule, CredentialRule, CreditStep, DenyList, IssuerRule, Kind, Policy, ServiceRule,
};
use serde::{Deserialize, Deserializer, de::Error};

use crate::config::Mistake;

/// How often a community's list is looked at again, unless the policy says otherwise.
const REFRESH_SECONDS: u64 = 300;
/// Lists listened to.
const COMMUNITIES_MAX: usize = 32;

/// What the file says.
#[derive(Debug, Default)]
pub(crate) struct PolicyFile {
    /// The rules.
    pub(crate) policy: Policy,
    /// Whom it denies.
    pub(crate) denied: DenyList,
    /// Whose lists it listens to.
    pub(crate) communities: Vec<Community>,
    /// Admissions of one account in a minute; 0 is no limit.
    pub(crate) admissions_per_minute: u64,
    /// A session that lacks what the SFU asks for ends after this many seconds; 0: it goes on.
    pub(crate) ends_after_seconds: u64,
}

/// A signed list and where it lies.
#[derive(Clone, Debug)]
pub(crate) struct Community {
    /// Who signs it.
    pub(crate) did: Did,
    /// Where it lies.
    pub(crate) source: Source,
    /// How often it is looked at.
    pub(crate) refresh_seconds: u64,
}

/// Where a list lies.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// On this machine.
    File(PathBuf),
    /// On an https server.
    Web(Location),
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Tables {
    issuers: BTreeMap<Did, IssuerTable>,
    credentials: BTreeMap<Did, CredentialTable>,
    sfu: ServiceTable,
    turn: ServiceTable,
    credit: Vec<CreditTable>,
    allowance: AllowanceTable,
    emergency: EmergencyTable,
    deny: DenyTable,
    allow: AllowTable,
    lists: Vec<ListTable>,
    rates: RatesTable,
    present: PresentTable,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct IssuerTable {
    voucher_max_msat: Option<Amount>,
    day_max_msat: Option<Amount>,
    holder_day_max_msat: Option<Amount>,
    outstanding_max_msat: Option<Amount>,
    promotional: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct CredentialTable {
    types: Vec<CredentialType>,
    credit_max_msat: Amount,
    allowance_day_max_msat: Amount,
}

#[derive(Deserialize, PartialEq)]
enum CredentialType {
    ReputationScore,
    Role,
    Organization,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ServiceTable {
    reputation_min: Option<i64>,
    roles: Vec<String>,
    organizations: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreditTable {
    score: i64,
    msat: Amount,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AllowanceTable {
    msat_per_day: Amount,
    score_min: i64,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct EmergencyTable {
    dids: Vec<Did>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DenyTable {
    jti: Vec<Entry>,
    sub: Vec<Entry>,
    kid: Vec<Entry>,
    iss: Vec<Entry>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AllowTable {
    sub: Vec<Did>,
    only: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListTable {
    did: Did,
    url: Option<Url>,
    file: Option<PathBuf>,
    refresh_seconds: Option<Refresh>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RatesTable {
    admissions_per_minute: u64,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PresentTable {
    ends_after_seconds: Option<Refresh>,
}

/// An amount in msat.
#[derive(Clone, Copy, Default)]
struct Amount(u64);
/// One entry of a deny list.
struct Entry(String);
/// Where a list is fetched from.
struct Url(Location);
/// Seconds between two looks.
struct Refresh(u64);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Amount, D::Error> {
        let amount = u64::deserialize(deserializer)?;
        match amount <= INTEGER_MAX {
            true => Ok(Amount(amount)),
            false => Err(D::Error::custom("an amount is 9007199254740991 msat at most")),
        }
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entry, D::Error> {
        let text = String::deserialize(deserializer)?;
        DenyList::default()
            .add(Kind::Jti, &text)
            .map_err(D::Error::custom)?;
        Ok(Entry(text))
    }
}

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
        let text = String::deserialize(deserializer)?;
        Location::of_url(&text).map(Url).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Refresh {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Refresh, D::Error> {
        let seconds = u64::deserialize(deserializer)?;
        match (1..=86_400).contains(&seconds) {
            true => Ok(Refresh(seconds)),
            false => Err(D::Error::custom("these seconds are within 1..=86400")),
        }
    }
}

impl PolicyFile {
    /// Reads the file.
    pub(crate) fn read(path: &Path) -> Result<PolicyFile, Mistake> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| Mistake {
            place: name.clone(),
            what: format!("cannot be read: {error}"),
        })?;
        PolicyFile::parse(&text).map_err(|(line, what)| Mistake {
            place: format!("{name}:{line}"),
            what,
        })
    }

    fn parse(text: &str) -> Result<PolicyFile, (usize, String)> {
        let tables: Tables = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let line = 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
            (line, error.message().to_owned())
        })?;
        let line_of = |what: &str| {
            1 + text
                .lines()
                .position(|line| line.trim() == what)
                .unwrap_or_default()
        };
        let mut communities = Vec::new();
        for list in tables.lists {
            let source = match (list.url, list.file) {
                (Some(Url(location)), None) => Source::Web(location),
                (None, Some(path)) => Source::File(path),
                _ => {
                    return Err((
                        line_of("[[lists]]"),
                        "each of [[lists]] has either url or file".into(),
                    ));
                }
            };
            communities.push(Community {
                did: list.did,
                source,
                refresh_seconds: list.refresh_seconds.map_or(REFRESH_SECONDS, |refresh| refresh.0),
            });
        }
        if communities.len() > COMMUNITIES_MAX {
            return Err((
                line_of("[[lists]]"),
                format!("there are {COMMUNITIES_MAX} of [[lists]] at most"),
            ));
        }
        let mut denied = DenyList::default();
        for (kind, entries) in [
            (Kind::Jti, tables.deny.jti),
            (Kind::Sub, tables.deny.sub),
            (Kind::Kid, tables.deny.kid),
            (Kind::Iss, tables.deny.iss),
        ] {
            for Entry(value) in entries {
                denied
                    .add(kind, &value)
                    .map_err(|error| (line_of("[deny]"), error.to_string()))?;
            }
        }
        let credit = tables.credit.into_iter().map(|step| CreditStep {
            score: step.score,
            msat: step.msat.0,
        });
        Ok(PolicyFile {
            policy: Policy {
                issuers: tables
                    .issuers
                    .into_iter()
                    .map(|(did, table)| (did, table.into()))
                    .collect(),
                credentials: tables
                    .credentials
                    .into_iter()
                    .map(|(did, table)| (did, table.into()))
                    .collect(),
                sfu: tables.sfu.into(),
                turn: tables.turn.into(),
                credit: credit.collect(),
                allowance: AllowanceRule {
                    msat_per_day: tables.allowance.msat_per_day.0,
                    score_min: tables.allowance.score_min,
                },
                emergency: tables.emergency.dids,
                allow: tables.allow.sub,
                allow_only: tables.allow.only,
            },
            denied,
            communities,
            admissions_per_minute: tables.rates.admissions_per_minute,
            ends_after_seconds: tables.present.ends_after_seconds.map_or(0, |after| after.0),
        })
    }
}

impl From<IssuerTable> for IssuerRule {
    fn from(table: IssuerTable) -> IssuerRule {
        let msat = |amount: Option<Amount>| amount.map(|amount| amount.0);
        IssuerRule {
            voucher_max: msat(table.voucher_max_msat),
            day_max: msat(table.day_max_msat),
            holder_day_max: msat(table.holder_day_max_msat),
            outstanding_max: msat(table.outstanding_max_msat),
            promotional: table.promotional,
        }
    }
}

impl From<CredentialTable> for CredentialRule {
    fn from(table: CredentialTable) -> CredentialRule {
        CredentialRule {
            score: table.types.contains(&CredentialType::ReputationScore),
            role: table.types.contains(&CredentialType::Role),
            organization: table.types.contains(&CredentialType::Organization),
            credit_max: table.credit_max_msat.0,
            allowance_day_max: table.allowance_day_max_msat.0,
        }
    }
}

impl From<ServiceTable> for ServiceRule {
    fn from(table: ServiceTable) -> ServiceRule {
        ServiceRule {
            score_min: table.reputation_min,
            roles: table.roles,
            organizations: table.organizations,
        }
    }
}
