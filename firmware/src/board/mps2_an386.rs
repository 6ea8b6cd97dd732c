//! Arm MPS2 with the AN386 image: Cortex-M4F at 25 MHz, 4 MiB of code memory, 4 MiB of data memory.
//!
//! QEMU does not model CYCCNT; it reads 0. Under `-icount shift=6` SysTick is exact: an instruction takes
//! 64 ns, a tick 40 ns, so 8 ticks are 5 instructions.

use core::sync::atomic::{AtomicU32, Ordering};

use cortex_m::peripheral::{SCB, SYST, syst::SystClkSource};
use cortex_m_rt::exception;

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
    pub fn start(mut timer: SYST) -> Self {
        timer.set_clock_source(SystClkSource::Core);
        timer.set_reload(PERIOD - 1);
        timer.clear_current();
        timer.enable_interrupt();
        timer.enable_counter();
        // The first tick loads the counter.
        while SYST::get_current() == 0 {}
        let mut clock = Self { empty: 0 };
        clock.empty = (0..4).map(|_| clock.ticks(|| ()).0).min().unwrap_or_default();
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
    fn ticks<R>(&self, work: impl FnOnce() -> R) -> (u64, R) {
        let start = Self::now();
        let result = work();
        (Self::now() - start, result)
    }

    /// Instructions that `work` takes, and its result.
    pub fn instructions<R>(&self, work: impl FnOnce() -> R) -> (u64, R) {
        let (ticks, result) = self.ticks(work);
        ((ticks.saturating_sub(self.empty) * NS_PER_TICK).div_ceil(NS_PER_INSTRUCTION), result)
    }
}

/// Bytes of the program, from the symbols of the linker script.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Vector table, code, constants and initial values.
    pub flash: u32,
    /// Of it code.
    pub code: u32,
    /// Static memory.
    pub ram: u32,
}

unsafe extern "C" {
    static __vector_table: u32;
    static __stext: u32;
    static __etext: u32;
    static __sidata: u32;
    static __sdata: u32;
    static __edata: u32;
    static __ebss: u32;
    static _stack_end: u32;
    static _stack_start: u32;
}

/// Sizes of this program.
#[must_use]
pub fn sizes() -> Sizes {
    let between = |from: *const u32, to: *const u32| (to.addr() - from.addr()) as u32;
    let initial = between(&raw const __sdata, &raw const __edata);
    Sizes {
        flash: between(&raw const __vector_table, &raw const __sidata) + initial,
        code: between(&raw const __stext, &raw const __etext),
        ram: between(&raw const __sdata, &raw const __ebss),
    }
}

/// Most bytes of stack that were in use since reset: start-up paints the stack, what still has the colour was
/// never written.
#[must_use]
pub fn stack_high_water() -> u32 {
    let (low, high) = (&raw const _stack_end, &raw const _stack_start);
    let words = (high.addr() - low.addr()) / size_of::<u32>();
    let untouched = (0..words)
        // SAFETY: aligned words of the stack's own memory, between the two ends that the linker script gives.
        .take_while(|&word| unsafe { low.add(word).read_volatile() } == cortex_m_rt::STACK_PAINT_VALUE)
        .count();
    ((words - untouched) * size_of::<u32>()) as u32
}

/// Why the core faulted: configurable fault status and bus fault address.
#[must_use]
pub fn fault_status() -> (u32, u32) {
    // SAFETY: two registers of the system control block that may be read at any time.
    unsafe { ((*SCB::PTR).cfsr.read(), (*SCB::PTR).bfar.read()) }
}
