#![no_main]

#[path = "../src/turn.rs"]
mod turn;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| turn::turn(bytes));
