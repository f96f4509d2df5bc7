//! From commands to answers: the commit of a round, what each outcome changes, and who is told.

use std::time::{Duration, Instant};

use metering::ledger::{Command, Credited, Fault, LedgerError, Open, Outcome, Proof, Refusal};
use metering::{AccountId, LeaseId, Msat, Service, SessionId, Step, Usage, lease};
use serde::Serialize;
use tokio::sync::oneshot;

use super::desk::{ANSWER_INTERVAL, Desk};
use super::live::{Account, Hold, Lease};
use super::{
    AccountStatus, Admission, Admitted, Order, Refused, Reply, SessionStatus, TurnAdmission, TurnRefusal,
    notice::NoticeReason,
};
use crate::shard::EndReason;

/// A lease that is renewed again this soon burns faster than it is known to: the next grant is twice the last.
const RAMP: Duration = Duration::from_secs(2);

/// The JWS `typ` of a receipt.
const RECEIPT_TYP: &str = "milliway-receipt+jws";

/// What to do once a command is in the books, or was refused.
pub(super) enum Then {
    Nothing,
    Report {
        lease: LeaseId,
    },
    Credit {
        account: AccountId,
        reply: Reply<Credited>,
    },
    CreditFirst {
        admission: Box<Admission>,
        reply: Reply<Admitted>,
    },
    Admit {
        admission: Box<Admission>,
        want: Msat,
        reply: Reply<Admitted>,
    },
    TurnAdmit {
        admission: TurnAdmission,
        want: Msat,
    },
    Renew {
        lease: LeaseId,
    },
    Settle {
        lease: LeaseId,
        last: bool,
    },
    Release {
        lease: LeaseId,
    },
    Reclaim {
        lease: LeaseId,
    },
    Freeze {
        account: AccountId,
        frozen: bool,
        reply: Reply<()>,
    },
}

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
    Verify {
        reply: oneshot::Sender<Result<Proof, Fault>>,
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
    Freeze {
        reply: Reply<()>,
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

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::BalanceExhausted { available } => Self::BalanceExhausted { available },
            Refusal::VoucherConflict => Self::VoucherConflict,
            Refusal::BalanceTooLarge | Refusal::TooManyLots => Self::BalanceTooLarge,
            Refusal::Frozen => Self::Frozen,
            Refusal::GrantUsedUp => Self::GrantUsedUp,
            Refusal::OtherAccount | Refusal::NoSuchLease => Self::Capacity,
        }
    }
}

impl Desk {
    pub(super) fn queue_admission(&mut self, admission: Admission, reply: Reply<Admitted>) {
        if self.is_held(&admission.account) {
            // A held account waits for a top-up, and a new session must not spend what the held ones could not. Its
            // voucher may be that top-up.
            match &admission.voucher {
                Some(voucher) => {
                    let command = Command::Credit(voucher.clone());
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
            tariff: tariff.id.clone(),
            rates,
            want,
            minimum: rates.admission_minimum(),
            cap: admission.cap.clone(),
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
        if self.is_held(&admission.account) {
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
        };
        self.batch
            .push((Command::Open(Box::new(open)), Then::TurnAdmit { admission, want }));
    }

    fn is_held(&self, name: &AccountId) -> bool {
        self.live
            .accounts
            .get(name)
            .is_some_and(|account| account.step() == Step::Held)
    }

    fn still_held(&self, name: &AccountId) -> Refused {
        let available = self
            .live
            .accounts
            .get(name)
            .map_or(Msat::ZERO, |account| account.view.available);
        if self.is_up() {
            Refused::BalanceExhausted { available }
        } else {
            Refused::LedgerUnavailable
        }
    }

    fn refuse_turn(&mut self, admission: &TurnAdmission, reason: TurnRefusal) {
        self.order(
            admission.shard,
            Order::TurnRefused {
                allocation: admission.allocation,
                reason,
            },
        );
    }

    /// Whether a lease that wants more may have it now.
    fn may_renew(&self, lease: &Lease) -> bool {
        let step = self
            .live
            .accounts
            .get(&lease.account)
            .map_or(Step::Ended, Account::step);
        let ending = self
            .live
            .sessions
            .get(&lease.session)
            .is_none_or(|session| session.ending.is_some());
        lease.wants && lease.hold == Hold::No && step < Step::Held && !ending && self.is_up()
    }

    /// Queues a renewal for every lease that wants one and may have it. The others want it still, and are queued
    /// again when they are resumed.
    pub(super) fn queue_renewals(&mut self, now: Instant) {
        for id in std::mem::take(&mut self.wanting) {
            if !self
                .live
                .leases
                .get(&id)
                .is_some_and(|lease| self.may_renew(lease))
            {
                continue;
            }
            let Some(lease) = self.live.leases.get_mut(&id) else {
                continue;
            };
            let burn = self
                .live
                .accounts
                .get(&lease.account)
                .map_or(0, |account| account.ladder.lease_burn(id, now));
            let ramp = now.duration_since(lease.renewed_at) < RAMP;
            let faster = if ramp {
                lease.last_want.saturating_add(lease.last_want)
            } else {
                Msat::ZERO
            };
            let limit = Msat::new(
                lease
                    .limit
                    .unwrap_or(u64::MAX)
                    .saturating_mul(lease::LEASE_SECONDS),
            );
            let want = lease::renewal_want(burn).max(faster).min(limit);
            let minimum = lease::minimum(&lease.rates, burn);
            lease.wants = false;
            lease.renewed_at = now;
            lease.last_want = want;
            self.renewals.push((
                Command::Renew {
                    lease: id,
                    want,
                    minimum,
                },
                Then::Renew { lease: id },
            ));
        }
    }

    /// Commits what is owed from before, the round's commands, the reports that wait, and the renewals, in that
    /// order: a report of a new segment comes after the close of the old one, and before more is granted.
    pub(super) fn commit(&mut self, now: Instant, unix_ns: u64) {
        let (mut commands, mut thens) = (Vec::new(), Vec::new());
        let owed = std::mem::take(&mut self.owed);
        let reports = std::mem::take(&mut self.reports);
        let owed = owed.into_iter().map(|command| (command, Then::Nothing));
        let reports = reports
            .into_iter()
            .map(|(lease, report)| (Command::Report(report), Then::Report { lease }));
        let batch = std::mem::take(&mut self.batch);
        for (command, then) in owed
            .chain(batch)
            .chain(reports)
            .chain(std::mem::take(&mut self.renewals))
        {
            commands.push(command);
            thens.push(then);
        }
        let began = Instant::now();
        let applied = match &mut self.ledger {
            Some(ledger) => ledger.apply(&commands, unix_ns),
            None => Err(LedgerError::Corrupt("it is not open".to_owned())),
        };
        metrics::histogram!("milliway_ledger_commit_seconds").record(began.elapsed().as_secs_f64());
        match applied {
            Ok(results) => {
                for (then, result) in thens.into_iter().zip(results) {
                    self.follow_up(then, result, now);
                }
                self.refresh(now);
            }
            Err(error) => {
                if self.ledger.is_some() {
                    self.lose_ledger(&error, now);
                }
                for (command, then) in commands.into_iter().zip(thens) {
                    self.fail(command, then);
                }
            }
        }
    }

    /// The ledger did not take a command. What must get in later is kept, and the others are answered.
    fn fail(&mut self, command: Command, then: Then) {
        match then {
            // Kept: the mirror goes on as if it were done, which its own figures already say.
            Then::Settle { lease, last } => {
                self.owed.push_back(command);
                self.note_settled(lease, last);
            }
            // The next report says the same and more.
            _ if matches!(command, Command::Report(_)) => {}
            Then::Nothing | Then::Report { .. } | Then::Release { .. } | Then::Reclaim { .. } => {
                self.owed.push_back(command);
            }
            Then::Renew { lease } => {
                if let Some(lease) = self.live.leases.get_mut(&lease) {
                    lease.wants = true;
                    self.touched.insert(lease.account.clone());
                }
            }
            Then::Credit { reply, .. } => drop(reply.send(Err(Refused::LedgerUnavailable))),
            Then::Admit { reply, .. } | Then::CreditFirst { reply, .. } => {
                drop(reply.send(Err(Refused::LedgerUnavailable)));
            }
            Then::Freeze { reply, .. } => drop(reply.send(Err(Refused::LedgerUnavailable))),
            Then::TurnAdmit { admission, .. } => self.refuse_turn(&admission, TurnRefusal::Unavailable),
        }
    }

    fn follow_up(&mut self, then: Then, result: Result<Outcome, Refusal>, now: Instant) {
        match (then, result) {
            (Then::Nothing, _) => {}
            (Then::Report { lease }, _) => self.confirm(lease, now),
            (Then::Credit { account, reply }, Ok(Outcome::Credited(credited))) => {
                if !credited.repeated {
                    self.note_top_up(&account);
                }
                self.answers.push(Answer::Credit { credited, reply });
            }
            (Then::Credit { reply, .. }, Err(refusal)) => drop(reply.send(Err(refusal.into()))),
            (Then::CreditFirst { admission, reply }, Ok(Outcome::Credited(credited))) => {
                if !credited.repeated {
                    self.note_top_up(&admission.account);
                }
                self.answers.push(Answer::AskAgain { admission, reply });
            }
            (Then::CreditFirst { reply, .. }, Err(refusal)) => drop(reply.send(Err(refusal.into()))),
            (
                Then::Admit {
                    admission,
                    want,
                    reply,
                },
                Ok(Outcome::Opened {
                    lease,
                    granted,
                    credited,
                    ..
                }),
            ) => {
                if credited.is_some_and(|credited| !credited.repeated) {
                    self.note_top_up(&admission.account);
                }
                let place = (
                    admission.account.clone(),
                    admission.session,
                    admission.shard,
                    admission.service,
                );
                self.note_opened(lease, granted, want, place, admission.max_msat_per_second, now);
                self.answers.push(Answer::Admit {
                    lease,
                    granted,
                    admission,
                    reply,
                });
            }
            (Then::Admit { admission, reply, .. }, Err(refusal)) => {
                self.note_top_up_of(&admission);
                drop(reply.send(Err(refusal.into())));
            }
            (Then::TurnAdmit { admission, want }, Ok(Outcome::Opened { lease, granted, .. })) => {
                let place = (
                    admission.account.clone(),
                    admission.session,
                    admission.shard,
                    Service::Turn,
                );
                self.note_opened(lease, granted, want, place, None, now);
                self.answers.push(Answer::TurnAdmit {
                    lease,
                    granted,
                    admission,
                });
            }
            (Then::TurnAdmit { admission, .. }, Err(refusal)) => {
                self.refuse_turn(&admission, TurnRefusal::from(&Refused::from(refusal)));
            }
            (Then::Renew { lease }, Ok(Outcome::Renewed { granted, .. })) => {
                self.note_renewed(lease, granted, now)
            }
            (Then::Renew { lease }, Err(_)) => {
                if let Some(lease) = self.live.leases.get(&lease)
                    && let Some(account) = self.live.accounts.get_mut(&lease.account)
                {
                    account.exhausted = true;
                    self.touched.insert(lease.account.clone());
                }
            }
            (Then::Settle { lease, last }, result) => {
                if let Ok(Outcome::Settled { earned, .. }) = result {
                    let service = self
                        .live
                        .leases
                        .get(&lease)
                        .and_then(|lease| self.live.sessions.get(&lease.session))
                        .map_or("sfu", |session| session.service.as_str());
                    metrics::counter!("milliway_billed_msat_total", "service" => service)
                        .increment(earned.get());
                }
                self.note_settled(lease, last);
                self.confirm(lease, now);
            }
            (Then::Release { lease }, _) => {
                if let Some(lease) = self.live.leases.get_mut(&lease) {
                    lease.granted = lease.settled;
                    self.moved.insert(lease.account.clone());
                }
            }
            (Then::Reclaim { lease }, _) => {
                if let Some(lease) = self.live.remove(lease) {
                    self.moved.insert(lease.account);
                }
            }
            (
                Then::Freeze {
                    account,
                    frozen,
                    reply,
                },
                Ok(_),
            ) => {
                if frozen {
                    for session in self.live.sessions_of(&account) {
                        self.end_session(session, EndReason::Denied, NoticeReason::Frozen, now);
                    }
                }
                self.answers.push(Answer::Freeze { reply });
            }
            (Then::Freeze { reply, .. }, Err(refusal)) => drop(reply.send(Err(refusal.into()))),
            // The ledger answers a command with its own outcome; anything else leaves the asker without an answer.
            (
                Then::Credit { .. }
                | Then::CreditFirst { .. }
                | Then::Admit { .. }
                | Then::TurnAdmit { .. }
                | Then::Renew { .. },
                Ok(_),
            ) => {}
        }
    }

    fn account_mut(&mut self, name: &AccountId) -> &mut Account {
        let ladder = self.ladder;
        self.live
            .accounts
            .entry(name.clone())
            .or_insert_with(|| Account::new(name, ladder))
    }

    fn note_top_up(&mut self, name: &AccountId) {
        self.moved.insert(name.clone());
        if let Some(account) = self.live.accounts.get_mut(name) {
            account.topped_up = true;
        }
    }

    /// An admission was refused after its voucher was credited: live sessions profit all the same.
    fn note_top_up_of(&mut self, admission: &Admission) {
        if let Some(voucher) = &admission.voucher {
            self.moved.insert(voucher.account.clone());
        }
    }

    fn note_opened(
        &mut self,
        id: LeaseId,
        granted: Msat,
        want: Msat,
        (account, session, shard, service): (AccountId, SessionId, usize, Service),
        limit: Option<u64>,
        now: Instant,
    ) {
        let tariff = self.tariffs.iter().find(|tariff| tariff.service == service);
        let Some(rates) = tariff.and_then(|tariff| tariff.rates().ok()) else {
            return;
        };
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
            limit,
            last_want: want,
            renewed_at: now,
            answered_at: now,
            committed_at: now,
        };
        self.live.add(id, service, lease);
    }

    fn note_renewed(&mut self, id: LeaseId, granted: Msat, now: Instant) {
        let Some(lease) = self.live.leases.get_mut(&id) else {
            return;
        };
        let more = granted > lease.granted;
        let exhausted = lease.exhausted && !more;
        if more {
            lease.exhausted = false;
        }
        lease.granted = granted;
        lease.answered_at = now;
        lease.committed_at = now;
        let (session, shard) = (lease.session, lease.shard);
        self.moved.insert(lease.account.clone());
        if exhausted && let Some(account) = self.live.accounts.get_mut(&lease.account) {
            account.exhausted = true;
        }
        self.order(
            shard,
            Order::Grant {
                session,
                lease: id,
                granted_total: granted,
            },
        );
    }

    /// A segment is in the books, or will be. The mirror reckons as the ledger does.
    fn note_settled(&mut self, id: LeaseId, last: bool) {
        let Some(lease) = self.live.leases.get_mut(&id) else {
            return;
        };
        self.moved.insert(lease.account.clone());
        if last {
            self.live.remove(id);
            return;
        }
        let debit = metering::meter::closing(lease.usage.owed(&lease.rates));
        lease.settled = lease.settled.saturating_add(debit).min(lease.granted);
        lease.usage = Usage::default();
        lease.segment = lease.segment.saturating_add(1);
    }

    /// A report of this lease is in the books; now and then its shard is told so.
    fn confirm(&mut self, id: LeaseId, now: Instant) {
        let Some(lease) = self.live.leases.get_mut(&id) else {
            return;
        };
        lease.committed_at = now;
        // Between the order to hold and its report, a shard must not hear of a grant that is about to be taken back.
        if now.duration_since(lease.answered_at) >= ANSWER_INTERVAL && lease.hold != Hold::Asked {
            lease.answered_at = now;
            let (session, shard, granted_total) = (lease.session, lease.shard, lease.granted);
            self.order(
                shard,
                Order::Grant {
                    session,
                    lease: id,
                    granted_total,
                },
            );
        }
    }

    /// Reads what the commit left in the accounts that it touched.
    fn refresh(&mut self, now: Instant) {
        for name in std::mem::take(&mut self.moved) {
            if self.live.accounts.contains_key(&name)
                && let Ok(view) = self.view(&name, now)
                && let Some(account) = self.live.accounts.get_mut(&name)
            {
                account.view = view;
            }
            self.touched.insert(name);
        }
    }

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
                Answer::Verify { reply } => {
                    if let Some(ledger) = &self.ledger {
                        drop(reply.send(ledger.verify()));
                    }
                }
                Answer::AskAgain { admission, reply } => {
                    if self.is_held(&admission.account) {
                        drop(reply.send(Err(self.still_held(&admission.account))));
                    } else {
                        self.queue_admission(*admission, reply);
                    }
                }
                Answer::Credit { credited, reply } => drop(reply.send(Ok(credited))),
                Answer::Freeze { reply } => drop(reply.send(Ok(()))),
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

    fn admitted(
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

    fn status(&mut self, name: &AccountId, now: Instant) -> Result<AccountStatus, Refused> {
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

    fn receipt(
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
