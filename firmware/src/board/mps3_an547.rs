//! Arm MPS3 with the AN547 image: Cortex-M55 at 32 MHz, with vectors (MVE). Code lies in the 512 KiB of ITCM, constants and the
//! image in external memory, data in the 512 KiB of DTCM.
//!
//! `cortex-m-rt` enables coprocessors 10 and 11 in CPACR before `main`, as the target has an FPU: they are the vector unit's
//! too (Armv8-M Architecture Reference Manual, CPACR). [`check_core`] sees that they are on, and that the unit is there.

use super::sbcon::SbCon;

/// Name of the board's costs in an image.
pub const TARGET: &str = "mps3-an547 in QEMU, instructions";
/// Ticks of SysTick in a number of instructions: 31.25 ns, where an instruction takes 64 ns.
pub(super) const TICKS_IN_INSTRUCTIONS: (u64, u64) = (256, 125);
/// The I2C bus of the second shield, for a secure core.
const SHIELD_I2C: usize = 0x5920_6000;

/// What the core must have that the kernels were compiled for: integer vectors, and the right to use them.
pub(super) fn check_core(peripherals: &cortex_m::Peripherals) -> bool {
    /// CP10 and CP11: full access.
    const FULL: u32 = 0b1111 << 20;
    let vectors = peripherals.FPU.mvfr[1].read() >> 8 & 0b1111;
    peripherals.SCB.cpacr.read() & FULL == FULL && vectors != 0
}

/// The bus where sensors are.
#[must_use]
pub fn bus() -> SbCon {
    // SAFETY: the memory map of the AN547 has an SBCon there (Arm DAI 0547, peripheral map), and nobody else drives it.
    unsafe { SbCon::new(SHIELD_I2C) }
}
