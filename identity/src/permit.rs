//! The proof that somebody may use the relay. Only this crate makes a [`Permit`], only from a verified token and a
//! verified proof, and the cores demand one: a stage that is skipped does not compile.

use std::fmt;

use crate::credential::Credential;
use crate::did::Did;
use crate::presentation::Presentation;
use crate::proof::{HolderProof, Possession};
use crate::refusal::Refusal;
use crate::token::{PayerGrant, RelayToken};

/// May use the relay: who, for what, on whose account. Shared as `Arc<Permit>`.
pub struct Permit {
    token: RelayToken,
    account: String,
    proven: bool,
}

/// What the ledger needs of a token to credit its voucher once: unique is (`issuer`, `id`), and the rest has to be
/// equal when it comes again.
#[derive(Clone, PartialEq, Eq)]
pub struct VoucherClaims {
    /// `iss`.
    pub issuer: Did,
    /// `jti`.
    pub id: String,
    /// `sub`.
    pub subject: Did,
    /// `payer`, if it is not `sub`.
    pub payer: Option<Did>,
    /// `aud`.
    pub audience: Did,
    /// The amount.
    pub balance_msat: u64,
    /// The account that is credited: a DID or "bearer:" and a hash.
    pub account: String,
}

impl Permit {
    /// A token and the proof that its holder's key is here (HTTP).
    pub fn from_possession(token: RelayToken, possession: Possession) -> Result<Permit, Refusal> {
        if !possession.is_for(&token) {
            return Err(Refusal::ProofMismatch {
                field: "ath",
                fix: "prove possession of this very token",
            });
        }
        Ok(Permit::new(token, true))
    }

    /// A token and the holder's signature over a fresh challenge (DSIP).
    pub fn from_holder_proof(token: RelayToken, proof: HolderProof) -> Result<Permit, Refusal> {
        proof.check(&token)?;
        Ok(Permit::new(token, true))
    }

    /// A bearer token, which needs no proof and opens only its own voucher.
    pub fn from_bearer(token: RelayToken) -> Result<Permit, Refusal> {
        if !token.is_bearer() {
            return Err(Refusal::ProofMissing);
        }
        Ok(Permit::new(token, false))
    }

    fn new(token: RelayToken, proven: bool) -> Permit {
        Permit {
            account: token.account(),
            proven: proven && !token.is_bearer(),
            token,
        }
    }

    /// The account charged: a DID, or "bearer:" and a hash.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// The holder, if proven. `None` for a bearer token: whoever its issuer named as `sub` was not asked, so a
    /// bearer may not act in that name (replace its sessions, read its receipts).
    pub fn holder(&self) -> Option<&Did> {
        self.proven.then(|| self.token.subject())
    }

    /// Who owns what this permit opens: the holder's DID if proven, else the bearer account. Two permits with the
    /// same subject may replace each other's sessions.
    pub fn subject(&self) -> &str {
        self.holder().map_or(&self.account, |did| did.as_str())
    }

    /// Does it open this service, "sfu" or "turn"?
    pub fn allows(&self, service: &str) -> bool {
        match service {
            "sfu" => self.token.services().sfu,
            "turn" => self.token.services().turn,
            _ => false,
        }
    }

    /// [`Permit::allows`] with the refusal to answer.
    pub fn require_service(&self, service: &str) -> Result<(), Refusal> {
        if self.allows(service) {
            Ok(())
        } else {
            Err(Refusal::ServiceForbidden)
        }
    }

    /// The only room it opens, if limited.
    pub fn room(&self) -> Option<&str> {
        self.token.room()
    }

    /// May it enter this room?
    pub fn require_room(&self, room: &str) -> Result<(), Refusal> {
        match self.room() {
            Some(only) if only != room => Err(Refusal::RoomForbidden),
            _ => Ok(()),
        }
    }

    /// The tariff that its issuer quoted.
    pub fn tariff(&self) -> Option<&str> {
        self.token.tariff()
    }

    /// The holder's reputation.
    pub fn reputation(&self) -> Option<i64> {
        self.token.reputation()
    }

    /// The payer's grant, if another pays: the ledger caps what is spent under it.
    pub fn payer_grant(&self) -> Option<&PayerGrant> {
        self.token.payer().map(|(_, grant)| grant)
    }

    /// When the token (or a grant in it) expires, unix seconds. It gates admission and new TURN credentials; a live
    /// session goes on.
    pub fn token_expires(&self) -> u64 {
        self.token.expires()
    }

    /// What the ledger credits at admission.
    pub fn voucher(&self) -> VoucherClaims {
        self.token.voucher()
    }

    /// The same permit with what its holder presented, in place of what was presented before.
    pub fn presenting(&self, presentation: &Presentation) -> Result<Permit, Refusal> {
        if self.holder() != Some(presentation.subject()) {
            return Err(Refusal::ProofMissing);
        }
        Ok(self.with_presented(&presentation.accepted()))
    }

    /// The same permit with what the same holder presented under another one of theirs.
    pub fn sharing(&self, other: &Permit) -> Permit {
        let same = self.holder().is_some() && self.holder() == other.holder();
        self.with_presented(if same { other.token.presented() } else { &[] })
    }

    fn with_presented(&self, presented: &[Credential]) -> Permit {
        Permit {
            token: self.token.with_presented(presented),
            account: self.account.clone(),
            proven: self.proven,
        }
    }

    /// The token, for deny lists and logs.
    pub fn token(&self) -> &RelayToken {
        &self.token
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Permit({:?}, proven: {})", self.token, self.proven)
    }
}

impl fmt::Debug for VoucherClaims {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "VoucherClaims({:?} for {:?}, {} msat)",
            self.issuer, self.subject, self.balance_msat
        )
    }
}
