//! [`Clock`] of a real core: its cycle counter, 32 bits, extended.

use core::cell::Cell;

use cortex_m::Peripherals;
use cortex_m::peripheral::DWT;
use critical_section::Mutex;

/// The counter when it was read last, and the cycles until then.
static SEEN: Mutex<Cell<(u32, u64)>> = Mutex::new(Cell::new((0, 0)));

/// Counts cycles. Must be read at least once in 2^32 of them, which every cut of every frame does.
#[derive(Debug)]
pub struct Clock(());

impl Clock {
    /// Starts to count.
    #[must_use]
    pub fn start(mut peripherals: Peripherals) -> Self {
        peripherals.DCB.enable_trace();
        DWT::unlock();
        peripherals.DWT.enable_cycle_counter();
        critical_section::with(|section| SEEN.borrow(section).set((DWT::cycle_count(), 0)));
        Self(())
    }

    /// Cycles since the clock was started.
    #[must_use]
    pub fn elapsed(&self) -> u64 {
        critical_section::with(|section| {
            let seen = SEEN.borrow(section);
            let (before, cycles) = seen.get();
            let now = DWT::cycle_count();
            let cycles = cycles + u64::from(now.wrapping_sub(before));
            seen.set((now, cycles));
            cycles
        })
    }

    /// Cycles that `work` takes, and its result.
    pub fn ticks<R>(&self, work: impl FnOnce() -> R) -> (u64, R) {
        let start = self.elapsed();
        let result = work();
        (self.elapsed() - start, result)
    }
}

/// Ends the program: a board without an emulator has nowhere to go.
pub fn end(_: bool) -> ! {
    loop {
        cortex_m::asm::wfi();
    }
}

/// Says something, and numbers, through the log.
pub fn say(what: &str, numbers: &[u32]) {
    defmt::error!("{=str} {}", what, numbers);
}
