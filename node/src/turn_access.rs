//! Usernames for the TURN server: a permit is exchanged for a short-lived name and password, since a DID and a token
//! do not fit what browsers allow (DESIGN: "Who is asking"). The name says nothing but the session.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use identity::{Permit, policy};
use metering::{AccountId, Service, SessionId};
use rand::{Rng, RngExt};
use turn_server::Credential;

use crate::http::problem::Problem;
use crate::money;
use crate::relay::Relay;
use crate::shard::{Command, EndReason};
use crate::{cashier, clock};

/// Accounts that hold usernames at once; past it those without a valid one are forgotten first.
const ACCOUNTS_MAX: usize = 100_000;

/// Which account holds how many usernames.
pub(crate) struct TurnAccess {
    per_account_max: usize,
    held: Mutex<HashMap<AccountId, VecDeque<Instant>>>,
}

/// A username and password with the servers it works at, as `RTCIceServer` has them.
pub(crate) struct TurnServers {
    /// `turn:` URIs (RFC 7065).
    pub(crate) urls: Vec<String>,
    /// The username.
    pub(crate) username: String,
    /// The password. Not for logs.
    pub(crate) credential: String,
    /// How long it makes new allocations, seconds.
    pub(crate) ttl: u64,
    /// The session that its traffic is billed under.
    pub(crate) session: SessionId,
}

impl TurnAccess {
    pub(crate) fn new(per_account_max: u64) -> TurnAccess {
        let per_account_max = usize::try_from(per_account_max).unwrap_or(usize::MAX);
        TurnAccess {
            per_account_max,
            held: Mutex::new(HashMap::new()),
        }
    }

    /// Counts one more username of the account until `expires`; false if it has as many as one may.
    fn hold(&self, account: &AccountId, now: Instant, expires: Instant) -> bool {
        let mut held = self
            .held
            .lock()
            .expect("nothing panics while it counts usernames");
        if held.len() >= ACCOUNTS_MAX && !held.contains_key(account) {
            held.retain(|_, until| until.back().is_some_and(|until| *until > now));
            if held.len() >= ACCOUNTS_MAX {
                return false;
            }
        }
        let until = held.entry(account.clone()).or_default();
        while until.front().is_some_and(|until| *until <= now) {
            until.pop_front();
        }
        if until.len() >= self.per_account_max {
            return false;
        }
        until.push_back(expires);
        true
    }
}

impl Relay {
    /// The addresses of the TURN server, as `RTCIceServer` has them: what is open, and of TLS what a browser will take.
    /// DTLS, which browsers do not speak, is where UDP is.
    pub(crate) fn turn_urls(&self) -> Vec<String> {
        let turn = &self.config.turn;
        let further = &self.turn_tls_addresses;
        let mut urls: Vec<String> = Vec::new();
        let mut add = |scheme: &str, at: &dyn std::fmt::Display, transport: &str| {
            let url = format!("{scheme}:{at}?transport={transport}");
            if !urls.contains(&url) {
                urls.push(url);
            }
        };
        self.turn_addresses.iter().for_each(|at| add("turn", at, "udp"));
        let main: &[SocketAddr] = if turn.tcp { &self.turn_addresses } else { &[] };
        main.iter().chain(further).for_each(|at| add("turn", at, "tcp"));
        if self.turn_keys.as_ref().is_some_and(|keys| keys.is_checkable()) {
            for at in main.iter().chain(further) {
                match turn.tls_name.as_str() {
                    "" => add("turns", at, "tcp"),
                    name => add("turns", &format_args!("{name}:{}", at.port()), "tcp"),
                }
            }
        }
        urls
    }

    /// Exchanges a permit for a username, after crediting its voucher and seeing that the account can pay.
    pub(crate) async fn ice_servers(&self, permit: &Arc<Permit>) -> Result<TurnServers, Problem> {
        if self.is_draining() {
            return Err(Problem::new(
                "draining",
                "This relay is shutting down; use another one.",
            ));
        }
        permit.require_service("turn")?;
        money::require_tariff(self, permit)?;
        let terms = self.require_policy(permit, policy::Service::Turn).await?;
        let account = AccountId::new(permit.account());
        let (voucher, conditions) = self.at_admission(permit.token(), &terms);
        match self.cashier.credit(voucher, conditions.bounds).await {
            // What is above a sum stays uncredited.
            Ok(_) | Err(cashier::Refused::CeilingReached) => {}
            Err(refused) => return Err(refused.into()),
        }
        if let Some(line) = conditions.credit {
            self.cashier.grant_line(account.clone(), line).await?;
        }
        let status = self.cashier.account(account.clone()).await?;
        if status.frozen && !terms.emergency {
            return Err(cashier::Refused::Frozen.into());
        }
        let available = status.available.saturating_add(status.credit_left);
        let rates = self.prices.iter().find(|tariff| tariff.service == Service::Turn);
        let minimum = rates
            .and_then(|tariff| tariff.rates().ok())
            .map(|rates| rates.admission_minimum());
        if !terms.emergency && minimum.is_some_and(|minimum| available < minimum) {
            return Err(cashier::Refused::BalanceExhausted { available }.into());
        }

        let (now, ttl) = (clock::now(), self.config.turn.credential_ttl_seconds);
        let expires = now + Duration::from_secs(ttl);
        if !self.turn.hold(&account, now, expires) {
            let detail = "This account has as many TURN usernames as one may have; use those, or wait for them to expire.";
            return Err(Problem::new("rate-limited", detail));
        }
        let session = SessionId::new(rand::rng().next_u64());
        if terms.emergency {
            tracing::warn!(%session, proof = "token", "an emergency session: free, and in the memo account");
            metrics::counter!("milliway_emergency_sessions_total", "proof" => "token").increment(1);
            self.cashier.make_free(session);
        }
        let username = session.to_string();
        let credential = URL_SAFE_NO_PAD.encode(rand::rng().random::<[u8; 18]>());
        let known = Arc::new(Credential::new(
            &username,
            &credential,
            session,
            permit.clone(),
            expires,
        ));
        for shard in &self.shards {
            if shard.send(Command::AddTurnCredential(known.clone())).is_err() {
                return Err(Problem::new(
                    "capacity",
                    "This relay is too busy at the moment; try again.",
                ));
            }
        }
        if self.is_denied(permit) {
            for shard in &self.shards {
                let _ = shard.send(Command::End {
                    session,
                    reason: EndReason::Denied,
                });
            }
            return Err(identity::Refusal::Denied.into());
        }
        Ok(TurnServers {
            urls: self.turn_urls(),
            username,
            credential,
            ttl,
            session,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_holds_a_bounded_number_of_usernames_at_a_time() {
        let (access, account, now) = (TurnAccess::new(2), AccountId::new("did:key:a"), Instant::now());
        let later = now + Duration::from_secs(10);
        assert!(access.hold(&account, now, later) && access.hold(&account, now, later));
        assert!(!access.hold(&account, now, later));
        assert!(access.hold(&AccountId::new("did:key:b"), now, later));
        assert!(access.hold(&account, later, later + Duration::from_secs(10)));
    }
}
