//! Arm's SBCon: two wires of an I2C bus behind registers, moved bit by bit (Arm DUI 0224, serial bus interface).

use core::ptr;

use embedded_hal::i2c::{Error, ErrorKind, ErrorType, I2c, NoAcknowledgeSource, Operation};

/// Bits of both registers.
const CLOCK: u32 = 1;
const DATA: u32 = 2;

/// A bus with one master. Slaves that hold the clock are not waited for.
#[derive(Debug)]
pub struct SbCon {
    /// Write: releases the wires whose bits are one. Read: their levels.
    set: *mut u32,
    /// Write: pulls the wires whose bits are one low.
    clear: *mut u32,
}

/// Why a transfer ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nack(NoAcknowledgeSource);

impl Error for Nack {
    fn kind(&self) -> ErrorKind {
        ErrorKind::NoAcknowledge(self.0)
    }
}

impl SbCon {
    /// The controller whose registers are at `base`.
    ///
    /// # Safety
    /// `base` is the address of an SBCon that nothing else uses as long as this value lives.
    pub unsafe fn new(base: usize) -> Self {
        let mut bus =
            Self { set: ptr::with_exposed_provenance_mut(base), clear: ptr::with_exposed_provenance_mut(base + 4) };
        bus.wires(true, true);
        bus
    }

    /// Releases a wire, or pulls it low: data first where the clock is low, so that it only moves there.
    fn wire(&mut self, wire: u32, high: bool) {
        let register = if high { self.set } else { self.clear };
        // SAFETY: a register of the controller, by the promise of `new`.
        unsafe { register.write_volatile(wire) };
    }

    fn wires(&mut self, clock: bool, data: bool) {
        self.wire(DATA, data);
        self.wire(CLOCK, clock);
    }

    fn data(&self) -> bool {
        // SAFETY: a register of the controller, by the promise of `new`.
        unsafe { self.set.read_volatile() & DATA != 0 }
    }

    /// Data falls while the clock is high.
    fn start(&mut self) {
        self.wires(true, true);
        self.wire(DATA, false);
        self.wire(CLOCK, false);
    }

    /// Data rises while the clock is high.
    fn stop(&mut self) {
        self.wires(true, false);
        self.wire(DATA, true);
    }

    fn bit(&mut self, high: bool) -> bool {
        self.wires(true, high);
        let level = self.data();
        self.wire(CLOCK, false);
        level
    }

    /// Eight bits, the highest first; whether the slave acknowledged.
    fn send(&mut self, byte: u8) -> bool {
        for shift in (0..8).rev() {
            self.bit(byte >> shift & 1 == 1);
        }
        !self.bit(true)
    }

    fn receive(&mut self, last: bool) -> u8 {
        let byte = (0..8).fold(0, |byte, _| byte << 1 | u8::from(self.bit(true)));
        self.bit(last);
        byte
    }

    fn transfer(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), Nack> {
        let mut direction = None;
        for index in 0..operations.len() {
            let reads_on = matches!(operations.get(index + 1), Some(Operation::Read(_)));
            let Some(operation) = operations.get_mut(index) else { break };
            let reads = matches!(operation, Operation::Read(_));
            // Operations of one direction are one transfer; a change of direction is a repeated start.
            if direction.replace(reads) != Some(reads) {
                self.start();
                if !self.send(address << 1 | u8::from(reads)) {
                    return Err(Nack(NoAcknowledgeSource::Address));
                }
            }
            match operation {
                Operation::Write(bytes) => {
                    if !bytes.iter().all(|&byte| self.send(byte)) {
                        return Err(Nack(NoAcknowledgeSource::Data));
                    }
                }
                Operation::Read(bytes) => {
                    let last = bytes.len().wrapping_sub(1);
                    for (at, byte) in bytes.iter_mut().enumerate() {
                        *byte = self.receive(at == last && !reads_on);
                    }
                }
            }
        }
        Ok(())
    }
}

impl ErrorType for SbCon {
    type Error = Nack;
}

impl I2c for SbCon {
    fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), Nack> {
        let result = self.transfer(address, operations);
        self.stop();
        result
    }
}
