//! A voucher: money an issuer puts into an account once, whatever the number of times its token is shown.

use crate::{AccountId, Msat};
use serde::{Deserialize, Serialize};

/// What identity read out of a token and proved. (`iss`, `jti`) names it for ever.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voucher {
    /// DID of the issuer.
    pub iss: String,
    /// The issuer's name for this token.
    pub jti: String,
    /// DID of the holder.
    pub sub: String,
    /// DID whose account is credited, where it is not the holder's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payer: Option<String>,
    /// DID of the operator.
    pub aud: String,
    /// The amount, at most [`Msat::MAX_BALANCE`].
    pub balance: Msat,
    /// The account it is credited to.
    pub account: AccountId,
    /// Whether the operator pays it back on request. Promotional money is not refundable and is spent first.
    pub refundable: bool,
}

impl Voucher {
    /// True when `other` makes the same claims. A token that was signed again differs in bytes and not in these.
    pub fn same_claims(&self, other: &Self) -> bool {
        (
            &self.iss,
            &self.jti,
            &self.sub,
            &self.payer,
            &self.aud,
            self.balance,
            &self.account,
        ) == (
            &other.iss,
            &other.jti,
            &other.sub,
            &other.payer,
            &other.aud,
            other.balance,
            &other.account,
        )
    }
}

// Neither the people nor the token's name print.
impl std::fmt::Debug for Voucher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Voucher")
            .field("account", &self.account)
            .field("balance", &self.balance)
            .field("refundable", &self.refundable)
            .finish_non_exhaustive()
    }
}
