//! What may be answered to a request that proved nothing (reflection): at most 1.5 times what arrived, and no more
//! than a rate for each IPv4 /24 or IPv6 /56.
//!
//! Sizes are those on the wire, IP and UDP headers included, because that is what a victim would receive. A browser's
//! first Allocate is 28 bytes of STUN; the smallest 401 that carries a realm and a nonce is 52, and no server could
//! stay within 42.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;

/// Prefixes share this many meters by a keyed hash: bounded memory whatever addresses a flood shows.
const METERS: usize = 4096;

const UDP_HEADER: usize = 8;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;

pub(crate) struct Challenges {
    key: hmac::Key,
    /// When each meter will be full again.
    full_at: Box<[Option<Instant>]>,
    interval: Duration,
    burst: Duration,
}

impl Challenges {
    pub(crate) fn new(secret: &[u8; 32], per_second: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, secret),
            full_at: vec![None; METERS].into_boxed_slice(),
            interval,
            burst: interval.saturating_mul(burst.max(1)),
        }
    }

    /// May an answer of this size leave? Counts it if so.
    pub(crate) fn allow(&mut self, client: SocketAddr, request: usize, answer: usize, now: Instant) -> bool {
        let headers = UDP_HEADER
            + if client.is_ipv4() {
                IPV4_HEADER
            } else {
                IPV6_HEADER
            };
        if 2 * (answer + headers) > 3 * (request + headers) {
            return false;
        }
        let meter = self.meter(client.ip());
        let missing =
            self.full_at[meter].map_or(Duration::ZERO, |full_at| full_at.saturating_duration_since(now));
        let after = missing + self.interval;
        if after > self.burst {
            return false;
        }
        self.full_at[meter] = Some(now + after);
        true
    }

    fn meter(&self, ip: IpAddr) -> usize {
        let tag = match ip {
            IpAddr::V4(ip) => hmac::sign(&self.key, &ip.octets()[..3]),
            IpAddr::V6(ip) => hmac::sign(&self.key, &ip.octets()[..7]),
        };
        let [a, b, ..] = tag.as_ref() else { return 0 };
        usize::from(u16::from_be_bytes([*a, *b])) % METERS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_at_most_one_and_a_half_times_the_request_on_the_wire() {
        let mut challenges = Challenges::new(&[0; 32], 1000, 1000);
        let client: SocketAddr = "198.51.100.1:4000".parse().unwrap();
        let now = Instant::now();
        assert!(
            challenges.allow(client, 28, 52, now),
            "a browser's first Allocate is answered"
        );
        assert!(challenges.allow(client, 28, 56, now));
        assert!(!challenges.allow(client, 28, 57, now));
        assert!(!challenges.allow(client, 20, 52, now));
    }

    #[test]
    fn a_prefix_has_a_rate_and_its_neighbours_their_own() {
        let mut challenges = Challenges::new(&[0; 32], 10, 5);
        let now = Instant::now();
        let from = |host: u8| SocketAddr::from(([198, 51, 100, host], 4000));
        let answered = (0..=255)
            .filter(|host| challenges.allow(from(*host), 100, 100, now))
            .count();
        assert_eq!(answered, 5);
        assert!(challenges.allow(SocketAddr::from(([198, 51, 101, 1], 4000)), 100, 100, now));
        assert!(challenges.allow(from(1), 100, 100, now + Duration::from_millis(100)));
        assert!(!challenges.allow(from(1), 100, 100, now + Duration::from_millis(100)));
    }

    #[test]
    fn an_ipv6_prefix_is_56_bits() {
        let mut challenges = Challenges::new(&[0; 32], 10, 1);
        let now = Instant::now();
        let from = |text: &str| SocketAddr::new(text.parse().unwrap(), 4000);
        assert!(challenges.allow(from("2001:db8:0:1::1"), 100, 100, now));
        assert!(!challenges.allow(from("2001:db8:0:ff::1"), 100, 100, now));
        assert!(challenges.allow(from("2001:db8:0:100::1"), 100, 100, now));
    }
}
