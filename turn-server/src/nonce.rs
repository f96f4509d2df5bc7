//! Stateless nonces (RFC 8489 section 9.2): an HMAC over the client's address and the time, so that nothing is stored
//! for a client that has proved nothing, and a nonce serves only the address it was sent to.
//!
//! Eight characters: a 401 must stay small (see `challenge`). 48 bits of the HMAC are enough for what a nonce is for
//! here, showing that the client receives what is sent to its address; what it may do is proved by
//! MESSAGE-INTEGRITY.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use aws_lc_rs::{constant_time, hmac};

/// A nonce is of an epoch and valid in that and the next: 10 to 20 minutes. RFC 8656 asks for an hour at most.
const EPOCH: Duration = Duration::from_secs(600);

/// Characters of a nonce.
pub(crate) const NONCE_LEN: usize = 8;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

pub(crate) struct Nonces {
    key: hmac::Key,
    start: Instant,
}

impl Nonces {
    pub(crate) fn new(secret: &[u8; 32], start: Instant) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, secret),
            start,
        }
    }

    /// The nonce for this client now.
    pub(crate) fn issue(&self, client: SocketAddr, now: Instant) -> [u8; NONCE_LEN] {
        self.of_epoch(client, self.epoch(now))
    }

    /// Was this nonce issued to this client, not too long ago?
    pub(crate) fn valid(&self, nonce: &str, client: SocketAddr, now: Instant) -> bool {
        let epoch = self.epoch(now);
        [Some(epoch), epoch.checked_sub(1)]
            .into_iter()
            .flatten()
            .any(|epoch| {
                let expected = self.of_epoch(client, epoch);
                constant_time::verify_slices_are_equal(&expected, nonce.as_bytes()).is_ok()
            })
    }

    fn epoch(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs() / EPOCH.as_secs()
    }

    fn of_epoch(&self, client: SocketAddr, epoch: u64) -> [u8; NONCE_LEN] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&epoch.to_be_bytes());
        context.update(&client.port().to_be_bytes());
        match client.ip() {
            IpAddr::V4(ip) => context.update(&ip.octets()),
            IpAddr::V6(ip) => context.update(&ip.octets()),
        }
        let tag = context.sign();
        let mut bits = [0; 8];
        bits.copy_from_slice(&tag.as_ref()[..8]);
        let bits = u64::from_be_bytes(bits);
        std::array::from_fn(|index| ALPHABET[(bits >> (6 * index) & 63) as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(nonce: [u8; NONCE_LEN]) -> String {
        String::from_utf8(nonce.to_vec()).unwrap()
    }

    #[test]
    fn a_nonce_serves_the_address_it_was_sent_to_and_expires() {
        let start = Instant::now();
        let nonces = Nonces::new(&[7; 32], start);
        let client: SocketAddr = "198.51.100.1:4000".parse().unwrap();
        let nonce = text(nonces.issue(client, start));
        assert!(nonces.valid(&nonce, client, start));
        assert!(nonces.valid(&nonce, client, start + EPOCH));
        assert!(!nonces.valid(&nonce, client, start + 2 * EPOCH));
        assert!(!nonces.valid(&nonce, "198.51.100.1:4001".parse().unwrap(), start));
        assert!(!nonces.valid(&nonce, "198.51.100.2:4000".parse().unwrap(), start));
        assert!(!nonces.valid("", client, start) && !nonces.valid("AAAAAAAA", client, start));
    }

    #[test]
    fn another_secret_makes_other_nonces() {
        let start = Instant::now();
        let client: SocketAddr = "[2001:db8::1]:4000".parse().unwrap();
        let nonce = text(Nonces::new(&[7; 32], start).issue(client, start));
        assert!(!Nonces::new(&[8; 32], start).valid(&nonce, client, start));
    }
}
