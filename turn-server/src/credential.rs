//! Long-term credentials (RFC 8489 section 9.2): usernames that were exchanged for a permit over HTTP, each the opaque
//! name of a session.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use aws_lc_rs::hmac;
use identity::Permit;
use metering::SessionId;
use wire::stun;

/// The realm of every Milliway: part of each key, and of nothing else.
pub const REALM: &str = "milliway";

/// A username, the key of its password, and what it opens.
pub struct Credential {
    username: String,
    integrity: hmac::Key,
    session: SessionId,
    permit: Arc<Permit>,
    expires: Instant,
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
        let username = username.into();
        let key = stun::long_term_key(&username, REALM, password);
        Self {
            integrity: stun::integrity_key(&key),
            username,
            session,
            permit,
            expires,
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

    pub(crate) fn integrity(&self) -> &hmac::Key {
        &self.integrity
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

/// The usernames that may allocate.
pub(crate) struct Credentials {
    by_username: HashMap<String, Arc<Credential>>,
    max: usize,
}

impl Credentials {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            by_username: HashMap::new(),
            max,
        }
    }

    /// False if there are too many already.
    pub(crate) fn add(&mut self, credential: Arc<Credential>, now: Instant) -> bool {
        if self.by_username.len() >= self.max {
            self.expire(now);
        }
        if self.by_username.len() >= self.max {
            return false;
        }
        self.by_username.insert(credential.username.clone(), credential);
        true
    }

    pub(crate) fn find(&self, username: &str, now: Instant) -> Option<&Arc<Credential>> {
        self.by_username
            .get(username)
            .filter(|credential| !credential.expired(now))
    }

    pub(crate) fn end(&mut self, session: SessionId) {
        self.by_username
            .retain(|_, credential| credential.session != session);
    }

    pub(crate) fn revoke(&mut self, denied: &dyn Fn(&Permit) -> bool) {
        self.by_username
            .retain(|_, credential| !denied(&credential.permit));
    }

    pub(crate) fn expire(&mut self, now: Instant) {
        self.by_username.retain(|_, credential| !credential.expired(now));
    }
}
