//! What happened after a backup, done again from the records that left the house: credits, settlements, refunds, freezes
//! and losses, at their own time, so that each stays in its billing period. What was set aside and given back meanwhile
//! has no record and needs none: a settlement sets its amount aside and earns it in one go.

use super::{
    Bounds, Outcome, Refusal, Stop,
    account::LOTS_MAX,
    books::{Books, Rows, SessionRow},
    journal::{Entry, Kind},
};
use crate::{Voucher, receipt::Segment};

/// A record of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The entry.
    pub entry: Entry,
    /// Of a credit: the voucher.
    pub claims: Option<Voucher>,
}

/// The reason on the receipts of sessions that are known from records only.
const REASON: &str = "replayed";

impl<R: Rows> Books<R> {
    /// Does it again. Whether it was done already is the caller's to know, by the account's number of the entry.
    pub(super) fn replay(&mut self, record: &Record) -> Result<Outcome, Stop> {
        let now = std::mem::replace(&mut self.now, record.entry.at);
        let done = self.repeat(record);
        self.now = now;
        done
    }

    fn repeat(&mut self, Record { entry, claims }: &Record) -> Result<Outcome, Stop> {
        match entry.kind {
            Kind::Credit => {
                let Some(voucher) = claims else {
                    return Err(Refusal::CannotReplay("it does not say what its voucher claimed").into());
                };
                let fits = (&voucher.account, voucher.balance) == (&entry.account, entry.msat);
                if !fits {
                    return Err(Refusal::CannotReplay("its voucher is for another account or amount").into());
                }
                if self.account(&entry.account)?.lots.len() >= LOTS_MAX {
                    return Err(Refusal::TooManyLots.into());
                }
                if self
                    .credit(voucher, entry.reason.as_deref(), &Bounds::default())?
                    .repeated
                {
                    return Err(Refusal::CannotReplay("its voucher was credited already").into());
                }
            }
            Kind::Settle => self.settle_again(entry)?,
            Kind::Refund => {
                self.pay_back(
                    &entry.account,
                    entry.msat,
                    entry.reason.as_deref().unwrap_or(REASON),
                )?;
            }
            Kind::Freeze | Kind::Unfreeze => {
                self.freeze(&entry.account, entry.kind == Kind::Freeze)?;
            }
            memo if !memo.is_of_account() => {
                self.append(entry.clone())?;
            }
            _ => return Err(Refusal::CannotReplay("this kind of record is not done again").into()),
        }
        Ok(Outcome::Replayed)
    }

    fn settle_again(&mut self, entry: &Entry) -> Result<(), Stop> {
        let (Some(session), Some(lease), Some(service), Some(usage)) =
            (entry.session, entry.lease, entry.service, entry.usage)
        else {
            return Err(Refusal::CannotReplay("it does not say what was used").into());
        };
        let mut account = self.account(&entry.account)?;
        if account.available < entry.msat {
            return Err(Refusal::BalanceExhausted {
                available: account.available,
            }
            .into());
        }
        let mut row = match self.rows.session(session)? {
            Some(row) if row.account == entry.account => row,
            Some(_) => return Err(Refusal::OtherAccount.into()),
            None => SessionRow {
                account: entry.account.clone(),
                terms: Vec::new(),
                segments: 0,
                open_leases: 0,
                started: entry.at.saturating_sub(usage.nanoseconds),
                ended: Some(entry.at),
                reason: Some(REASON.to_owned()),
                recovered: true,
            },
        };
        let part = |kind| Entry {
            number: None,
            settlement: None,
            kind,
            ..entry.clone()
        };
        let reserve = Entry {
            usage: None,
            segment: None,
            ..part(Kind::Reserve)
        };
        self.reserve(&mut account, reserve)?;
        let (id, settlement) = self.earn(&mut account, part(Kind::Settle))?;
        self.put_account(&account)?;
        let segment = Segment {
            service,
            // Records name no tariff; the receipt that was signed at the time does.
            tariff: row
                .terms
                .iter()
                .rev()
                .find(|terms| terms.service == service)
                .map(|terms| terms.tariff.clone())
                .unwrap_or_default(),
            lease,
            segment: entry.segment.unwrap_or_default(),
            bytes_out: usage.bytes_out,
            bytes_in: usage.bytes_in,
            nanoseconds: usage.nanoseconds,
            msat: entry.msat,
            settled_at: entry.at,
            recovered: true,
            settlement,
            entry: Some(id),
        };
        self.rows.put_segment(session, row.segments, &segment)?;
        row.segments = row.segments.saturating_add(1);
        row.recovered = true;
        self.rows.put_session(session, &row)?;
        Ok(())
    }
}
