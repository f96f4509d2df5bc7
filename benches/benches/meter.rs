//! What it costs to charge one packet before it leaves.

#![allow(missing_docs, reason = "criterion's macros write the functions")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use metering::{Allowance, Direction, LeaseId, Msat, Rates, SessionId};

fn charge(c: &mut Criterion) {
    let rates = Rates {
        out: 50,
        in_: 0,
        second: 8,
    };
    let start = Instant::now();
    c.bench_function("meter/charge a packet", |b| {
        let mut allowance = Allowance::new(LeaseId::new(1), SessionId::new(1), rates, Msat::MAX_BALANCE);
        let mut now = start;
        let mut packets = 0u64;
        b.iter(|| {
            packets += 1;
            // Granted again often enough that the lease never goes stale.
            if packets.is_multiple_of(1_024) {
                black_box(allowance.poll_report(now));
                allowance.grant(Msat::MAX_BALANCE);
            }
            now += Duration::from_micros(1);
            allowance.charge(Direction::ToClient, black_box(1_150), now)
        })
    });
}

criterion_group!(benches, charge);
criterion_main!(benches);
