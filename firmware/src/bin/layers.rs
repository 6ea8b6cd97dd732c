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

/// A line per layer: `layer|group|name|work|peer|instructions|times in each model`; whether outputs are right.
fn measure(clock: &Clock, memory: &mut layers::Memory) -> bool {
    let mut passed = true;
    let core = layers::CORES.iter().position(|&name| name == Kernels::NAME).unwrap_or_default();
    for layer in &layers::LAYERS {
        let group = defmt::Debug2Format(&layer.group);
        match layers::run(Kernels, layer, memory, |work| clock.ticks(work).0) {
            Ok((instructions, hash)) if hash == layer.expected => {
                let [first, second, third] = layer.times;
                defmt::info!(
                    "layer|{}|{=str}|{}|{}|{}|{}|{}|{}",
                    group,
                    layer.name,
                    layer.work(),
                    layer.peer[core],
                    instructions,
                    first,
                    second,
                    third
                );
            }
            Ok((_, hash)) => {
                defmt::error!("{=str}: output {:#010x}, not {:#010x}", layer.name, hash, layer.expected);
                passed = false;
            }
            Err(failure) => {
                defmt::error!("{=str}: {}", layer.name, defmt::Debug2Format(&failure));
                passed = false;
            }
        }
    }
    for (name, peer) in layers::MODELS {
        defmt::info!("model|{=str}|{}", name, peer[core]);
    }
    passed
}

#[entry]
fn main() -> ! {
    static mut CASES: cases::Memory = cases::Memory::new();
    static mut LAYERS: layers::Memory = layers::Memory::new();
    let Some(peripherals) = cortex_m::Peripherals::take() else { exit(false) };
    let clock = Clock::start(peripherals);
    defmt::info!("kernels: {=str}", Kernels::NAME);
    let passed = [compare(CASES), measure(&clock, LAYERS), stack_holds()];
    defmt::info!("{=str}", if passed == [true; 3] { "passed" } else { "FAILED" });
    exit(passed == [true; 3])
}
