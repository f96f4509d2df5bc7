//! The fuzzers' committed seeds for tokens, envelopes and DIDs, replayed with every cut and a flipped bit in places.

#[path = "../../fuzz/src/asking.rs"]
mod asking;

use std::fs;
use std::path::Path;

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 3] = [
    ("token", asking::token),
    ("envelope", asking::envelope),
    ("did", asking::did),
];

#[test]
fn every_seed_passes_through_every_target() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus-seeds");
    for (name, own) in TARGETS {
        let mut count = 0;
        for entry in fs::read_dir(seeds.join(name)).expect("a folder of seeds for each target") {
            let bytes = fs::read(entry.expect("a readable folder").path()).expect("a readable seed");
            count += 1;
            for (_, target) in TARGETS {
                target(&bytes);
            }
            // Signing is slow in a debug build: about forty places a seed.
            for at in (0..bytes.len()).step_by(bytes.len() / 40 + 1) {
                own(&bytes[..at]);
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << (at % 8);
                own(&damaged);
            }
        }
        assert!(count > 0, "no seeds for {name}");
    }
}
