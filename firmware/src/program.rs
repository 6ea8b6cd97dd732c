//! What the program knows of itself: its sizes, its stack, and why it faulted.

use cortex_m::peripheral::SCB;

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

/// Stack that every binary declares; `cargo xtask sizes` keeps it free.
pub const STACK: u32 = 16 * 1024;

/// Whether no more stack was used than is declared; says how much.
#[must_use]
pub fn stack_holds() -> bool {
    let used = stack_high_water();
    defmt::info!("stack at most {} bytes of {}", used, STACK);
    used <= STACK
}

/// Why the core faulted: configurable fault status and bus fault address.
#[must_use]
pub fn fault_status() -> (u32, u32) {
    // SAFETY: two registers of the system control block that may be read at any time.
    unsafe { ((*SCB::PTR).cfsr.read(), (*SCB::PTR).bfar.read()) }
}
