//! How often an account was admitted in this minute. A rate of this node's own, forgotten when it stops: what may not be
//! passed on any node is a sum in the ledger ([`metering::ledger::Ceiling`]).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Accounts remembered. Past it nobody new is let in until the minute is over.
const COUNTED_MAX: usize = 200_000;

/// The counts.
#[derive(Default)]
pub(crate) struct Rates(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    admissions: HashMap<String, u64>,
    minute: u64,
}

impl Rates {
    /// One more admission of an account; false if it has had `most` in this minute.
    pub(crate) fn admit(&self, account: &str, most: u64, now: u64) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.minute != now / 60 {
            counts.minute = now / 60;
            counts.admissions.clear();
        }
        if counts.admissions.len() >= COUNTED_MAX && !counts.admissions.contains_key(account) {
            return false;
        }
        let count = counts.admissions.entry(account.to_owned()).or_default();
        *count += 1;
        *count <= most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_has_so_many_admissions_and_a_new_minute_begins_at_nothing() {
        let rates = Rates::default();
        assert!(rates.admit("a", 2, 59) && rates.admit("a", 2, 59) && !rates.admit("a", 2, 59));
        assert!(rates.admit("b", 2, 59));
        assert!(rates.admit("a", 2, 60));
    }
}
