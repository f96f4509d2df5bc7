//! The journal: one entry for every movement of money, in order, never changed. The books are what it adds up to.

use super::{
    LedgerError,
    books::{MEMO_ALLOWANCE, MEMO_EMERGENCY, MEMO_OLD_EPOCH, MEMO_UNCOLLECTED, Sums},
};
use crate::{AccountId, LeaseId, Msat, Service, SessionId, report::Usage};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

/// What an entry moves, and between which books.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A voucher: from outside to available.
    Credit,
    /// A lease's grant: from available to reserved.
    Reserve,
    /// What a lease did not spend: from reserved to available.
    Release,
    /// A settled segment: from reserved to earned.
    Settle,
    /// Paid back: from available to outside.
    Refund,
    /// Memo: owed beyond what the lease held.
    Uncollected,
    /// Memo: reported after the lease was taken back.
    OldEpoch,
    /// Memo: what an emergency session would have cost.
    Emergency,
    /// Memo: given for nothing, as a voucher of the operator's own.
    Allowance,
    /// No money: how far below zero the account may go from now on.
    Line,
    /// No money: the account may not spend.
    Freeze,
    /// No money: the account may spend again.
    Unfreeze,
}

impl Kind {
    /// Moves `msat` between the sums as this kind says.
    pub(super) fn move_sums(self, sums: &mut Sums, msat: Msat) -> Result<(), LedgerError> {
        let amount = i64::try_from(msat.get()).map_err(|_| overflows(self))?;
        let add = |sum: &mut i64, amount: i64| {
            *sum = sum.checked_add(amount).ok_or_else(|| overflows(self))?;
            Ok::<(), LedgerError>(())
        };
        match self {
            Self::Credit => {
                add(&mut sums.issued, amount)?;
                add(&mut sums.available, amount)
            }
            Self::Reserve => {
                add(&mut sums.available, -amount)?;
                add(&mut sums.reserved, amount)
            }
            Self::Release => {
                add(&mut sums.reserved, -amount)?;
                add(&mut sums.available, amount)
            }
            Self::Settle => {
                add(&mut sums.reserved, -amount)?;
                add(&mut sums.earned, amount)
            }
            Self::Refund => {
                add(&mut sums.available, -amount)?;
                add(&mut sums.refunded, amount)
            }
            Self::Uncollected => add(sums.memo.entry(MEMO_UNCOLLECTED.to_owned()).or_default(), amount),
            Self::OldEpoch => add(sums.memo.entry(MEMO_OLD_EPOCH.to_owned()).or_default(), amount),
            Self::Emergency => add(sums.memo.entry(MEMO_EMERGENCY.to_owned()).or_default(), amount),
            Self::Allowance => add(sums.memo.entry(MEMO_ALLOWANCE.to_owned()).or_default(), amount),
            Self::Freeze | Self::Unfreeze | Self::Line => Ok(()),
        }
    }

    /// Whether it is one of its account's own entries, which are numbered; a memo stands outside.
    pub(super) fn is_of_account(self) -> bool {
        !matches!(
            self,
            Self::Uncollected | Self::OldEpoch | Self::Emergency | Self::Allowance
        )
    }
}

fn overflows(kind: Kind) -> LedgerError {
    LedgerError::Corrupt(format!("{kind:?} overflows a sum"))
}

/// Names an entry: the books it stands in (each node of a shared ledger keeps a journal of its own) and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryId {
    /// Which journal.
    pub shard: u32,
    /// Which entry of it, from 0.
    pub number: u64,
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.shard, self.number)
    }
}

impl Serialize for EntryId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EntryId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parsed = text.split_once('-').and_then(|(shard, number)| {
            Some(Self {
                shard: shard.parse().ok()?,
                number: number.parse().ok()?,
            })
        });
        parsed.ok_or_else(|| de::Error::custom("an entry is named like 0-17"))
    }
}

/// The two claims that name a voucher.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VoucherName {
    /// DID of the issuer.
    pub iss: String,
    /// The issuer's name for it.
    pub jti: String,
}

/// One movement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Entries of one commit have one number.
    pub commit: u64,
    /// Unix nanoseconds.
    pub at: u64,
    /// What moved.
    pub kind: Kind,
    /// Whose it is.
    pub account: AccountId,
    /// How much.
    pub msat: Msat,
    /// For which session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// For which lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseId>,
    /// For which relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
    /// For which segment of the lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<u32>,
    /// For which use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// By which voucher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voucher: Option<VoucherName>,
    /// Counts the account's entries, from 1. Memos and the entries of old books have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// Counts the account's settlements, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settlement: Option<u64>,
    /// Why, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Entry {
    /// An entry without particulars; its commit and time are set when it is posted.
    pub fn new(kind: Kind, account: &AccountId, msat: Msat) -> Self {
        Self {
            commit: 0,
            at: 0,
            kind,
            account: account.clone(),
            msat,
            session: None,
            lease: None,
            service: None,
            segment: None,
            usage: None,
            voucher: None,
            number: None,
            settlement: None,
            reason: None,
        }
    }
}
