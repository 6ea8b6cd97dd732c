//! Arm MPS2 with the AN386 image: Cortex-M4F at 25 MHz, 4 MiB of code memory, 4 MiB of data memory; or with AN500, a Cortex-M7
//! with the same memory and buses.

use super::sbcon::SbCon;

/// Name of the board's costs in an image.
pub const TARGET: &str = match M7 {
    true => "mps2-an500 in QEMU, instructions",
    false => "mps2-an386 in QEMU, instructions",
};
const M7: bool = cfg!(feature = "mps2-an500");
/// Part number in CPUID (Arm DDI 0403, B3.2.3).
const PART: u32 = if M7 { 0xc27 } else { 0xc24 };
/// Ticks of SysTick in a number of instructions: 40 ns, where an instruction takes 64 ns.
pub(super) const TICKS_IN_INSTRUCTIONS: (u64, u64) = (8, 5);
/// The I2C bus of the second shield, the one that `bus=i2c` names in QEMU.
const SHIELD_I2C: usize = 0x4002_a000;

/// What the core must have that the kernels were compiled for.
pub(super) fn check_core(peripherals: &cortex_m::Peripherals) -> bool {
    // Both have the instructions of `dsp`; figures are said to be those of one.
    peripherals.CPUID.base.read() >> 4 & 0xfff == PART
}

/// The bus where sensors are.
#[must_use]
pub fn bus() -> SbCon {
    // SAFETY: the memory map of the AN386 has an SBCon there (Arm DAI 0386, table 3-5), and nobody else drives it.
    unsafe { SbCon::new(SHIELD_I2C) }
}
