//! Reservations (RFC 8656 sections 5 and 7.2): the port above an even one, kept for 30 s for whoever shows the token. They
//! are the node's, since the next Allocate may come to another shard.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::allocation::Family;

/// RFC 8656 section 7.2: at least 30 s.
pub(crate) const RESERVATION_LIFETIME: Duration = Duration::from_secs(30);

/// Reservations of a node at one time: each keeps one of its 16,384 ports from others.
pub(crate) const RESERVATIONS_MAX: usize = 1024;

/// What a RESERVATION-TOKEN opens. Only an account that could guess 64 random bits could take another's, and would still
/// be refused.
pub(crate) type Token = [u8; 8];

pub(crate) struct Reservation {
    pub(crate) account: Box<str>,
    pub(crate) family: Family,
    pub(crate) port: u16,
    pub(crate) expires: Instant,
}

/// All reservations of a node.
#[derive(Default)]
pub(crate) struct Reservations {
    by_token: HashMap<Token, Reservation>,
}

impl Reservations {
    /// May this account have one more?
    pub(crate) fn has_room(&self, account: &str, account_max: usize) -> bool {
        let own = |reservation: &&Reservation| *reservation.account == *account;
        self.by_token.len() < RESERVATIONS_MAX && self.by_token.values().filter(own).count() < account_max
    }

    pub(crate) fn insert(&mut self, token: Token, reservation: Reservation) {
        self.by_token.insert(token, reservation);
    }

    /// Takes it out, if it is this account's.
    pub(crate) fn take(&mut self, token: &Token, account: &str) -> Option<Reservation> {
        self.by_token
            .get(token)
            .filter(|reservation| *reservation.account == *account)?;
        self.by_token.remove(token)
    }

    /// Takes out the ports of those whose time is up.
    pub(crate) fn expired(&mut self, now: Instant, free: impl Fn(u16)) {
        self.by_token.retain(|_, reservation| {
            let keep = now < reservation.expires;
            if !keep {
                free(reservation.port);
            }
            keep
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_token.is_empty()
    }
}
