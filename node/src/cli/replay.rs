//! From a backup to the books as they were lost: the records that had left the house since (a file of usage records, or
//! what a receiver kept) are done again. What cannot be is said, record by record, and so is what is missing; the caller
//! decides then whether tokens from before may be shown again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use metering::ledger::{Command, DumpRow, EntryId, Kind, LeaseState, LeaseView, Ledger, Record};
use metering::{AccountId, LeaseId, Msat, Rates, Usage};

use super::Failure;
use crate::records::Event;

/// Records in one commit.
const COMMIT_MAX: usize = 500;
/// Missing records are told one by one, in ranges, up to so many.
const GAPS_TOLD_MAX: usize = 20;

/// What is to be done again.
pub(super) struct Replay {
    records: Vec<Event>,
    sink: String,
    /// Records that the backup has.
    known: usize,
    /// The highest place in the sink's order.
    last: u64,
    /// Ranges of places that are missing, and places that two records claim.
    gaps: Vec<(u64, u64)>,
    doubled: usize,
}

/// What came of it.
pub(super) struct Replayed {
    done: BTreeMap<String, (usize, Msat)>,
    refused: Vec<String>,
}

impl Replay {
    /// Reads the files, and prepares the backup's rows for what follows: a lease whose running segment was settled later
    /// is not to be settled by what the backup knew of it, and no later lease's number may be given to another.
    pub(super) fn plan(files: &[PathBuf], sink: &str, rows: &mut Vec<DumpRow>) -> Result<Replay, Failure> {
        let mut events: BTreeMap<String, Event> = BTreeMap::new();
        for file in files {
            for event in read(file)? {
                events.insert(event.id.clone(), event);
            }
        }
        let mut numbered: HashMap<(AccountId, u64), u64> = HashMap::new();
        let mut memos: BTreeSet<(EntryId, u64)> = BTreeSet::new();
        let mut acknowledged = 0;
        for row in rows.iter() {
            match row {
                DumpRow::Entry(id, entry) => {
                    memos.insert((*id, entry.at));
                    if let Some(number) = entry.number {
                        numbered.insert((entry.account.clone(), number), entry.at);
                    }
                }
                DumpRow::Sink(name, cursor) if name == sink => acknowledged = cursor.records,
                _ => {}
            }
        }
        let mut places: BTreeMap<u64, usize> = BTreeMap::new();
        let (mut records, mut known) = (Vec::new(), 0);
        for event in events.into_values() {
            let place = event
                .sequence
                .parse()
                .map_err(|_| format!("record {} has no place: {:?}", event.id, event.sequence))?;
            *places.entry(place).or_default() += 1;
            let entry = &event.data.of;
            let in_backup = match entry.number {
                Some(number) => numbered.get(&(entry.account.clone(), number)) == Some(&entry.at),
                None => memos.contains(&(event.data.entry, entry.at)),
            };
            if in_backup {
                known += 1;
            } else {
                records.push((place, event));
            }
        }
        records.sort_by_key(|(place, _)| *place);
        let mut gaps = Vec::new();
        let mut next = acknowledged + 1;
        for place in places.keys().filter(|place| **place > acknowledged) {
            if *place > next {
                gaps.push((next, place - 1));
            }
            next = place + 1;
        }
        let replay = Replay {
            records: records.into_iter().map(|(_, event)| event).collect(),
            sink: sink.to_owned(),
            known,
            last: places
                .keys()
                .last()
                .copied()
                .unwrap_or_default()
                .max(acknowledged),
            gaps,
            doubled: places.values().filter(|count| **count > 1).count(),
        };
        replay.prepare(rows);
        Ok(replay)
    }

    fn prepare(&self, rows: &mut Vec<DumpRow>) {
        let mut settled: BTreeMap<LeaseId, (u32, &Event)> = BTreeMap::new();
        for event in &self.records {
            let entry = &event.data.of;
            if let (Kind::Settle, Some(lease)) = (entry.kind, entry.lease) {
                settled.insert(lease, (entry.segment.unwrap_or_default(), event));
            }
        }
        let mut there = BTreeSet::new();
        for row in rows.iter_mut() {
            if let DumpRow::Lease(id, lease) = row {
                there.insert(*id);
                if settled
                    .get(id)
                    .is_some_and(|(segment, _)| *segment >= lease.segment)
                {
                    lease.reported = Usage::default();
                }
            }
        }
        for (id, (segment, event)) in settled.into_iter().filter(|(id, _)| !there.contains(id)) {
            let entry = &event.data.of;
            let (Some(session), Some(service)) = (entry.session, entry.service) else {
                continue;
            };
            let lease = LeaseView {
                account: entry.account.clone(),
                session,
                service,
                tariff: String::new(),
                rates: Rates {
                    out: 0,
                    in_: 0,
                    second: 0,
                },
                granted: Msat::ZERO,
                settled: Msat::ZERO,
                segment,
                reported: Usage::default(),
                sequence: u64::MAX,
                epoch: 0,
                state: LeaseState::Closed,
                memo: Msat::ZERO,
                cap: None,
                free_instead_of: None,
                touched_at: entry.at,
            };
            rows.push(DumpRow::Lease(id, Box::new(lease)));
        }
    }

    /// Does it, on books that the backup has just filled.
    pub(super) fn run(&self, ledger: &mut dyn Ledger, now: u64) -> Result<Replayed, Failure> {
        let mut replayed = Replayed {
            done: BTreeMap::new(),
            refused: Vec::new(),
        };
        for part in self.records.chunks(COMMIT_MAX) {
            let commands: Vec<Command> = part
                .iter()
                .map(|event| {
                    Command::Replay(Box::new(Record {
                        entry: event.data.of.clone(),
                        claims: event.data.claims.clone(),
                    }))
                })
                .collect();
            let results = ledger.apply(&commands, now).map_err(|error| error.to_string())?;
            for (event, result) in part.iter().zip(results) {
                let msat = event.data.of.msat;
                match result {
                    Ok(_) => {
                        let (count, sum) = replayed.done.entry(event.kind.clone()).or_default();
                        *count += 1;
                        *sum = sum.saturating_add(msat);
                    }
                    Err(refusal) => replayed.refused.push(format!(
                        "refused: {} of {}, {} of {msat}, {}: {refusal}",
                        event.id, event.time, event.kind, event.subject
                    )),
                }
            }
        }
        self.pass(ledger)?;
        Ok(replayed)
    }

    /// What was replayed is not to be delivered to the sink that it came from once more.
    fn pass(&self, ledger: &mut dyn Ledger) -> Result<(), Failure> {
        let said = |error: metering::ledger::LedgerError| error.to_string();
        while let Some(unsent) = ledger.unsent(&self.sink, COMMIT_MAX).map_err(said)? {
            let mut cursor = unsent.cursor;
            unsent.entries.iter().for_each(|leaving| cursor.pass(leaving.id));
            cursor.records = self.last;
            ledger.sent(&self.sink, &cursor).map_err(said)?;
            if unsent.behind <= unsent.entries.len() as u64 {
                break;
            }
        }
        Ok(())
    }

    /// Whether nothing is missing between the backup and the last record.
    pub(super) fn is_whole(&self, replayed: &Replayed) -> bool {
        self.gaps.is_empty() && self.doubled == 0 && replayed.refused.is_empty()
    }

    /// For people, a line each.
    pub(super) fn told(&self, replayed: &Replayed) -> Vec<String> {
        let mut lines = vec![format!("{} records were in the backup already", self.known)];
        for (kind, (count, msat)) in &replayed.done {
            lines.push(format!("replayed {count} of {kind}, {msat} in all"));
        }
        if let Some(last) = self.records.last() {
            lines.push(format!("the last record is of {}", last.time));
        }
        for (first, last) in self.gaps.iter().take(GAPS_TOLD_MAX) {
            lines.push(format!("missing: the records from {first} to {last}"));
        }
        if self.gaps.len() > GAPS_TOLD_MAX {
            lines.push(format!("and {} gaps more", self.gaps.len() - GAPS_TOLD_MAX));
        }
        if self.doubled > 0 {
            lines.push(format!(
                "{} places are claimed by two records: the files are of more than one life of these books",
                self.doubled
            ));
        }
        lines.extend(replayed.refused.iter().cloned());
        lines
    }
}

/// The records of a file. A last line that a crash tore is none.
fn read(path: &Path) -> Result<Vec<Event>, Failure> {
    let said = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| said(&error))?;
    let mut events = Vec::new();
    let count = text.lines().count();
    for (index, line) in text.lines().enumerate() {
        match serde_json::from_str(line) {
            Ok(event) => events.push(event),
            Err(_) if index + 1 == count && !text.ends_with('\n') => {}
            Err(error) => return Err(said(&format!("line {}: {error}", index + 1))),
        }
    }
    Ok(events)
}
