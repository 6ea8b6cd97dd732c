//! Analog Devices ADM1272: the supply at a hot-swap controller, over PMBus (datasheet rev. E, "direct format").

use embedded_hal::i2c::I2c;

/// PMBus command READ_VIN.
const READ_VIN: u8 = 0x88;
/// Coefficient *m* of a voltage in the range of 100 V; *b* is 0 and *R* is -2: `V = code · 100 / m`.
const M: u32 = 4062;

/// A supply monitor at an address of seven bits.
#[derive(Clone, Copy, Debug)]
pub struct Adm1272 {
    /// Address: 0x10 to 0x1f by the pins ADR1 and ADR2.
    pub address: u8,
}

impl Adm1272 {
    /// Most that twelve bits can say, millivolts. What is above is no reading.
    pub const MOST: u32 = 4095 * 100_000 / M;

    /// Supply in millivolts, 0 to [`Self::MOST`]; a step is 24.6. The monitor is in its range of 100 V, as after power-on.
    ///
    /// # Errors
    /// Those of the bus.
    pub fn millivolts<I: I2c>(self, bus: &mut I) -> Result<u32, I::Error> {
        let mut bytes = [0; 2];
        bus.write_read(self.address, &[READ_VIN], &mut bytes)?;
        Ok(u32::from(u16::from_le_bytes(bytes)) * 100_000 / M)
    }
}

#[cfg(test)]
mod tests {
    use super::Adm1272;
    use embedded_hal_mock::eh1::i2c::{Mock, Transaction};

    #[test]
    fn a_code_is_volts_by_the_coefficients() {
        for (code, millivolts) in [(0u16, 0), (975, 24_002), (1950, 48_005), (4095, 100_812)] {
            let mut bus = Mock::new(&[Transaction::write_read(0x10, [0x88].into(), code.to_le_bytes().into())]);
            assert_eq!(Adm1272 { address: 0x10 }.millivolts(&mut bus), Ok(millivolts));
            bus.done();
        }
    }
}
