//! The fuzzers' committed seeds, replayed: each target's function over its own seeds and over all the others'.

#[allow(
    unreachable_pub,
    reason = "public to the fuzz targets, which are another crate"
)]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

use std::fs;
use std::path::Path;

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 6] = [
    ("stun", targets::stun),
    ("channel_data", targets::channel_data),
    ("stream", targets::stream),
    ("rtp", targets::rtp),
    ("rtcp", targets::rtcp),
    ("demux", targets::demux),
];

#[test]
fn every_seed_passes_through_every_target() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus-seeds");
    for (name, _) in TARGETS {
        let mut count = 0;
        for entry in fs::read_dir(seeds.join(name)).expect("a folder of seeds for each target") {
            let path = entry.expect("a readable folder").path();
            let bytes = fs::read(&path).expect("a readable seed");
            count += 1;
            for (_, target) in TARGETS {
                target(&bytes);
                // Every cut and a flipped bit in every byte: cheap, and it finds what a lucky seed hides.
                for at in 0..bytes.len() {
                    target(&bytes[..at]);
                    let mut damaged = bytes.clone();
                    damaged[at] ^= 1 << (at % 8);
                    target(&damaged);
                }
            }
        }
        assert!(count > 0, "no seeds for {name}");
    }
}
