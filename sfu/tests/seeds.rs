//! The fuzzer's committed seeds for descriptions, replayed with every cut and a flipped bit in places.
#![allow(missing_docs)]

#[path = "../../fuzz/src/signalling.rs"]
mod signalling;

use std::fs;
use std::path::Path;

#[test]
fn every_seed_passes_through_negotiation_whole_cut_and_damaged() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus-seeds/sdp");
    let mut count = 0;
    for entry in fs::read_dir(seeds).expect("a folder of seeds") {
        let bytes = fs::read(entry.expect("a readable folder").path()).expect("a readable seed");
        count += 1;
        signalling::sdp(&bytes);
        for at in (0..bytes.len()).step_by(bytes.len() / 80 + 1) {
            signalling::sdp(&bytes[..at]);
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 7);
            signalling::sdp(&damaged);
        }
    }
    assert!(count > 0, "no seeds");
}
