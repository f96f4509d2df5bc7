//! The alarm about money that the relay did not get: the loss memos of the ledger are looked at now and then, shown, and
//! said aloud once for each time that one has grown.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use metering::Msat;
use metering::ledger::Totals;
use metrics::{counter, gauge};

use super::desk::Desk;

/// How often: a loss is for people to look into, and the sums of a shared ledger are a query.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Memos that mean that something went wrong: used beyond what a lease held, or reported after it was taken back.
const LOSSES: [&str; 2] = ["uncollected", "old-epoch"];

/// What the memos were.
#[derive(Default)]
pub(super) struct Losses {
    looked_at: Option<Instant>,
    known: Option<BTreeMap<String, Msat>>,
}

impl Losses {
    /// Takes note; which losses grew, and by how much. What was there at the start is no news.
    fn note(&mut self, totals: &Totals) -> Vec<(&'static str, Msat)> {
        let memos = totals.memo_accounts();
        let of = |memos: &BTreeMap<String, Msat>, name| memos.get(name).copied().unwrap_or_default();
        let grown = |known: &BTreeMap<String, Msat>| {
            LOSSES
                .into_iter()
                .map(|name| (name, of(&memos, name).saturating_sub(of(known, name))))
                .filter(|(_, more)| !more.is_zero())
                .collect()
        };
        let news = self.known.as_ref().map(grown).unwrap_or_default();
        self.known = Some(memos);
        news
    }
}

impl Desk {
    /// Looks, if it is time.
    pub(super) fn look_for_losses(&mut self, now: Instant) {
        let due = self
            .losses
            .looked_at
            .is_none_or(|looked| now.duration_since(looked) >= LOOK_INTERVAL);
        let Some(ledger) = self.ledger.as_ref().filter(|_| due) else {
            return;
        };
        self.losses.looked_at = Some(now);
        match ledger.totals() {
            Ok(totals) => {
                for (memo, more) in self.losses.note(&totals) {
                    tracing::error!(
                        memo,
                        msat = more.get(),
                        "usage was not paid for: the loss memo has grown; see docs/billing.md, \"Losses\""
                    );
                }
                for (name, msat) in totals.memo_accounts() {
                    gauge!("milliway_memo_msat", "memo" => name).set(msat.get() as f64);
                }
            }
            Err(error) => self.lose_ledger(&error, now),
        }
    }
}

/// Leases that a kill left behind.
pub(super) fn count_recovered(leases: usize, at_risk: Msat) {
    counter!("milliway_recovered_leases_total").increment(leases as u64);
    counter!("milliway_recovered_at_risk_msat_total").increment(at_risk.get());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_told_once_for_each_time_that_it_grows() {
        let mut losses = Losses::default();
        let memos = |uncollected: u64, other: u64| Totals {
            memo: BTreeMap::from([
                ("uncollected".to_owned(), Msat::new(uncollected)),
                ("emergency".to_owned(), Msat::new(other)),
            ]),
            ..Totals::default()
        };
        assert_eq!(losses.note(&memos(5, 0)), [], "from before");
        assert_eq!(losses.note(&memos(12, 0)), [("uncollected", Msat::new(7))]);
        assert_eq!(losses.note(&memos(12, 900)), [], "free use is no loss");
        assert_eq!(losses.note(&memos(13, 900)), [("uncollected", Msat::new(1))]);
    }
}
