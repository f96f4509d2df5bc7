//! Long-term credentials (RFC 8489 section 9.2): usernames that were exchanged for a permit over HTTP, each the opaque
//! name of a session.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use identity::Permit;
use metering::SessionId;
use wire::stun::{self, PasswordAlgorithm};

/// The realm of every Milliway: part of each key, and of nothing else. Four characters, since a 401 must stay small (see
/// `challenge`).
pub const REALM: &str = "mway";

/// A username, the keys of its password, and what it opens.
pub struct Credential {
    username: Box<str>,
    userhash: [u8; 32],
    keys: Keys,
    session: SessionId,
    permit: Arc<Permit>,
    expires: Instant,
}

/// What MESSAGE-INTEGRITY is made with.
enum Keys {
    /// A password's two keys.
    Password { md5: [u8; 16], sha256: [u8; 32] },
    /// The key inside of an access token (RFC 7635), which is used as it is.
    Token(Box<[u8]>),
}

impl Credential {
    /// A username that can make allocations until `expires`; an allocation made before then goes on.
    pub fn new(
        username: impl Into<String>,
        password: &str,
        session: SessionId,
        permit: Arc<Permit>,
        expires: Instant,
    ) -> Self {
        let username = username.into().into_boxed_str();
        Self {
            userhash: stun::userhash(&username, REALM),
            keys: Keys::Password {
                md5: stun::long_term_key(&username, REALM, password),
                sha256: stun::long_term_key_sha256(&username, REALM, password),
            },
            username,
            session,
            permit,
            expires,
        }
    }

    /// The same for whoever shows a token with this key instead of a password.
    pub(crate) fn with_token_key(&self, key: &[u8]) -> Self {
        Self {
            username: self.username.clone(),
            userhash: self.userhash,
            keys: Keys::Token(key.into()),
            session: self.session,
            permit: self.permit.clone(),
            expires: self.expires,
        }
    }

    /// The username.
    pub fn username(&self) -> &str {
        &self.username
    }

    /// The session it names.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Who uses it, and whose account pays.
    pub fn permit(&self) -> &Arc<Permit> {
        &self.permit
    }

    /// The key of MESSAGE-INTEGRITY and its SHA-256 form.
    pub(crate) fn key(&self, algorithm: PasswordAlgorithm) -> &[u8] {
        match (&self.keys, algorithm) {
            (Keys::Password { md5, .. }, PasswordAlgorithm::Md5) => md5,
            (Keys::Password { sha256, .. }, PasswordAlgorithm::Sha256) => sha256,
            (Keys::Token(key), _) => key,
        }
    }

    pub(crate) fn userhash(&self) -> &[u8; 32] {
        &self.userhash
    }

    pub(crate) fn expired(&self, now: Instant) -> bool {
        now >= self.expires
    }
}

/// Neither names nor keys print.
impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential(session {})", self.session)
    }
}

/// The usernames that may allocate, by USERHASH.
pub(crate) struct Credentials {
    by_userhash: HashMap<[u8; 32], Arc<Credential>>,
    max: usize,
}

impl Credentials {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            by_userhash: HashMap::new(),
            max,
        }
    }

    /// False if there are too many already.
    pub(crate) fn add(&mut self, credential: Arc<Credential>, now: Instant) -> bool {
        if self.by_userhash.len() >= self.max {
            self.expire(now);
        }
        if self.by_userhash.len() >= self.max {
            return false;
        }
        self.by_userhash.insert(credential.userhash, credential);
        true
    }

    pub(crate) fn find(&self, userhash: &[u8; 32], now: Instant) -> Option<&Arc<Credential>> {
        self.by_userhash
            .get(userhash)
            .filter(|credential| !credential.expired(now))
    }

    pub(crate) fn end(&mut self, session: SessionId) {
        self.by_userhash
            .retain(|_, credential| credential.session != session);
    }

    pub(crate) fn revoke(&mut self, denied: &dyn Fn(&Permit) -> bool) {
        self.by_userhash
            .retain(|_, credential| !denied(&credential.permit));
    }

    pub(crate) fn expire(&mut self, now: Instant) {
        self.by_userhash.retain(|_, credential| !credential.expired(now));
    }
}
