//! The fuzzer's committed seeds for the TURN core, replayed with every cut and a flipped bit in every byte.

#[path = "../../fuzz/src/turn.rs"]
mod life;

use std::fs;
use std::path::Path;

#[test]
fn every_seed_leaves_no_port_and_no_lease_behind() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus-seeds/turn");
    let mut count = 0;
    for entry in fs::read_dir(seeds).expect("a folder of seeds") {
        let bytes = fs::read(entry.expect("a readable folder").path()).expect("a readable seed");
        count += 1;
        life::turn(&bytes);
        for at in 0..bytes.len() {
            life::turn(&bytes[..at]);
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            life::turn(&damaged);
        }
    }
    assert!(count > 0, "no seeds");
}
