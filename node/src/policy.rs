//! The policy in force: read from its file, replaced as a whole when it changes, together with the deny lists, the
//! operator's own and those of communities. Whoever decides takes the rules of that moment and keeps to them.

mod caps;
mod deny_file;
mod enforce;
mod file;
mod lists;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use identity::RelayToken;
use identity::credential::Credential;
use identity::policy::{Decision, DenyList, Policy, Service};
use identity::token::TokenPolicy;
use tokio::sync::watch;

use crate::config::{Config, Mistake};

pub(crate) use caps::Caps;
pub(crate) use deny_file::DenyFile;
pub(crate) use file::{Community, PolicyFile};
pub(crate) use lists::Lists;

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
    /// Whom the operator denies, in the policy's file and by `milliway deny`.
    pub(crate) denied: DenyList,
    /// Whom the communities deny.
    pub(crate) denied_by_others: DenyList,
}

impl Rules {
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
    deny_file: DenyFile,
    current: RwLock<Arc<Rules>>,
    /// Counts the changes.
    changes: watch::Sender<u64>,
}

impl Policies {
    /// Reads the policy's file, if there is one, and the operator's deny list.
    pub(crate) fn open(
        config: &Config,
        base: TokenPolicy,
        deny_file: DenyFile,
    ) -> Result<Policies, Vec<Mistake>> {
        let path = (!config.policy.file.is_empty()).then(|| PathBuf::from(&config.policy.file));
        let rules = read(&base, path.as_ref(), &deny_file)?;
        Ok(Policies {
            base,
            path,
            deny_file,
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
        let read = read(&self.base, self.path.as_ref(), &self.deny_file)?;
        self.change(|rules| {
            let denied_by_others = std::mem::take(&mut rules.denied_by_others);
            *rules = Rules {
                denied_by_others,
                ..read
            };
        });
        Ok(())
    }

    /// Reads the operator's deny list again if its file has changed; true if it has.
    pub(crate) fn reload_denials(&self) -> bool {
        if !self.deny_file.has_changed() {
            return false;
        }
        match self.reload() {
            Ok(()) => true,
            Err(mistakes) => {
                report(&mistakes);
                false
            }
        }
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

fn read(base: &TokenPolicy, path: Option<&PathBuf>, deny_file: &DenyFile) -> Result<Rules, Vec<Mistake>> {
    let file = match path {
        Some(path) => PolicyFile::read(path).map_err(|mistake| vec![mistake])?,
        None => PolicyFile::default(),
    };
    let mut denied = file.denied;
    denied.extend(&deny_file.read().map_err(|mistake| vec![mistake])?);
    let mut token = base.clone();
    for issuer in file.policy.issuers.keys().chain(&file.policy.emergency) {
        if !token.issuers.contains(issuer) {
            token.issuers.push(issuer.clone());
        }
    }
    token.credential_issuers = file.policy.credential_issuers();
    if !file.policy.credit.is_empty() {
        tracing::warn!("[[credit]]: lines are decided and explained, but this version does not grant them");
    }
    if !file.policy.emergency.is_empty() {
        tracing::warn!(
            "[emergency]: these issuers are trusted, but this version bills their sessions like others"
        );
    }
    Ok(Rules {
        token,
        policy: file.policy,
        admissions_per_minute: file.admissions_per_minute,
        ends_after_seconds: file.ends_after_seconds,
        communities: file.communities,
        denied,
        denied_by_others: DenyList::default(),
    })
}

#[cfg(test)]
mod tests;
