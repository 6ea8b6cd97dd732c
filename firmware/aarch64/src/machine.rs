//! Start-up, a clock that counts instructions, and a console: all that QEMU's machine `virt` needs.

use core::arch::{asm, global_asm};
use core::fmt::{Arguments, Write};

/// What the kernels and their tests need, and as much again.
const STACK_BYTES: usize = 1 << 20;

#[repr(C, align(16))]
struct Stack([u8; STACK_BYTES]);

#[unsafe(no_mangle)]
static mut STACK: Stack = Stack([0; STACK_BYTES]);

/// Translation of the first 512 GiB, a gigabyte each: the second one, memory, to itself. Without it all memory counts as that of
/// devices, where a word has to lie at a multiple of its size.
#[repr(C, align(4096))]
struct Table([u64; 512]);

#[unsafe(no_mangle)]
static TABLE: Table = {
    let mut entries = [0; 512];
    // Arm ARM, D8.3: a block, of attribute 0, inner shareable, accessed.
    entries[1] = 0x4000_0000 | 0b11 << 8 | 1 << 10 | 0b01;
    Table(entries)
};

// At entry QEMU leaves the core in EL1 with interrupts masked; memory that the program does not fill is 0.
global_asm!(
    ".global _start",
    "_start:",
    // Floating point and vectors, which start out trapped.
    "mov x0, #(3 << 20)",
    "msr cpacr_el1, x0",
    // Attribute 0 is memory that caches keep.
    "mov x0, #0xff",
    "msr mair_el1, x0",
    // 39 bits of addresses in pages of 4 KiB, tables in cached and shareable memory; no upper half.
    "ldr x0, =(25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 2 << 32)",
    "msr tcr_el1, x0",
    "adrp x0, TABLE",
    "add x0, x0, :lo12:TABLE",
    "msr ttbr0_el1, x0",
    "isb",
    // Translation and caches on.
    "mrs x0, sctlr_el1",
    "orr x0, x0, #1",
    "orr x0, x0, #(1 << 2)",
    "orr x0, x0, #(1 << 12)",
    "msr sctlr_el1, x0",
    "isb",
    "adrp x0, STACK",
    "add x0, x0, :lo12:STACK",
    "add sp, x0, #{stack}",
    "b rust_main",
    stack = const STACK_BYTES,
);

/// The emulator's clock counts on 2^6 ns an instruction.
const NANOSECONDS: u64 = 1 << 6;

/// Instructions of `work`, and those of the clock.
pub fn instructions(work: &mut dyn FnMut()) -> u64 {
    let start = ticks();
    work();
    let frequency: u64;
    let ticks = ticks() - start;
    // SAFETY: reads a register.
    unsafe { asm!("mrs {}, cntfrq_el0", out(reg) frequency, options(nomem, nostack, preserves_flags)) };
    ticks * (1_000_000_000 / frequency) / NANOSECONDS
}

fn ticks() -> u64 {
    let ticks: u64;
    // SAFETY: reads a register, not before what stands before it.
    unsafe { asm!("isb", "mrs {}, cntvct_el0", out(reg) ticks, options(nostack, preserves_flags)) };
    ticks
}

/// A call of the emulator (Arm's semihosting).
///
/// # Safety
/// `block` is what the operation takes.
unsafe fn call(operation: u64, block: *const u64) -> u64 {
    let result;
    // SAFETY: the emulator changes x0 and what the block says, as the caller promises.
    unsafe { asm!("hlt #0xf000", inout("x0") operation => result, in("x1") block, options(nostack)) };
    result
}

/// The emulator's standard output.
#[derive(Clone, Copy)]
pub struct Console(u64);

impl Console {
    /// Opens it.
    pub fn open() -> Self {
        // SYS_OPEN of the file that stands for the console, to write.
        let block = [c":tt".as_ptr().addr() as u64, 4, 3];
        // SAFETY: address of a string, mode, length of the string.
        Self(unsafe { call(1, block.as_ptr()) })
    }

    /// Writes a line.
    pub fn say(self, line: Arguments<'_>) {
        // Writing to the console cannot fail: what the emulator does not take is lost.
        let _ = Line { console: self, len: 0, bytes: [0; 512] }.write(line);
    }
}

/// A call for each piece of a line would take the emulator seconds.
struct Line {
    console: Console,
    len: usize,
    bytes: [u8; 512],
}

impl Line {
    fn write(mut self, line: Arguments<'_>) -> core::fmt::Result {
        writeln!(self, "{line}")?;
        self.flush();
        Ok(())
    }

    fn flush(&mut self) {
        let block = [self.console.0, self.bytes.as_ptr().addr() as u64, self.len as u64];
        // SAFETY: SYS_WRITE of a handle, an address and a length.
        unsafe { call(5, block.as_ptr()) };
        self.len = 0;
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for &byte in text.as_bytes() {
            if self.len == self.bytes.len() {
                self.flush();
            }
            self.bytes[self.len] = byte;
            self.len += 1;
        }
        Ok(())
    }
}

/// Ends the emulator with code 0 or 1.
pub fn exit(passed: bool) -> ! {
    // ADP_Stopped_ApplicationExit.
    let block = [0x2_0026, u64::from(!passed)];
    loop {
        // SAFETY: SYS_EXIT of a reason and a code.
        unsafe { call(0x18, block.as_ptr()) };
    }
}
