//! The layers of the networks of MLPerf Tiny, each once, between marks that a trace of instructions shows.
#![no_std]
#![no_main]

use core::hint::black_box;

use cortex_m_rt::entry;
use firmware::board::Kernels;
use firmware::exit;
use kernels::cases::layers::{self, LAYERS, Layer};

/// Where a trace begins to count, and where it ends.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn cycles_mark() {
    black_box(());
}

#[entry]
fn main() -> ! {
    static mut MEMORY: layers::Memory = layers::Memory::new();
    let marked = |work: &mut dyn FnMut()| {
        cycles_mark();
        work();
        cycles_mark();
        0
    };
    let of_tiny = |layer: &&Layer| layer.times[..2] != [0, 0];
    let passed = layers::report(Kernels, LAYERS.iter().filter(of_tiny), MEMORY, marked, &mut |line| {
        defmt::info!("{}", defmt::Display2Format(&line))
    });
    defmt::info!("{=str}", if passed { "passed" } else { "FAILED" });
    exit(passed)
}
