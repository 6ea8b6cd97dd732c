//! What a board supplies: a clock, an I2C bus, and where the log goes. One file each, chosen by a feature.

#[cfg(any(feature = "nrf52840", feature = "stm32h743"))]
mod cycles;
#[cfg(feature = "emulated")]
mod emulated;
#[cfg(feature = "mps2-an386")]
mod mps2_an386;
#[cfg(feature = "mps3-an547")]
mod mps3_an547;
#[cfg(feature = "nrf52840")]
mod nrf52840;
#[cfg(feature = "emulated")]
mod sbcon;
#[cfg(feature = "stm32h743")]
mod stm32h743;

#[cfg(any(feature = "nrf52840", feature = "stm32h743"))]
pub use cycles::{Clock, end, say};
#[cfg(feature = "emulated")]
pub use emulated::{Clock, TICKS_PER_SECOND, end, say};
/// The kernels of the board's core.
#[cfg(not(feature = "mps3-an547"))]
pub use kernels::arch::Dsp as Kernels;
/// The kernels of the board's core.
#[cfg(feature = "mps3-an547")]
pub use kernels::arch::Mve as Kernels;
#[cfg(feature = "mps2-an386")]
pub use mps2_an386::{TARGET, bus};
#[cfg(feature = "mps2-an386")]
use mps2_an386::{TICKS_IN_INSTRUCTIONS, check_core};
#[cfg(feature = "mps3-an547")]
pub use mps3_an547::{TARGET, bus};
#[cfg(feature = "mps3-an547")]
use mps3_an547::{TICKS_IN_INSTRUCTIONS, check_core};
#[cfg(feature = "nrf52840")]
pub use nrf52840::{TARGET, TICKS_PER_SECOND, bus};
#[cfg(feature = "stm32h743")]
pub use stm32h743::{TARGET, TICKS_PER_SECOND, bus};
