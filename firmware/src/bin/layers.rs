//! Every kernel against the naive reference on this core, then how many instructions a layer takes.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use firmware::board::{Clock, Kernels};
use firmware::exit;
use firmware::program::stack_holds;
use kernels::Isa;
use kernels::cases::{self, Case, layers};

/// Random convolutions beside the table.
const RANDOM: u64 = 300;

/// Cases that differ, of all.
fn compare(memory: &mut cases::Memory) -> bool {
    let (mut count, mut failures) = (0u32, 0u32);
    let mut visit = |case: &Case| {
        count += 1;
        if let Err(failure) = cases::run(Kernels, case, memory) {
            failures += 1;
            defmt::error!("case {}: {}: {}", count, defmt::Debug2Format(&failure), defmt::Debug2Format(case));
        }
    };
    cases::table(&mut visit);
    cases::random(20_261_127, RANDOM, &mut visit);
    defmt::info!("compared {} cases with the reference: {} differ", count, failures);
    failures == 0
}

#[entry]
fn main() -> ! {
    static mut CASES: cases::Memory = cases::Memory::new();
    static mut LAYERS: layers::Memory = layers::Memory::new();
    let Some(peripherals) = cortex_m::Peripherals::take() else { exit(false) };
    let clock = Clock::start(peripherals);
    defmt::info!("kernels: {=str}", Kernels::NAME);
    let compared = compare(CASES);
    let measured = layers::report(Kernels, layers::LAYERS.iter(), LAYERS, |work| clock.ticks(work).0, &mut |line| {
        defmt::info!("{}", defmt::Display2Format(&line))
    });
    let passed = [compared, measured, stack_holds()];
    defmt::info!("{=str}", if passed == [true; 3] { "passed" } else { "FAILED" });
    exit(passed == [true; 3])
}
