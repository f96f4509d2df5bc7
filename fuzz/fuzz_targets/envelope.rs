#![no_main]

#[path = "../src/asking.rs"]
mod asking;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| asking::envelope(bytes));
