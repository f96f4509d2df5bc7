//! Top-ups with Cashu tokens: the coins are exchanged at their mint for coins of the relay's own.
//!
//! 1. The token is read, its mint is on the operator's list, its keysets are the mint's, the mint's proofs hold.
//! 2. What it is exchanged for is derived from the seed and written into the ledger, with the coins themselves.
//! 3. The mint is asked to exchange them (`/v1/swap`).
//! 4. The relay's coins and the credit are written in one commit.
//!
//! After a crash between 2 and 4, or where the mint did not answer, nobody knows whether 3 took place, and the mint is
//! asked: what did you sign (`/v1/restore`), is the token spent (`/v1/checkstate`). It is spent and nothing was signed
//! for us: somebody else has it. Nothing of both: 3 is done again. That order matters: signed is looked at once more after
//! spent, because an exchange that was under way in between makes both true.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use metering::ledger::TopUp;
use metering::{AccountId, Msat};
use serde_json::json;
use topup::cashu::{
    Coins, Keyset, KeysetInfo, Plan, Seed, Spent, Token, TokenFault, keys_answer, keys_call, keysets_answer,
    keysets_call,
};
use topup::{Answer, Call, Fault};

use super::counterpart::{Base, Counterpart};
use super::{Done, TopUps};
use crate::http::problem::Problem;

/// A mint whose coins are taken.
pub(super) struct Mint {
    /// As tokens name it.
    pub(super) url: String,
    http: Counterpart,
    keysets: Mutex<HashMap<String, Arc<Keyset>>>,
}

/// Why the mint's answer leads nowhere now.
enum Trouble {
    /// None came.
    Silent,
    /// It was this.
    Fault(Fault),
}

impl Mint {
    pub(super) fn new(url: &str, certificate: &str) -> Result<Mint, String> {
        let base = Base::parse(url).ok_or_else(|| format!("topup.mints: {url} is no address"))?;
        Ok(Mint {
            url: url.trim_end_matches('/').to_owned(),
            http: Counterpart::new(base, certificate)
                .map_err(|error| format!("topup.mint_certificate {error}"))?,
            keysets: Mutex::new(HashMap::new()),
        })
    }

    async fn ask(&self, call: &Call) -> Result<Answer, Trouble> {
        self.http.call(call).await.map_err(|failure| {
            tracing::warn!(mint = self.url, failure, "the mint did not answer");
            Trouble::Silent
        })
    }

    /// The keys of a keyset, which never change.
    async fn keyset(&self, info: &KeysetInfo) -> Result<Arc<Keyset>, Trouble> {
        let known = |keysets: &HashMap<String, Arc<Keyset>>| keysets.get(&info.id).cloned();
        if let Some(keyset) = known(&self.keysets.lock().unwrap_or_else(PoisonError::into_inner))
            && keyset.info == *info
        {
            return Ok(keyset);
        }
        let answer = self.ask(&keys_call(&info.id)).await?;
        let keyset = Arc::new(keys_answer(info, &answer).map_err(Trouble::Fault)?);
        let mut keysets = self.keysets.lock().unwrap_or_else(PoisonError::into_inner);
        keysets.insert(info.id.clone(), keyset.clone());
        Ok(keyset)
    }

    async fn keysets(&self) -> Result<Vec<KeysetInfo>, Trouble> {
        let answer = self.ask(&keysets_call()).await?;
        keysets_answer(&answer).map_err(Trouble::Fault)
    }

    /// Steps 1 and half of 2: what is to be written down before the mint is asked for anything that counts.
    pub(super) async fn plan(
        &self,
        mut token: Token,
        account: &AccountId,
        seed: &Seed,
    ) -> Result<TopUp, Problem> {
        let listed = self.keysets().await.map_err(|trouble| self.problem(&trouble))?;
        let infos = Plan::resolve(&mut token, &listed).map_err(|fault| refused(&fault))?;
        let mut used = Vec::with_capacity(infos.len());
        for info in &infos {
            let keyset = self
                .keyset(info)
                .await
                .map_err(|trouble| self.problem(&trouble))?;
            used.push(keyset.as_ref().clone());
        }
        let into = listed
            .iter()
            .filter(|info| info.active && info.unit == token.unit)
            .min_by_key(|info| info.fee)
            .ok_or_else(|| refused(&TokenFault::Unit))?;
        let into = self
            .keyset(into)
            .await
            .map_err(|trouble| self.problem(&trouble))?;
        let (plan, left) = Plan::new(&token, &used, &into, seed).map_err(|fault| refused(&fault))?;
        let msat = if token.unit == "sat" {
            left.saturating_mul(1_000)
        } else {
            left
        };
        let detail = json!({ "plan": plan });
        Ok(TopUp::new(
            &token.name(),
            TopUps::CASHU,
            account,
            Msat::new(msat),
            detail,
        ))
    }

    /// Steps 3 and 4, or what is left of them. `fresh`: the plan was written down just now.
    pub(super) async fn exchange(&self, row: &TopUp, plan: &Plan, seed: &Seed, fresh: bool) -> Done {
        match self.try_exchange(row, plan, seed, fresh).await {
            Ok(done) => done,
            Err(Trouble::Silent) => Done::Trouble,
            Err(Trouble::Fault(fault)) => {
                tracing::error!(mint = self.url, %fault, "a mint's word on an exchange is of no use");
                Done::Trouble
            }
        }
    }

    async fn try_exchange(
        &self,
        row: &TopUp,
        plan: &Plan,
        seed: &Seed,
        fresh: bool,
    ) -> Result<Done, Trouble> {
        let listed = self.keysets().await?;
        let info = listed.iter().find(|info| info.id == plan.keyset);
        let info = info.ok_or(Trouble::Fault(Fault::Malformed("the keyset of the exchange")))?;
        let keyset = self.keyset(info).await?;
        if !fresh {
            if let Some(coins) = self.restore(row, plan, seed, &keyset).await? {
                return Ok(paid(&coins));
            }
            if let Some(done) = self.spent(row, plan, seed, &keyset).await? {
                return Ok(done);
            }
        }
        let answer = self.ask(&plan.swap()).await?;
        match plan.swapped(&row.id, seed, &keyset, &answer) {
            Ok(coins) => Ok(paid(&coins)),
            // It is busy, or broken for now.
            Err(Fault::Refused {
                status: 408 | 425 | 429,
                ..
            }) => Ok(Done::Trouble),
            Err(Fault::Refused {
                status: 400..=499,
                code,
            }) => {
                tracing::info!(mint = self.url, code, "the mint refused an exchange");
                if let Some(coins) = self.restore(row, plan, seed, &keyset).await? {
                    return Ok(paid(&coins));
                }
                let spent = self.spent(row, plan, seed, &keyset).await?;
                // Not spent and refused all the same: coins that never were, or a keyset that is no longer signed with.
                Ok(spent.unwrap_or(Done::Failed("mint-refused")))
            }
            Err(fault) => Err(Trouble::Fault(fault)),
        }
    }

    /// What became of the token, if it is not simply there. After a spent one what was signed is asked for once more.
    async fn spent(
        &self,
        row: &TopUp,
        plan: &Plan,
        seed: &Seed,
        keyset: &Keyset,
    ) -> Result<Option<Done>, Trouble> {
        let answer = self.ask(&plan.check_state()).await?;
        match plan.state(&answer).map_err(Trouble::Fault)? {
            Spent::No => Ok(None),
            Spent::Pending => Ok(Some(Done::Trouble)),
            Spent::Yes => Ok(Some(match self.restore(row, plan, seed, keyset).await? {
                Some(coins) => paid(&coins),
                None => Done::Failed("token-spent"),
            })),
        }
    }

    async fn restore(
        &self,
        row: &TopUp,
        plan: &Plan,
        seed: &Seed,
        keyset: &Keyset,
    ) -> Result<Option<Coins>, Trouble> {
        let answer = self.ask(&plan.restore()).await?;
        plan.restored(&row.id, seed, keyset, &answer)
            .map_err(Trouble::Fault)
    }

    fn problem(&self, trouble: &Trouble) -> Problem {
        if let Trouble::Fault(fault) = trouble {
            tracing::error!(mint = self.url, %fault, "the mint's keys are of no use");
        }
        Problem::new(
            "capacity",
            "The mint of these coins does not answer as it should at the moment; try again later.",
        )
    }
}

fn paid(coins: &Coins) -> Done {
    Done::Paid(json!({ "coins": coins }))
}

/// What a client is told of its token.
pub(super) fn refused(fault: &TokenFault) -> Problem {
    Problem::new("topup-token", fault.to_string())
}
