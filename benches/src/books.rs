//! Books with some accounts and leases in them, for the benches of a commit.

use std::path::Path;

use metering::ledger::{Command, Open, Outcome};
use metering::{Embedded, LeaseId, Ledger, Msat, Rates, Report, Service, SessionId, Usage, Voucher};

const RATES: Rates = Rates {
    out: 50,
    in_: 0,
    second: 8,
};

/// A minute after another in 2027; no commit asks what time it is.
const NOW: u64 = 1_800_000_000;

/// What each lease holds.
const GRANT: Msat = Msat::new(1_000_000);

/// Open books.
pub struct Books {
    ledger: Embedded,
    vouchers: u64,
    leases: Vec<LeaseId>,
    sequence: u64,
}

impl Books {
    /// New ones, in this file.
    pub fn open(path: &Path) -> Books {
        let (ledger, _) = Embedded::open(path, NOW).expect("a new file");
        Books {
            ledger,
            vouchers: 0,
            leases: Vec::new(),
            sequence: 0,
        }
    }

    /// A voucher that was not credited before, for an account of its own.
    pub fn voucher(&mut self) -> [Command; 1] {
        self.vouchers += 1;
        [Command::Credit(voucher(self.vouchers))]
    }

    /// One account and one open lease each.
    pub fn open_leases(&mut self, count: usize) {
        let opens: Vec<Command> = (1..=count as u64).map(open).collect();
        let outcomes = self.ledger.apply(&opens, NOW).expect("a disk that works");
        self.leases = outcomes
            .into_iter()
            .map(|outcome| match outcome {
                Ok(Outcome::Opened { lease, .. }) => lease,
                other => panic!("a lease should have been opened: {other:?}"),
            })
            .collect();
    }

    /// The next report of every lease, as they come once a second.
    pub fn reports(&mut self) -> Vec<Command> {
        self.sequence += 1;
        let sequence = self.sequence;
        let report = |(index, lease): (usize, &LeaseId)| {
            Command::Report(Report {
                lease: *lease,
                session: SessionId::new(index as u64 + 1),
                epoch: 0,
                sequence,
                segment: 0,
                usage: Usage {
                    bytes_out: sequence * 1_000,
                    bytes_in: 0,
                    nanoseconds: sequence * 1_000_000,
                    debit: Msat::ZERO,
                },
                granted: GRANT,
                exhausted: false,
                renew: false,
                closed: false,
                held: false,
                last: false,
            })
        };
        self.leases.iter().enumerate().map(report).collect()
    }

    /// One durable commit, in which nothing may be refused.
    pub fn commit(&mut self, batch: &[Command]) {
        let outcomes = self.ledger.apply(batch, NOW).expect("a disk that works");
        let is_done =
            |outcome: &Result<Outcome, _>| matches!(outcome, Ok(outcome) if *outcome != Outcome::Ignored);
        assert!(outcomes.iter().all(is_done), "{outcomes:?}");
    }
}

fn voucher(number: u64) -> Voucher {
    let holder = format!("did:key:z6MkHolder{number}");
    Voucher {
        iss: "did:key:z6MkIssuer".into(),
        jti: number.to_string(),
        sub: holder.clone(),
        payer: None,
        aud: "did:key:z6MkRelay".into(),
        balance: Msat::new(1_000_000_000),
        account: holder.as_str().into(),
        refundable: true,
    }
}

fn open(number: u64) -> Command {
    let voucher = voucher(number);
    Command::Open(Box::new(Open {
        session: SessionId::new(number),
        account: voucher.account.clone(),
        voucher: Some(voucher),
        service: Service::Sfu,
        tariff: "sfu-default".into(),
        rates: RATES,
        want: GRANT,
        minimum: Msat::ONE,
        cap: None,
        conditions: metering::ledger::Conditions::default(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_commit_of_the_bench_is_new_to_the_books() {
        let folder = tempfile::tempdir().unwrap();
        let mut books = Books::open(&folder.path().join("books.redb"));
        books.open_leases(3);
        for _ in 0..2 {
            let reports = books.reports();
            assert_eq!(reports.len(), 3);
            books.commit(&reports);
            books.vouchers += 1_000;
            let voucher = books.voucher();
            books.commit(&voucher);
        }
        assert!(books.ledger.verify().is_ok());
    }
}
