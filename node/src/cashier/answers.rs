//! What the askers hear, once the steps of the round are taken; and the receipt, signed.

use std::time::Instant;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use metering::ledger::{Command, Credited, LedgerError, Outcome, SignedReceipt};
use metering::{AccountId, LeaseId, Msat, SessionId, Step};
use serde::Serialize;

use super::admission::FREE_TARIFF;
use super::desk::Desk;
use super::live::Account;
use super::{
    AccountStatus, Admission, Admitted, Order, Refused, Reply, SessionStatus, ToppedUp, TurnAdmission,
};

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
    TopUp {
        done: ToppedUp,
        reply: Reply<ToppedUp>,
    },
    Credit {
        credited: Credited,
        reply: Reply<Credited>,
    },
}

/// A receipt as it is signed: who says so, when, and after which one.
#[derive(Serialize)]
struct SignedClaims<'a> {
    iss: &'a str,
    iat: u64,
    /// Counts the session's receipts, from 0.
    number: u32,
    /// SHA-256 of the compact JWS before, base64url.
    #[serde(skip_serializing_if = "Option::is_none")]
    prev: Option<String>,
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
                Answer::TopUp { done, reply } => drop(reply.send(Ok(done))),
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
                    if let Some((rates, free)) = self
                        .live
                        .leases
                        .get(&lease)
                        .map(|lease| (lease.rates, lease.free))
                    {
                        let step = if free { Step::Full } else { step };
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
        let known = self
            .live
            .leases
            .get(&lease)
            .map(|lease| (lease.rates, lease.free));
        let (Some(tariff), Some((rates, free))) = (tariff, known) else {
            return Err(Refused::Capacity);
        };
        Ok(Admitted {
            lease,
            granted,
            rates,
            tariff_id: match free {
                true => FREE_TARIFF.to_owned(),
                false => tariff.id.clone(),
            },
            step: if free { Step::Full } else { account.step },
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
            frozen: view.frozen,
            available: view.available,
            owed: view.owed,
            credit_left: view.credit_left(self.live.unix_seconds),
            reserved: view.reserved,
            spendable: spendable.unwrap_or_else(|| self.live.free_to_spend(&view)),
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

    /// A session's receipt: the one that was kept, unless more was settled since.
    pub(super) fn receipt(
        &mut self,
        session: SessionId,
        unix_ns: u64,
        now: Instant,
    ) -> Result<Option<(AccountId, String)>, Refused> {
        match self.issue_receipt(session, unix_ns) {
            Ok(receipt) => Ok(receipt),
            Err(error) => {
                self.lose_ledger(&error, now);
                Err(Refused::LedgerUnavailable)
            }
        }
    }

    /// Signs what was settled since the last receipt, and keeps it: the receipts of a session are a chain.
    pub(super) fn issue_receipt(
        &mut self,
        session: SessionId,
        unix_ns: u64,
    ) -> Result<Option<(AccountId, String)>, LedgerError> {
        let closed = || LedgerError::Corrupt("it is not open".to_owned());
        let ledger = self.ledger.as_mut().ok_or_else(closed)?;
        let Some(receipt) = ledger.receipt(session)? else {
            return Ok(None);
        };
        let account = receipt.account.clone();
        let segments = u32::try_from(receipt.segments.len()).unwrap_or(u32::MAX);
        let ended = receipt.ended.is_some();
        let before = ledger.signed_receipt(session)?;
        if let Some(kept) = &before
            && (kept.segments, kept.ended) == (segments, ended)
        {
            return Ok(Some((account, kept.jws.clone())));
        }
        let number = before.as_ref().map_or(0, |kept| kept.number.saturating_add(1));
        let claims = SignedClaims {
            iss: self.key.did().as_str(),
            iat: unix_ns / 1_000_000_000,
            number,
            prev: before
                .as_ref()
                .map(|kept| URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, kept.jws.as_bytes()))),
            receipt,
        };
        let payload = serde_json::to_vec(&claims)
            .map_err(|error| LedgerError::Corrupt(format!("a receipt cannot be written: {error}")))?;
        let jws = self.key.sign_jws(RECEIPT_TYP, &payload);
        let keep = Command::KeepReceipt {
            session,
            receipt: SignedReceipt {
                number,
                segments,
                ended,
                jws: jws.clone(),
            },
        };
        let kept = ledger.apply(&[keep], unix_ns)?;
        if kept == [Ok(Outcome::Kept(true))] {
            return Ok(Some((account, jws)));
        }
        // Another node was faster; its receipt is the one.
        Ok(ledger.signed_receipt(session)?.map(|kept| (account, kept.jws)))
    }

    /// Issues the receipts that the round's settlements are due: every ten minutes, and at the end. One that cannot be
    /// kept now is issued when it is asked for.
    pub(super) fn issue_receipts(&mut self, unix_ns: u64, now: Instant) {
        for session in std::mem::take(&mut self.receipts_due) {
            if let Err(error) = self.issue_receipt(session, unix_ns) {
                self.lose_ledger(&error, now);
                return;
            }
        }
    }
}
