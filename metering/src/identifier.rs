//! The three names money goes by: the account that pays, the session that spends, the lease it spends from.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr, sync::Arc};

/// One admitted session: an SFU peer connection, or a set of TURN credentials with the allocations made under it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(u64);

impl SessionId {
    /// The session with this number; the caller draws it at random so that it cannot be guessed from another.
    pub const fn new(id: u64) -> Self {
        Self(id)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What was offered as a session id is not 16 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a session id is 16 lower-case hexadecimal digits")]
pub struct NotASessionId;

impl FromStr for SessionId {
    type Err = NotASessionId;

    fn from_str(text: &str) -> Result<Self, NotASessionId> {
        let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() != 16 || !digits {
            return Err(NotASessionId);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| NotASessionId)
    }
}

impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// One reservation of the ledger for one meter: an SFU session's, or a TURN allocation's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeaseId(u64);

impl LeaseId {
    /// The lease with this number.
    pub const fn new(id: u64) -> Self {
        Self(id)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// An account: the DID that is charged, or the key of a bearer voucher's own account. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct AccountId(Arc<str>);

impl AccountId {
    /// The account with this name.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name, in full: for the ledger and for its owner, not for a log.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for AccountId {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl From<&str> for AccountId {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<AccountId> for String {
    fn from(account: AccountId) -> Self {
        account.0.as_ref().to_owned()
    }
}

// People do not print: the method and a short hash (FNV-1a) are enough to tell two accounts apart in a log.
impl fmt::Debug for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = self.0.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut parts = self.0.splitn(3, ':');
        match (parts.next(), parts.next()) {
            (Some("did"), Some(method)) => write!(f, "did:{}:#{:08x}", method.escape_debug(), hash >> 32),
            (Some(kind), Some(_)) => write!(f, "{}:#{:08x}", kind.escape_debug(), hash >> 32),
            _ => write!(f, "#{:08x}", hash >> 32),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_id_reads_back_as_it_prints() {
        let id = SessionId::new(0xab);
        assert_eq!(id.to_string(), "00000000000000ab");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn a_session_id_has_one_spelling() {
        for text in [
            "",
            "ab",
            "00000000000000AB",
            "+0000000000000ab",
            "00000000000000ab0",
            "０000000000000ab",
        ] {
            assert_eq!(text.parse::<SessionId>(), Err(NotASessionId), "{text}");
        }
    }

    #[test]
    fn an_account_does_not_print_itself() {
        let account = AccountId::new("did:key:z6MkSecretPerson");
        assert!(!format!("{account:?}").contains("Secret"));
        assert!(format!("{account:?}").starts_with("did:key:#"));
    }
}
