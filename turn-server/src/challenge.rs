//! What may be answered to a request that proved nothing (reflection): at most 1.5 times what arrived, and no more
//! than a rate for each IPv4 /24 or IPv6 /56.
//!
//! Sizes are UDP payloads. Requests below 32 bytes are the exception: there is no way to tell a 20-byte Binding its
//! address in 30, nor to give a browser's first Allocate of 28 a realm and a nonce in 42. The smallest possible answers
//! to these (32 and 44 bytes) are held to 1.5 times as a victim would receive them, IP and UDP headers included. Where a
//! handshake has shown that the client has its address, nothing is reflected and size does not matter.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;

use crate::client::Client;

/// Prefixes share this many meters by a keyed hash: bounded memory whatever addresses a flood shows.
const METERS: usize = 4096;

/// Requests below this are measured with their headers.
const SMALL: usize = 32;

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

    /// Is an answer of this size small enough?
    pub(crate) fn fits(client: &Client, request: usize, answer: usize) -> bool {
        if client.transport.shows_address() {
            return true;
        }
        let ip_header = match client.source.is_ipv4() {
            true => IPV4_HEADER,
            false => IPV6_HEADER,
        };
        let headers = match request < SMALL {
            true => UDP_HEADER + ip_header,
            false => 0,
        };
        2 * (answer + headers) <= 3 * (request + headers)
    }

    /// May one more answer leave to this address? Counts it if so.
    pub(crate) fn allow(&mut self, ip: IpAddr, now: Instant) -> bool {
        let meter = self.meter(ip);
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
    fn an_answer_is_at_most_one_and_a_half_times_the_request() {
        let udp = Client::udp(
            "198.51.100.1:4000".parse().unwrap(),
            "9.9.9.9:3478".parse().unwrap(),
        );
        let fits = |request, answer| Challenges::fits(&udp, request, answer);
        assert!(fits(32, 48) && !fits(32, 49), "as they are");
        assert!(fits(100, 150) && !fits(100, 152));
        assert!(fits(28, 44), "a browser's first Allocate is answered");
        assert!(fits(28, 56) && !fits(28, 57), "with headers");
        let tcp = Client {
            transport: crate::Transport::Tcp,
            ..udp
        };
        assert!(Challenges::fits(&tcp, 20, 500));
    }

    #[test]
    fn a_prefix_has_a_rate_and_its_neighbours_their_own() {
        let mut challenges = Challenges::new(&[0; 32], 10, 5);
        let now = Instant::now();
        let from = |host: u8| IpAddr::from([198, 51, 100, host]);
        let answered = (0..=255)
            .filter(|host| challenges.allow(from(*host), now))
            .count();
        assert_eq!(answered, 5);
        assert!(challenges.allow(IpAddr::from([198, 51, 101, 1]), now));
        assert!(challenges.allow(from(1), now + Duration::from_millis(100)));
        assert!(!challenges.allow(from(1), now + Duration::from_millis(100)));
    }

    #[test]
    fn an_ipv6_prefix_is_56_bits() {
        let mut challenges = Challenges::new(&[0; 32], 10, 1);
        let now = Instant::now();
        let from = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(challenges.allow(from("2001:db8:0:1::1"), now));
        assert!(!challenges.allow(from("2001:db8:0:ff::1"), now));
        assert!(challenges.allow(from("2001:db8:0:100::1"), now));
    }
}
