//! Who is let in: one commit credits the voucher and opens the first lease.

use std::time::Instant;

use metering::ledger::{Command, Conditions, Open};
use metering::{AccountId, LeaseId, Msat, Rates, Service, SessionId, Step, Usage, lease};

use super::desk::Desk;
use super::live::{Account, Hold, Lease};
use super::rounds::Then;
use super::{Admission, Admitted, Order, Refused, Reply, TurnAdmission, TurnRefusal};

/// What a session that costs nothing is charged by, and what that is called.
const FREE: Rates = Rates {
    out: 0,
    in_: 0,
    second: 0,
};
pub(super) const FREE_TARIFF: &str = "emergency";

impl Desk {
    pub(super) fn queue_admission(&mut self, admission: Admission, reply: Reply<Admitted>) {
        let free = admission.conditions.free_instead_of;
        if free.is_none() && self.is_held(&admission.account) {
            // A held account waits for a top-up, and a new session must not spend what the held ones could not. Its
            // voucher may be that top-up.
            match &admission.voucher {
                Some(voucher) => {
                    let command = Command::CreditWithin {
                        voucher: voucher.clone(),
                        bounds: admission.conditions.bounds.clone(),
                    };
                    self.batch.push((
                        command,
                        Then::CreditFirst {
                            admission: Box::new(admission),
                            reply,
                        },
                    ));
                }
                None => drop(reply.send(Err(self.still_held(&admission.account)))),
            }
            return;
        }
        let tariff = self
            .tariffs
            .iter()
            .find(|tariff| tariff.service == admission.service);
        let rates = tariff.and_then(|tariff| tariff.rates().ok());
        let (Some(tariff), Some(rates), false) = (tariff, rates, self.draining) else {
            let _ = reply.send(Err(Refused::Capacity));
            return;
        };
        let limit = admission.max_msat_per_second.unwrap_or(u64::MAX);
        let want = lease::starting_want(&rates).min(Msat::new(limit.saturating_mul(lease::LEASE_SECONDS)));
        let open = Open {
            session: admission.session,
            account: admission.account.clone(),
            voucher: admission.voucher.clone(),
            service: admission.service,
            tariff: free.map_or(tariff.id.clone(), |_| FREE_TARIFF.to_owned()),
            rates: free.map_or(rates, |_| FREE),
            want: free.map_or(want, |_| Msat::ZERO),
            minimum: free.map_or(rates.admission_minimum(), |_| Msat::ZERO),
            cap: admission.cap.clone().filter(|_| free.is_none()),
            conditions: admission.conditions.clone(),
        };
        self.batch.push((
            Command::Open(Box::new(open)),
            Then::Admit {
                admission: Box::new(admission),
                want,
                reply,
            },
        ));
    }

    pub(super) fn queue_turn_admission(&mut self, admission: TurnAdmission) {
        let is_free = self.live.is_free(admission.session);
        if !is_free && self.is_held(&admission.account) {
            self.refuse_turn(&admission, TurnRefusal::BalanceExhausted);
            return;
        }
        let tariff = self.tariffs.iter().find(|tariff| tariff.service == Service::Turn);
        let rates = tariff.and_then(|tariff| tariff.rates().ok());
        let (Some(tariff), Some(rates), false) = (tariff, rates, self.draining) else {
            self.refuse_turn(&admission, TurnRefusal::Capacity);
            return;
        };
        let want = lease::starting_want(&rates);
        let open = Open {
            session: admission.session,
            account: admission.account.clone(),
            voucher: None,
            service: Service::Turn,
            tariff: tariff.id.clone(),
            rates,
            want,
            minimum: rates.admission_minimum(),
            cap: admission.cap.clone(),
            conditions: Conditions::default(),
        };
        let open = match is_free {
            true => Open {
                tariff: FREE_TARIFF.to_owned(),
                rates: FREE,
                want: Msat::ZERO,
                minimum: Msat::ZERO,
                cap: None,
                conditions: Conditions {
                    free_instead_of: Some(rates),
                    ..Conditions::default()
                },
                ..open
            },
            false => open,
        };
        self.batch
            .push((Command::Open(Box::new(open)), Then::TurnAdmit { admission, want }));
    }

    pub(super) fn note_opened(
        &mut self,
        id: LeaseId,
        granted: Msat,
        want: Msat,
        (account, session, shard, service): (AccountId, SessionId, usize, Service),
        (free, limit): (bool, Option<u64>),
        now: Instant,
    ) {
        let tariff = self.tariffs.iter().find(|tariff| tariff.service == service);
        let Some(rates) = tariff.and_then(|tariff| tariff.rates().ok()) else {
            return;
        };
        let rates = if free { FREE } else { rates };
        self.account_mut(&account);
        self.moved.insert(account.clone());
        let lease = Lease {
            account,
            session,
            shard,
            rates,
            granted,
            settled: Msat::ZERO,
            usage: Usage::default(),
            segment: 0,
            sequence: 0,
            hold: Hold::No,
            seen: false,
            wants: false,
            exhausted: false,
            free,
            limit,
            last_want: want,
            renewed_at: now,
            answered_at: now,
            committed_at: now,
        };
        self.live.add(id, service, lease);
    }

    pub(super) fn refuse_turn(&mut self, admission: &TurnAdmission, reason: TurnRefusal) {
        self.order(
            admission.shard,
            Order::TurnRefused {
                allocation: admission.allocation,
                reason,
            },
        );
    }

    pub(super) fn is_held(&self, name: &AccountId) -> bool {
        self.live
            .accounts
            .get(name)
            .is_some_and(|account| account.step() == Step::Held)
    }

    pub(super) fn still_held(&self, name: &AccountId) -> Refused {
        let available = self
            .live
            .accounts
            .get(name)
            .map_or(Msat::ZERO, |account| self.live.free_to_spend(&account.view));
        if self.is_up() {
            Refused::BalanceExhausted { available }
        } else {
            Refused::LedgerUnavailable
        }
    }

    pub(super) fn account_mut(&mut self, name: &AccountId) -> &mut Account {
        let ladder = self.ladder;
        self.live
            .accounts
            .entry(name.clone())
            .or_insert_with(|| Account::new(name, ladder))
    }
}
