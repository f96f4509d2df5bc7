#![no_main]

#[path = "../src/signalling.rs"]
mod signalling;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| signalling::sdp(bytes));
