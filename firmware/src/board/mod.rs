//! What a board supplies: a clock, an I2C bus, and where the log goes. One file each, chosen by a feature.

#[cfg(any(feature = "nrf52840", feature = "stm32h743"))]
mod cycles;
#[cfg(feature = "mps2-an386")]
mod mps2_an386;
#[cfg(feature = "nrf52840")]
mod nrf52840;
#[cfg(feature = "mps2-an386")]
mod sbcon;
#[cfg(feature = "stm32h743")]
mod stm32h743;

#[cfg(any(feature = "nrf52840", feature = "stm32h743"))]
pub use cycles::{Clock, end, say};
#[cfg(feature = "mps2-an386")]
pub use mps2_an386::{Clock, TARGET, TICKS_PER_SECOND, bus, end, say};
#[cfg(feature = "nrf52840")]
pub use nrf52840::{TARGET, TICKS_PER_SECOND, bus};
#[cfg(feature = "stm32h743")]
pub use stm32h743::{TARGET, TICKS_PER_SECOND, bus};
