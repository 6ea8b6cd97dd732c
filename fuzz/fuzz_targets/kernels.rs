//! `scripts/fuzz.sh kernels`: see `kernels::cases::run_any`.
#![no_main]

use kernels::cases::{Memory, run_any};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    run_any(bytes, &mut Memory::new());
});
