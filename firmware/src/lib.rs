//! Start-up, clock and reports of a test firmware.
//!
//! The log goes through defmt to the host's standard output; a panic and a fault, where defmt may be the culprit,
//! write plain text to standard error. Both end with exit code 1.
#![no_std]

pub mod board;

use core::panic::PanicInfo;

use cortex_m_rt::{ExceptionFrame, exception};
use cortex_m_semihosting::{debug, heprintln};
use defmt_semihosting as _;

/// Ends the emulator with code 0 or 1.
pub fn exit(passed: bool) -> ! {
    debug::exit(if passed { debug::EXIT_SUCCESS } else { debug::EXIT_FAILURE });
    loop {
        cortex_m::asm::wfi();
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    heprintln!("{}", info);
    exit(false)
}

// SAFETY: reached only by the core through the vector table; reads its own frame and ends the program.
#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    let (cause, address) = board::fault_status();
    heprintln!("hard fault at pc {:#010x}: CFSR {:#010x}, BFAR {:#010x}", frame.pc(), cause, address);
    exit(false)
}
