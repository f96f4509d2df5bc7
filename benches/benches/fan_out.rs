//! The SFU core on one frame of six packets of 1,100 bytes, to 1, 10, 100 and 1,000 subscribers: admitted, decrypted once,
//! rewritten, charged and sealed for each, up to the sends that are ready for the kernel. Per packet sent.

#![allow(missing_docs, reason = "criterion's macros write the functions")]

use std::time::{Duration, Instant};

use benches::call::Call;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const PACKETS: usize = 6;
const PAYLOAD: usize = 1_100;

fn fan_out(c: &mut Criterion) {
    let mut group = c.benchmark_group("fan-out of a frame");
    group.sample_size(10);
    group.measurement_time(Duration::from_secs(3));
    for subscribers in [1, 10, 100, 1_000] {
        group.throughput(Throughput::Elements((PACKETS * subscribers) as u64));
        group.bench_function(BenchmarkId::from_parameter(subscribers), |b| {
            let mut call = Call::new(subscribers);
            for _ in 0..10 {
                let mut frame = call.frame(PACKETS, PAYLOAD);
                call.deliver(&mut frame);
            }
            b.iter_custom(|iterations| {
                let mut measured = Duration::ZERO;
                for _ in 0..iterations {
                    let mut frame = call.frame(PACKETS, PAYLOAD);
                    let start = Instant::now();
                    let sent = call.forward(&mut frame);
                    measured += start.elapsed();
                    assert_eq!(
                        sent,
                        (PACKETS * subscribers) as u64,
                        "every packet to every subscriber"
                    );
                }
                measured
            })
        });
    }
    group.finish();
}

criterion_group!(benches, fan_out);
criterion_main!(benches);
