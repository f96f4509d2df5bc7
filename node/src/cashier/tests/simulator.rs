//! Clients, nodes, their ledger and the network between them in one seeded world, beside a reference that knows what was
//! really relayed and what was really paid in.
//!
//! A seed is a history: letters are lost, repeated and overtake each other, nodes are killed with torn writes or stand
//! still until others presume them dead, disks fill up or are slow, the database is cut off or its answers get lost, wall
//! clocks jump, shards jam, operators freeze and refund. The nodes are real desks with real meters; either one with
//! its own file on a disk that fails on purpose, or three on one PostgreSQL.
//!
//! While it runs: the books prove, and a lease that the ledger took back is not spent from. In the end: no msat made or lost,
//! no voucher counted twice and none that was acknowledged forgotten, no byte relayed beyond what its lease was granted,
//! every session that ended in order billed for exactly what it relayed, and of every other at least what it had
//! relayed until a report interval before the trouble began. And a sink of usage records was given every entry of the journal, in
//! the order of its account.

mod node;
mod sink;
mod storage;

use super::*;
use node::{Letter, Node, Relayed};
use sink::Sink;
use storage::Storage;

/// How far below zero an account may go that somebody vouched for.
const LINE: u64 = 700;

/// Seeds of a default run; `MILLIWAY_SEEDS=FIRST..LAST` sweeps.
const SEEDS_OF_ONE: std::ops::Range<u64> = 0..40;
const SEEDS_OF_THREE: std::ops::Range<u64> = 10..16;

/// What happens in a history.
const STEPS: usize = 60;

/// How far the world goes at once.
const TICK: Duration = Duration::from_millis(100);

const ACCOUNTS: u64 = 4;
const VOUCHERS: u64 = 60;

/// SplitMix64: a seed is a history.
pub(super) struct Luck(u64);

impl Luck {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % limit
    }

    pub(super) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

fn account(number: u64) -> AccountId {
    AccountId::new(format!("did:key:z6Mk{}", number % ACCOUNTS))
}

/// A voucher names its account and amount; whoever shows it again, it is the same.
fn numbered(number: u64) -> Voucher {
    let account = account(number);
    Voucher {
        sub: account.as_str().into(),
        account,
        ..voucher(&format!("v{number}"), 200 + number * 7_919 % 9 * 900)
    }
}

struct World {
    seed: u64,
    luck: Luck,
    now: Instant,
    nodes: Vec<Node>,
    /// On their way, by when they arrive.
    letters: BTreeMap<(Instant, u64), (usize, Letter)>,
    posted: u64,
    /// Vouchers that were shown to anybody, and whether that was acknowledged.
    shown: BTreeMap<u64, bool>,
    sessions: u64,
    bytes_per_second: u64,
    sink: Sink,
}

impl World {
    fn new(seed: u64, storages: Vec<Storage>) -> Self {
        let now = Instant::now();
        let key = Arc::new(SigningKey::generate());
        let nodes = storages
            .into_iter()
            .enumerate()
            .map(|(place, storage)| Node::start(place, storage, key.clone(), now))
            .collect();
        Self {
            seed,
            luck: Luck(seed),
            now,
            nodes,
            letters: BTreeMap::new(),
            posted: 0,
            shown: BTreeMap::new(),
            sessions: 0,
            bytes_per_second: 200_000,
            sink: Sink::new(seed),
        }
    }

    /// Sends a letter: it may be lost, repeated, and overtaken by later ones.
    fn post(&mut self, to: usize, letter: Letter) {
        let copies = match self.luck.below(20) {
            0 => 0,
            1 | 2 => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let delay = Duration::from_millis(self.luck.below(3_000) * self.luck.below(2));
            self.posted += 1;
            self.letters
                .insert((self.now + delay, self.posted), (to, letter.clone()));
        }
    }

    fn some_node(&mut self) -> usize {
        self.luck.below(self.nodes.len() as u64) as usize
    }

    fn step(&mut self) {
        let place = self.some_node();
        match self.luck.below(100) {
            0..34 => {
                let ticks = 1 + self.luck.below(50);
                self.pass(ticks);
            }
            34..48 => {
                let voucher = self.luck.percent(80).then(|| self.luck.below(VOUCHERS));
                self.sessions += 1;
                let letter = Letter::Join {
                    account: voucher.unwrap_or_else(|| self.luck.below(ACCOUNTS)),
                    session: self.sessions,
                    voucher,
                };
                self.post(place, letter);
                if self.luck.percent(25)
                    && let Some(voucher) = voucher
                {
                    // The same token at once somewhere else, for a session of its own.
                    self.sessions += 1;
                    let elsewhere = self.some_node();
                    let session = self.sessions;
                    self.post(
                        elsewhere,
                        Letter::Join {
                            account: voucher,
                            session,
                            voucher: Some(voucher),
                        },
                    );
                }
            }
            48..56 => {
                self.sessions += 1;
                let (account, session) = (self.luck.below(ACCOUNTS), self.sessions);
                self.post(place, Letter::Allocate { account, session });
            }
            56..66 => {
                let voucher = self.luck.below(VOUCHERS);
                for _ in 0..1 + self.luck.below(3) {
                    let place = self.some_node();
                    self.post(place, Letter::TopUp { voucher });
                }
            }
            66..72 => {
                let which = self.luck.below(64) as usize;
                self.post(place, Letter::Leave { which });
            }
            72..77 => self.bytes_per_second = self.luck.below(3) * self.luck.below(1_500_000),
            77..81 => {
                let (down, luck) = (self.luck.below(30), self.luck.below(u64::MAX));
                self.nodes[place].kill(self.now + TICK * down as u32, luck);
            }
            81..85 => {
                let (time, operations) = (self.luck.below(600), self.luck.below(60) as usize);
                let losing_answers = self.luck.percent(40);
                self.nodes[place].cut_off(self.now + TICK * time as u32, operations, losing_answers);
            }
            85..88 => {
                let time = 5 + self.luck.below(50);
                self.nodes[place].slow_down(self.now + TICK * time as u32);
            }
            88..91 => {
                let time = 10 + self.luck.below(800);
                self.nodes[place].stand_still(self.now + TICK * time as u32);
            }
            91..94 => {
                let time = self.luck.below(60);
                self.nodes[place].jam(self.now + TICK * time as u32);
            }
            94..96 => {
                let seconds = self.luck.below(7_200) as i64 - 3_600;
                self.nodes[place].jump_clock(seconds);
            }
            96..98 => {
                let (who, frozen) = (self.luck.below(ACCOUNTS), self.luck.percent(40));
                self.nodes[place].operate(
                    metering::ledger::Command::Freeze {
                        account: account(who),
                        frozen,
                    },
                    self.now,
                );
            }
            _ => {
                let refund = metering::ledger::Command::Refund {
                    account: account(self.luck.below(ACCOUNTS)),
                    reason: "on request".into(),
                };
                self.nodes[place].operate(refund, self.now);
            }
        }
    }

    fn pass(&mut self, ticks: u64) {
        for _ in 0..ticks {
            self.now += TICK;
            while let Some(entry) = self.letters.first_entry()
                && entry.key().0 <= self.now
            {
                let (to, letter) = entry.remove();
                if let Letter::TopUp { voucher }
                | Letter::Join {
                    voucher: Some(voucher),
                    ..
                } = letter
                    && self.nodes[to].hears(self.now)
                {
                    self.shown.entry(voucher).or_default();
                }
                // Now and then a client is gone before it is answered.
                let gone = self.luck.percent(5);
                self.nodes[to].deliver(letter, gone, self.now);
            }
            for node in &mut self.nodes {
                node.tick(self.now, self.bytes_per_second, &mut self.luck);
                for voucher in node.acknowledged.drain(..) {
                    self.shown.insert(voucher, true);
                }
            }
        }
    }

    /// The books prove, whoever reads them, and nobody spends from a lease that was taken back.
    fn audit(&mut self) {
        for node in &mut self.nodes {
            if let Some(proof) = node.verify() {
                proof.unwrap_or_else(|fault| panic!("seed {}: {fault}", self.seed));
            }
            node.check_dead_leases(self.seed);
        }
    }

    /// Everybody is well again, and everything ends.
    fn finish(&mut self) {
        self.letters.clear();
        for node in &mut self.nodes {
            node.recover(self.now);
        }
        self.pass(40);
        self.bytes_per_second = 0;
        for node in &mut self.nodes {
            node.hang_up(self.now);
        }
        self.pass(450);
        self.audit();
        for (voucher, acknowledged) in self.shown.clone() {
            let credited = self.nodes[0].show(voucher, self.now).unwrap_or_else(|refused| {
                panic!(
                    "seed {}: voucher {voucher} was refused in the end: {refused}",
                    self.seed
                )
            });
            assert!(
                credited.repeated || !acknowledged,
                "seed {}: voucher {voucher} was acknowledged and then forgotten",
                self.seed
            );
        }
        self.audit();
        self.sink.finish(&mut self.nodes, self.now);
        self.audit_accounts();
        self.audit_sessions();
    }

    fn audit_accounts(&self) {
        let seed = self.seed;
        let books = self.nodes[0].books();
        let mut paid_in: BTreeMap<AccountId, u64> = BTreeMap::new();
        for voucher in self.shown.keys().map(|number| numbered(*number)) {
            *paid_in.entry(voucher.account).or_default() += voucher.balance.get();
        }
        let totals = books.totals().unwrap();
        assert_eq!(
            totals.issued.get(),
            paid_in.values().sum::<u64>(),
            "seed {seed}: issued"
        );
        assert_eq!(totals.reserved, Msat::ZERO, "seed {seed}: still set aside");
        for view in books.accounts().unwrap() {
            assert!(
                view.owed <= Msat::new(LINE),
                "seed {seed}: past its line: {view:?}"
            );
            assert_eq!(view.live_sessions, 0, "seed {seed}: {view:?}");
            let held = view.balance() + (view.spent.get() + view.refunded.get()) as i64;
            assert_eq!(
                held,
                paid_in.get(&view.account).copied().unwrap_or_default() as i64,
                "seed {seed}: {view:?}"
            );
        }
    }

    fn audit_sessions(&self) {
        let seed = self.seed;
        let books = self.nodes[0].books();
        let mut earned = 0;
        let mut billed: BTreeMap<LeaseId, (u64, u64)> = BTreeMap::new();
        for session in (1..=self.sessions).map(SessionId::new) {
            let Some(receipt) = books.receipt(session).unwrap() else {
                continue;
            };
            for segment in &receipt.segments {
                let terms = receipt
                    .terms
                    .iter()
                    .find(|terms| terms.tariff == segment.tariff)
                    .unwrap();
                let rates = terms.rates();
                let owed = meter::owed(&rates, segment.bytes_out, segment.bytes_in, segment.nanoseconds);
                let rated = [meter::running(owed), meter::closing(owed)];
                assert!(rated.contains(&segment.msat), "seed {seed}: {segment:?}");
                assert!(
                    segment.recovered || segment.msat == rated[1],
                    "seed {seed}: {segment:?}"
                );
                let sum = billed.entry(segment.lease).or_default();
                *sum = (sum.0 + segment.bytes_out, sum.1 + segment.bytes_in);
            }
            earned += receipt.msat.get();
        }
        let totals = books.totals().unwrap();
        assert_eq!(
            totals.earned.get(),
            earned,
            "seed {seed}: receipts add up to what was earned"
        );
        assert_eq!(
            totals.memo_accounts()["uncollected"],
            Msat::ZERO,
            "seed {seed}: unpaid use"
        );
        let relayed = self.nodes.iter().flat_map(|node| &node.relayed);
        for (id, page) in relayed {
            let Relayed {
                out,
                in_,
                rates,
                granted,
                in_order,
                floor,
                ..
            } = page;
            let bill = billed.get(id).copied().unwrap_or_default();
            let cost = meter::closing(meter::owed(rates, *out, *in_, 0));
            assert!(cost <= *granted, "seed {seed}: {id} relayed {cost} of {granted}");
            if *in_order {
                assert_eq!(bill, (*out, *in_), "seed {seed}: {id} ended in order");
            } else {
                assert!(
                    bill.0 <= *out && bill.1 <= *in_,
                    "seed {seed}: {id}: {bill:?} of {out}, {in_}"
                );
                assert!(
                    bill.0 >= floor.0 && bill.1 >= floor.1,
                    "seed {seed}: {id}: {bill:?} of {out}, {in_}, at least {floor:?} {page:?} {:?}",
                    books.lease(*id)
                );
            }
        }
    }
}

/// Every fourth session comes with somebody's word: its account may then go below zero by the line, and all that is owed
/// on the word stays within what it is good for. The proof at every audit compares the one with the other.
pub(super) fn on_credit(session: SessionId) -> Conditions {
    let line = CreditLine {
        msat: Msat::new(LINE),
        within: Ceiling {
            name: "credit scorer".to_owned(),
            max: Msat::new(3 * LINE / 2),
            until: Ceiling::LASTING,
        },
        until: u64::MAX >> 1,
    };
    Conditions {
        credit: session.get().is_multiple_of(4).then_some(line),
        ..Conditions::default()
    }
}

fn history(seed: u64, storages: Vec<Storage>, audited_every: usize) {
    let mut world = World::new(seed, storages);
    for step in 0..STEPS {
        world.step();
        world.sink.look(&mut world.nodes, world.now);
        if step % audited_every == 0 {
            world.audit();
        }
    }
    world.finish();
}

fn seeds(fixed: std::ops::Range<u64>) -> std::ops::Range<u64> {
    match std::env::var("MILLIWAY_SEEDS") {
        Ok(range) => {
            let (first, last) = range.split_once("..").expect("MILLIWAY_SEEDS=FIRST..LAST");
            first.parse().unwrap()..last.parse().unwrap()
        }
        Err(_) => fixed,
    }
}

#[test]
fn whatever_happens_to_a_node_with_books_of_its_own_the_bill_is_what_was_relayed() {
    for seed in seeds(SEEDS_OF_ONE) {
        history(seed, vec![Storage::disk()], 4);
    }
}

#[test]
fn whatever_happens_to_three_nodes_on_one_database_the_bill_is_what_was_relayed() {
    for seed in seeds(SEEDS_OF_THREE) {
        let url = server::fresh();
        history(
            seed,
            (0..3).map(|place| Storage::database(&url, place)).collect(),
            20,
        );
    }
}
