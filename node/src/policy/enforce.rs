//! The policy at work: what admissions ask of it, what it credits, and what it does to live sessions when somebody is
//! denied.

use std::sync::Arc;
use std::time::Duration;

use identity::policy::{Ceiling, DailyAllowance, Service, Terms};
use identity::{Owner, Permit, RelayToken};
use metering::{AccountId, Msat, Voucher};

use super::{Lists, Rules};
use metering::ledger::Credited;

use crate::cashier;
use crate::clock;
use crate::http::problem::Problem;
use crate::relay::Relay;
use crate::shard::{Command, ShardHandle};

/// How often the operator's deny list is looked at: a denial is promised to live sessions within a second.
const LOOK_EVERY: Duration = Duration::from_millis(250);
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
        if most > 0 && !self.caps.admit(permit.account(), most, now) {
            return Err(Problem::new(
                "rate-limited",
                "This account opens more sessions in a minute than the operator allows; wait a minute.",
            ));
        }
        if let Some(allowance) = &terms.allowance {
            self.give(permit, allowance, now).await?;
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
        let now = clock::unix();
        let terms = self.policies.rules().crediting(token, now).terms()?;
        let voucher = self.voucher(token, &terms);
        match self.credit_within(&terms.ceilings, voucher, now).await? {
            Some(credited) => Ok(credited),
            None => Err(identity::Refusal::IssuerLimit.into()),
        }
    }

    /// Credits a voucher that counts against some sums; none if it would pass one of them.
    async fn credit_within(
        &self,
        ceilings: &[Ceiling],
        voucher: Voucher,
        now: u64,
    ) -> Result<Option<Credited>, Problem> {
        if ceilings.is_empty() {
            return Ok(Some(self.cashier.credit(voucher).await?));
        }
        let (name, msat) = (format!("{} {}", voucher.iss, voucher.jti), voucher.balance.get());
        if !self.caps.take(&name, ceilings, msat, now) {
            return Ok(None);
        }
        let credited = self.cashier.credit(voucher).await;
        // A ledger that did not answer may have credited it: it stays counted.
        if !matches!(credited, Err(cashier::Refused::LedgerUnavailable)) {
            let first = credited.as_ref().is_ok_and(|credited| !credited.repeated);
            self.caps.settle(&name, ceilings, msat, first);
        }
        Ok(Some(credited?))
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

    /// The voucher that an admission credits in its own commit: none if it was credited just now, because it counts
    /// against a sum. What is above the sum stays uncredited, and the account may have money all the same.
    pub(crate) async fn voucher_at_admission(
        &self,
        token: &RelayToken,
        terms: &Terms,
    ) -> Result<Option<Voucher>, Problem> {
        if terms.ceilings.is_empty() {
            return Ok(Some(self.voucher(token, terms)));
        }
        match self.credit(token).await {
            Ok(_) => Ok(None),
            Err(problem) if problem.slug() == identity::Refusal::IssuerLimit.slug() => Ok(None),
            Err(problem) => Err(problem),
        }
    }

    fn voucher(&self, token: &RelayToken, terms: &Terms) -> Voucher {
        Voucher {
            refundable: !terms.promotional,
            ..cashier::voucher(&token.voucher())
        }
    }

    /// A gift is a voucher of the operator's own, named by day and holder, so that it is given once whatever happens. Who
    /// has as much already gets none.
    async fn give(&self, permit: &Permit, allowance: &DailyAllowance, now: u64) -> Result<(), Problem> {
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
        let ceiling = std::slice::from_ref(&allowance.within);
        self.credit_within(ceiling, gift, now).await.map(drop)
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

    /// Follows the operator's deny list until the door closes.
    pub(crate) async fn follow_denials(self: Arc<Relay>) {
        let mut owed = false;
        loop {
            if self.policies.reload_denials() || owed {
                owed = !self.end_denied();
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
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

/// Is the token on a list that counts?
fn is_denied(rules: &Rules, token: &RelayToken) -> bool {
    let allowed = rules.policy.allow.contains(token.subject());
    rules.denied.hit(token).is_some() || (!allowed && rules.denied_by_others.hit(token).is_some())
}
