//! Nordic nRF52840: Cortex-M4F at 64 MHz. Sensors at TWI 0: SDA is P0.26, SCL is P0.27. Log through RTT.

use defmt_rtt as _;
use embassy_nrf::twim::{self, Twim};
use embassy_nrf::{bind_interrupts, peripherals};
use embedded_hal::i2c::I2c;

/// Name of the board's costs in an image.
pub const TARGET: &str = "nrf52840 at 64 MHz, cycles";
/// Cycles in a second.
pub const TICKS_PER_SECOND: u32 = 64_000_000;
/// A write goes through memory that the bus can read: the longest of the drivers has 2 bytes.
const WRITE_BYTES: usize = 16;

bind_interrupts!(struct Interrupts {
    TWISPI0 => twim::InterruptHandler<peripherals::TWISPI0>;
});

/// The bus where sensors are, at 100 kHz. Starts the high-frequency clock; call it once.
#[must_use]
pub fn bus() -> impl I2c {
    let chip = embassy_nrf::init(embassy_nrf::config::Config::default());
    let buffer: &'static mut [u8] = match cortex_m::singleton!(: [u8; WRITE_BYTES] = [0; WRITE_BYTES]) {
        Some(buffer) => buffer,
        None => &mut [],
    };
    Twim::new(chip.TWISPI0, Interrupts, chip.P0_26, chip.P0_27, twim::Config::default(), buffer)
}
