//! Top-ups with money from outside: begun at a client's request, followed until the money is there or will not come,
//! credited once. What is open lies in the ledger, so that a restart goes on where the process before was killed.
//!
//! See docs/topups.md for what an operator has to know.

mod counterpart;
pub(crate) mod l402;
mod lightning;
mod mint;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metering::ledger::{Command, TopUp, TopUpState};
use metering::{AccountId, Msat};
use rand::RngExt;
use serde_json::{Value, json};
use tokio::time::Instant;
use topup::cashu::{Plan, Seed, Token, TokenFault};

use crate::cashier::ToppedUp;
use crate::config::TopUpSettings;
use crate::data::Data;
use crate::http::problem::Problem;
use crate::relay::Relay;
pub(crate) use counterpart::Base;

/// How often is looked what is due.
const TICK: Duration = Duration::from_millis(50);
/// Top-ups that are seen to at once: each is a question to somebody else.
const UNDER_WAY_MAX: usize = 16;
/// A payer scans, confirms and is done; so long an invoice is looked up often.
const BRISK_FOR: Duration = Duration::from_secs(180);
/// Of the 250 ms in which a payment is to reach a session, most may pass before it is looked up.
const BRISK_INTERVAL: Duration = Duration::from_millis(200);
/// Afterwards.
const SLOW_INTERVAL: Duration = Duration::from_secs(2);
/// After trouble it is tried again ever later, at most so late.
const TROUBLE_INTERVAL_MAX: Duration = Duration::from_secs(60);
/// How often what other nodes left open is looked for.
const RELOAD_INTERVAL: Duration = Duration::from_secs(30);
/// A client waits so long for a mint; its token is seen to all the same.
const ANSWER_PATIENCE: Duration = Duration::from_secs(9);

/// What came of seeing to a top-up.
enum Done {
    /// The money is there; this is kept of it.
    Paid(Value),
    /// It will not come.
    Failed(&'static str),
    /// Not yet.
    Awaited,
    /// Nobody knows; to be tried again.
    Trouble,
}

/// A top-up that is being followed.
struct Followed {
    row: Arc<TopUp>,
    since: Instant,
    next: Instant,
    troubles: u32,
}

/// Those who bring money, and what is awaited of them.
pub(crate) struct TopUps {
    settings: TopUpSettings,
    lightning: Option<lightning::Node>,
    mints: Vec<mint::Mint>,
    seed: Option<Seed>,
    followed: Mutex<HashMap<String, Followed>>,
    busy: Mutex<HashSet<String>>,
}

impl TopUps {
    /// The methods' names.
    pub(crate) const LIGHTNING: &str = "lightning";
    pub(crate) const CASHU: &str = "cashu";

    /// As configured.
    pub(crate) fn open(settings: &TopUpSettings, data: &Data) -> Result<TopUps, String> {
        let mints = settings
            .mints
            .iter()
            .map(|url| mint::Mint::new(url, &settings.mint_certificate))
            .collect::<Result<Vec<_>, _>>()?;
        let seed = match (mints.is_empty(), settings.cashu_seed_file.as_str()) {
            (true, _) => None,
            (false, "") => Some(data.secret_32("cashu.seed")?),
            (false, file) => Some(data.secret_32(file)?),
        };
        Ok(TopUps {
            settings: settings.clone(),
            lightning: lightning::Node::open(settings)?,
            mints,
            seed: seed.map(Seed::new),
            followed: Mutex::default(),
            busy: Mutex::default(),
        })
    }

    /// Is there anybody who could bring money?
    pub(crate) fn is_on(&self) -> bool {
        self.lightning.is_some() || !self.mints.is_empty()
    }

    /// The methods that clients may choose.
    pub(crate) fn methods(&self) -> Vec<&'static str> {
        let lightning = self.lightning.is_some().then_some(TopUps::LIGHTNING);
        let cashu = (!self.mints.is_empty()).then_some(TopUps::CASHU);
        lightning.into_iter().chain(cashu).collect()
    }

    /// The mints whose coins are taken.
    pub(crate) fn mints(&self) -> impl Iterator<Item = &str> {
        self.mints.iter().map(|mint| mint.url.as_str())
    }

    fn followed(&self) -> MutexGuard<'_, HashMap<String, Followed>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn busy(&self) -> MutexGuard<'_, HashSet<String>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(&self, row: &TopUp) {
        let now = Instant::now();
        self.followed().entry(row.id.clone()).or_insert_with(|| Followed {
            row: Arc::new(row.clone()),
            since: now,
            next: now,
            troubles: 0,
        });
    }

    /// Refuses what is too little or too much, and more than can be followed.
    fn admit(&self, account: &AccountId, msat: u64) -> Result<(), Problem> {
        let (least, most) = (self.settings.minimum_msat, self.settings.maximum_msat);
        if !(least..=most).contains(&msat) {
            return Err(Problem::new(
                "topup-amount",
                format!("Top up with {least} to {most} msat; this would be {msat}."),
            )
            .with("minimum_msat", least)
            .with("maximum_msat", most));
        }
        let followed = self.followed();
        if followed.len() as u64 >= self.settings.open_max {
            return Err(Problem::new(
                "capacity",
                "Too many top-ups are open; try again later.",
            ));
        }
        let own = followed
            .values()
            .filter(|followed| followed.row.account == *account);
        if own.count() as u64 >= self.settings.open_per_account_max {
            return Err(crate::cashier::Refused::TooManyTopUps.into());
        }
        Ok(())
    }

    fn interval(followed: &Followed, done: &Done, now: Instant) -> Duration {
        match done {
            Done::Trouble => {
                let factor = 2_u32.saturating_pow(followed.troubles.min(10));
                BRISK_INTERVAL.saturating_mul(factor).min(TROUBLE_INTERVAL_MAX)
            }
            _ if now.duration_since(followed.since) < BRISK_FOR => BRISK_INTERVAL,
            _ => SLOW_INTERVAL,
        }
    }
}

/// A name that nobody guesses.
fn random_name() -> String {
    let bytes: [u8; 16] = rand::rng().random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A top-up as its owner sees it.
pub(crate) fn shown(done: &ToppedUp) -> Value {
    let row = &done.top_up;
    let mut answer = json!({
        "id": row.id,
        "method": row.method,
        "amount_msat": row.msat,
        "state": row.state,
    });
    if row.method == TopUps::LIGHTNING {
        answer["expires"] = row.expires.into();
        if row.state == TopUpState::Open {
            answer["invoice"] = row.detail["invoice"].clone();
        }
    }
    if let Some(reason) = &row.reason {
        answer["reason"] = reason.as_str().into();
    }
    if let Some(credited) = &done.credited {
        answer["credited_msat"] = json!(credited.credited);
        answer["available_msat"] = json!(credited.available);
    }
    if done.repeated {
        answer["repeated"] = true.into();
    }
    answer
}

impl Relay {
    /// Begins a top-up over Lightning: an invoice to pay.
    pub(crate) async fn begin_lightning(&self, account: &str, msat: u64) -> Result<ToppedUp, Problem> {
        let Some(node) = &self.top_ups.lightning else {
            return Err(not_taken("lightning"));
        };
        let account = AccountId::new(account);
        self.top_ups.admit(&account, msat)?;
        let top_up = node.invoice(&account, msat).await?;
        let begun = self.begin(top_up).await?;
        if begun.repeated {
            // Whoever paid that one would pay for somebody who has been credited.
            tracing::error!("the Lightning node gave one invoice twice");
            return Err(Problem::new(
                "capacity",
                "The relay's Lightning node gives no invoices at the moment; try again later.",
            ));
        }
        Ok(begun)
    }

    /// Begins a top-up with a Cashu token, and waits a while for its end.
    pub(crate) async fn begin_cashu(
        self: &Arc<Relay>,
        account: &str,
        token: &str,
        msat: Option<u64>,
    ) -> Result<ToppedUp, Problem> {
        let Some(seed) = &self.top_ups.seed else {
            return Err(not_taken("cashu"));
        };
        let token = Token::parse(token).map_err(|fault| mint::refused(&fault))?;
        let mint = self.top_ups.mints.iter().find(|mint| mint.url == token.mint);
        let mint = mint.ok_or_else(|| {
            mint::refused(&TokenFault::Mint).with("mints", self.top_ups.mints().collect::<Vec<_>>())
        })?;
        if !matches!(token.unit.as_str(), "sat" | "msat") {
            return Err(mint::refused(&TokenFault::Unit));
        }
        let account = AccountId::new(account);
        let known = self.find_top_up(&token.name()).await?;
        let begun = match known {
            Some(row) if row.state == TopUpState::Settled && row.account == account => {
                return Ok(ToppedUp {
                    top_up: row,
                    credited: None,
                    repeated: true,
                });
            }
            Some(row) if row.state != TopUpState::Failed && row.account != account => {
                return Err(crate::cashier::Refused::VoucherConflict.into());
            }
            Some(row) if row.state == TopUpState::Open => ToppedUp {
                top_up: row,
                credited: None,
                repeated: true,
            },
            _ => {
                let top_up = mint.plan(token, &account, seed).await?;
                if msat.is_some_and(|msat| msat != top_up.msat.get()) {
                    return Err(Problem::new(
                        "topup-amount",
                        format!(
                            "After the mint's fee these coins are worth {}; ask for that, or leave amount_msat out.",
                            top_up.msat
                        ),
                    )
                    .with("amount_msat", top_up.msat.get()));
                }
                self.top_ups.admit(&account, top_up.msat.get())?;
                self.begin(top_up).await?
            }
        };
        // A client that goes away does not stop it.
        let row = Arc::new(begun.top_up.clone());
        let fresh = !begun.repeated;
        let seen_to = tokio::spawn(self.clone().see_to(row, fresh));
        match tokio::time::timeout(ANSWER_PATIENCE, seen_to).await {
            Ok(Ok(Some(done))) => Ok(ToppedUp {
                repeated: begun.repeated,
                ..done
            }),
            _ => Ok(begun),
        }
    }

    async fn begin(&self, top_up: TopUp) -> Result<ToppedUp, Problem> {
        let open_max = u32::try_from(self.top_ups.settings.open_per_account_max).unwrap_or(u32::MAX);
        let account = top_up.account.clone();
        let command = Command::BeginTopUp {
            top_up: Box::new(top_up),
            open_max,
        };
        let begun = self.cashier.top_up(account, command).await?;
        if begun.top_up.state == TopUpState::Open {
            self.top_ups.follow(&begun.top_up);
        }
        Ok(begun)
    }

    /// A top-up, as the ledger has it.
    pub(crate) async fn find_top_up(&self, id: &str) -> Result<Option<TopUp>, Problem> {
        let id = id.to_owned();
        let found = self.cashier.errand(move |ledger, _| ledger.top_up(&id)).await?;
        found.map_err(|error| {
            tracing::error!(%error, "a top-up could not be read");
            crate::cashier::Refused::LedgerUnavailable.into()
        })
    }

    /// Sees to a top-up once. None: somebody else is at it, or nothing has come of it yet.
    async fn see_to(self: Arc<Relay>, row: Arc<TopUp>, fresh: bool) -> Option<ToppedUp> {
        if !self.top_ups.busy().insert(row.id.clone()) {
            return None;
        }
        let done = self.ask_about(&row, fresh).await;
        let settled = match &done {
            Done::Paid(detail) => {
                let command = Command::SettleTopUp {
                    id: row.id.clone(),
                    account: row.account.clone(),
                    operator: self.key.did().as_str().to_owned(),
                    detail: detail.clone(),
                };
                Some(self.cashier.top_up(row.account.clone(), command).await)
            }
            Done::Failed(reason) => {
                let command = Command::FailTopUp {
                    id: row.id.clone(),
                    account: row.account.clone(),
                    reason: (*reason).to_owned(),
                };
                Some(self.cashier.top_up(row.account.clone(), command).await)
            }
            Done::Awaited | Done::Trouble => None,
        };
        let (done, outcome) = match settled {
            Some(Ok(outcome)) => {
                self.note_top_up(&outcome);
                (done, Some(outcome))
            }
            Some(Err(refused)) => {
                // The money is safe where it is; the credit is tried again until it fits.
                tracing::warn!(%refused, "a top-up could not be written down yet");
                (Done::Trouble, None)
            }
            None => (done, None),
        };
        let now = Instant::now();
        let mut followed = self.top_ups.followed();
        if outcome.is_some() {
            followed.remove(&row.id);
        } else if let Some(entry) = followed.get_mut(&row.id) {
            entry.troubles = if matches!(done, Done::Trouble) {
                entry.troubles + 1
            } else {
                0
            };
            entry.next = now + TopUps::interval(entry, &done, now);
        }
        drop(followed);
        self.top_ups.busy().remove(&row.id);
        outcome
    }

    fn note_top_up(&self, done: &ToppedUp) {
        let state = match done.top_up.state {
            TopUpState::Settled => "settled",
            _ => "failed",
        };
        let method = if done.top_up.method == TopUps::CASHU {
            TopUps::CASHU
        } else {
            TopUps::LIGHTNING
        };
        if !done.repeated {
            metrics::counter!("milliway_top_ups_total", "method" => method, "state" => state).increment(1);
        }
        tracing::info!(
            method,
            state,
            msat = done.top_up.msat.get(),
            repeated = done.repeated,
            "top-up"
        );
    }

    async fn ask_about(&self, row: &TopUp, fresh: bool) -> Done {
        if row.method == TopUps::LIGHTNING {
            return match &self.top_ups.lightning {
                Some(node) => node.look_up(row).await,
                None => Done::Trouble,
            };
        }
        let Ok(plan) = serde_json::from_value::<Plan>(row.detail["plan"].clone()) else {
            tracing::error!("a top-up's plan does not read");
            return Done::Trouble;
        };
        let mint = self.top_ups.mints.iter().find(|mint| mint.url == plan.mint);
        match (mint, &self.top_ups.seed) {
            (Some(mint), Some(seed)) if seed.fingerprint() == plan.seed => {
                mint.exchange(row, &plan, seed, fresh).await
            }
            _ => {
                // Another node's, or the operator took the mint off the list with coins still under way.
                tracing::warn!("an open top-up needs a mint or a seed that is not configured here");
                Done::Trouble
            }
        }
    }

    /// Follows what is open, until the door closes.
    pub(crate) async fn follow_top_ups(self: Arc<Relay>) {
        if !self.top_ups.is_on() {
            return;
        }
        let mut reload = Instant::now();
        loop {
            let now = Instant::now();
            if now >= reload {
                reload = now + RELOAD_INTERVAL;
                match self.cashier.errand(|ledger, _| ledger.open_top_ups()).await {
                    Ok(Ok(rows)) => {
                        let open = |id: &str| rows.iter().any(|row| row.id == id);
                        // What another node has settled.
                        self.top_ups
                            .followed()
                            .retain(|id, followed| open(id) || followed.since + RELOAD_INTERVAL > now);
                        rows.iter().for_each(|row| self.top_ups.follow(row));
                    }
                    _ => tracing::warn!("the open top-ups could not be read; they are looked for again"),
                }
            }
            let mut due: Vec<(Instant, Arc<TopUp>)> = {
                let busy = self.top_ups.busy();
                let room = UNDER_WAY_MAX.saturating_sub(busy.len());
                let followed = self.top_ups.followed();
                let mut due: Vec<_> = followed
                    .values()
                    .filter(|followed| followed.next <= now && !busy.contains(&followed.row.id))
                    .map(|followed| (followed.next, followed.row.clone()))
                    .collect();
                due.sort_by_key(|(next, _)| *next);
                due.truncate(room);
                due
            };
            for (_, row) in due.drain(..) {
                tokio::spawn(self.clone().see_to(row, false));
            }
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                () = self.door_closed() => return,
            }
        }
    }
}

fn not_taken(method: &str) -> Problem {
    Problem::new(
        "topup-unavailable",
        format!("This relay takes no top-ups by {method}; GET /v1/topups names the methods that it takes."),
    )
}

/// What a 402 says of the ways to pay.
pub(crate) fn ways(top_ups: &TopUps) -> Value {
    json!({
        "methods": top_ups.methods(),
        "minimum_msat": Msat::new(top_ups.settings.minimum_msat),
        "maximum_msat": Msat::new(top_ups.settings.maximum_msat),
        "mints": top_ups.mints().collect::<Vec<_>>(),
    })
}
