//! `scripts/fuzz.sh parse`: see `support::parse_any`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| support::parse_any(bytes));
