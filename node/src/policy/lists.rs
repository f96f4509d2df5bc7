//! The communities' lists: looked at again and again, each for as long as it holds. One that cannot be had, or is older
//! than the one in force, changes nothing; one that has expired denies nobody any more.

use std::collections::HashMap;

use identity::Did;
use identity::policy::{DenyList, SignedList};

use super::file::Source;
use super::{Community, Rules};
use crate::resolver::Resolver;

/// The largest list: about half a million DIDs would be more than an operator wants to be told by others.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The latest list of each community, and when each is due.
#[derive(Default)]
pub(crate) struct Lists {
    held: HashMap<Did, SignedList>,
    due: HashMap<Did, u64>,
}

impl Lists {
    /// Looks at those that are due, and says what all of them deny now.
    pub(crate) async fn refresh(&mut self, rules: &Rules, resolver: &Resolver, now: u64) -> DenyList {
        self.held
            .retain(|did, _| rules.communities.iter().any(|community| community.did == *did));
        for community in &rules.communities {
            let due = self.due.get(&community.did).is_none_or(|due| *due <= now);
            if !due {
                continue;
            }
            self.due
                .insert(community.did.clone(), now + community.refresh_seconds);
            match fetch(community, rules.token.leeway, resolver, now).await {
                Ok(list) => self.hold(list),
                Err(why) => {
                    tracing::warn!(
                        by = community.did.redacted(),
                        why,
                        "a community's list was not taken"
                    );
                }
            }
        }
        let mut denied = DenyList::default();
        for list in self.held.values().filter(|list| list.expires > now) {
            let allowed = |value: &str| list.allow.iter().any(|did| did.as_str() == value);
            let mut own = DenyList::default();
            for (kind, value) in list.deny.iter().filter(|(_, value)| !allowed(value)) {
                let _ = own.add(kind, value);
            }
            denied.extend(&own);
        }
        denied
    }

    /// Lists may be looked at again at once: a reload.
    pub(crate) fn all_due(&mut self) {
        self.due.clear();
    }

    fn hold(&mut self, list: SignedList) {
        let older = self
            .held
            .get(&list.issuer)
            .is_some_and(|held| list.issued_at < held.issued_at);
        if older {
            tracing::warn!(
                by = list.issuer.redacted(),
                "a community's list is older than the one in force"
            );
        } else {
            self.held.insert(list.issuer.clone(), list);
        }
    }
}

async fn fetch(
    community: &Community,
    leeway: u64,
    resolver: &Resolver,
    now: u64,
) -> Result<SignedList, String> {
    let text = match &community.source {
        Source::Web(location) => resolver.text(location).await?,
        Source::File(path) => {
            let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
            if length > FILE_BYTES_MAX {
                return Err("the file has more than 16 MiB".to_owned());
            }
            std::fs::read_to_string(path).map_err(|error| error.to_string())?
        }
    };
    let document = resolver
        .resolve(&community.did)
        .await
        .map_err(|error| error.to_string())?;
    SignedList::verify(&text, &document, leeway, now).map_err(|fault| fault.to_string())
}
