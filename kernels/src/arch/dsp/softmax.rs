//! Softmax of a column of words, `PITCH` bytes apart.

use core::arch::asm;

use crate::softmax::{EXP2, VANISHED, inverse};

/// The largest of some logits.
///
/// # Safety
/// `count` words, `PITCH` bytes apart; not 0.
#[inline(always)]
unsafe fn largest<const PITCH: usize>(from: *const u32, count: usize) -> i32 {
    let mut most = i32::MIN;
    // SAFETY: as the caller says.
    unsafe {
        asm!(
            "2:",
            "ldr {logit}, [{from}], #{pitch}",
            "cmp {logit}, {most}",
            "it gt",
            "movgt {most}, {logit}",
            "subs {count}, {count}, #1",
            "bne 2b",
            from = inout(reg) from => _,
            count = inout(reg) count => _,
            logit = out(reg) _,
            most = inout(reg) most,
            pitch = const PITCH,
            options(nostack, readonly),
        );
    }
    most
}

/// Replaces logits by powers of 2; returns their sum.
///
/// # Safety
/// As [`largest`].
#[inline(always)]
unsafe fn powers<const PITCH: usize>(cells: *mut u32, count: usize, most: i32) -> u32 {
    let mut sum = 0;
    // SAFETY: as the caller says; the table has an entry for each byte.
    unsafe {
        asm!(
            "2:",
            "ldr {below}, [{cells}]",
            "sub {below}, {most}, {below}",
            "cmp {below}, #{vanished}",
            "uxtb {power}, {below}",
            "ldrh {power}, [{table}, {power}, lsl #1]",
            "lsr {below}, {below}, #8",
            "lsl {power}, {power}, #5",
            "lsr {power}, {power}, {below}",
            "it hs",
            "movhs {power}, #0",
            "add {sum}, {sum}, {power}",
            "str {power}, [{cells}], #{pitch}",
            "subs {count}, {count}, #1",
            "bne 2b",
            cells = inout(reg) cells => _,
            count = inout(reg) count => _,
            most = in(reg) most,
            table = in(reg) EXP2.as_ptr(),
            below = out(reg) _,
            power = out(reg) _,
            sum = inout(reg) sum,
            pitch = const PITCH,
            vanished = const VANISHED,
            options(nostack),
        );
    }
    sum
}

/// Weights of powers, two in a word; an odd last one with a zero above it.
///
/// # Safety
/// `count` words to read, half as many to write, `PITCH` bytes apart; not 0.
#[inline(always)]
unsafe fn weigh<const PITCH: usize>(from: *const u32, to: *mut u32, count: usize, factor: u32) {
    // SAFETY: as the caller says.
    unsafe {
        asm!(
            "subs {count}, #2",
            "blo 3f",
            "2:",
            "ldr {first}, [{from}], #{pitch}",
            "ldr {second}, [{from}], #{pitch}",
            "smmulr {first}, {first}, {factor}",
            "smmulr {second}, {second}, {factor}",
            "usat {first}, #15, {first}",
            "usat {second}, #15, {second}",
            "pkhbt {first}, {first}, {second}, lsl #16",
            "str {first}, [{to}], #{pitch}",
            "subs {count}, #2",
            "bhs 2b",
            "3:",
            "adds {count}, #2",
            "beq 4f",
            "ldr {first}, [{from}]",
            "smmulr {first}, {first}, {factor}",
            "usat {first}, #15, {first}",
            "str {first}, [{to}]",
            "4:",
            from = inout(reg) from => _,
            to = inout(reg) to => _,
            count = inout(reg) count => _,
            factor = in(reg) factor,
            first = out(reg) _,
            second = out(reg) _,
            pitch = const PITCH,
            options(nostack),
        );
    }
}

/// Replaces `runs` times `len` logits by their weights, two in a word. A run begins with a word of its own.
///
/// # Safety
/// As many words, `PITCH` bytes apart, are there; not 0.
pub(super) unsafe fn column<const PITCH: usize>(cells: *mut u32, runs: usize, len: usize) {
    // SAFETY: as the caller says. The words of the runs before are at most as many as their logits.
    unsafe {
        let most = largest::<PITCH>(cells, runs * len);
        let factor = inverse(powers::<PITCH>(cells, runs * len, most));
        let (mut from, mut to) = (cells.cast_const(), cells);
        for _ in 0..runs {
            weigh::<PITCH>(from, to, len, factor);
            from = from.wrapping_byte_add(len * PITCH);
            to = to.wrapping_byte_add(len.div_ceil(2) * PITCH);
        }
    }
}

/// A row of logits in place.
#[inline(never)]
pub(super) fn row(row: &mut [i8]) {
    let keys = row.len() / 4;
    if keys > 0 {
        // SAFETY: the row has as many words; they are read and written at any alignment.
        unsafe { column::<4>(row.as_mut_ptr().cast(), 1, keys) };
    }
}
