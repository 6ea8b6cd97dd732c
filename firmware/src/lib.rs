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
    // The place, not the message: that would bring all of `core::fmt`, 6 KiB for what is never said.
    if let Some(place) = info.location() {
        board::say(place.file(), &[place.line(), place.column()]);
    }
    exit(false)
}

// SAFETY: reached only by the core through the vector table; reads its own frame and ends the program.
#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    let (cause, address) = program::fault_status();
    board::say("hard fault: pc, CFSR, BFAR", &[frame.pc(), cause, address]);
    exit(false)
}
