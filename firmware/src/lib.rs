//! Start-up and reports of the firmware; what differs between boards is in [`board`].
//!
//! The log goes through defmt; a panic and a fault, where defmt may be the culprit, are said by the board. Under an
//! emulator both end with exit code 1.
#![no_std]

pub mod board;
#[cfg(not(feature = "reference"))]
pub mod carried;
pub mod program;

use core::panic::PanicInfo;

use cortex_m_rt::{ExceptionFrame, exception};

/// Ends the program: well, or not.
pub fn exit(passed: bool) -> ! {
    board::end(passed)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    board::say(info);
    exit(false)
}

// SAFETY: reached only by the core through the vector table; reads its own frame and ends the program.
#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    let (cause, address) = program::fault_status();
    let pc = frame.pc();
    board::say(&format_args!("hard fault at pc {pc:#010x}: CFSR {cause:#010x}, BFAR {address:#010x}"));
    exit(false)
}
