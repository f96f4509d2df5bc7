//! What the cashier knows of what is live: accounts with their ladders, sessions, leases. A mirror of the ledger's
//! rows, so that a report can be judged without reading them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use metering::ladder::Spendable;
use metering::ledger::AccountView;
use metering::meter::UNITS_PER_MSAT;
use metering::{
    AccountId, Ladder, LadderConfig, LeaseId, Msat, Rates, Report, Service, SessionId, Step, Usage, meter,
};

/// Free TURN sessions remembered, each as long as a username can make allocations; past it the next is billed.
const FREE_MAX: usize = 10_000;
const FREE_LIFETIME: Duration = Duration::from_secs(24 * 3_600);

/// A live account.
pub(super) struct Account {
    pub(super) ladder: Ladder,
    pub(super) leases: BTreeSet<LeaseId>,
    pub(super) view: AccountView,
    /// A lease is spent and nothing could be added to it.
    pub(super) exhausted: bool,
    /// A voucher was credited since the ladder was last looked at.
    pub(super) topped_up: bool,
    /// Held because the ledger does not answer, whatever the ladder says.
    pub(super) outage: bool,
    pub(super) told_at: Option<Instant>,
}

impl Account {
    pub(super) fn new(account: &AccountId, ladder: LadderConfig) -> Self {
        Self {
            ladder: Ladder::new(ladder),
            leases: BTreeSet::new(),
            view: AccountView::empty(account),
            exhausted: false,
            topped_up: false,
            outage: false,
            told_at: None,
        }
    }

    /// How its sessions are served.
    pub(super) fn step(&self) -> Step {
        if self.outage {
            self.ladder.step().max(Step::Held)
        } else {
            self.ladder.step()
        }
    }
}

/// A live session: one SFU session, or the allocations of one TURN credential.
pub(super) struct Session {
    pub(super) account: AccountId,
    pub(super) service: Service,
    pub(super) shard: usize,
    pub(super) leases: BTreeSet<LeaseId>,
    /// Why it was told to end.
    pub(super) ending: Option<&'static str>,
}

/// Where a lease is between held and running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// It runs.
    No,
    /// Its shard was told to hold, and has not said that it did.
    Asked,
    /// It is held, and what it had not spent is back in the account.
    Yes,
}

/// A live lease.
pub(super) struct Lease {
    pub(super) account: AccountId,
    pub(super) session: SessionId,
    pub(super) shard: usize,
    pub(super) rates: Rates,
    pub(super) granted: Msat,
    pub(super) settled: Msat,
    /// The running segment, as last reported.
    pub(super) usage: Usage,
    pub(super) segment: u32,
    pub(super) sequence: u64,
    pub(super) hold: Hold,
    /// Its shard has spoken of it.
    pub(super) seen: bool,
    /// Its shard ran out, or used half.
    pub(super) wants: bool,
    pub(super) exhausted: bool,
    /// It costs nothing, and no ladder is its.
    pub(super) free: bool,
    /// The client's own limit, in msat a second.
    pub(super) limit: Option<u64>,
    pub(super) last_want: Msat,
    pub(super) renewed_at: Instant,
    pub(super) answered_at: Instant,
    /// The last commit that a report of it was in.
    pub(super) committed_at: Instant,
}

impl Lease {
    /// Takes note of a report. False for one that is old.
    pub(super) fn note(&mut self, report: &Report) -> bool {
        if report.sequence <= self.sequence || report.segment < self.segment {
            return false;
        }
        self.sequence = report.sequence;
        self.segment = report.segment;
        self.usage = report.usage;
        self.wants |= report.renew || report.exhausted;
        self.exhausted |= report.exhausted;
        true
    }

    /// Used over its life, in exact units.
    pub(super) fn used(&self) -> u128 {
        u128::from(self.settled.get()) * UNITS_PER_MSAT + self.usage.owed(&self.rates)
    }

    /// Used over its life, rounded down.
    pub(super) fn used_msat(&self) -> Msat {
        meter::running(self.used())
    }

    /// Granted and not used.
    pub(super) fn unspent(&self) -> Msat {
        self.granted.saturating_sub(self.used_msat())
    }

    /// How long the running segment has run.
    pub(super) fn segment_age(&self) -> Duration {
        Duration::from_nanos(self.usage.nanoseconds)
    }
}

/// Everything that is live.
#[derive(Default)]
pub(super) struct Live {
    pub(super) accounts: BTreeMap<AccountId, Account>,
    pub(super) sessions: BTreeMap<SessionId, Session>,
    pub(super) leases: BTreeMap<LeaseId, Lease>,
    /// TURN sessions whose allocations cost nothing, and since when.
    free: BTreeMap<SessionId, Instant>,
    /// The round's time: a credit line has an end.
    pub(super) unix_seconds: u64,
}

impl Live {
    /// What the account can still spend, on credit too.
    pub(super) fn spendable_msat(&self, account: &Account) -> Msat {
        account
            .leases
            .iter()
            .filter_map(|lease| self.leases.get(lease))
            .fold(self.free_to_spend(&account.view), |sum, lease| {
                sum.saturating_add(lease.unspent())
            })
    }

    /// What no lease holds, and what may be drawn on credit.
    pub(super) fn free_to_spend(&self, view: &AccountView) -> Msat {
        view.available.saturating_add(view.credit_left(self.unix_seconds))
    }

    /// The same, as its ladder looks at it.
    pub(super) fn spendable(&self, account: &Account) -> Spendable {
        let msat = self.spendable_msat(account);
        Spendable {
            msat,
            exhausted: account.exhausted,
            topped_up: account.topped_up,
        }
    }

    /// A report of a lease came from `shard`: where its session is known to be from now on.
    pub(super) fn locate(&mut self, id: LeaseId, shard: usize) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.shard = shard;
            if let Some(session) = self.sessions.get_mut(&lease.session) {
                session.shard = shard;
            }
        }
    }

    /// A new lease of an account that is known.
    pub(super) fn add(&mut self, id: LeaseId, service: Service, lease: Lease) {
        let session = self.sessions.entry(lease.session).or_insert_with(|| Session {
            account: lease.account.clone(),
            service,
            shard: lease.shard,
            leases: BTreeSet::new(),
            ending: None,
        });
        session.leases.insert(id);
        if let Some(account) = self.accounts.get_mut(&lease.account).filter(|_| !lease.free) {
            account.leases.insert(id);
            account.ladder.join(id, lease.rates.audio_only(1));
        }
        self.leases.insert(id, lease);
    }

    /// A lease has ended; its session with its last one. Returns it.
    pub(super) fn remove(&mut self, id: LeaseId) -> Option<Lease> {
        let lease = self.leases.remove(&id)?;
        if let Some(account) = self.accounts.get_mut(&lease.account) {
            account.leases.remove(&id);
            account.ladder.leave(id);
        }
        if let Some(session) = self.sessions.get_mut(&lease.session) {
            session.leases.remove(&id);
            if session.leases.is_empty() {
                self.sessions.remove(&lease.session);
            }
        }
        Some(lease)
    }

    /// The sessions of an account.
    pub(super) fn sessions_of(&self, account: &AccountId) -> Vec<SessionId> {
        let leases = self
            .accounts
            .get(account)
            .into_iter()
            .flat_map(|account| &account.leases);
        let sessions: BTreeSet<SessionId> = leases
            .filter_map(|lease| self.leases.get(lease))
            .map(|lease| lease.session)
            .collect();
        sessions.into_iter().collect()
    }

    /// Allocations of this session cost nothing from now on.
    pub(super) fn make_free(&mut self, session: SessionId, now: Instant) {
        if self.free.len() >= FREE_MAX {
            self.free
                .retain(|_, since| now.duration_since(*since) < FREE_LIFETIME);
        }
        if self.free.len() < FREE_MAX {
            self.free.insert(session, now);
        }
    }

    /// Do they?
    pub(super) fn is_free(&self, session: SessionId) -> bool {
        self.free.contains_key(&session)
    }

    /// Forgets accounts that nothing is known of but an old balance.
    pub(super) fn forget_idle(&mut self, now: Instant) {
        self.accounts
            .retain(|_, account| !account.leases.is_empty() || !account.ladder.is_forgettable(now));
    }
}
