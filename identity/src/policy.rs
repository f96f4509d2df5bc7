//! The operator's policy: whom the relay serves beyond what a token by itself says, and on which terms.
//!
//! A decision is a list of findings, rule by rule, in a fixed order; the first that refuses is the answer. The same list
//! explains the decision (`milliway policy explain`), so that what is explained is what is done. Nothing here counts or
//! remembers: caps over several vouchers come out as [`Ceiling`]s, for whoever keeps the books.

mod credit;
mod deny;
mod list;

use std::collections::BTreeMap;
use std::fmt;

use crate::credential::Credential;
use crate::did::Did;
use crate::refusal::Refusal;
use crate::token::RelayToken;

pub use credit::{Ceiling, CreditLine, DailyAllowance, day_of};
pub use deny::{DenyList, ENTRIES_MAX, Kind, ListFull};
pub use list::{LIST_TYP, ListFault, SignedList, sign_list};

/// What the operator decided.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Issuers of relay tokens with their caps. One that is listed elsewhere (`auth.issuers`) and not here has none.
    pub issuers: BTreeMap<Did, IssuerRule>,
    /// Whose credentials count, for what.
    pub credentials: BTreeMap<Did, CredentialRule>,
    /// What the SFU asks of a holder.
    pub sfu: ServiceRule,
    /// What TURN asks of a holder.
    pub turn: ServiceRule,
    /// What a score buys on credit; empty: nothing does.
    pub credit: Vec<CreditStep>,
    /// What a holder gets for nothing, each day.
    pub allowance: AllowanceRule,
    /// Emergency services: under a token that one of them issued, a session is free.
    pub emergency: Vec<Did>,
    /// Holders who are served whatever a community's list says of them.
    pub allow: Vec<Did>,
    /// Nobody but these is served.
    pub allow_only: bool,
}

/// Caps on an issuer's vouchers, in msat. `None` is no cap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IssuerRule {
    /// One voucher.
    pub voucher_max: Option<u64>,
    /// All its vouchers of a day (UTC).
    pub day_max: Option<u64>,
    /// All its vouchers of a day for one holder.
    pub holder_day_max: Option<u64>,
    /// What its vouchers may be worth at a time, not counting what was spent or paid back.
    pub outstanding_max: Option<u64>,
    /// What it gives is promotional: spent first and never paid back.
    pub promotional: bool,
}

/// What a credential issuer's word is good for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialRule {
    /// Its ReputationScores count.
    pub score: bool,
    /// Its Roles count.
    pub role: bool,
    /// Its Organizations count.
    pub organization: bool,
    /// What all credit lines on its word may come to, msat.
    pub credit_max: u64,
    /// What all free allowances of a day on its word may come to, msat.
    pub allowance_day_max: u64,
}

/// What a service asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceRule {
    /// The least reputation, of the token's issuer or a listed scorer.
    pub score_min: Option<i64>,
    /// One of these roles, if any are named.
    pub roles: Vec<String>,
    /// One of these organizations, if any are named.
    pub organizations: Vec<String>,
}

/// From this score on, this much credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreditStep {
    /// The least score.
    pub score: i64,
    /// The line, msat.
    pub msat: u64,
}

/// A free allowance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllowanceRule {
    /// Each day, msat; 0: none.
    pub msat_per_day: u64,
    /// The least score, by a listed scorer: DIDs are free, so a DID alone gets nothing.
    pub score_min: i64,
}

/// A service of the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Group calls.
    Sfu,
    /// Relaying.
    Turn,
}

impl Service {
    /// As tokens name it.
    pub fn name(self) -> &'static str {
        match self {
            Service::Sfu => "sfu",
            Service::Turn => "turn",
        }
    }
}

/// What a rule came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing against it.
    Pass,
    /// This is why not.
    Refuse,
    /// A term of the admission, neither for nor against.
    Term,
}

/// One rule and what it came to, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule's name.
    pub rule: &'static str,
    /// What it came to.
    pub verdict: Verdict,
    /// Why, in a sentence. It names DIDs: not for logs.
    pub why: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Pass => "pass",
            Verdict::Refuse => "REFUSE",
            Verdict::Term => "term",
        };
        write!(formatter, "{verdict:<6} {:<12} {}", self.rule, self.why)
    }
}

/// The terms on which a holder is served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// The voucher is promotional.
    pub promotional: bool,
    /// Sums that this voucher has to stay within, with what else counts against them.
    pub ceilings: Vec<Ceiling>,
    /// The day that they are of: days since 1970 (UTC).
    pub day: u64,
    /// What its issuer may have outstanding, this voucher included.
    pub outstanding_max: Option<u64>,
    /// How far the account may go below zero.
    pub credit: Option<CreditLine>,
    /// What the holder gets for nothing today.
    pub allowance: Option<DailyAllowance>,
    /// Free, and never throttled.
    pub emergency: bool,
}

/// All findings, the refusal if there is one, and the terms if there is none.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Rule by rule.
    pub findings: Vec<Finding>,
    /// The first refusal.
    pub refusal: Option<Refusal>,
    /// The terms; those of a refusal are worth nothing.
    pub terms: Terms,
}

impl Decision {
    /// The terms, or why not.
    pub fn terms(self) -> Result<Terms, Refusal> {
        match self.refusal {
            Some(refusal) => Err(refusal),
            None => Ok(self.terms),
        }
    }

    fn pass(&mut self, rule: &'static str, why: String) {
        self.add(rule, Verdict::Pass, why);
    }

    fn term(&mut self, rule: &'static str, why: String) {
        self.add(rule, Verdict::Term, why);
    }

    fn refuse(&mut self, rule: &'static str, why: String, refusal: Refusal) {
        self.add(rule, Verdict::Refuse, why);
        self.refusal.get_or_insert(refusal);
    }

    fn add(&mut self, rule: &'static str, verdict: Verdict, why: String) {
        self.findings.push(Finding { rule, verdict, why });
    }
}

impl Policy {
    /// Everyone whose credentials are worth verifying.
    pub fn credential_issuers(&self) -> Vec<Did> {
        self.credentials.keys().cloned().collect()
    }

    /// May the holder of this token use the service now, and how? `own` is the operator's deny list, `community` what
    /// others' signed lists say.
    pub fn decide(
        &self,
        token: &RelayToken,
        service: Service,
        own: &DenyList,
        community: &DenyList,
        now: u64,
    ) -> Decision {
        let mut decision = self.crediting(token, own, community, now);
        let services = token.services();
        let opens = match service {
            Service::Sfu => services.sfu,
            Service::Turn => services.turn,
        };
        match opens {
            true => decision.pass("service", format!("the token opens {}", service.name())),
            false => decision.refuse(
                "service",
                format!("the token does not open {}", service.name()),
                Refusal::ServiceForbidden,
            ),
        }
        let counted = self.counted(token, own, community, now);
        self.reputation(token, service, &counted, &mut decision);
        self.membership(service, &counted, &mut decision);
        self.credit_line(token, &counted, &mut decision);
        self.daily_allowance(token, &counted, now, &mut decision);
        if self.emergency.contains(token.issuer()) {
            decision.terms.emergency = true;
            decision.term(
                "emergency",
                "an emergency service issued the token: free, never throttled".into(),
            );
        }
        decision
    }

    /// May this token's voucher be credited, and within which sums? Asked of every token, whatever the call.
    pub fn crediting(&self, token: &RelayToken, own: &DenyList, community: &DenyList, now: u64) -> Decision {
        let mut decision = Decision {
            findings: Vec::new(),
            refusal: None,
            terms: Terms::default(),
        };
        decision.pass(
            "issuer",
            format!("{} is listed, and signed the token", token.issuer()),
        );
        let allowed = self.allow.contains(token.subject());
        match (own.hit(token), community.hit(token)) {
            (Some(kind), _) => {
                decision.refuse("deny", format!("the operator denies its {kind}"), Refusal::Denied);
            }
            (None, Some(kind)) if !allowed => {
                decision.refuse(
                    "deny",
                    format!("a community list denies its {kind}"),
                    Refusal::Denied,
                );
            }
            (None, Some(kind)) => {
                decision.pass(
                    "deny",
                    format!("a community list denies its {kind}, but the operator allows the holder"),
                );
            }
            (None, None) => decision.pass("deny", "on no list".into()),
        }
        if self.allow_only && !allowed {
            decision.refuse(
                "allow",
                "only listed holders are served, and this is none".into(),
                Refusal::Denied,
            );
        }
        self.caps(token, now, &mut decision);
        decision
    }

    fn caps(&self, token: &RelayToken, now: u64, decision: &mut Decision) {
        let Some(rule) = self.issuers.get(token.issuer()) else {
            return decision.pass("caps", "its issuer has no caps".into());
        };
        decision.terms.promotional = rule.promotional;
        let (balance, day) = (token.balance_msat(), day_of(now));
        decision.terms.day = day;
        match rule.voucher_max {
            Some(most) if balance > most => decision.refuse(
                "caps",
                format!("its voucher of {balance} msat is above the issuer's cap of {most}"),
                Refusal::IssuerLimit,
            ),
            Some(most) => decision.pass("caps", format!("its voucher of {balance} msat is within {most}")),
            None => {}
        }
        let issuer = token.issuer();
        let sums = [
            (rule.day_max, format!("issuer {issuer} {day}")),
            (
                rule.holder_day_max,
                format!("holder {issuer} {} {day}", token.subject()),
            ),
        ];
        for (max_msat, name) in sums {
            if let Some(max_msat) = max_msat {
                decision.term("caps", format!("counts against {max_msat} msat of \"{name}\""));
                decision.terms.ceilings.push(Ceiling { name, max_msat });
            }
        }
        if let Some(most) = rule.outstanding_max {
            decision.term("caps", format!("the issuer may have {most} msat outstanding"));
            decision.terms.outstanding_max = Some(most);
        }
        if rule.promotional {
            decision.term("caps", "promotional: spent first, never paid back".into());
        }
    }

    /// The credentials that count now: of each, what its issuer's word is good for.
    fn counted<'a>(
        &self,
        token: &'a RelayToken,
        own: &DenyList,
        community: &DenyList,
        now: u64,
    ) -> Vec<(&'a Credential, CredentialRule)> {
        let rule = |credential: &Credential| self.credentials.get(credential.issuer()).cloned();
        let denied = |credential: &Credential| own.denies(credential) || community.denies(credential);
        let credentials = token
            .credentials()
            .iter()
            .filter(|credential| !denied(credential) && !credential.is_over(now));
        credentials
            .filter_map(|credential| Some((credential, rule(credential)?)))
            .collect()
    }

    fn reputation(
        &self,
        token: &RelayToken,
        service: Service,
        counted: &[(&Credential, CredentialRule)],
        decision: &mut Decision,
    ) {
        let Some(least) = self.rule(service).score_min else {
            return decision.pass("reputation", format!("{} asks for none", service.name()));
        };
        let by_scorers = best_score(counted).map(|(score, _)| score);
        let score = by_scorers.max(token.issuers_score());
        match score {
            Some(score) if score >= least => {
                decision.pass(
                    "reputation",
                    format!("{score} of the {least} that {} asks for", service.name()),
                );
            }
            Some(score) => decision.refuse(
                "reputation",
                format!("{score} is below the {least} that {} asks for", service.name()),
                Refusal::ReputationTooLow,
            ),
            None => decision.refuse(
                "reputation",
                format!("none that counts here, and {} asks for {least}", service.name()),
                Refusal::ReputationTooLow,
            ),
        }
    }

    fn membership(
        &self,
        service: Service,
        counted: &[(&Credential, CredentialRule)],
        decision: &mut Decision,
    ) {
        let rule = self.rule(service);
        let held =
            |wanted: &[String], of: fn(&Credential) -> Option<&str>, counts: fn(&CredentialRule) -> bool| {
                let mut names = counted
                    .iter()
                    .filter(|(_, rule)| counts(rule))
                    .filter_map(|(one, _)| of(one));
                names
                    .find(|name| wanted.iter().any(|wanted| wanted == name))
                    .map(str::to_owned)
            };
        let roles = held(&rule.roles, Credential::role, |rule| rule.role);
        let organizations = held(&rule.organizations, Credential::organization, |rule| {
            rule.organization
        });
        for (name, wanted, held) in [
            ("role", &rule.roles, roles),
            ("organization", &rule.organizations, organizations),
        ] {
            match held {
                _ if wanted.is_empty() => {}
                Some(held) => decision.pass(name, format!("holds {held:?}")),
                None => decision.refuse(
                    name,
                    format!("{} asks for a credential of one of {wanted:?}", service.name()),
                    Refusal::ReputationTooLow,
                ),
            }
        }
    }

    /// What a service asks of a holder.
    pub fn rule(&self, service: Service) -> &ServiceRule {
        match service {
            Service::Sfu => &self.sfu,
            Service::Turn => &self.turn,
        }
    }
}

/// The best score by a listed scorer, and who gave it. Of equal ones the first.
fn best_score<'a>(
    counted: &'a [(&'a Credential, CredentialRule)],
) -> Option<(i64, &'a (&'a Credential, CredentialRule))> {
    let scores = counted.iter().filter(|(_, rule)| rule.score);
    let scores = scores.filter_map(|one| Some((one.0.score()?, one)));
    scores.rev().max_by_key(|(score, _)| *score)
}
