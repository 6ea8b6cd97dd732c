//! TI TMP105, and its relatives TMP75 and LM75: temperature (datasheet SBOS280).

use embedded_hal::i2c::I2c;

/// Pointer of the temperature register.
const TEMPERATURE: u8 = 0x00;
/// Pointer of the configuration register.
const CONFIGURATION: u8 = 0x01;
/// R1 R0 = 11: twelve bits, 1/16 degree.
const TWELVE_BITS: u8 = 0x60;

/// A sensor at an address of seven bits.
#[derive(Clone, Copy, Debug)]
pub struct Tmp105 {
    /// Address: 0x48 to 0x4f by the pins A0 to A2.
    pub address: u8,
}

impl Tmp105 {
    /// Asks for twelve bits; after power-on it gives nine.
    ///
    /// # Errors
    /// Those of the bus: nobody answers, for one.
    pub fn configure<I: I2c>(self, bus: &mut I) -> Result<(), I::Error> {
        bus.write(self.address, &[CONFIGURATION, TWELVE_BITS])
    }

    /// Thousandths of a degree Celsius, -128,000 to 127,937.
    ///
    /// # Errors
    /// Those of the bus.
    pub fn millidegrees<I: I2c>(self, bus: &mut I) -> Result<i32, I::Error> {
        let mut bytes = [0; 2];
        bus.write_read(self.address, &[TEMPERATURE], &mut bytes)?;
        // Two's complement, left-justified: 1/256 degree.
        Ok(i32::from(i16::from_be_bytes(bytes)) * 1000 / 256)
    }
}

#[cfg(test)]
mod tests {
    use super::Tmp105;
    use embedded_hal::i2c::ErrorKind;
    use embedded_hal_mock::eh1::i2c::{Mock, Transaction};

    #[test]
    fn readings_are_those_of_the_datasheet() {
        // SBOS280, table 5: temperature data format.
        let cases =
            [(0x7f, 0xf0, 127_937), (0x19, 0x00, 25_000), (0x00, 0x40, 250), (0xff, 0xc0, -250), (0xc9, 0x00, -55_000)];
        for (high, low, millidegrees) in cases {
            let mut bus = Mock::new(&[Transaction::write_read(0x48, [0].into(), [high, low].into())]);
            assert_eq!(Tmp105 { address: 0x48 }.millidegrees(&mut bus), Ok(millidegrees));
            bus.done();
        }
    }

    #[test]
    fn nobody_at_the_address_is_an_error() {
        let silent = ErrorKind::NoAcknowledge(embedded_hal::i2c::NoAcknowledgeSource::Address);
        let mut bus = Mock::new(&[
            Transaction::write(0x48, [1, 0x60].into()),
            Transaction::write_read(0x48, [0].into(), [0, 0].into()).with_error(silent),
        ]);
        let sensor = Tmp105 { address: 0x48 };
        assert_eq!(sensor.configure(&mut bus), Ok(()));
        assert_eq!(sensor.millidegrees(&mut bus), Err(silent));
        bus.done();
    }
}
