//! What the askers hear, once the steps of the round are taken; and the receipt, signed.

use std::time::Instant;

use metering::ledger::Credited;
use metering::{AccountId, LeaseId, Msat, SessionId, Step};
use serde::Serialize;

use super::desk::Desk;
use super::live::Account;
use super::{AccountStatus, Admission, Admitted, Order, Refused, Reply, SessionStatus, TurnAdmission};

/// The JWS `typ` of a receipt.
const RECEIPT_TYP: &str = "milliway-receipt+jws";

/// An answer that waits until the round's steps are taken.
pub(super) enum Answer {
    Account {
        account: AccountId,
        reply: Reply<AccountStatus>,
    },
    Receipt {
        session: SessionId,
        reply: Reply<Option<(AccountId, String)>>,
        unix_ns: u64,
    },
    AskAgain {
        admission: Box<Admission>,
        reply: Reply<Admitted>,
    },
    Admit {
        lease: LeaseId,
        granted: Msat,
        admission: Box<Admission>,
        reply: Reply<Admitted>,
    },
    TurnAdmit {
        lease: LeaseId,
        granted: Msat,
        admission: TurnAdmission,
    },
    Credit {
        credited: Credited,
        reply: Reply<Credited>,
    },
}

/// A receipt as it is signed: who says so, and when.
#[derive(Serialize)]
struct SignedReceipt<'a> {
    iss: &'a str,
    iat: u64,
    #[serde(flatten)]
    receipt: metering::receipt::Receipt,
}

impl Desk {
    /// Gives the answers that waited for the steps of this round.
    pub(super) fn answer(&mut self, now: Instant) {
        for answer in std::mem::take(&mut self.answers) {
            // Whoever does not wait any more does not need the answer.
            match answer {
                Answer::Account { account, reply } => drop(reply.send(self.status(&account, now))),
                Answer::Receipt {
                    session,
                    reply,
                    unix_ns,
                } => {
                    drop(reply.send(self.receipt(session, unix_ns, now)));
                }
                Answer::AskAgain { admission, reply } => {
                    if self.is_held(&admission.account) {
                        drop(reply.send(Err(self.still_held(&admission.account))));
                    } else {
                        self.queue_admission(*admission, reply);
                    }
                }
                Answer::Credit { credited, reply } => drop(reply.send(Ok(credited))),
                Answer::Admit {
                    lease,
                    granted,
                    admission,
                    reply,
                } => {
                    let admitted = self.admitted(lease, granted, &admission, now);
                    if reply.send(admitted).is_err() {
                        // The client is gone before it was let in.
                        self.reclaim(lease, "never-opened");
                    }
                }
                Answer::TurnAdmit {
                    lease,
                    granted,
                    admission,
                } => {
                    let TurnAdmission {
                        shard,
                        allocation,
                        session,
                        account,
                        ..
                    } = admission;
                    let step = self.live.accounts.get(&account).map_or(Step::Full, Account::step);
                    if let Some(rates) = self.live.leases.get(&lease).map(|lease| lease.rates) {
                        self.order(
                            shard,
                            Order::TurnAdmitted {
                                allocation,
                                session,
                                lease,
                                granted,
                                rates,
                                step,
                            },
                        );
                    }
                }
            }
        }
    }

    pub(super) fn admitted(
        &mut self,
        lease: LeaseId,
        granted: Msat,
        admission: &Admission,
        now: Instant,
    ) -> Result<Admitted, Refused> {
        let account = self.status(&admission.account, now)?;
        let tariff = self
            .tariffs
            .iter()
            .find(|tariff| tariff.service == admission.service);
        let rates = self.live.leases.get(&lease).map(|lease| lease.rates);
        let (Some(tariff), Some(rates)) = (tariff, rates) else {
            return Err(Refused::Capacity);
        };
        Ok(Admitted {
            lease,
            granted,
            rates,
            tariff_id: tariff.id.clone(),
            step: account.step,
            account,
        })
    }

    pub(super) fn status(&mut self, name: &AccountId, now: Instant) -> Result<AccountStatus, Refused> {
        let view = self.view(name, now)?;
        let account = self.live.accounts.get(name);
        let spendable = account.map(|account| self.live.spendable_msat(account));
        let runway = account
            .zip(spendable)
            .and_then(|(account, msat)| account.ladder.runway(msat, now));
        let sessions = self.live.sessions_of(name).into_iter().filter_map(|session| {
            let known = self.live.sessions.get(&session)?;
            let leases = known
                .leases
                .iter()
                .filter_map(|lease| self.live.leases.get(lease));
            let used_msat = leases.fold(Msat::ZERO, |sum, lease| sum.saturating_add(lease.used_msat()));
            Some(SessionStatus {
                session,
                service: known.service,
                used_msat,
            })
        });
        Ok(AccountStatus {
            available: view.available,
            reserved: view.reserved,
            spendable: spendable.unwrap_or(view.available),
            spent: view.spent,
            runway_seconds: runway.map(|runway| runway.as_secs_f64()),
            burn_msat_per_second: account.map_or(0, |account| {
                metering::meter::closing(account.ladder.full_burn(now)).get()
            }),
            step: account
                .filter(|account| !account.leases.is_empty())
                .map_or(Step::Full, Account::step),
            sessions: sessions.collect(),
        })
    }

    pub(super) fn receipt(
        &mut self,
        session: SessionId,
        unix_ns: u64,
        now: Instant,
    ) -> Result<Option<(AccountId, String)>, Refused> {
        let ledger = self.ledger.as_ref().ok_or(Refused::LedgerUnavailable)?;
        let receipt = match ledger.receipt(session) {
            Ok(Some(receipt)) => receipt,
            Ok(None) => return Ok(None),
            Err(error) => {
                self.lose_ledger(&error, now);
                return Err(Refused::LedgerUnavailable);
            }
        };
        let account = receipt.account.clone();
        let claims = SignedReceipt {
            iss: self.key.did().as_str(),
            iat: unix_ns / 1_000_000_000,
            receipt,
        };
        let payload = serde_json::to_vec(&claims).map_err(|_| Refused::LedgerUnavailable)?;
        Ok(Some((account, self.key.sign_jws(RECEIPT_TYP, &payload))))
    }
}
