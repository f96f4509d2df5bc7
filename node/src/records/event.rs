//! A journal entry as a CloudEvent (CloudEvents 1.0.2, JSON format): the same one in every sink, and each time that it is
//! delivered.
//!
//! `id` names the entry and its moment, so that it is never used twice, not even by a ledger that was put back from a
//! backup. `sequence` (the extension of that name) is the record's place among all that the sink was ever given: a
//! receiver sees by it what it lacks.

use metering::Voucher;
use metering::ledger::{Entry, EntryId, Kind, Leaving};
use serde::{Deserialize, Serialize};

/// What `type` begins with; the rest is the entry's kind.
const TYPE: &str = "milliway.ledger.";

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    /// `1.0`.
    pub(crate) specversion: String,
    /// With `source`, names the record for ever.
    pub(crate) id: String,
    /// Whose ledger it is from.
    pub(crate) source: String,
    /// `milliway.ledger.settle` and so on.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// The account.
    pub(crate) subject: String,
    /// When, RFC 3339.
    pub(crate) time: String,
    /// `application/json`.
    pub(crate) datacontenttype: String,
    /// The place among the records of this sink, from 1, without gaps; twenty digits.
    pub(crate) sequence: String,
    /// The entry.
    pub(crate) data: Data,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Data {
    /// The journal entry's name, as receipts and exports have it.
    pub(crate) entry: EntryId,
    /// All of it.
    #[serde(flatten)]
    pub(crate) of: Entry,
    /// Of a credit: what the voucher claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) claims: Option<Voucher>,
}

impl Event {
    /// Whether entries of this kind are records. What is set aside and given back is the ledger's own affair.
    pub(crate) fn tells(kind: Kind) -> bool {
        !matches!(kind, Kind::Reserve | Kind::Release)
    }

    /// The record of an entry.
    pub(crate) fn of(leaving: Leaving, source: &str, sequence: u64) -> Event {
        let Leaving { id, entry, voucher } = leaving;
        let kind = serde_json::to_value(entry.kind).unwrap_or_default();
        Event {
            specversion: "1.0".to_owned(),
            id: format!("{id}-{}", entry.at),
            source: source.to_owned(),
            kind: format!("{TYPE}{}", kind.as_str().unwrap_or("entry")),
            subject: entry.account.as_str().to_owned(),
            time: rfc3339(entry.at),
            datacontenttype: "application/json".to_owned(),
            sequence: format!("{sequence:020}"),
            data: Data {
                entry: id,
                of: entry,
                claims: voucher,
            },
        }
    }

    /// As one line.
    pub(crate) fn line(&self) -> String {
        serde_json::to_string(self).expect("records have string keys and no fallible fields")
    }
}

/// Unix nanoseconds as RFC 3339, in UTC. The date by Hinnant's `civil_from_days`, which counts years from March.
fn rfc3339(unix_ns: u64) -> String {
    let (seconds, nanoseconds) = (unix_ns / 1_000_000_000, unix_ns % 1_000_000_000);
    let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
    // From 1 March of the year 0, in eras of 400 years.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanoseconds:09}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use metering::{AccountId, Msat};

    #[test]
    fn moments_are_written_as_dates() {
        for (unix, date) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000000Z"),
            (1_764_547_199, "2025-11-30T23:59:59.000000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(rfc3339(unix * 1_000_000_000), date);
        }
    }

    #[test]
    fn a_record_reads_back_and_names_its_entry() {
        let mut entry = Entry::new(Kind::OldEpoch, &AccountId::new("did:key:z6MkAnna"), Msat::new(7));
        entry.at = 1_764_547_199_000_000_001;
        let leaving = Leaving {
            id: EntryId { shard: 2, number: 17 },
            entry,
            voucher: None,
        };
        let event = Event::of(leaving, "did:web:relay.example", 3);
        assert_eq!(event.id, "2-17-1764547199000000001");
        assert_eq!(event.kind, "milliway.ledger.old-epoch");
        assert_eq!(event.sequence, "00000000000000000003");
        assert_eq!(serde_json::from_str::<Event>(&event.line()).unwrap(), event);
    }
}
