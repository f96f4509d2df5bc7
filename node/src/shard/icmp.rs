//! What the network answers to datagrams that were relayed, from the error queues of relayed ports to the core, which
//! tells the client (RFC 8656 section 11.5).
//!
//! Anybody on the way can send such answers, so what is read in a round and what a client is told in a second is
//! bounded. The kernel bounds what waits in a socket's queue by its receive buffer.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use datagram::{NetworkError, Socket};
use mio::Token;
use turn_server::AllocationKey;
use wire::stun::Icmp;

/// Errors read from one port before others get their turn.
const READ_A_ROUND: usize = 32;

/// What one allocation is told in a second: a few peers that are gone, again and again.
const TOLD_A_SECOND: u32 = 20;

const SECOND: Duration = Duration::from_secs(1);

/// The relayed ports whose error queues are to be looked at.
pub(super) struct Unreachable {
    ports: VecDeque<Token>,
    /// How much each allocation was told since `since`; emptied every second.
    told: HashMap<AllocationKey, u32>,
    since: Option<Instant>,
    /// Reused by each read.
    errors: Vec<NetworkError>,
    /// What was beyond the limit.
    pub(super) untold: u64,
}

impl Unreachable {
    pub(super) fn new() -> Unreachable {
        Unreachable {
            ports: VecDeque::new(),
            told: HashMap::new(),
            since: None,
            errors: Vec::with_capacity(READ_A_ROUND),
            untold: 0,
        }
    }

    /// The poll said that there is an error at this port.
    pub(super) fn note(&mut self, port: Token) {
        if !self.ports.contains(&port) {
            self.ports.push_back(port);
        }
    }

    pub(super) fn has_work(&self) -> bool {
        !self.ports.is_empty()
    }

    /// How many ports wait.
    pub(super) fn waiting(&self) -> usize {
        self.ports.len()
    }

    /// The next port to look at.
    pub(super) fn next(&mut self) -> Option<Token> {
        self.ports.pop_front()
    }

    /// What the client of this port is to be told now, each thing once. A port with more comes again.
    pub(super) fn read(
        &mut self,
        port: Token,
        allocation: AllocationKey,
        mut socket: Option<&mut Socket>,
        now: Instant,
    ) -> &[NetworkError] {
        self.errors.clear();
        for left in (0..READ_A_ROUND).rev() {
            match socket.as_deref_mut().map(Socket::next_error) {
                Some(Ok(Some(error))) if !self.errors.contains(&error) => self.errors.push(error),
                Some(Ok(Some(_))) => {}
                _ => break,
            }
            if left == 0 {
                self.note(port);
            }
        }
        let allowed = self.allowed(allocation, self.errors.len(), now);
        self.untold += (self.errors.len() - allowed) as u64;
        &self.errors[..allowed]
    }

    /// How many of so many may be told.
    fn allowed(&mut self, allocation: AllocationKey, wanted: usize, now: Instant) -> usize {
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= SECOND {
            self.told.clear();
            self.since = Some(now);
        }
        if wanted == 0 {
            return 0;
        }
        let told = self.told.entry(allocation).or_default();
        let more = (TOLD_A_SECOND - *told).min(u32::try_from(wanted).unwrap_or(u32::MAX));
        *told += more;
        more as usize
    }
}

/// As the client is told.
pub(super) fn icmp_of(error: &NetworkError) -> Icmp {
    Icmp {
        kind: error.kind,
        code: error.code,
        data: error.mtu,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use datagram::Fragmentation;

    use super::*;

    #[test]
    fn of_a_flood_of_errors_a_client_is_told_twenty_a_second() {
        let mut unreachable = Unreachable::new();
        let (one, other) = (AllocationKey::new(1), AllocationKey::new(2));
        let start = Instant::now();
        let told: usize = (0..1_000).map(|_| unreachable.allowed(one, 3, start)).sum();
        assert_eq!(told, 20);
        assert_eq!(unreachable.allowed(other, 3, start), 3, "each for itself");
        assert_eq!(unreachable.allowed(one, 3, start + SECOND), 3);
    }

    #[test]
    fn a_port_with_many_errors_is_read_a_part_at_a_time_and_tells_each_thing_once() {
        let local: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let bind = || Socket::bind(local, Fragmentation::Allowed).unwrap();
        let (mut socket, gone) = (bind(), bind().local_addr());
        socket.keep_errors().unwrap();
        for _ in 0..100 {
            socket
                .send(&datagram::Transmit {
                    destination: gone,
                    source: None,
                    segment_size: None,
                    ecn: None,
                    contents: b"knock",
                })
                .unwrap();
        }
        let mut unreachable = Unreachable::new();
        let (port, now) = (Token(16), Instant::now());
        unreachable.note(port);
        unreachable.note(port);
        let (mut rounds, mut told) = (0, 0);
        while let Some(port) = unreachable.next() {
            rounds += 1;
            told += unreachable
                .read(port, AllocationKey::new(1), Some(&mut socket), now)
                .len();
        }
        assert_eq!((rounds, told), (4, 4), "100 errors, 32 a round");
        assert_eq!(unreachable.untold, 0);
    }
}
