//! Additions, all of bytes or all of 16 bits, four at a time.

use core::arch::asm;

use crate::add::{Add, BYTES, WORDS};

/// Adds all elements, those of 16 bits at even addresses alone; returns how many it did.
pub(super) fn add(op: &Add, a: &[i8], b: &[i8], output: &mut [i8]) -> usize {
    let len = a.len().min(b.len()).min(output.len());
    // SAFETY: each slice has `len` bytes.
    unsafe { all(op, a.as_ptr(), b.as_ptr(), output.as_mut_ptr(), len) }
}

/// [`add`] whose output takes the place of `a`.
pub(super) fn add_in_place(op: &Add, a: &mut [i8], b: &[i8]) -> usize {
    let (len, values) = (a.len().min(b.len()), a.as_mut_ptr());
    // SAFETY: both slices have `len` bytes.
    unsafe { all(op, values, b.as_ptr(), values, len) }
}

/// # Safety
/// `a`, `b` and `output` have `len` bytes. `output` may be `a`.
unsafe fn all(op: &Add, a: *const i8, b: *const i8, output: *mut i8, len: usize) -> usize {
    let even = (a.addr() | b.addr() | output.addr()) % 2 == 0;
    match op.elements {
        // SAFETY: the caller's promise.
        BYTES => unsafe { fours::<8>(op, [op.min.into(), op.max.into()], a, b, output, len) },
        // SAFETY: the caller's promise; the addresses are even.
        WORDS if even => unsafe { fours::<16>(op, [i16::MIN.into(), i16::MAX.into()], a, b, output, len / 2) },
        _ => 0,
    }
}

/// `count` elements of `BITS`, 8 or 16; returns `count`.
///
/// # Safety
/// `a`, `b` and `output` have as many, those of 16 bits at even addresses. `output` may be `a`.
#[inline(always)]
unsafe fn fours<const BITS: u32>(
    op: &Add,
    [min, max]: [i32; 2],
    a: *const i8,
    b: *const i8,
    output: *mut i8,
    count: usize,
) -> usize {
    let [first, second] = op.multiplier.map(i32::from);
    // SAFETY: as the caller promises; tail predication leaves out what is behind the elements, and one is read before it is
    // written.
    unsafe {
        asm!(
            "vdup.32 q2, {min}",
            "vdup.32 q3, {max}",
            "vdup.32 q4, {first}",
            "wlstp.32 lr, lr, 3f",
            "2:",
            ".if {bits} == 8",
            "vldrb.s32 q0, [r0], #4",
            "vldrb.s32 q1, [r1], #4",
            ".else",
            "vldrh.s32 q0, [r0], #8",
            "vldrh.s32 q1, [r1], #8",
            ".endif",
            // a times the first factor, plus the constant; then b times the second one.
            "vmlas.i32 q0, q4, {offset}",
            "vmla.i32 q0, q1, {second}",
            "vshl.s32 q0, {places}",
            "vmax.s32 q0, q0, q2",
            "vmin.s32 q0, q0, q3",
            ".if {bits} == 8",
            "vstrb.32 q0, [r2], #4",
            ".else",
            "vstrh.32 q0, [r2], #8",
            ".endif",
            "letp lr, 2b",
            "3:",
            // Loads that widen and stores that narrow take low registers.
            inout("r0") a => _,
            inout("r1") b => _,
            inout("r2") output => _,
            bits = const BITS,
            first = in(reg) first,
            second = in(reg) second,
            offset = in(reg) op.offset,
            // To the left.
            places = in(reg) -i32::from(op.shift.min(30)),
            min = in(reg) min,
            max = in(reg) max,
            inout("lr") count => _,
            out("q0") _,
            out("q1") _,
            out("q2") _,
            out("q3") _,
            out("q4") _,
            options(nostack),
        );
    }
    count
}
