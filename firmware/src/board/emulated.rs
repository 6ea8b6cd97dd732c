//! What boards in QEMU share: semihosting, and a clock that counts instructions.
//!
//! QEMU does not model CYCCNT; it reads 0. Under `-icount shift=6` SysTick is exact: an instruction takes 64 ns.

use core::sync::atomic::{AtomicU32, Ordering};

use cortex_m::Peripherals;
use cortex_m::peripheral::{SCB, SYST, syst::SystClkSource};
use cortex_m_rt::exception;
use cortex_m_semihosting::{debug, hio};
use defmt_semihosting as _;

use super::TICKS_IN_INSTRUCTIONS;

/// Instructions in a second of virtual time.
pub const TICKS_PER_SECOND: u32 = 1_000_000_000 >> 6;

/// Says something, and numbers in hexadecimal, where the log may be the culprit.
pub fn say(what: &str, numbers: &[u32]) {
    let Ok(mut to) = hio::hstderr() else { return };
    // Where even that fails, nothing is left to say it to.
    let mut write = |text: &[u8]| to.write_all(text).unwrap_or_default();
    write(what.as_bytes());
    for &number in numbers {
        write(b" 0x");
        for nibble in (0..8).rev().map(|place| (number >> (4 * place) & 15) as u8) {
            write(&[if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble }]);
        }
    }
    write(b"\n");
}

/// Ends the emulator with code 0 or 1.
pub fn end(passed: bool) -> ! {
    debug::exit(if passed { debug::EXIT_SUCCESS } else { debug::EXIT_FAILURE });
    loop {
        cortex_m::asm::wfi();
    }
}

/// SysTick counts down over 24 bits.
const PERIOD: u32 = 1 << 24;

/// Periods of SysTick since [`Clock::start`].
static PERIODS: AtomicU32 = AtomicU32::new(0);

#[exception]
fn SysTick() {
    PERIODS.store(PERIODS.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

/// Counts instructions: SysTick, extended to 56 bits by its exception. The exception itself is counted too,
/// some 10 of 10.5 million instructions.
pub struct Clock {
    /// Ticks of an empty measurement.
    empty: u64,
}

impl Clock {
    /// Starts to count. Ends the program on a core that lacks instructions of the kernels.
    #[must_use]
    pub fn start(peripherals: Peripherals) -> Self {
        if !super::check_core(&peripherals) {
            say("this core lacks instructions that the kernels were compiled for", &[]);
            end(false)
        }
        let mut timer = peripherals.SYST;
        timer.set_clock_source(SystClkSource::Core);
        timer.set_reload(PERIOD - 1);
        timer.clear_current();
        timer.enable_interrupt();
        timer.enable_counter();
        // The first tick loads the counter.
        while SYST::get_current() == 0 {}
        let mut clock = Self { empty: 0 };
        clock.empty = (0..4).map(|_| clock.timed(|| ()).0).min().unwrap_or_default();
        clock
    }

    fn now() -> u64 {
        loop {
            let before = PERIODS.load(Ordering::Relaxed);
            let current = SYST::get_current();
            let settled = !SCB::is_pendst_pending();
            if settled && before == PERIODS.load(Ordering::Relaxed) {
                return u64::from(before) * u64::from(PERIOD) + u64::from((PERIOD - current) % PERIOD);
            }
        }
    }

    #[inline(never)]
    fn timed<R>(&self, work: impl FnOnce() -> R) -> (u64, R) {
        let start = Self::now();
        let result = work();
        (Self::now() - start, result)
    }

    /// Instructions since the clock was started.
    #[must_use]
    pub fn elapsed(&self) -> u64 {
        let (ticks, instructions) = TICKS_IN_INSTRUCTIONS;
        Self::now() * instructions / ticks
    }

    /// Instructions that `work` takes, and its result: a tick of this board is an instruction.
    pub fn ticks<R>(&self, work: impl FnOnce() -> R) -> (u64, R) {
        let (found, result) = self.timed(work);
        let (ticks, instructions) = TICKS_IN_INSTRUCTIONS;
        ((found.saturating_sub(self.empty) * instructions).div_ceil(ticks), result)
    }
}
