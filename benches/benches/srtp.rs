//! SRTP of one packet by each profile: opened into a slot, and sealed out of it under 200 keys in turn, as a
//! broadcast does.

#![allow(missing_docs, reason = "criterion's macros write the functions")]

use std::hint::black_box;

use benches::keys::{PROFILES, opener, sealer};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sfu::srtp::Sealer;
use wire::rtp::{FIXED_HEADER_LEN, Header};

const KEYS: usize = 200;
fn srtp(c: &mut Criterion) {
    for size in [100, 1_200] {
        let mut group = c.benchmark_group(format!("srtp {size} B"));
        group.throughput(Throughput::Bytes(size as u64));
        let payload = vec![0x5A; size];
        for profile in PROFILES {
            let name = format!("{profile:?}");
            let header = Header {
                payload_type: 96,
                ssrc: 42,
                ..Header::default()
            }
            .to_bytes();
            let mut packet = vec![0; FIXED_HEADER_LEN + size + profile.tag_length()];
            packet[..FIXED_HEADER_LEN].copy_from_slice(&header);
            group.bench_function(BenchmarkId::new("seal, 200 keys in turn", &name), |b| {
                let sealers: Vec<Sealer> = (0..KEYS).map(|subscriber| sealer(profile, subscriber)).collect();
                let mut index = 0;
                b.iter(|| {
                    index += 1;
                    let sealer = &sealers[index as usize % KEYS];
                    sealer.seal(
                        black_box(&mut packet),
                        FIXED_HEADER_LEN,
                        index,
                        black_box(&payload),
                    );
                })
            });
            sealer(profile, 0).seal(&mut packet, FIXED_HEADER_LEN, 7, &payload);
            group.bench_function(BenchmarkId::new("open", &name), |b| {
                let opener = opener(profile, 0);
                let mut slot = vec![0; 2_048];
                b.iter(|| {
                    let opened = opener.open(black_box(&packet), FIXED_HEADER_LEN, 7, &mut slot);
                    assert_eq!(opened, Ok(size));
                })
            });
        }
        group.finish();
    }
}

criterion_group!(benches, srtp);
criterion_main!(benches);
