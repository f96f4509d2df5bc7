//! Stateless nonces (RFC 8489 section 9.2): an HMAC over the client's address and the time, so that nothing is stored
//! for a client that has proved nothing, and a nonce serves only the address it was sent to.
//!
//! There are two sizes. The long one starts with the nonce cookie (section 9.2.1), whose bits say that we know password
//! algorithms and anonymous usernames, so that nobody on the way can take them out of the answer unnoticed. The short
//! one is for a first request over UDP that is so small that the long one would make its answer a reflector's (see
//! `challenge`). Its 24 bits are enough for what a nonce is for here, showing that the client receives what is sent to
//! its address; what it may do is proved by MESSAGE-INTEGRITY.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use aws_lc_rs::{constant_time, hmac};

/// A nonce is of an epoch and valid in that and the next: 10 to 20 minutes. RFC 8656 asks for an hour at most.
const EPOCH: Duration = Duration::from_secs(600);

/// The cookie, and the features "password algorithms" and "username anonymity" (RFC 8489 section 18.1) in base64.
const COOKIE: &[u8; 13] = b"obMatJos2wAAA";

/// Characters of the HMAC, 6 bits each.
const SHORT: usize = 4;
const LONG: usize = 8;
const NONCE_MAX: usize = COOKIE.len() + LONG;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// What a nonce tells its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Features {
    /// Nothing: it is short.
    None,
    /// The features of the cookie.
    Cookie,
}

#[derive(Clone, Copy)]
pub(crate) struct Nonce {
    text: [u8; NONCE_MAX],
    len: usize,
}

impl Nonce {
    pub(crate) fn as_str(&self) -> &str {
        str::from_utf8(&self.text[..self.len]).expect("a nonce is ASCII")
    }
}

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
    pub(crate) fn issue(&self, client: SocketAddr, features: Features, now: Instant) -> Nonce {
        self.of_epoch(client, features, self.epoch(now))
    }

    /// If this nonce was issued to this client, not too long ago: what it told.
    pub(crate) fn check(&self, nonce: &str, client: SocketAddr, now: Instant) -> Option<Features> {
        let features = match nonce.len() {
            SHORT => Features::None,
            NONCE_MAX => Features::Cookie,
            _ => return None,
        };
        let epoch = self.epoch(now);
        [Some(epoch), epoch.checked_sub(1)]
            .into_iter()
            .flatten()
            .any(|epoch| {
                let expected = self.of_epoch(client, features, epoch);
                constant_time::verify_slices_are_equal(expected.as_str().as_bytes(), nonce.as_bytes()).is_ok()
            })
            .then_some(features)
    }

    fn epoch(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs() / EPOCH.as_secs()
    }

    fn of_epoch(&self, client: SocketAddr, features: Features, epoch: u64) -> Nonce {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&[features as u8]);
        context.update(&epoch.to_be_bytes());
        context.update(&client.port().to_be_bytes());
        match client.ip() {
            IpAddr::V4(ip) => context.update(&ip.octets()),
            IpAddr::V6(ip) => context.update(&ip.octets()),
        }
        let tag = context.sign();
        let bits = u64::from_be_bytes(std::array::from_fn(|index| tag.as_ref()[index]));
        let (start, characters) = match features {
            Features::None => (0, SHORT),
            Features::Cookie => (COOKIE.len(), LONG),
        };
        let mut text = [0; NONCE_MAX];
        text[..start].copy_from_slice(&COOKIE[..start]);
        for (index, character) in text[start..start + characters].iter_mut().enumerate() {
            *character = ALPHABET[(bits >> (6 * index) & 63) as usize];
        }
        Nonce {
            text,
            len: start + characters,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_serves_the_address_it_was_sent_to_and_expires() {
        let start = Instant::now();
        let nonces = Nonces::new(&[7; 32], start);
        let client: SocketAddr = "198.51.100.1:4000".parse().unwrap();
        for features in [Features::None, Features::Cookie] {
            let nonce = nonces.issue(client, features, start);
            let check = |client, now| nonces.check(nonce.as_str(), client, now);
            assert_eq!(check(client, start), Some(features));
            assert_eq!(check(client, start + EPOCH), Some(features));
            assert_eq!(check(client, start + 2 * EPOCH), None);
            assert_eq!(check("198.51.100.1:4001".parse().unwrap(), start), None);
            assert_eq!(check("198.51.100.2:4000".parse().unwrap(), start), None);
        }
        assert_eq!(nonces.check("", client, start), None);
        assert_eq!(nonces.check("AAAA", client, start), None);
    }

    #[test]
    fn a_cookie_whose_features_were_changed_on_the_way_is_no_nonce_of_ours() {
        let start = Instant::now();
        let nonces = Nonces::new(&[7; 32], start);
        let client: SocketAddr = "198.51.100.1:4000".parse().unwrap();
        let nonce = nonces.issue(client, Features::Cookie, start).as_str().to_owned();
        assert!(nonce.starts_with("obMatJos2wAAA"));
        let without = nonce.replace("wAAA", "AAAA");
        assert_eq!(nonces.check(&without, client, start), None);
        assert_eq!(nonces.check(&nonce[13..], client, start), None);
    }

    #[test]
    fn another_secret_makes_other_nonces() {
        let start = Instant::now();
        let client: SocketAddr = "[2001:db8::1]:4000".parse().unwrap();
        let nonce = Nonces::new(&[7; 32], start).issue(client, Features::Cookie, start);
        let other = Nonces::new(&[8; 32], start);
        assert_eq!(other.check(nonce.as_str(), client, start), None);
    }
}
