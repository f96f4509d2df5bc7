//! What somebody may have without having paid for it: a credit line, a daily allowance, and the sums that bound them.
//!
//! DIDs are free, so none of it is for a DID alone: it takes a credential by a scorer that the operator lists, and what
//! all of that scorer's people have together is bounded too.

use super::{CredentialRule, Decision, Policy, best_score};
use crate::credential::Credential;
use crate::token::RelayToken;

/// A sum that is counted against, and may not be passed. Whoever keeps the books adds up what has its name.
#[derive(Clone, PartialEq, Eq)]
pub struct Ceiling {
    /// What is added up. It names people: not for logs.
    pub name: String,
    /// The most it may come to, msat.
    pub max_msat: u64,
}

/// How far an account may go below zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreditLine {
    /// The line, msat.
    pub msat: u64,
    /// What all that is owed on the same scorer's word may come to: to be committed with the reserve that draws on it.
    pub within: Ceiling,
    /// Unix seconds until which it may be drawn on: as long as the token and the credential are good.
    pub until: u64,
}

/// What a holder gets for nothing on one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DailyAllowance {
    /// How much, msat.
    pub msat: u64,
    /// Days since 1970 (UTC). With the holder it names the gift, which is given once.
    pub day: u64,
    /// What all gifts of the day on the same scorer's word may come to.
    pub within: Ceiling,
}

/// Names people.
impl std::fmt::Debug for Ceiling {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Ceiling({} msat)", self.max_msat)
    }
}

/// Days since 1970, in UTC, of unix seconds.
pub fn day_of(now: u64) -> u64 {
    now / 86_400
}

impl Policy {
    /// The line that the best score of a listed scorer buys. A bearer token spends its own voucher and nothing else.
    pub(super) fn credit_line(
        &self,
        token: &RelayToken,
        counted: &[(&Credential, CredentialRule)],
        decision: &mut Decision,
    ) {
        if self.credit.is_empty() {
            return;
        }
        let best = best_score(counted).filter(|_| !token.is_bearer() && token.payer().is_none());
        let Some((score, (credential, rule))) = best else {
            return decision.term(
                "credit",
                "none: it takes a ReputationScore by a listed scorer".into(),
            );
        };
        let steps = self.credit.iter().filter(|step| score >= step.score);
        let line = steps
            .map(|step| step.msat)
            .max()
            .unwrap_or_default()
            .min(rule.credit_max);
        if line == 0 {
            return decision.term("credit", format!("none: {score} buys none on its scorer's word"));
        }
        let name = format!("credit {}", credential.issuer());
        let until = credential
            .expires()
            .map_or(token.expires(), |expires| expires.min(token.expires()));
        decision.term(
            "credit",
            format!(
                "{line} msat below zero for a score of {score}, until {until}, within {} of {name:?}",
                rule.credit_max
            ),
        );
        let within = Ceiling {
            name,
            max_msat: rule.credit_max,
        };
        decision.terms.credit = Some(CreditLine {
            msat: line,
            within,
            until,
        });
    }

    /// Today's gift.
    pub(super) fn daily_allowance(
        &self,
        token: &RelayToken,
        counted: &[(&Credential, CredentialRule)],
        now: u64,
        decision: &mut Decision,
    ) {
        let rule = &self.allowance;
        if rule.msat_per_day == 0 {
            return;
        }
        let best = best_score(counted).filter(|_| !token.is_bearer() && token.payer().is_none());
        let Some((_, (credential, word))) = best.filter(|(score, _)| *score >= rule.score_min) else {
            let why = format!("none: it takes a score of {} by a listed scorer", rule.score_min);
            return decision.term("allowance", why);
        };
        if word.allowance_day_max < rule.msat_per_day {
            return decision.term("allowance", "none: its scorer's word is good for none".into());
        }
        let day = day_of(now);
        let within = Ceiling {
            name: format!("allowance {} {day}", credential.issuer()),
            max_msat: word.allowance_day_max,
        };
        let why = format!(
            "{} msat today, within {} of {:?}",
            rule.msat_per_day, within.max_msat, within.name
        );
        decision.term("allowance", why);
        decision.terms.allowance = Some(DailyAllowance {
            msat: rule.msat_per_day,
            day,
            within,
        });
    }
}
