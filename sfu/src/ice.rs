//! ICE-lite (RFC 8445 section 2.5) for one session: answer connectivity checks, follow the latest
//! USE-CANDIDATE, know when consent was last given (RFC 7675).
//!
//! Before DTLS is up the latest nominated address is taken at once. Afterwards media follows to a new address
//! only once that address has answered a Binding request of ours, because a source address is easy to forge
//! and an authenticated check can be replayed from elsewhere. Remote candidates are never used: whoever
//! passes an authenticated check is a candidate.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use wire::stun::{Builder, Class, Message, Method, TransactionId, integrity_key};

use crate::discard::Discard;
use crate::media::IceCredentials;

/// Remote addresses of a session: a client with a few interfaces and relays has less.
pub(crate) const ADDRESSES_MAX: usize = 16;
/// An address without a check for this long may be forgotten for a new one: the consent time.
const STALE_AFTER: Duration = Duration::from_secs(30);
/// First retransmission of a request of ours (RFC 8489 section 6.2.1), then doubled.
const CHALLENGE_RTO: Duration = Duration::from_millis(250);
/// Requests sent to one address before it is given up.
const CHALLENGE_TRIES: u8 = 4;
/// Priority that requests of ours carry: of a peer-reflexive candidate (RFC 8445 section 5.1.2.1).
const PRIORITY: u32 = (110 << 24) | (65_535 << 8) | 255;

/// Room for every message the agent writes: two ufrags of 256 characters and fixed-size attributes.
pub(crate) const MESSAGE_BYTES_MAX: usize = 1024;

/// One way to the client: its address and the local one it hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) remote: SocketAddr,
    pub(crate) local: Option<IpAddr>,
}

/// One side's credentials, with the key that its password makes.
pub(crate) struct Keys {
    credentials: IceCredentials,
    key: hmac::Key,
}

impl Keys {
    pub(crate) fn new(credentials: IceCredentials) -> Keys {
        let key = integrity_key(credentials.pwd.as_bytes());
        Keys { credentials, key }
    }

    /// Whether a request is for us (these are our keys) and from the peer with that ufrag.
    pub(crate) fn authenticate(&self, message: &Message<'_>, peer: &str) -> Result<(), Discard> {
        let username = message.username().ok_or(Discard::MalformedStun)?;
        let (local, remote) = username.split_once(':').ok_or(Discard::MalformedStun)?;
        if local != self.credentials.ufrag || remote != peer {
            return Err(Discard::UnknownUfrag);
        }
        if message.verify_fingerprint() == Some(false) || !message.verify_integrity_key(&self.key) {
            return Err(Discard::StunUnauthentic);
        }
        Ok(())
    }

    /// We are lite, hence controlled: the peer must take the other role (RFC 8445 section 7.3.1.1).
    pub(crate) fn write_role_conflict(
        &self,
        request: &Message<'_>,
        out: &mut [u8],
    ) -> Result<usize, Discard> {
        Builder::new(out, Class::Error, Method::BINDING, request.transaction_id())
            .error_code(487, "Role Conflict")
            .integrity_key(&self.key)
            .fingerprint()
            .finish()
            .map_err(|_| Discard::MalformedStun)
    }

    pub(crate) fn write_success(
        &self,
        request: &Message<'_>,
        source: SocketAddr,
        out: &mut [u8],
    ) -> Result<usize, Discard> {
        Builder::new(out, Class::Success, Method::BINDING, request.transaction_id())
            .xor_mapped_address(source)
            .integrity_key(&self.key)
            .fingerprint()
            .finish()
            .map_err(|_| Discard::MalformedStun)
    }
}

/// A path that passed a check, and when it last did.
struct Known {
    path: Path,
    checked: Instant,
}

struct Challenge {
    path: Path,
    transaction: TransactionId,
    due: Instant,
    tries: u8,
}

/// What a request led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// The answer is written; the path is valid.
    Valid {
        /// Length of the answer.
        length: usize,
        /// The path was unknown before.
        new_path: bool,
        /// The address that was forgotten to make room.
        forgotten: Option<SocketAddr>,
    },
    /// An error response is written.
    Refused {
        /// Length of the answer.
        length: usize,
    },
}

/// The agent of one session.
pub(crate) struct Agent {
    local: Keys,
    remote: Keys,
    paths: Vec<Known>,
    selected: Option<Path>,
    nominated: bool,
    challenge: Option<Challenge>,
    last_check: Option<Instant>,
    tie_breaker: u64,
}

impl Agent {
    pub(crate) fn new(local: IceCredentials, remote: IceCredentials, tie_breaker: u64) -> Agent {
        Agent {
            local: Keys::new(local),
            remote: Keys::new(remote),
            paths: Vec::with_capacity(ADDRESSES_MAX),
            selected: None,
            nominated: false,
            challenge: None,
            last_check: None,
            tie_breaker,
        }
    }

    /// Restarts with new credentials; media stays on the selected path meanwhile (RFC 8445 section 2.4).
    pub(crate) fn restart(&mut self, local: IceCredentials, remote: IceCredentials) {
        self.local = Keys::new(local);
        self.remote = Keys::new(remote);
        self.challenge = None;
    }

    pub(crate) fn local_ufrag(&self) -> &str {
        &self.local.credentials.ufrag
    }

    pub(crate) fn has_credentials(&self, local: &IceCredentials, remote: &IceCredentials) -> bool {
        self.local.credentials == *local && self.remote.credentials == *remote
    }

    /// The path that carries media.
    pub(crate) fn selected(&self) -> Option<Path> {
        self.selected
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.paths.iter().map(|known| known.path.remote)
    }

    /// When the last authenticated check came.
    pub(crate) fn last_check(&self) -> Option<Instant> {
        self.last_check
    }

    /// Answers a Binding request whose USERNAME starts with our ufrag. `connected` says whether DTLS is up.
    pub(crate) fn handle_request(
        &mut self,
        message: &Message<'_>,
        path: Path,
        connected: bool,
        transaction: impl FnOnce() -> TransactionId,
        now: Instant,
        out: &mut [u8],
    ) -> Result<Answered, Discard> {
        self.local.authenticate(message, &self.remote.credentials.ufrag)?;
        if message.ice_controlled().is_some() {
            let length = self.local.write_role_conflict(message, out)?;
            return Ok(Answered::Refused { length });
        }
        let nominated = message.use_candidate();
        let (new_path, forgotten) = self.accept(path, nominated, connected, transaction, now)?;
        let length = self.local.write_success(message, path.remote, out)?;
        Ok(Answered::Valid {
            length,
            new_path,
            forgotten,
        })
    }

    /// An authenticated check came over `path`, here or where the session was waiting: the path is valid, and media
    /// may follow it. Says whether it is new, and which address was forgotten for it.
    pub(crate) fn accept(
        &mut self,
        path: Path,
        nominated: bool,
        connected: bool,
        transaction: impl FnOnce() -> TransactionId,
        now: Instant,
    ) -> Result<(bool, Option<SocketAddr>), Discard> {
        let learned = self.learn(path, now)?;
        self.last_check = Some(now);
        if self.selected.is_none() {
            self.selected = Some(path);
        }
        if nominated && self.selected != Some(path) {
            if !connected {
                self.selected = Some(path);
            } else if self
                .challenge
                .as_ref()
                .is_none_or(|challenge| challenge.path != path)
            {
                self.challenge = Some(Challenge {
                    path,
                    transaction: transaction(),
                    due: now,
                    tries: 0,
                });
            }
        }
        // A valid check on a path that is not nominated may carry DTLS, and answers go where it came from;
        // the first nomination decides.
        if nominated {
            self.nominated = true;
        } else if !self.nominated && !connected {
            self.selected = Some(path);
        }
        Ok(learned)
    }

    /// Whether the path is new, and which one was forgotten for it.
    fn learn(&mut self, path: Path, now: Instant) -> Result<(bool, Option<SocketAddr>), Discard> {
        if let Some(known) = self
            .paths
            .iter_mut()
            .find(|known| known.path.remote == path.remote)
        {
            *known = Known { path, checked: now };
            if let Some(selected) = self
                .selected
                .as_mut()
                .filter(|selected| selected.remote == path.remote)
            {
                selected.local = path.local;
            }
            return Ok((false, None));
        }
        let mut forgotten = None;
        if self.paths.len() == ADDRESSES_MAX {
            // Somebody who roams for hours leaves old addresses behind; a flood of new ones is refused.
            let stale = |known: &Known| now.saturating_duration_since(known.checked) >= STALE_AFTER;
            let selected = self.selected;
            let oldest = (0..ADDRESSES_MAX)
                .filter(|at| stale(&self.paths[*at]) && selected != Some(self.paths[*at].path))
                .min_by_key(|at| self.paths[*at].checked)
                .ok_or(Discard::TooManyAddresses)?;
            forgotten = Some(self.paths.swap_remove(oldest).path.remote);
        }
        self.paths.push(Known { path, checked: now });
        Ok((true, forgotten))
    }

    /// Asks `path` to prove itself, though it passed a check: somebody else receives there.
    pub(crate) fn prove(&mut self, path: Path, transaction: TransactionId, now: Instant) {
        if self
            .challenge
            .as_ref()
            .is_none_or(|challenge| challenge.path != path)
        {
            self.challenge = Some(Challenge {
                path,
                transaction,
                due: now,
                tries: 0,
            });
        }
    }

    /// Takes the answer to a request of ours: the challenged path is proved and selected.
    pub(crate) fn handle_response(&mut self, message: &Message<'_>, path: Path) -> Result<(), Discard> {
        let challenge = self.challenge.as_ref().ok_or(Discard::UnexpectedResponse)?;
        if challenge.transaction != message.transaction_id() || challenge.path.remote != path.remote {
            return Err(Discard::UnexpectedResponse);
        }
        if message.verify_fingerprint() == Some(false) || !message.verify_integrity_key(&self.remote.key) {
            return Err(Discard::StunUnauthentic);
        }
        let proved = challenge.path;
        self.challenge = None;
        if message.class() == Class::Success {
            self.selected = Some(proved);
        }
        Ok(())
    }

    /// When a request of ours is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.challenge.as_ref().map(|challenge| challenge.due)
    }

    /// Writes the request of ours that is due, if any: its length and where it goes.
    pub(crate) fn poll_request(&mut self, now: Instant, out: &mut [u8]) -> Option<(usize, Path)> {
        let challenge = self.challenge.as_mut().filter(|challenge| challenge.due <= now)?;
        if challenge.tries == CHALLENGE_TRIES {
            self.challenge = None;
            return None;
        }
        challenge.due = now + CHALLENGE_RTO * (1 << challenge.tries);
        challenge.tries += 1;
        let (local, remote) = (&self.local.credentials.ufrag, &self.remote.credentials.ufrag);
        let mut username = [0u8; 2 * 256 + 1];
        let username = join(&mut username, remote, local)?;
        let length = Builder::new(out, Class::Request, Method::BINDING, challenge.transaction)
            .username(username)
            .priority(PRIORITY)
            .ice_controlled(self.tie_breaker)
            .integrity_key(&self.remote.key)
            .fingerprint()
            .finish()
            .ok()?;
        Some((length, challenge.path))
    }
}

/// `first:second` in `buffer`.
fn join<'b>(buffer: &'b mut [u8], first: &str, second: &str) -> Option<&'b str> {
    let length = first.len() + 1 + second.len();
    let buffer = buffer.get_mut(..length)?;
    buffer[..first.len()].copy_from_slice(first.as_bytes());
    buffer[first.len()] = b':';
    buffer[first.len() + 1..].copy_from_slice(second.as_bytes());
    std::str::from_utf8(buffer).ok()
}

#[cfg(test)]
mod tests;
