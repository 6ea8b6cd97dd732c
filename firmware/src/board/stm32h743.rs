//! ST STM32H743 (Nucleo-H743ZI): Cortex-M7 at 400 MHz. Sensors at I2C 1: SCL is PB8, SDA is PB9. Log through RTT.

use defmt_rtt as _;
use embassy_stm32::i2c::{self, I2c as Bus};
use embassy_stm32::rcc::{
    AHBPrescaler, APBPrescaler, HSIPrescaler, Pll, PllDiv, PllMul, PllPreDiv, PllSource, Sysclk, VoltageScale,
};
use embedded_hal::i2c::I2c;

/// Name of the board's costs in an image.
pub const TARGET: &str = "stm32h743 at 400 MHz, cycles";
/// Cycles in a second.
pub const TICKS_PER_SECOND: u32 = 400_000_000;

/// The bus where sensors are, at 100 kHz. Starts the PLL: 64 MHz / 4 · 50 / 2; call it once.
#[must_use]
pub fn bus() -> impl I2c {
    let mut config = embassy_stm32::Config::default();
    config.rcc.hsi = Some(HSIPrescaler::DIV1);
    config.rcc.pll1 = Some(Pll {
        source: PllSource::HSI,
        prediv: PllPreDiv::DIV4,
        mul: PllMul::MUL50,
        fracn: None,
        divp: Some(PllDiv::DIV2),
        divq: None,
        divr: None,
    });
    config.rcc.sys = Sysclk::PLL1_P;
    config.rcc.ahb_pre = AHBPrescaler::DIV2;
    config.rcc.apb1_pre = APBPrescaler::DIV2;
    config.rcc.apb2_pre = APBPrescaler::DIV2;
    config.rcc.apb3_pre = APBPrescaler::DIV2;
    config.rcc.apb4_pre = APBPrescaler::DIV2;
    config.rcc.voltage_scale = VoltageScale::Scale1;
    let chip = embassy_stm32::init(config);
    Bus::new_blocking(chip.I2C1, chip.PB8, chip.PB9, i2c::Config::default())
}
