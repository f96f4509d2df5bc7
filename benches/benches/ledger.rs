//! What a durable commit of the books costs, on the disk that the build folder is on: one voucher, and the reports of as
//! many leases as an interval may bring. Per commit.

#![allow(missing_docs, reason = "criterion's macros write the functions")]

use std::time::{Duration, Instant};

use benches::books::Books;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn ledger(c: &mut Criterion) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder to write to");
    let mut group = c.benchmark_group("ledger commit");
    group.sample_size(20);
    group.measurement_time(Duration::from_secs(3));
    group.bench_function("one voucher", |b| {
        let mut books = Books::open(&folder.path().join("vouchers.redb"));
        b.iter_custom(|commits| {
            let mut measured = Duration::ZERO;
            for _ in 0..commits {
                let batch = books.voucher();
                let start = Instant::now();
                books.commit(&batch);
                measured += start.elapsed();
            }
            measured
        })
    });
    for leases in [1, 10, 100, 1_000] {
        group.throughput(Throughput::Elements(leases as u64));
        group.bench_function(BenchmarkId::new("reports", leases), |b| {
            let mut books = Books::open(&folder.path().join(format!("reports-{leases}.redb")));
            books.open_leases(leases);
            b.iter_custom(|commits| {
                let mut measured = Duration::ZERO;
                for _ in 0..commits {
                    let batch = books.reports();
                    let start = Instant::now();
                    books.commit(&batch);
                    measured += start.elapsed();
                }
                measured
            })
        });
    }
    group.finish();
}

criterion_group!(benches, ledger);
criterion_main!(benches);
