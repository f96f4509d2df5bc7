//! The exchange of a token's coins for the relay's own (NUT-03), and how it is taken up again (NUT-07, NUT-09).
//!
//! A [`Plan`] is what must be durable before the mint is asked. With it and the seed every question can be asked again,
//! by this process or the next: the mint signs the same blinded coins once and tells what it signed as often as asked.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::output::{Output, Seed, Shown};
use super::token::{Dleq, Proof, Token};
use super::{Keyset, KeysetInfo, TokenFault, curve};
use crate::{Answer, Call, Fault};

/// What a token's coins are to be exchanged for.
#[derive(Clone, Serialize, Deserialize)]
pub struct Plan {
    /// The mint's address.
    pub mint: String,
    /// The coins' unit.
    pub unit: String,
    /// The seed that the outputs come from, by its fingerprint.
    pub seed: String,
    /// The keyset of the outputs.
    pub keyset: String,
    inputs: Vec<Proof>,
    outputs: Vec<Shown>,
}

/// The relay's coins.
#[derive(Clone, Serialize, Deserialize)]
pub struct Coins {
    /// Their mint.
    pub mint: String,
    /// Their unit.
    pub unit: String,
    /// The coins.
    pub proofs: Vec<Proof>,
}

/// Whether a token is spent (NUT-07).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// All of its coins can be spent.
    No,
    /// The mint is about to, in another exchange.
    Pending,
    /// At least one is spent.
    Yes,
}

#[derive(Deserialize)]
struct Signature {
    amount: u64,
    id: String,
    #[serde(rename = "C_")]
    c: String,
    dleq: Option<Dleq>,
}

impl Plan {
    /// The whole keyset of each input, resolved out of the mint's list: V4 tokens may cut long names to 8 bytes.
    pub fn resolve(token: &mut Token, listed: &[KeysetInfo]) -> Result<Vec<KeysetInfo>, TokenFault> {
        let mut used: Vec<KeysetInfo> = Vec::new();
        for proof in &mut token.proofs {
            let mut fitting = listed.iter().filter(|info| {
                info.id == proof.id
                    || (proof.id.len() == 16 && proof.id.starts_with("01") && info.id.starts_with(&proof.id))
            });
            let (Some(info), None) = (fitting.next(), fitting.next()) else {
                return Err(TokenFault::Keyset);
            };
            if info.unit != token.unit {
                return Err(TokenFault::Unit);
            }
            proof.id.clone_from(&info.id);
            if !used.contains(info) {
                used.push(info.clone());
            }
        }
        Ok(used)
    }

    /// Plans the exchange: checks the mint's proofs, takes the fee off, and derives the coins to ask for. `used`: the
    /// keysets of the token, `into`: an active one of the same unit.
    pub fn new(
        token: &Token,
        used: &[Keyset],
        into: &Keyset,
        seed: &Seed,
    ) -> Result<(Self, u64), TokenFault> {
        let mut fee = 0_u64;
        for proof in &token.proofs {
            let keyset = used.iter().find(|keyset| keyset.info.id == proof.id);
            let keyset = keyset.ok_or(TokenFault::Keyset)?;
            proof.check(keyset)?;
            fee = fee.saturating_add(keyset.info.fee);
        }
        let left = token.amount().saturating_sub(fee.div_ceil(1_000));
        if left == 0 {
            return Err(TokenFault::Worthless);
        }
        let amounts = into.split(left).ok_or(TokenFault::Keyset)?;
        let name = token.name();
        let outputs: Option<Vec<Shown>> = amounts
            .iter()
            .enumerate()
            .map(|(index, amount)| Some(seed.output(&into.info.id, &name, index, *amount)?.shown))
            .collect();
        let plan = Self {
            mint: token.mint.clone(),
            unit: token.unit.clone(),
            seed: seed.fingerprint(),
            keyset: into.info.id.clone(),
            inputs: token.proofs.clone(),
            outputs: outputs.ok_or(TokenFault::Keyset)?,
        };
        Ok((plan, left))
    }

    /// Asks the mint to exchange them. Only once the plan is durable.
    pub fn swap(&self) -> Call {
        let inputs: Vec<Value> = self.inputs.iter().map(Proof::shown).collect();
        Call::post("/v1/swap", json!({"inputs": inputs, "outputs": self.outputs}))
    }

    /// The relay's coins, out of the mint's signatures.
    pub fn swapped(
        &self,
        top_up: &str,
        seed: &Seed,
        keyset: &Keyset,
        answer: &Answer,
    ) -> Result<Coins, Fault> {
        let signatures = read(answer.ok()?.get("signatures"))?;
        if signatures.len() != self.outputs.len() {
            return Err(Fault::Lied("it signed another number of coins"));
        }
        self.coins(top_up, seed, keyset, signatures)
    }

    /// Asks what the mint has signed of these outputs (NUT-09).
    pub fn restore(&self) -> Call {
        Call::post("/v1/restore", json!({"outputs": self.outputs}))
    }

    /// The relay's coins, if the exchange took place.
    pub fn restored(
        &self,
        top_up: &str,
        seed: &Seed,
        keyset: &Keyset,
        answer: &Answer,
    ) -> Result<Option<Coins>, Fault> {
        let body = answer.ok()?;
        let outputs: Vec<Shown> = body
            .get("outputs")
            .and_then(|outputs| serde_json::from_value(outputs.clone()).ok())
            .ok_or(Fault::Malformed("outputs"))?;
        let signatures = read(body.get("signatures"))?;
        if outputs.is_empty() && signatures.is_empty() {
            return Ok(None);
        }
        if signatures.len() != outputs.len() || outputs.len() != self.outputs.len() {
            return Err(Fault::Lied("it signed some of the coins of one exchange"));
        }
        let mut found: Vec<(Shown, Signature)> = outputs.into_iter().zip(signatures).collect();
        let mut ordered = Vec::with_capacity(found.len());
        for output in &self.outputs {
            let at = found.iter().position(|(shown, _)| shown.b == output.b);
            let at = at.ok_or(Fault::Lied("it signed other coins"))?;
            ordered.push(found.swap_remove(at).1);
        }
        self.coins(top_up, seed, keyset, ordered).map(Some)
    }

    /// Asks whether the token is spent (NUT-07).
    pub fn check_state(&self) -> Call {
        let ys: Vec<Option<String>> = self.inputs.iter().map(Proof::y).collect();
        Call::post("/v1/checkstate", json!({"Ys": ys}))
    }

    /// Whether it is.
    pub fn state(&self, answer: &Answer) -> Result<Spent, Fault> {
        let states = answer.ok()?.get("states").and_then(Value::as_array);
        let states = states.ok_or(Fault::Malformed("states"))?;
        let mut spent = Spent::No;
        for input in &self.inputs {
            let y = input.y().ok_or(Fault::Malformed("Y"))?;
            let state = states
                .iter()
                .find(|state| state.get("Y").and_then(Value::as_str) == Some(&y))
                .and_then(|state| state.get("state")?.as_str());
            match state {
                Some("UNSPENT") => {}
                Some("PENDING") if spent == Spent::No => spent = Spent::Pending,
                Some("PENDING") => {}
                Some("SPENT") => spent = Spent::Yes,
                _ => return Err(Fault::Malformed("state")),
            }
        }
        Ok(spent)
    }

    fn coins(
        &self,
        top_up: &str,
        seed: &Seed,
        keyset: &Keyset,
        signatures: Vec<Signature>,
    ) -> Result<Coins, Fault> {
        let mut proofs = Vec::with_capacity(self.outputs.len());
        for (index, (planned, signature)) in self.outputs.iter().zip(signatures).enumerate() {
            let output = seed.output(&self.keyset, top_up, index, planned.amount);
            let output = output
                .filter(|output| output.shown == *planned)
                .ok_or(Fault::Malformed("the seed, which is another one than before"))?;
            proofs.push(coin(&output, keyset, &signature)?);
        }
        Ok(Coins {
            mint: self.mint.clone(),
            unit: self.unit.clone(),
            proofs,
        })
    }
}

fn read(signatures: Option<&Value>) -> Result<Vec<Signature>, Fault> {
    signatures
        .and_then(|signatures| serde_json::from_value(signatures.clone()).ok())
        .ok_or(Fault::Malformed("signatures"))
}

fn coin(output: &Output, keyset: &Keyset, signature: &Signature) -> Result<Proof, Fault> {
    if signature.amount != output.shown.amount || signature.id != output.shown.id {
        return Err(Fault::Lied("it signed a coin of another worth"));
    }
    let key = keyset.key(output.shown.amount).ok_or(Fault::Malformed("keys"))?;
    let c_blind = curve::point(&signature.c).ok_or(Fault::Malformed("C_"))?;
    if let Some(dleq) = &signature.dleq {
        let (e, s) = (curve::scalar(&dleq.e), curve::scalar(&dleq.s));
        let b_blind = curve::point(&output.shown.b);
        let (Some(e), Some(s), Some(b_blind)) = (e, s, b_blind) else {
            return Err(Fault::Malformed("dleq"));
        };
        if !curve::is_proved(&e, &s, key, &b_blind, &c_blind) {
            return Err(Fault::Lied("its signature is not by the key that it publishes"));
        }
    }
    let c = curve::unblind(&c_blind, &output.r, key).ok_or(Fault::Malformed("C_"))?;
    Ok(Proof {
        amount: output.shown.amount,
        id: output.shown.id.clone(),
        secret: output.secret.clone(),
        c: curve::text(&c),
        dleq: None,
    })
}
