//! Connectivity checks of a light client (RFC 8445): one pair, full ICE, either role. Until the pair works a check
//! leaves every 50 ms, afterwards one every 2.5 s as Chromium sends them, which also keeps consent (RFC 7675).

use std::net::SocketAddr;

use aws_lc_rs::hmac;
use wire::stun::{Builder, Class, Message, Method, TransactionId, integrity_key};

use crate::sdp::Local;

const MILLISECOND: u64 = 1_000_000;
const CHECK_INTERVAL_AT_FIRST: u64 = 50 * MILLISECOND;
const CHECK_INTERVAL: u64 = 2_500 * MILLISECOND;
/// Without an answer for so long consent is gone (RFC 7675 section 5.1).
const CONSENT_MAX: u64 = 30_000 * MILLISECOND;

/// Host candidate, component 1, and peer-reflexive (RFC 8445 section 5.1.2.1).
const PRIORITY: u32 = (110 << 24) | (65_535 << 8) | 255;

/// Room for a check or its answer.
pub const MESSAGE_MAX: usize = 512;

/// The checks of one client's only pair.
pub struct Checks {
    username: String,
    ours: hmac::Key,
    theirs: hmac::Key,
    is_controlling: bool,
    tie_breaker: u64,
    transaction: u64,
    due: u64,
    /// When the pair first worked.
    valid_since: Option<u64>,
    last_answer: u64,
}

impl Checks {
    /// Checks from a client to a server with these credentials. Times are nanoseconds.
    #[must_use]
    pub fn new(
        local: &Local,
        remote_ufrag: &str,
        remote_pwd: &str,
        is_controlling: bool,
        now: u64,
    ) -> Checks {
        Checks {
            username: format!("{remote_ufrag}:{}", local.ufrag),
            ours: integrity_key(local.pwd.as_bytes()),
            theirs: integrity_key(remote_pwd.as_bytes()),
            is_controlling,
            tie_breaker: u64::from(local.address.port()) << 32 | u64::from(local.ssrcs.audio),
            transaction: 0,
            due: now,
            valid_since: None,
            last_answer: now,
        }
    }

    /// When the next check is due.
    #[must_use]
    pub fn due(&self) -> u64 {
        self.due
    }

    /// Whether the pair works.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.valid_since.is_some()
    }

    /// Whether the server stopped answering.
    #[must_use]
    pub fn is_lost(&self, now: u64) -> bool {
        now.saturating_sub(self.last_answer) > CONSENT_MAX
    }

    /// The check that is due, written into `buffer`.
    pub fn request(&mut self, now: u64, buffer: &mut [u8; MESSAGE_MAX]) -> Option<usize> {
        if self.due > now {
            return None;
        }
        self.due = now
            + if self.is_valid() {
                CHECK_INTERVAL
            } else {
                CHECK_INTERVAL_AT_FIRST
            };
        self.transaction += 1;
        let message = Builder::new(buffer, Class::Request, Method::BINDING, self.transaction_id())
            .username(&self.username)
            .priority(PRIORITY);
        let message = if self.is_controlling {
            message.ice_controlling(self.tie_breaker).use_candidate()
        } else {
            message.ice_controlled(self.tie_breaker)
        };
        message.integrity_key(&self.theirs).fingerprint().finish().ok()
    }

    /// Ours, and unlike those of other clients.
    fn transaction_id(&self) -> TransactionId {
        let mut id = [0; 12];
        id[..4].copy_from_slice(&(self.transaction as u32).to_be_bytes());
        id[4..].copy_from_slice(&self.tie_breaker.to_be_bytes());
        TransactionId(id)
    }

    /// Takes a STUN message; what is to be sent back to `source` is written into `buffer`.
    pub fn handle(
        &mut self,
        now: u64,
        source: SocketAddr,
        datagram: &[u8],
        buffer: &mut [u8; MESSAGE_MAX],
    ) -> Option<usize> {
        let message = Message::parse(datagram).ok()?;
        match message.class() {
            Class::Success if message.transaction_id().0[4..] == self.tie_breaker.to_be_bytes() => {
                if message.verify_integrity_key(&self.theirs) {
                    self.last_answer = now;
                    if self.valid_since.is_none() {
                        self.valid_since = Some(now);
                        self.due = now + CHECK_INTERVAL;
                    }
                }
                None
            }
            Class::Request if message.verify_integrity_key(&self.ours) => {
                // Its check says as much as an answer to ours: the way there and back works.
                self.last_answer = now;
                Builder::new(buffer, Class::Success, Method::BINDING, message.transaction_id())
                    .xor_mapped_address(source)
                    .integrity_key(&self.ours)
                    .fingerprint()
                    .finish()
                    .ok()
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sdp::Ssrcs;

    fn local(ufrag: &str, port: u16) -> Local {
        Local {
            ufrag: ufrag.into(),
            pwd: ufrag.repeat(6),
            fingerprint: String::new(),
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            ssrcs: Ssrcs {
                audio: u32::from(port),
                video: 0,
                rtx: 0,
            },
        }
    }

    #[test]
    fn two_clients_find_each_other_and_slow_down() {
        let (a, b) = (local("aaaa", 1), local("bbbb", 2));
        let mut one = Checks::new(&a, &b.ufrag, &b.pwd, true, 0);
        let mut other = Checks::new(&b, &a.ufrag, &a.pwd, false, 0);
        let (mut request, mut answer) = ([0; MESSAGE_MAX], [0; MESSAGE_MAX]);
        let length = one.request(0, &mut request).unwrap();
        assert_eq!(one.request(1, &mut answer), None, "the next one is not due");
        let length = other
            .handle(1, a.address, &request[..length], &mut answer)
            .unwrap();
        assert_eq!(one.handle(2, b.address, &answer[..length], &mut request), None);
        assert!(one.is_valid() && !other.is_valid());
        assert_eq!(one.due(), 2 + CHECK_INTERVAL);
        assert!(!one.is_lost(CONSENT_MAX) && one.is_lost(CONSENT_MAX + 3));
    }

    #[test]
    fn a_stranger_gets_no_answer() {
        let (a, b) = (local("aaaa", 1), local("bbbb", 2));
        let mut stranger = Checks::new(&a, &b.ufrag, "not the password at all", true, 0);
        let mut other = Checks::new(&b, &a.ufrag, &a.pwd, false, 0);
        let (mut request, mut answer) = ([0; MESSAGE_MAX], [0; MESSAGE_MAX]);
        let length = stranger.request(0, &mut request).unwrap();
        assert_eq!(other.handle(1, a.address, &request[..length], &mut answer), None);
    }
}
