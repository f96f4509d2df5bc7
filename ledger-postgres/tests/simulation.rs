//! Seeded histories of three nodes on one database: reports that are lost, repeated and overtaken, nodes that are killed or
//! stand still until they are presumed dead and then go on, clocks that jump. Beside them a reference that knows what was
//! really used and what was really paid in.
//!
//! After every step the books prove. At the end: no msat was made or lost, no voucher counted twice, nobody paid for more
//! than was used, and a node's death cost the operator no more than what was not yet reported.
#![allow(clippy::unwrap_used)]

mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ledger_postgres::{Options, Postgres};
use metering::ledger::{
    Ceiling, Command, Conditions, CreditLine, Cursor, Entry, EntryId, LedgerError, Open, Outcome, Refusal,
};
use metering::{LeaseId, Ledger, Msat, Rates, Report, Service, SessionId, Usage, Voucher, meter};

const RATES: Rates = Rates {
    out: 50,
    in_: 0,
    second: 8,
};
/// How far below zero an account may go, and all of them on one word.
const LINE: u64 = 300;
const WORD: u64 = 500;
const NODES: usize = 3;
const STEPS: usize = 90;
/// Seeds of a default run; `MILLIWAY_SEEDS=FIRST..LAST` sweeps.
const SEEDS: std::ops::Range<u64> = 0..5;

/// SplitMix64: a seed is a history.
struct Luck(u64);

impl Luck {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % limit
    }
}

/// A session on a node: what it used, and what of that the ledger was told.
struct Meter {
    node: usize,
    account: String,
    granted: Msat,
    report: Report,
    /// The ledger was told so much.
    told: Usage,
}

impl Meter {
    fn debit(usage: &Usage) -> Msat {
        meter::closing(usage.owed(&RATES))
    }
}

struct World {
    seed: u64,
    luck: Luck,
    url: String,
    nodes: Vec<Option<Postgres>>,
    /// Stands still: it neither beats nor hears.
    frozen_until: [Duration; NODES],
    meters: BTreeMap<LeaseId, Meter>,
    start: Instant,
    elapsed: Duration,
    unix_ns: u64,
    /// The reference: what each voucher added, and per account the most that its sessions can have cost.
    vouchers: BTreeMap<String, u64>,
    used: BTreeMap<String, u64>,
    sessions: u64,
    /// Used, and never reported by a node that died.
    lost: u64,
    /// What a sink of usage records was given, each entry once, in the order in which it first came.
    delivered: Vec<(EntryId, Entry)>,
    seen: BTreeSet<EntryId>,
    /// What each node has delivered and not noted yet.
    noted: [Option<Cursor>; NODES],
}

impl World {
    fn new(seed: u64) -> Self {
        let url = server::fresh();
        let nodes = (0..NODES)
            .map(|place| {
                Some(
                    Postgres::open(&url, Options::new(format!("node-{place}")), 1)
                        .unwrap()
                        .0,
                )
            })
            .collect();
        Self {
            seed,
            luck: Luck(seed),
            url,
            nodes,
            frozen_until: [Duration::ZERO; NODES],
            meters: BTreeMap::new(),
            start: Instant::now(),
            elapsed: Duration::ZERO,
            unix_ns: 1_700_000_000_000_000_000,
            vouchers: BTreeMap::new(),
            used: BTreeMap::new(),
            sessions: 0,
            lost: 0,
            delivered: Vec::new(),
            seen: BTreeSet::new(),
            noted: [const { None }; NODES],
        }
    }

    /// A node notes what it delivered before, which is late by any number of steps, or delivers more; or neither.
    fn deliver(&mut self) {
        let (place, most) = (
            self.luck.below(NODES as u64) as usize,
            1 + self.luck.below(8) as usize,
        );
        let Some(books) = &mut self.nodes[place] else {
            return;
        };
        if let Some(cursor) = self.noted[place].take() {
            books.sent("webhook", &cursor).unwrap();
        } else if let Some(unsent) = books.unsent("webhook", most).unwrap() {
            let mut cursor = unsent.cursor;
            for leaving in unsent.entries {
                cursor.pass(leaving.id);
                if self.seen.insert(leaving.id) {
                    self.delivered.push((leaving.id, leaving.entry));
                }
            }
            self.noted[place] = Some(cursor);
        }
    }

    fn is_delivered(&self) -> bool {
        let books = self.nodes.iter().flatten().next().unwrap();
        books
            .sinks()
            .unwrap()
            .first()
            .is_some_and(|sink| sink.behind == 0)
    }

    /// Whatever happened: every entry of every journal came out, and each account's in the order of their numbers.
    fn nothing_was_left_out(&mut self) {
        // Who held the sink may be presumed dead by now: in the end somebody takes it.
        for _ in 0..100_000 {
            if self.noted.iter().all(Option::is_none) && self.is_delivered() {
                break;
            }
            self.deliver();
        }
        let books = self.nodes.iter().flatten().next().unwrap();
        let journal: BTreeSet<EntryId> = books
            .journal(None, usize::MAX)
            .unwrap()
            .into_iter()
            .map(|(id, _)| id)
            .collect();
        assert_eq!(self.seen, journal, "seed {}", self.seed);
        let mut numbers: BTreeMap<&str, u64> = BTreeMap::new();
        for (id, entry) in &self.delivered {
            if let Some(number) = entry.number {
                let last = numbers.entry(entry.account.as_str()).or_default();
                assert_eq!(number, *last + 1, "seed {}: {id}", self.seed);
                *last = number;
            }
        }
    }

    /// Applies on a node that is up; a fenced one takes its seat anew and loses its sessions.
    fn apply(&mut self, place: usize, batch: &[Command]) -> Vec<Result<Outcome, Refusal>> {
        let Some(books) = &mut self.nodes[place] else {
            return Vec::new();
        };
        match books.apply(batch, self.unix_ns) {
            Ok(results) => results,
            Err(LedgerError::Fenced) => {
                self.return_from_the_dead(place);
                Vec::new()
            }
            Err(error) => panic!("seed {}: {error}", self.seed),
        }
    }

    fn return_from_the_dead(&mut self, place: usize) {
        let seat = self.nodes[place].as_ref().unwrap().seat();
        let options = Options::new(format!("node-{place}"));
        let books = Postgres::reopen(&self.url, options, &seat).unwrap();
        let open = books.open_leases().unwrap();
        self.nodes[place] = Some(books);
        let gone: Vec<LeaseId> = self
            .meters
            .iter()
            .filter(|(id, meter)| meter.node == place && !open.contains(id))
            .map(|(id, _)| *id)
            .collect();
        // They still report once more, into the memo account.
        let late: Vec<Command> = gone
            .iter()
            .map(|id| Command::Report(self.meters[id].report))
            .collect();
        for result in self.apply(place, &late) {
            assert_eq!(result, Ok(Outcome::Ignored), "seed {}", self.seed);
        }
        gone.iter().for_each(|id| self.bury(*id));
    }

    /// A session whose end the ledger did not hear of.
    fn bury(&mut self, id: LeaseId) {
        let meter = self.meters.remove(&id).unwrap();
        let (used, told) = (Meter::debit(&meter.report.usage), Meter::debit(&meter.told));
        self.lost += used.saturating_sub(told).get() + 1;
        *self.used.entry(meter.account).or_default() += used.get();
    }

    fn step(&mut self) {
        let place = self.luck.below(NODES as u64) as usize;
        let account = format!("did:key:z6Mk{}", self.luck.below(4));
        match self.luck.below(100) {
            0..15 => {
                let jti = format!("v{}", self.luck.below(40));
                let msat = 500 + jti.len() as u64 * 100;
                // A voucher names its account; whoever shows it again, it is the same.
                let account = format!("did:key:z6Mk{}", jti.len() % 4);
                let voucher = Voucher {
                    iss: "did:key:z6MkIssuer".into(),
                    jti: jti.clone(),
                    sub: account.clone(),
                    payer: None,
                    aud: "did:key:z6MkRelay".into(),
                    balance: Msat::new(msat),
                    account: account.as_str().into(),
                    refundable: true,
                };
                if let [Ok(Outcome::Credited(credited))] = self.apply(place, &[Command::Credit(voucher)])[..]
                {
                    let known = self.vouchers.insert(jti, msat).is_some();
                    assert_eq!(credited.repeated, known, "seed {}", self.seed);
                }
            }
            15..30 => self.open(place, account),
            30..70 => self.report(),
            70..80 => self.settle(),
            80..84 => {
                // Killed, and started again: it settles what it had reported.
                let gone: Vec<LeaseId> = self.of(place);
                gone.into_iter().for_each(|id| self.bury(id));
                self.noted[place] = None;
                self.nodes[place] = None;
                let options = Options::new(format!("node-{place}"));
                self.nodes[place] = Some(Postgres::open(&self.url, options, self.unix_ns).unwrap().0);
            }
            84..88 => self.frozen_until[place] = self.elapsed + Duration::from_secs(20 + self.luck.below(80)),
            88..90 => {
                self.unix_ns = self
                    .unix_ns
                    .saturating_add_signed(self.luck.below(7_200) as i64 * 1_000_000_000 - 3_600_000_000_000)
            }
            _ => {
                let seconds = 1 + self.luck.below(15);
                self.pass(Duration::from_secs(seconds));
            }
        }
    }

    fn of(&self, place: usize) -> Vec<LeaseId> {
        let meters = self.meters.iter().filter(|(_, meter)| meter.node == place);
        meters.map(|(id, _)| *id).collect()
    }

    fn open(&mut self, place: usize, account: String) {
        self.sessions += 1;
        let session = SessionId::new(self.sessions);
        let open = Open {
            session,
            account: account.as_str().into(),
            voucher: None,
            service: Service::Sfu,
            tariff: "sfu-1".into(),
            rates: RATES,
            want: Msat::new(400),
            minimum: Msat::new(42),
            cap: None,
            conditions: Conditions {
                // Every third session comes with somebody's word; clocks jump by more than it holds.
                credit: self.sessions.is_multiple_of(3).then(|| CreditLine {
                    msat: Msat::new(LINE),
                    within: Ceiling {
                        name: format!("credit {}", self.sessions % 2),
                        max: Msat::new(WORD),
                        until: Ceiling::LASTING,
                    },
                    until: self.unix_ns / 1_000_000_000 + 600,
                }),
                ..Conditions::default()
            },
        };
        if let [Ok(Outcome::Opened { lease, granted, .. })] =
            self.apply(place, &[Command::Open(Box::new(open))])[..]
        {
            let report = Report {
                lease,
                session,
                epoch: 0,
                sequence: 0,
                segment: 0,
                usage: Usage::default(),
                granted,
                exhausted: false,
                renew: false,
                closed: false,
                held: false,
                last: false,
            };
            let told = Usage::default();
            self.meters.insert(
                lease,
                Meter {
                    node: place,
                    account,
                    granted,
                    report,
                    told,
                },
            );
        }
    }

    fn pick(&mut self) -> Option<LeaseId> {
        let count = self.meters.len() as u64;
        let index = (count > 0).then(|| self.luck.below(count) as usize)?;
        self.meters.keys().nth(index).copied()
    }

    /// Uses something within the lease, and reports: or the report is lost, comes twice, or after a later one.
    fn report(&mut self) {
        let Some(id) = self.pick() else { return };
        let (bytes, fate) = (self.luck.below(2_000_000), self.luck.below(10));
        let meter = self.meters.get_mut(&id).unwrap();
        let before = meter.report;
        let mut usage = meter.report.usage;
        usage.bytes_out += bytes;
        usage.nanoseconds += 1_000_000_000;
        if Meter::debit(&usage) <= meter.granted {
            meter.report.usage = usage;
        }
        meter.report.sequence += 1;
        let (place, report) = (meter.node, meter.report);
        let batch = match fate {
            0 | 1 => return,
            2 => vec![Command::Report(report), Command::Report(report)],
            3 => vec![Command::Report(report), Command::Report(before)],
            _ => vec![Command::Report(report)],
        };
        if !self.apply(place, &batch).is_empty()
            && let Some(meter) = self.meters.get_mut(&id)
        {
            meter.told = report.usage;
        }
    }

    fn settle(&mut self) {
        let Some(id) = self.pick() else { return };
        let meter = &self.meters[&id];
        let (place, account) = (meter.node, meter.account.clone());
        let report = Report {
            sequence: meter.report.sequence + 1,
            closed: true,
            last: true,
            ..meter.report
        };
        let owed = Meter::debit(&report.usage);
        let settle = Command::Settle {
            report,
            reason: "bye".into(),
        };
        if let [Ok(outcome)] = &self.apply(place, &[settle])[..] {
            let Outcome::Settled { earned, uncollected } = outcome else {
                panic!("seed {}: {outcome:?}", self.seed);
            };
            assert_eq!((*earned, *uncollected), (owed, Msat::ZERO), "seed {}", self.seed);
            self.meters.remove(&id);
            *self.used.entry(account).or_default() += owed.get();
        }
    }

    /// Time passes in seconds, in which nodes that do not stand still look at each other.
    fn pass(&mut self, time: Duration) {
        for _ in 0..time.as_secs() {
            self.elapsed += Duration::from_secs(1);
            self.unix_ns = self.unix_ns.saturating_add(1_000_000_000);
            for place in 0..NODES {
                if self.frozen_until[place] > self.elapsed {
                    continue;
                }
                let now = self.start + self.elapsed;
                let Some(books) = &mut self.nodes[place] else {
                    continue;
                };
                match books.watch(&[], now, self.unix_ns) {
                    Ok(_) => {}
                    Err(LedgerError::Fenced) => self.return_from_the_dead(place),
                    Err(error) => panic!("seed {}: {error}", self.seed),
                }
            }
        }
    }

    fn audit(&self) {
        let books = self.nodes.iter().flatten().next().unwrap();
        let proof = books.verify();
        let proof = proof.unwrap_or_else(|fault| panic!("seed {}: {fault}", self.seed));
        assert_eq!(
            proof.totals.issued.get(),
            self.vouchers.values().sum::<u64>(),
            "seed {}",
            self.seed
        );
        // What is owed on a word is what is counted on it: the proof says so. How much it is stands here.
        let mut on_word: BTreeMap<String, u64> = BTreeMap::new();
        for account in books.accounts().unwrap() {
            assert!(
                account.owed <= Msat::new(LINE),
                "seed {}: past its line",
                self.seed
            );
            if let Some(line) = account.credit {
                *on_word.entry(line.within.name).or_default() += account.owed.get();
            }
        }
        assert!(
            on_word.values().all(|owed| *owed <= WORD),
            "seed {}: {on_word:?}",
            self.seed
        );
    }
}

fn history(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
        world.deliver();
        world.audit();
    }
    // Everybody lives again, and everything ends.
    world.frozen_until = [Duration::ZERO; NODES];
    world.pass(Duration::from_secs(1));
    while !world.meters.is_empty() {
        world.settle();
    }
    world.audit();
    world.nothing_was_left_out();
    let books = world.nodes[0].as_ref().unwrap();
    let (mut spent, mut used) = (0, 0);
    for account in books.accounts().unwrap() {
        let most = world
            .used
            .get(account.account.as_str())
            .copied()
            .unwrap_or_default();
        assert!(
            account.spent.get() <= most,
            "seed {seed}: {:?} paid for more than it used",
            account.account
        );
        assert_eq!(account.reserved, Msat::ZERO, "seed {seed}");
        assert_eq!(account.live_sessions, 0, "seed {seed}");
        spent += account.spent.get();
        used += most;
    }
    assert!(
        used - spent <= world.lost,
        "seed {seed}: {spent} paid of {used}, only {} unreported",
        world.lost
    );
}

#[test]
fn histories_of_nodes_that_die_stall_and_come_back_cost_nobody_an_msat_too_much() {
    let seeds = match std::env::var("MILLIWAY_SEEDS") {
        Ok(range) => {
            let (first, last) = range.split_once("..").expect("MILLIWAY_SEEDS=FIRST..LAST");
            first.parse().unwrap()..last.parse().unwrap()
        }
        Err(_) => SEEDS,
    };
    for seed in seeds {
        history(seed);
    }
}
