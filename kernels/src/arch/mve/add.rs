//! Additions of 16 bits, four at a time. Of bytes the compiler makes as much of the portable body.

use core::arch::asm;

use crate::add::{Add, WORDS};

/// Adds all elements if they are of 16 bits, at even addresses; returns how many it did.
#[inline(always)]
pub(super) fn add(op: &Add, a: &[i8], b: &[i8], output: &mut [i8]) -> usize {
    let count = a.len().min(b.len()).min(output.len()) / 2;
    let even = (a.as_ptr().addr() | b.as_ptr().addr() | output.as_ptr().addr()) % 2 == 0;
    if op.elements != WORDS || !even {
        return 0;
    }
    let [first, second] = op.multiplier.map(i32::from);
    // SAFETY: each slice has `count` values; tail predication leaves out what is behind them.
    unsafe {
        asm!(
            "vdup.32 q2, {min}",
            "vdup.32 q3, {max}",
            "wlstp.32 lr, lr, 3f",
            "2:",
            "vldrh.s32 q0, [r0], #8",
            "vldrh.s32 q1, [r1], #8",
            "vmul.i32 q0, q0, {first}",
            "vmla.i32 q0, q1, {second}",
            "vadd.i32 q0, q0, {offset}",
            "vshl.s32 q0, {places}",
            "vmax.s32 q0, q0, q2",
            "vmin.s32 q0, q0, q3",
            "vstrh.32 q0, [r2], #8",
            "letp lr, 2b",
            "3:",
            // Loads that widen and stores that narrow take low registers.
            inout("r0") a.as_ptr() => _,
            inout("r1") b.as_ptr() => _,
            inout("r2") output.as_mut_ptr() => _,
            first = in(reg) first,
            second = in(reg) second,
            offset = in(reg) op.offset,
            // To the left.
            places = in(reg) -i32::from(op.shift.min(30)),
            min = in(reg) i32::from(i16::MIN),
            max = in(reg) i32::from(i16::MAX),
            inout("lr") count => _,
            out("q0") _,
            out("q1") _,
            out("q2") _,
            out("q3") _,
            options(nostack),
        );
    }
    count
}
