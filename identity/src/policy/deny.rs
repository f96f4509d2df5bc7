//! Deny lists: tokens by `jti`, people by `sub` (which is also the `payer`), keys by `kid`, issuers by `iss`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::credential::Credential;
use crate::token::RelayToken;

/// Entries of one list. Past it an operator wants to deny an issuer, not its tokens.
pub const ENTRIES_MAX: usize = 100_000;
/// Longest value: that of a DID URL.
const VALUE_LENGTH_MAX: usize = 2048;

/// What is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A token, or a credential, by its id.
    Jti,
    /// A person: as holder and as payer.
    Sub,
    /// A key, as the DID URL that headers name.
    Kid,
    /// An issuer, of tokens or credentials.
    Iss,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::Jti, Kind::Sub, Kind::Kid, Kind::Iss];

    /// The claim's name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Jti => "jti",
            Kind::Sub => "sub",
            Kind::Kid => "kid",
            Kind::Iss => "iss",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Kind, &'static str> {
        let found = Kind::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or("it must be jti, sub, kid or iss")
    }
}

/// The list is full, or the value cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a list has at most 100000 entries, of 1 to 2048 bytes without spaces")]
pub struct ListFull;

/// What is not served.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct DenyList(BTreeSet<(Kind, String)>);

impl DenyList {
    /// Denies one more; false if it was denied already.
    pub fn add(&mut self, kind: Kind, value: &str) -> Result<bool, ListFull> {
        let value_ok = (1..=VALUE_LENGTH_MAX).contains(&value.len())
            && !value.contains(|character: char| character.is_whitespace() || character.is_control());
        if !value_ok || self.0.len() >= ENTRIES_MAX {
            return Err(ListFull);
        }
        Ok(self.0.insert((kind, value.to_owned())))
    }

    /// Serves it again; false if it was not denied.
    pub fn remove(&mut self, kind: Kind, value: &str) -> bool {
        self.0.remove(&(kind, value.to_owned()))
    }

    /// Everything on it, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, &str)> {
        self.0.iter().map(|(kind, value)| (*kind, value.as_str()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Is nobody denied?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes over what another list denies, as far as there is room.
    pub fn extend(&mut self, other: &DenyList) {
        for (kind, value) in other.iter() {
            // What is full denies what it can; the size was checked when each list was read.
            let _ = self.add(kind, value);
        }
    }

    fn has(&self, kind: Kind, value: &str) -> bool {
        !self.0.is_empty() && self.0.contains(&(kind, value.to_owned()))
    }

    /// What of a token is denied, if anything.
    pub fn hit(&self, token: &RelayToken) -> Option<Kind> {
        let payer = token.payer().map(|(payer, _)| payer);
        let is_denied = |kind: Kind| match kind {
            Kind::Jti => self.has(kind, token.id()),
            Kind::Sub => {
                self.has(kind, token.subject().as_str())
                    || payer.is_some_and(|payer| self.has(kind, payer.as_str()))
            }
            Kind::Kid => self.has(kind, token.issuer_kid()),
            Kind::Iss => self.has(kind, token.issuer().as_str()),
        };
        Kind::ALL.into_iter().find(|kind| is_denied(*kind))
    }

    /// Is a credential, its key or its issuer denied?
    pub fn denies(&self, credential: &Credential) -> bool {
        self.has(Kind::Iss, credential.issuer().as_str())
            || self.has(Kind::Kid, credential.kid())
            || credential.id().is_some_and(|id| self.has(Kind::Jti, id))
    }
}

/// Names people.
impl fmt::Debug for DenyList {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DenyList({} entries)", self.len())
    }
}
