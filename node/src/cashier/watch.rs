//! What others did to the books, brought to the sessions that live here: top-ups and freezes by other nodes and by
//! operators. Ten times a second, in one query about those accounts that wait for news.

use std::time::Instant;

use metering::ledger::AccountView;
use metering::{AccountId, Msat, Step};

use super::NoticeReason;
use super::desk::Desk;
use crate::shard::EndReason;

impl Desk {
    /// Looks once.
    pub(super) fn watch(&mut self, now: Instant, unix_ns: u64) {
        let all = std::mem::take(&mut self.look_at_all);
        let waiting = |desk: &Self, all: bool| -> Vec<AccountId> {
            let accounts = desk.live.accounts.iter();
            accounts
                .filter(|(_, account)| !account.leases.is_empty() && (all || account.step() >= Step::Warned))
                .map(|(name, _)| name.clone())
                .collect()
        };
        let names = waiting(self, all);
        let Some(ledger) = &mut self.ledger else { return };
        let watched = ledger.watch(&names, now, unix_ns);
        let mut news = match watched {
            Ok(news) => news,
            Err(error) => return self.lose_ledger(&error, now),
        };
        if news.taken_over > 0 {
            tracing::warn!(
                leases = news.taken_over,
                at_risk_msat = news.at_risk.get(),
                "another node was not heard of for too long: its leases are settled and taken back"
            );
        }
        super::losses::count_recovered(news.taken_over, news.at_risk);
        if self.freeze_version.replace(news.freeze_version) != Some(news.freeze_version) && !all {
            // Whose freeze it is does not stand there: look at everybody.
            let names = waiting(self, true);
            if let Some(ledger) = &mut self.ledger {
                match ledger.watch(&names, now, unix_ns) {
                    Ok(more) => news.accounts = more.accounts,
                    Err(error) => return self.lose_ledger(&error, now),
                }
            }
        }
        if self.deny_version != Some(news.deny_version)
            && let Some(ledger) = &self.ledger
        {
            match ledger.denied() {
                Ok(denied) => {
                    self.deny_version = Some(news.deny_version);
                    if let Some(denials) = &self.denials {
                        denials.send_replace(denied);
                    }
                }
                Err(error) => return self.lose_ledger(&error, now),
            }
        }
        for view in news.accounts {
            self.note_view(view, now);
        }
    }

    /// An account as the books have it now.
    fn note_view(&mut self, view: AccountView, now: Instant) {
        let name = view.account.clone();
        let Some(account) = self.live.accounts.get_mut(&name) else {
            return;
        };
        if account.view == view {
            return;
        }
        account.topped_up |= paid_in(&view) > paid_in(&account.view);
        let frozen = view.frozen;
        account.view = view;
        self.touched.insert(name.clone());
        if frozen {
            for session in self.live.sessions_of(&name) {
                self.end_session(session, EndReason::Denied, NoticeReason::Denied, now);
            }
        }
    }
}

/// Everything that was ever credited to an account.
fn paid_in(view: &AccountView) -> Msat {
    [view.reserved, view.spent, view.refunded]
        .into_iter()
        .fold(view.available, Msat::saturating_add)
        .saturating_sub(view.owed)
}
