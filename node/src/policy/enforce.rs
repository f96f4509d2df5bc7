//! The policy at work: what admissions ask of it, what it credits, and what it does to live sessions when somebody is
//! denied.

use std::sync::Arc;
use std::time::Duration;

use identity::policy::{Ceiling, CreditLine, DailyAllowance, DenyList, Service, Terms};
use identity::{Owner, Permit, RelayToken};
use metering::{AccountId, Msat, Voucher};

use super::{Lists, Rules};
use metering::ledger::{self, Bounds, Conditions, Credited, Denied};

use crate::cashier;
use crate::clock;
use crate::http::problem::Problem;
use crate::relay::Relay;
use crate::shard::{Command, ShardHandle};

/// A shard that could not be told of a denial is told again this soon.
const TELL_AGAIN: Duration = Duration::from_millis(100);
/// How often it is looked which of the communities' lists are due.
const LISTS_EVERY: Duration = Duration::from_secs(1);

impl Relay {
    /// May this permit open a session of the service now? Counts against the account's rate, and gives what its
    /// holder gets for nothing today.
    pub(crate) async fn require_policy(&self, permit: &Permit, service: Service) -> Result<Terms, Problem> {
        let (rules, now) = (self.policies.rules(), clock::unix());
        let shared = self.shared(permit);
        let terms = rules
            .decide(shared.as_ref().unwrap_or(permit).token(), service, now)
            .terms()
            .inspect_err(|refusal| {
                self.metrics.auth_failure(refusal.slug());
            })?;
        let most = rules.admissions_per_minute;
        if most > 0 && !self.rates.admit(permit.account(), most, now) {
            return Err(Problem::new(
                "rate-limited",
                "This account opens more sessions in a minute than the operator allows; wait a minute.",
            ));
        }
        if let Some(allowance) = &terms.allowance {
            self.give(permit, allowance).await?;
        }
        Ok(terms)
    }

    /// The permit with what its holder presented in another session that is live: it counts for whatever else they ask for
    /// meanwhile. None if there is nothing to add.
    pub(crate) fn shared(&self, permit: &Permit) -> Option<Permit> {
        let holder = permit
            .holder()
            .filter(|_| permit.token().presented().is_empty())?;
        let presenter = self.registry().presenter(holder)?;
        Some(permit.sharing(&presenter))
    }

    /// Credits a token's voucher, within what its issuer may give.
    pub(crate) async fn credit(&self, token: &RelayToken) -> Result<Credited, Problem> {
        let terms = self.policies.rules().crediting(token, clock::unix()).terms()?;
        let voucher = self.voucher(token, &terms);
        Ok(self.cashier.credit(voucher, bounds(&terms)).await?)
    }

    /// Credits the token that somebody shows who comes for what is theirs already. What the policy does not take is left
    /// where it is, and so is a denied token's: the account may be looked at all the same.
    pub(crate) async fn credit_shown(&self, owner: &Owner) -> Result<Option<Credited>, Problem> {
        let Some(token) = owner.token() else {
            return Ok(None);
        };
        match self.credit(token).await {
            Ok(credited) => Ok(Some(credited)),
            Err(problem) if problem.status() == 403 && problem.slug() != "account-frozen" => Ok(None),
            Err(problem) => Err(problem),
        }
    }

    /// What an admission credits in its own commit, and on which conditions it is: within the sums of its issuer, with
    /// the holder's credit line. What is above a sum stays uncredited, and the account may have money all the same.
    pub(crate) fn at_admission(&self, token: &RelayToken, terms: &Terms) -> (Voucher, Conditions) {
        let conditions = Conditions {
            bounds: bounds(terms),
            credit: terms.credit.as_ref().map(line),
            free_instead_of: None,
        };
        (self.voucher(token, terms), conditions)
    }

    fn voucher(&self, token: &RelayToken, terms: &Terms) -> Voucher {
        Voucher {
            refundable: !terms.promotional,
            ..cashier::voucher(&token.voucher())
        }
    }

    /// A gift is a voucher of the operator's own, named by day and holder, so that it is given once whatever happens. Who
    /// has as much already gets none.
    async fn give(&self, permit: &Permit, allowance: &DailyAllowance) -> Result<(), Problem> {
        let account = AccountId::new(permit.account());
        let has = self.cashier.account(account.clone()).await?;
        if has.spendable >= Msat::new(allowance.msat) {
            return Ok(());
        }
        let operator = self.policies.rules().token.operator.clone();
        let gift = Voucher {
            iss: operator.as_str().to_owned(),
            jti: format!("allowance {} {}", allowance.day, permit.account()),
            sub: permit.account().to_owned(),
            payer: None,
            aud: operator.as_str().to_owned(),
            balance: Msat::new(allowance.msat),
            account,
            refundable: false,
        };
        let within = Bounds {
            ceilings: vec![ceiling(&allowance.within, allowance.day)],
            allowance: true,
            ..Bounds::default()
        };
        match self.cashier.credit(gift, within).await {
            // Its scorer's word is good for no more today.
            Ok(_) | Err(cashier::Refused::CeilingReached) => Ok(()),
            Err(refused) => Err(refused.into()),
        }
    }

    /// Reads policy and deny lists again; with a mistake the old ones stay.
    pub(crate) fn reload_policy(&self) {
        match self.policies.reload() {
            Ok(()) => {
                tracing::info!("policy reloaded");
                self.lists_due.notify_one();
                // A shard that could not be told is told when the lists are looked at.
                self.end_denied();
            }
            Err(mistakes) => super::report(&mistakes),
        }
    }

    /// Follows the deny list of the ledger until the door closes.
    pub(crate) async fn follow_denials(self: Arc<Relay>) {
        let mut list = self.cashier.denied();
        let mut owed = false;
        loop {
            let denied = list.borrow_and_update().clone();
            if self.policies.set_denied(deny_list(&denied)) || owed {
                owed = !self.end_denied();
            }
            tokio::select! {
                changed = list.changed() => {
                    if changed.is_err() {
                        // The cashier is gone, and with it whoever could change the list.
                        return;
                    }
                }
                () = tokio::time::sleep(TELL_AGAIN), if owed => {}
                () = self.door_closed() => return,
            }
        }
    }

    /// Follows the communities' lists until the door closes.
    pub(crate) async fn follow_lists(self: Arc<Relay>) {
        let mut lists = Lists::default();
        let mut owed = false;
        loop {
            let rules = self.policies.rules();
            let denied = lists.refresh(&rules, &self.resolver, clock::unix()).await;
            if self.policies.set_denied_by_others(denied) || owed {
                owed = !self.end_denied();
            }
            tokio::select! {
                () = tokio::time::sleep(LISTS_EVERY) => {}
                () = self.lists_due.notified() => lists.all_due(),
                () = self.door_closed() => return,
            }
        }
    }

    /// Is it denied at this very moment? Asked again once a session is open: a denial that came while it was being
    /// admitted found nothing to end.
    pub(crate) fn is_denied(&self, permit: &Permit) -> bool {
        is_denied(&self.policies.rules(), permit.token())
    }

    /// Ends every live session, and every TURN username and allocation, of who is denied now. False if a shard could
    /// not be told.
    fn end_denied(&self) -> bool {
        let rules = self.policies.rules();
        let ended = self.registry().end_where(
            |permit| is_denied(&rules, permit.token()),
            crate::session::EndReason::Denied,
        );
        let denied: Arc<dyn Fn(&Permit) -> bool + Send + Sync> =
            Arc::new(move |permit| is_denied(&rules, permit.token()));
        if ended > 0 {
            tracing::info!(ended, "sessions ended: denied");
        }
        let missed = |shard: &&ShardHandle| shard.send(Command::Revoke(denied.clone())).is_err();
        self.shards.iter().filter(missed).count() == 0
    }
}

/// Sums of a day are asked for that day, and by clocks that are behind for another.
fn ceiling(ceiling: &Ceiling, day: u64) -> ledger::Ceiling {
    ledger::Ceiling {
        name: ceiling.name.clone(),
        max: Msat::new(ceiling.max_msat),
        until: (day + 2) * 86_400,
    }
}

/// Within what a voucher is credited: sums of today, and what its issuer may have outstanding.
fn bounds(terms: &Terms) -> Bounds {
    Bounds {
        ceilings: terms.ceilings.iter().map(|sum| ceiling(sum, terms.day)).collect(),
        outstanding_max: terms.outstanding_max.map(Msat::new),
        allowance: false,
    }
}

/// A credit line as the ledger has it.
fn line(line: &CreditLine) -> ledger::CreditLine {
    ledger::CreditLine {
        msat: Msat::new(line.msat),
        within: ledger::Ceiling {
            name: line.within.name.clone(),
            max: Msat::new(line.within.max_msat),
            until: ledger::Ceiling::LASTING,
        },
        until: line.until,
    }
}

/// The ledger's deny list, as decisions take it. What it holds was checked when it was put there.
pub(crate) fn deny_list(denied: &[Denied]) -> DenyList {
    let mut list = DenyList::default();
    for Denied { kind, value } in denied {
        let added = kind
            .parse()
            .map_err(|error: &str| error.to_owned())
            .and_then(|kind| list.add(kind, value).map_err(|full| full.to_string()));
        if let Err(error) = added {
            tracing::error!(error, "an entry of the ledger's deny list denies nothing");
        }
    }
    list
}

/// Is the token on a list that counts?
fn is_denied(rules: &Rules, token: &RelayToken) -> bool {
    let allowed = rules.policy.allow.contains(token.subject());
    rules.denied.hit(token).is_some() || (!allowed && rules.denied_by_others.hit(token).is_some())
}
