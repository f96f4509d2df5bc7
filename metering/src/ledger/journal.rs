//! The journal: one entry for every movement of money, in order, never changed. The books are what it adds up to.

use super::{
    LedgerError,
    rows::{self, MEMO_OLD_EPOCH, MEMO_UNCOLLECTED, Totals},
};
use crate::{AccountId, LeaseId, Msat, Service, SessionId, report::Usage};
use redb::ReadTransaction;
use serde::{Deserialize, Serialize};

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
    /// No money: the account may not spend.
    Freeze,
    /// No money: the account may spend again.
    Unfreeze,
}

impl Kind {
    /// Moves `msat` between the totals as this kind says.
    pub(super) fn move_totals(self, totals: &mut Totals, msat: Msat) -> Result<(), LedgerError> {
        let take = |from: &mut Msat| {
            *from = from
                .checked_sub(msat)
                .ok_or_else(|| LedgerError::Corrupt(format!("{self:?} of {msat} from a sum of {from}")))?;
            Ok::<(), LedgerError>(())
        };
        let put = |to: &mut Msat| {
            *to = to
                .checked_add(msat)
                .ok_or_else(|| LedgerError::Corrupt(format!("{self:?} overflows a sum")))?;
            Ok::<(), LedgerError>(())
        };
        match self {
            Self::Credit => {
                put(&mut totals.issued)?;
                put(&mut totals.available)
            }
            Self::Reserve => {
                take(&mut totals.available)?;
                put(&mut totals.reserved)
            }
            Self::Release => {
                take(&mut totals.reserved)?;
                put(&mut totals.available)
            }
            Self::Settle => {
                take(&mut totals.reserved)?;
                put(&mut totals.earned)
            }
            Self::Refund => {
                take(&mut totals.available)?;
                put(&mut totals.refunded)
            }
            Self::Uncollected => put(totals.memo.entry(MEMO_UNCOLLECTED.to_owned()).or_default()),
            Self::OldEpoch => put(totals.memo.entry(MEMO_OLD_EPOCH.to_owned()).or_default()),
            Self::Freeze | Self::Unfreeze => Ok(()),
        }
    }
}

/// The two claims that name a voucher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

impl Entry {
    /// An entry without particulars; its commit and time are set when it is posted.
    pub(super) fn new(kind: Kind, account: &AccountId, msat: Msat) -> Self {
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
        }
    }
}

pub(super) fn read(
    transaction: &ReadTransaction,
    sequence: u64,
    most: usize,
) -> Result<Vec<Entry>, LedgerError> {
    let Some(table) = rows::table(transaction, rows::JOURNAL)? else {
        return Ok(Vec::new());
    };
    table
        .range(sequence..)?
        .take(most)
        .map(|row| rows::parse(row?.1.value()))
        .collect()
}
