//! Softmax of a row, four logits at a time: the table of powers is gathered from.

use core::arch::asm;

use crate::softmax::{self, EXP2, VANISHED, inverse};

/// The largest of some logits.
#[inline(always)]
fn largest(logits: &[u32]) -> i32 {
    let mut most = i32::MIN;
    // SAFETY: whole words of the slice are read, and tail predication leaves out those behind it.
    unsafe {
        asm!(
            "wlstp.32 lr, {count}, 3f",
            "2:",
            "vldrw.u32 q0, [{from}], #16",
            "vmaxv.s32 {most}, q0",
            "letp lr, 2b",
            "3:",
            from = inout(reg) logits.as_ptr() => _,
            count = in(reg) logits.len(),
            most = inout(reg) most,
            out("q0") _,
            out("lr") _,
            options(nostack, readonly),
        );
    }
    most
}

/// Replaces logits by powers of 2; returns their sum.
#[inline(always)]
fn powers(cells: &mut [u32], most: i32) -> u32 {
    let mut sum = 0;
    // SAFETY: words of the slice are read and written, tail predication leaves out those behind it; an index into the
    // table is a byte, for which it has an entry each.
    unsafe {
        asm!(
            "vdup.32 q3, {most}",
            "vmov.i32 q4, #255",
            "wlstp.32 lr, {count}, 3f",
            "2:",
            "vldrw.u32 q0, [{cells}]",
            "vsub.i32 q0, q3, q0",
            "vcmp.u32 cs, q0, {vanished}",
            "vand q1, q0, q4",
            "vldrh.u32 q2, [{table}, q1, uxtw #1]",
            "vshl.i32 q2, q2, #5",
            "vshr.u32 q0, q0, #8",
            "vneg.s32 q0, q0",
            "vshl.u32 q2, q2, q0",
            "vpst",
            "vmovt.i32 q2, #0",
            "vstrw.32 q2, [{cells}], #16",
            "vaddva.u32 r0, q2",
            "letp lr, 2b",
            "3:",
            cells = inout(reg) cells.as_mut_ptr() => _,
            count = in(reg) cells.len(),
            most = in(reg) most,
            vanished = in(reg) VANISHED,
            table = in(reg) EXP2.as_ptr(),
            // Sums lie in registers of even numbers.
            inout("r0") sum,
            out("q0") _,
            out("q1") _,
            out("q2") _,
            out("q3") _,
            out("q4") _,
            out("lr") _,
            options(nostack),
        );
    }
    sum
}

/// Weights of powers, two in a word. A power is read before the weights that take its place are written.
#[inline(always)]
fn weigh(cells: &mut [u32], factor: u32) {
    let from = cells.as_mut_ptr();
    // SAFETY: words of the slice are read, and half as many written, not before they were read; tail predication leaves
    // out those behind it.
    unsafe {
        asm!(
            "vdup.32 q1, {factor}",
            "vdup.32 q2, {most}",
            "wlstp.32 lr, {count}, 3f",
            "2:",
            "vldrw.u32 q0, [{from}], #16",
            "vrmulh.u32 q0, q0, q1",
            "vmin.u32 q0, q0, q2",
            "vstrh.32 q0, [r0], #8",
            "letp lr, 2b",
            "3:",
            from = inout(reg) from => _,
            // A narrowing store takes a low register.
            inout("r0") from => _,
            count = in(reg) cells.len(),
            factor = in(reg) factor,
            most = in(reg) i32::from(i16::MAX),
            out("q0") _,
            out("q1") _,
            out("q2") _,
            out("lr") _,
            options(nostack),
        );
    }
}

/// A row of logits in place; the portable body where it does not lie at words.
///
/// A call: [`powers`] changes the predicate register, which no operand of assembly can name and no call preserves.
#[inline(never)]
pub(super) fn row(row: &mut [i8]) {
    // SAFETY: every bit pattern is a u32 and an i8.
    let (before, cells, _) = unsafe { row.align_to_mut::<u32>() };
    if !before.is_empty() || cells.is_empty() {
        return softmax::row(row);
    }
    let most = largest(cells);
    let sum = powers(cells, most);
    weigh(cells, inverse(sum));
}
