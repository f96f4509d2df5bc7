//! The policy in force: read from its file, replaced as a whole when it changes, together with the deny lists, the
//! operator's own, which stands in the ledger, and those of communities. Whoever decides takes the rules of that moment and keeps to them.

mod emergency;
mod enforce;
mod file;
mod lists;
mod rates;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use identity::RelayToken;
use identity::credential::Credential;
use identity::policy::{Decision, DenyList, Policy, Service};
use identity::token::TokenPolicy;
use tokio::sync::watch;

use crate::config::{Config, Mistake};

pub(crate) use emergency::{Emergencies, Proof};
pub(crate) use enforce::deny_list;
pub(crate) use file::{Community, PolicyFile};
pub(crate) use lists::Lists;
pub(crate) use rates::Rates;

/// The rules of a moment.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// Which tokens are accepted.
    pub(crate) token: TokenPolicy,
    /// On which terms.
    pub(crate) policy: Policy,
    /// Admissions of one account in a minute; 0 is no limit.
    pub(crate) admissions_per_minute: u64,
    /// A session that lacks what the SFU asks for ends after this many seconds; 0: it goes on.
    pub(crate) ends_after_seconds: u64,
    /// Whose lists are listened to.
    pub(crate) communities: Vec<Community>,
    /// Whom the operator denies: both of the next two.
    pub(crate) denied: DenyList,
    /// In the policy's file.
    denied_in_file: DenyList,
    /// By `milliway deny`: the list that stands in the ledger.
    denied_in_ledger: DenyList,
    /// Whom the communities deny.
    pub(crate) denied_by_others: DenyList,
}

impl Rules {
    fn merge(&mut self) {
        self.denied = self.denied_in_file.clone();
        self.denied.extend(&self.denied_in_ledger);
    }

    /// May this token be used for the service?
    pub(crate) fn decide(&self, token: &RelayToken, service: Service, now: u64) -> Decision {
        self.policy
            .decide(token, service, &self.denied, &self.denied_by_others, now)
    }

    /// Is the credential, its issuer or its key denied?
    pub(crate) fn denies(&self, credential: &Credential) -> bool {
        self.denied.denies(credential) || self.denied_by_others.denies(credential)
    }

    /// May its voucher be credited?
    pub(crate) fn crediting(&self, token: &RelayToken, now: u64) -> Decision {
        self.policy
            .crediting(token, &self.denied, &self.denied_by_others, now)
    }
}

/// Where the rules come from, and those in force.
pub(crate) struct Policies {
    /// As the configuration alone has it.
    base: TokenPolicy,
    path: Option<PathBuf>,
    current: RwLock<Arc<Rules>>,
    /// Counts the changes.
    changes: watch::Sender<u64>,
}

impl Policies {
    /// Reads the policy's file, if there is one. `denied`: what the ledger's deny list has.
    pub(crate) fn open(
        config: &Config,
        base: TokenPolicy,
        denied: DenyList,
    ) -> Result<Policies, Vec<Mistake>> {
        let path = (!config.policy.file.is_empty()).then(|| PathBuf::from(&config.policy.file));
        let rules = read(&base, path.as_ref(), denied)?;
        Ok(Policies {
            base,
            path,
            current: RwLock::new(Arc::new(rules)),
            changes: watch::Sender::new(0),
        })
    }

    /// Tells of every change from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The rules of now.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Reads the files again. With a mistake in one of them the old rules stay.
    pub(crate) fn reload(&self) -> Result<(), Vec<Mistake>> {
        let mut read = read(&self.base, self.path.as_ref(), DenyList::default())?;
        self.change(|rules| {
            read.denied_in_ledger = std::mem::take(&mut rules.denied_in_ledger);
            read.denied_by_others = std::mem::take(&mut rules.denied_by_others);
            read.merge();
            *rules = read;
        });
        Ok(())
    }

    /// What the ledger's deny list has from now on; true if that is news.
    pub(crate) fn set_denied(&self, denied: DenyList) -> bool {
        if self.rules().denied_in_ledger == denied {
            return false;
        }
        self.change(|rules| {
            rules.denied_in_ledger = denied;
            rules.merge();
        });
        true
    }

    /// What the communities deny from now on; true if that is news.
    pub(crate) fn set_denied_by_others(&self, denied: DenyList) -> bool {
        if self.rules().denied_by_others == denied {
            return false;
        }
        self.change(|rules| rules.denied_by_others = denied);
        true
    }

    fn change(&self, change: impl FnOnce(&mut Rules)) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut current));
        drop(current);
        self.changes.send_modify(|count| *count += 1);
    }
}

/// Says every mistake in the log.
pub(crate) fn report(mistakes: &[Mistake]) {
    for mistake in mistakes {
        tracing::error!(%mistake, "the policy was not taken; the old one stays");
    }
}

fn read(base: &TokenPolicy, path: Option<&PathBuf>, denied: DenyList) -> Result<Rules, Vec<Mistake>> {
    let file = match path {
        Some(path) => PolicyFile::read(path).map_err(|mistake| vec![mistake])?,
        None => PolicyFile::default(),
    };
    let mut token = base.clone();
    for issuer in file.policy.issuers.keys().chain(&file.policy.emergency) {
        if !token.issuers.contains(issuer) {
            token.issuers.push(issuer.clone());
        }
    }
    token.credential_issuers = file.policy.credential_issuers();
    let mut rules = Rules {
        token,
        policy: file.policy,
        admissions_per_minute: file.admissions_per_minute,
        ends_after_seconds: file.ends_after_seconds,
        communities: file.communities,
        denied: DenyList::default(),
        denied_in_file: file.denied,
        denied_in_ledger: denied,
        denied_by_others: DenyList::default(),
    };
    rules.merge();
    Ok(rules)
}

#[cfg(test)]
mod tests;
