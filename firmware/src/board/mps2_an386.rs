//! Arm MPS2 with the AN386 image: Cortex-M4F at 25 MHz, 4 MiB of code memory, 4 MiB of data memory.
//!
//! QEMU does not model CYCCNT; it reads 0. Under `-icount shift=6` SysTick is exact: an instruction takes
//! 64 ns, a tick 40 ns, so 8 ticks are 5 instructions.

use core::fmt::Display;
use core::sync::atomic::{AtomicU32, Ordering};

use cortex_m::Peripherals;
use cortex_m::peripheral::{SCB, SYST, syst::SystClkSource};
use cortex_m_rt::exception;
use cortex_m_semihosting::{debug, heprintln};
use defmt_semihosting as _;

use super::sbcon::SbCon;

/// Name of the board's costs in an image.
pub const TARGET: &str = "mps2-an386 in QEMU, instructions";
/// Instructions in a second of virtual time.
pub const TICKS_PER_SECOND: u32 = (1_000_000_000 / NS_PER_INSTRUCTION) as u32;
/// The I2C bus of the second shield, the one that `bus=i2c` names in QEMU.
const SHIELD_I2C: usize = 0x4002_a000;

/// Says something where the log may be the culprit.
pub fn say(what: &dyn Display) {
    heprintln!("{}", what);
}

/// Ends the emulator with code 0 or 1.
pub fn end(passed: bool) -> ! {
    debug::exit(if passed { debug::EXIT_SUCCESS } else { debug::EXIT_FAILURE });
    loop {
        cortex_m::asm::wfi();
    }
}

/// The bus where sensors are.
#[must_use]
pub fn bus() -> SbCon {
    // SAFETY: the memory map of the AN386 has an SBCon there (Arm DAI 0386, table 3-5), and nobody else drives it.
    unsafe { SbCon::new(SHIELD_I2C) }
}

/// `-icount shift` that [`Clock`] counts on, as nanoseconds of an instruction.
const NS_PER_INSTRUCTION: u64 = 1 << 6;
/// Nanoseconds of a tick at 25 MHz.
const NS_PER_TICK: u64 = 40;
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
    /// Starts to count.
    #[must_use]
    pub fn start(peripherals: Peripherals) -> Self {
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
        Self::now() * NS_PER_TICK / NS_PER_INSTRUCTION
    }

    /// Instructions that `work` takes, and its result: a tick of this board is an instruction.
    pub fn ticks<R>(&self, work: impl FnOnce() -> R) -> (u64, R) {
        let (ticks, result) = self.timed(work);
        ((ticks.saturating_sub(self.empty) * NS_PER_TICK).div_ceil(NS_PER_INSTRUCTION), result)
    }
}
