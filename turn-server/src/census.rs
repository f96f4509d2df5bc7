//! What the TURN cores of all shards must agree on: which relayed ports are taken, how many allocations each account
//! has, which accounts have a call in our SFU.
//!
//! Ports are bits that are read per packet without a lock. The counts are behind a lock that only Allocate, the end of
//! an allocation and the opening of a call take.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::allocation::{Family, Protocol};
use crate::reservation::{Reservation, Reservations, Token};

const WORDS: usize = (u16::MAX as usize + 1) / 64;

/// A bit for each port.
type Ports = [AtomicU64; WORDS];

/// Shared by all shards of a node.
pub struct Census {
    taken_udp: Ports,
    taken_tcp: Ports,
    /// Of those that are taken: the ones that nobody listens on yet.
    reserved_udp: Ports,
    reservations: Mutex<Reservations>,
    accounts: Mutex<Accounts>,
}

#[derive(Default)]
struct Accounts {
    allocations: HashMap<Box<str>, usize>,
    allocations_total: usize,
    calls: HashMap<Box<str>, usize>,
}

impl Census {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            taken_udp: ports(),
            taken_tcp: ports(),
            reserved_udp: ports(),
            reservations: Mutex::default(),
            accounts: Mutex::default(),
        }
    }

    /// True if this port is one of our relayed ports.
    pub fn is_relayed(&self, protocol: Protocol, port: u16) -> bool {
        has(self.taken(protocol), port) && !(protocol == Protocol::Udp && has(&self.reserved_udp, port))
    }

    /// A session of this account was opened in the SFU.
    pub fn call_opened(&self, account: &str) {
        *self.accounts().calls.entry(account.into()).or_default() += 1;
    }

    /// It was closed.
    pub fn call_closed(&self, account: &str) {
        release(&mut self.accounts().calls, account);
    }

    pub(crate) fn has_call(&self, account: &str) -> bool {
        self.accounts().calls.contains_key(account)
    }

    /// Takes a port; false if it is taken.
    pub(crate) fn take_port(&self, protocol: Protocol, port: u16) -> bool {
        let (word, bit) = place(port);
        self.taken(protocol)[word].fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    pub(crate) fn free_port(&self, protocol: Protocol, port: u16) {
        let (word, bit) = place(port);
        self.taken(protocol)[word].fetch_and(!bit, Ordering::Relaxed);
    }

    fn taken(&self, protocol: Protocol) -> &Ports {
        match protocol {
            Protocol::Udp => &self.taken_udp,
            Protocol::Tcp => &self.taken_tcp,
        }
    }

    /// Keeps a UDP port for whoever shows the token; false if it is taken or there are too many.
    pub(crate) fn reserve(
        &self,
        token: Token,
        reservation: Reservation,
        account_max: usize,
        now: Instant,
    ) -> bool {
        let mut reservations = self.reservations();
        self.expire(&mut reservations, now);
        let port = reservation.port;
        if !reservations.has_room(&reservation.account, account_max) || !self.take_port(Protocol::Udp, port) {
            return false;
        }
        let (word, bit) = place(port);
        self.reserved_udp[word].fetch_or(bit, Ordering::Relaxed);
        reservations.insert(token, reservation);
        true
    }

    /// The family and the port that a token of this account stands for. The port stays taken, now by an allocation.
    pub(crate) fn redeem(&self, token: &Token, account: &str, now: Instant) -> Option<(Family, u16)> {
        let mut reservations = self.reservations();
        self.expire(&mut reservations, now);
        let reservation = reservations.take(token, account)?;
        let (word, bit) = place(reservation.port);
        self.reserved_udp[word].fetch_and(!bit, Ordering::Relaxed);
        Some((reservation.family, reservation.port))
    }

    /// Frees the ports whose 30 s are over.
    pub(crate) fn expire_reservations(&self, now: Instant) {
        self.expire(&mut self.reservations(), now);
    }

    fn expire(&self, reservations: &mut Reservations, now: Instant) {
        if !reservations.is_empty() {
            reservations.expired(now, |port| {
                let (word, bit) = place(port);
                self.reserved_udp[word].fetch_and(!bit, Ordering::Relaxed);
                self.free_port(Protocol::Udp, port);
            });
        }
    }

    fn reservations(&self) -> MutexGuard<'_, Reservations> {
        self.reservations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many allocations the node has.
    pub fn allocations(&self) -> usize {
        self.accounts().allocations_total
    }

    /// Counts one more allocation.
    pub(crate) fn enter(&self, account: &str, account_max: usize, total_max: usize) -> Result<(), Full> {
        let mut accounts = self.accounts();
        if accounts.allocations_total >= total_max {
            return Err(Full::Node);
        }
        let count = accounts.allocations.get(account).copied().unwrap_or_default();
        if count >= account_max {
            return Err(Full::Account);
        }
        accounts.allocations.insert(account.into(), count + 1);
        accounts.allocations_total += 1;
        Ok(())
    }

    pub(crate) fn leave(&self, account: &str) {
        let mut accounts = self.accounts();
        accounts.allocations_total = accounts.allocations_total.saturating_sub(1);
        release(&mut accounts.allocations, account);
    }

    // Every critical section leaves the counts consistent, so a panic elsewhere does not spoil them.
    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Census {
    fn default() -> Self {
        Self::new()
    }
}

/// Which limit was hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    Account,
    Node,
}

fn ports() -> Ports {
    std::array::from_fn(|_| AtomicU64::new(0))
}

fn has(ports: &Ports, port: u16) -> bool {
    let (word, bit) = place(port);
    ports[word].load(Ordering::Relaxed) & bit != 0
}

fn place(port: u16) -> (usize, u64) {
    (usize::from(port) / 64, 1 << (port % 64))
}

fn release(counts: &mut HashMap<Box<str>, usize>, account: &str) {
    if let Some(count) = counts.get_mut(account) {
        *count -= 1;
        if *count == 0 {
            counts.remove(account);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_port_is_taken_once() {
        let census = Census::new();
        let udp = Protocol::Udp;
        assert!(census.take_port(udp, 65_535));
        assert!(!census.take_port(udp, 65_535));
        assert!(census.take_port(Protocol::Tcp, 65_535), "another protocol's port");
        assert!(census.is_relayed(udp, 65_535) && !census.is_relayed(udp, 65_534));
        census.free_port(udp, 65_535);
        assert!(!census.is_relayed(udp, 65_535) && census.is_relayed(Protocol::Tcp, 65_535));
    }

    #[test]
    fn allocations_are_counted_per_account_and_per_node() {
        let census = Census::new();
        assert_eq!(census.enter("a", 1, 2), Ok(()));
        assert_eq!(census.enter("a", 1, 2), Err(Full::Account));
        assert_eq!(census.enter("b", 1, 2), Ok(()));
        assert_eq!(census.enter("c", 1, 2), Err(Full::Node));
        census.leave("a");
        assert_eq!(census.enter("c", 1, 2), Ok(()));
    }

    #[test]
    fn an_account_has_a_call_until_its_last_session_closes() {
        let census = Census::new();
        census.call_opened("a");
        census.call_opened("a");
        census.call_closed("a");
        assert!(census.has_call("a"));
        census.call_closed("a");
        assert!(!census.has_call("a"));
    }

    #[test]
    fn a_reserved_port_is_taken_but_no_peer_until_its_token_is_shown() {
        let (census, now) = (Census::new(), Instant::now());
        let reservation = |port| Reservation {
            account: "a".into(),
            family: Family::V4,
            port,
            expires: now + Duration::from_secs(30),
        };
        assert!(census.reserve([1; 8], reservation(50_001), 2, now));
        assert!(!census.take_port(Protocol::Udp, 50_001) && !census.is_relayed(Protocol::Udp, 50_001));
        assert!(!census.reserve([2; 8], reservation(50_001), 2, now), "taken");
        assert!(census.reserve([2; 8], reservation(50_003), 2, now));
        assert!(!census.reserve([3; 8], reservation(50_005), 2, now), "too many");
        assert_eq!(census.redeem(&[1; 8], "b", now), None, "another account's");
        assert_eq!(census.redeem(&[1; 8], "a", now), Some((Family::V4, 50_001)));
        assert_eq!(census.redeem(&[1; 8], "a", now), None, "once");
        assert!(census.is_relayed(Protocol::Udp, 50_001));
        let later = now + Duration::from_secs(30);
        assert_eq!(census.redeem(&[2; 8], "a", later), None, "too late");
        assert!(census.take_port(Protocol::Udp, 50_003));
    }
}
