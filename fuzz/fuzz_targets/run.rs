//! `scripts/fuzz.sh run`: see `support::run_any`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| support::run_any(bytes));
