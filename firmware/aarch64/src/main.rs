//! Every kernel against the naive reference on an AArch64 core, then how many instructions a layer takes. For QEMU's machine
//! `virt`, whose core decides which kernels run.
#![no_std]
#![no_main]

mod machine;

use core::fmt::Arguments;
use core::panic::PanicInfo;

use kernels::cases::{self, Case, layers};
use kernels::{Isa, Level, with_isa};
use machine::{Console, exit, instructions};

/// Random convolutions beside the table.
const RANDOM: u64 = 300;

static mut CASES: cases::Memory = cases::Memory::new();
static mut LAYERS: layers::LargeMemory = layers::LargeMemory::new();

/// Cases that differ, of all.
fn compare<I: Isa>(isa: I, memory: &mut cases::Memory, say: &mut dyn FnMut(Arguments<'_>)) -> bool {
    let (mut count, mut failures) = (0u32, 0u32);
    let mut visit = |case: &Case| {
        count += 1;
        if let Err(failure) = cases::run(isa, case, memory) {
            failures += 1;
            say(format_args!("case {count}: {failure:?}: {case:?}"));
        }
    };
    cases::table(&mut visit);
    cases::random(20_261_127, RANDOM, &mut visit);
    say(format_args!("compared {count} cases with the reference: {failures} differ"));
    failures == 0
}

/// The rest of the program, called once by the start-up code.
#[unsafe(no_mangle)]
extern "C" fn rust_main() -> ! {
    let console = Console::open();
    let mut say = |line: Arguments<'_>| console.say(line);
    let (cases, layers) = (&raw mut CASES, &raw mut LAYERS);
    // SAFETY: this function runs once, on the one core, and nothing else names the statics.
    let (cases, layers) = unsafe { (&mut *cases, &mut *layers) };
    let level = Level::best();
    say(format_args!("kernels: {}", level.name()));
    let empty = instructions(&mut || {});
    let passed = with_isa!(level, |isa| {
        let compared = compare(isa, cases, &mut say);
        let all = layers::LAYERS.iter().chain(&layers::DEIT);
        let measured = layers::report(isa, all, layers, |work| instructions(work).saturating_sub(empty), &mut say);
        compared && measured
    });
    say(format_args!("{}", if passed { "passed" } else { "FAILED" }));
    exit(passed)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    Console::open().say(format_args!("{info}"));
    exit(false)
}
