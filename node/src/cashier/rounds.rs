//! From commands to answers: the commit of a round, what each outcome changes, and who is told.

use std::time::Instant;

use metering::ledger::{Command, Credited, LedgerError, Outcome, Refusal};
use metering::{AccountId, LeaseId, Msat, Service, Usage};

use super::answers::Answer;
use super::desk::Desk;
use super::{Admission, Admitted, Refused, Reply, ToppedUp, TurnAdmission, TurnRefusal};

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
    TopUp {
        account: AccountId,
        reply: Reply<ToppedUp>,
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
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::BalanceExhausted { available } => Self::BalanceExhausted { available },
            Refusal::VoucherConflict => Self::VoucherConflict,
            Refusal::BalanceTooLarge | Refusal::TooManyLots => Self::BalanceTooLarge,
            Refusal::IssuerLimit => Self::IssuerLimit,
            Refusal::CeilingReached => Self::CeilingReached,
            Refusal::Frozen => Self::Frozen,
            Refusal::GrantUsedUp => Self::GrantUsedUp,
            Refusal::TopUpTaken => Self::VoucherConflict,
            Refusal::TooManyTopUps => Self::TooManyTopUps,
            Refusal::NoSuchTopUp
            | Refusal::OtherAccount
            | Refusal::ReceiptFull
            | Refusal::CannotReplay(_)
            | Refusal::NoSuchLease => Self::Capacity,
        }
    }
}

impl Desk {
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
            Then::Release { lease } => {
                self.owed.push_back(command);
                self.note_released(lease);
            }
            Then::Nothing | Then::Report { .. } | Then::Reclaim { .. } => self.owed.push_back(command),
            Then::Renew { lease } => {
                if let Some(lease) = self.live.leases.get_mut(&lease) {
                    lease.wants = true;
                    self.touched.insert(lease.account.clone());
                }
            }
            Then::Credit { reply, .. } => drop(reply.send(Err(Refused::LedgerUnavailable))),
            Then::TopUp { reply, .. } => drop(reply.send(Err(Refused::LedgerUnavailable))),
            Then::Admit { reply, .. } | Then::CreditFirst { reply, .. } => {
                drop(reply.send(Err(Refused::LedgerUnavailable)));
            }
            Then::TurnAdmit { admission, .. } => self.refuse_turn(&admission, TurnRefusal::Unavailable),
        }
    }

    fn follow_up(&mut self, then: Then, result: Result<Outcome, Refusal>, now: Instant) {
        if result == Err(Refusal::VoucherConflict) {
            // An issuer that signs two vouchers under one id is broken or compromised.
            tracing::error!("a voucher's id came again with other claims; it was refused");
            metrics::counter!("milliway_auth_failures_total", "reason" => "voucher-conflict").increment(1);
        }
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
            (
                Then::TopUp { account, reply },
                Ok(Outcome::ToppedUp {
                    top_up,
                    credited,
                    repeated,
                }),
            ) => {
                if credited.is_some_and(|credited| !credited.repeated) {
                    self.note_top_up(&account);
                }
                let done = ToppedUp {
                    top_up: *top_up,
                    credited,
                    repeated,
                };
                self.answers.push(Answer::TopUp { done, reply });
            }
            (Then::TopUp { reply, .. }, Err(refusal)) => drop(reply.send(Err(refusal.into()))),
            (Then::CreditFirst { admission, reply }, Ok(Outcome::Credited(credited))) => {
                if !credited.repeated {
                    self.note_top_up(&admission.account);
                }
                self.answers.push(Answer::AskAgain { admission, reply });
            }
            // What is above a sum stays uncredited, as in every admission.
            (Then::CreditFirst { admission, reply }, Err(Refusal::CeilingReached)) => {
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
                let free = admission.conditions.free_instead_of.is_some();
                let limit = admission.max_msat_per_second;
                self.note_opened(lease, granted, want, place, (free, limit), now);
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
                let free = self.live.is_free(admission.session);
                self.note_opened(lease, granted, want, place, (free, None), now);
                self.answers.push(Answer::TurnAdmit {
                    lease,
                    granted,
                    admission,
                });
            }
            (Then::TurnAdmit { admission, .. }, Err(refusal)) => {
                self.refuse_turn(&admission, TurnRefusal::from(&Refused::from(refusal)));
            }
            (Then::Renew { lease }, Ok(Outcome::Renewed { granted, available })) => {
                self.note_renewed(lease, granted, available, now);
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
                self.note_receipt_due(lease);
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
                // No answer yet: a release may follow, and what it takes back must not be told as granted.
                if let Some(lease) = self.live.leases.get_mut(&lease) {
                    lease.committed_at = now;
                }
            }
            (Then::Release { lease }, _) => {
                self.note_released(lease);
            }
            (Then::Reclaim { lease }, _) => {
                self.note_receipt_due(lease);
                if let Some(lease) = self.live.remove(lease) {
                    self.moved.insert(lease.account);
                }
            }
            // The ledger answers a command with its own outcome; anything else leaves the asker without an answer.
            (
                Then::Credit { .. }
                | Then::TopUp { .. }
                | Then::CreditFirst { .. }
                | Then::Admit { .. }
                | Then::TurnAdmit { .. }
                | Then::Renew { .. },
                Ok(_),
            ) => {}
        }
    }

    fn note_receipt_due(&mut self, lease: LeaseId) {
        if let Some(lease) = self.live.leases.get(&lease) {
            self.receipts_due.insert(lease.session);
        }
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

    /// What a held lease had not spent is back in its account, or will be: its shard must not be told of it again.
    pub(super) fn note_released(&mut self, id: LeaseId) {
        if let Some(lease) = self.live.leases.get_mut(&id) {
            lease.granted = lease.settled;
            self.moved.insert(lease.account.clone());
        }
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

    /// Reads what the commit left in the accounts that it touched.
    fn refresh(&mut self, now: Instant) {
        let moved = std::mem::take(&mut self.moved);
        let live: Vec<AccountId> = moved
            .iter()
            .filter(|name| self.live.accounts.contains_key(*name))
            .cloned()
            .collect();
        let views = match &self.ledger {
            Some(ledger) if !live.is_empty() => ledger.accounts_of(&live),
            _ => Ok(Vec::new()),
        };
        match views {
            Ok(views) => {
                for view in views {
                    if let Some(account) = self.live.accounts.get_mut(&view.account) {
                        account.view = view;
                    }
                }
            }
            Err(error) => self.lose_ledger(&error, now),
        }
        self.touched.extend(moved);
    }
}
