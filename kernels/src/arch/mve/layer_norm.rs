//! Layer normalisation: moments of eight values at a time, the rest of four.

use core::arch::asm;

use crate::layer_norm::{self, LayerNorm, Row};

fn is_even<T>(address: *const T) -> bool {
    address.addr() % 2 == 0
}

/// Sum and sum of squares; at an odd address the portable body.
#[inline(always)]
pub(super) fn moments(row: &[i8]) -> (i32, u64) {
    if !is_even(row.as_ptr()) {
        return layer_norm::moments(row);
    }
    let (mut sum, mut low, mut high) = (0i32, 0u32, 0u32);
    // SAFETY: whole values of the row are read, and tail predication leaves out what is behind them.
    unsafe {
        asm!(
            "wlstp.16 lr, {count}, 3f",
            "2:",
            "vldrh.u16 q0, [{from}], #16",
            "vaddva.s16 r0, q0",
            "vmlalva.s16 r2, r3, q0, q0",
            "letp lr, 2b",
            "3:",
            from = inout(reg) row.as_ptr() => _,
            count = in(reg) row.len() / 2,
            // Sums lie in registers of even numbers, and the high word of one in an odd one.
            inout("r0") sum,
            inout("r2") low,
            inout("r3") high,
            out("q0") _,
            out("lr") _,
            options(nostack, readonly),
        );
    }
    (sum, u64::from(high) << 32 | u64::from(low))
}

/// A row: VMULH keeps the high word, so a factor of 16 bits that is moved up keeps the high 32 of 48 bits. At an odd address
/// the portable body.
#[inline(always)]
pub(super) fn normalise(op: &LayerNorm<'_>, row: Row, input: &[i8], output: &mut [i8]) {
    let channels = usize::from(op.channels);
    let whole = input.len() == 2 * channels && output.len() == channels;
    let tables = op.factor.len() == 2 * channels && op.offset.len() == 4 * channels;
    if !whole || !tables || !is_even(input.as_ptr()) || !is_even(op.factor.as_ptr()) {
        return layer_norm::normalise(op, row, input, output);
    }
    // SAFETY: each slice has `channels` values; tail predication leaves out what is behind them.
    unsafe {
        asm!(
            "vdup.32 q2, {scale}",
            "vdup.32 q3, {min}",
            "vdup.32 q4, {max}",
            "wlstp.32 lr, lr, 3f",
            "2:",
            "vldrh.s32 q0, [r0], #8",
            "vldrh.s32 q1, [r1], #8",
            "vshl.i32 q0, q0, #16",
            "vshl.i32 q1, q1, #16",
            "vmulh.s32 q0, q0, q2",
            "vadd.i32 q0, q0, {shift}",
            "vmulh.s32 q0, q0, q1",
            "vldrb.u8 q1, [{offset}], #16",
            "vshl.s32 q0, {places}",
            "vadd.i32 q0, q0, q1",
            "vshr.s32 q0, q0, #6",
            "vmax.s32 q0, q0, q3",
            "vmin.s32 q0, q0, q4",
            "vstrb.32 q0, [r2], #4",
            "letp lr, 2b",
            "3:",
            // Loads that widen and stores that narrow take low registers.
            inout("r0") input.as_ptr() => _,
            inout("r1") op.factor.as_ptr() => _,
            inout("r2") output.as_mut_ptr() => _,
            offset = inout(reg) op.offset.as_ptr() => _,
            shift = in(reg) row.shift,
            // To the left.
            places = in(reg) -row.places,
            // These are read before the loop alone.
            scale = in(reg) row.scale,
            min = in(reg) i32::from(op.min),
            max = in(reg) i32::from(op.max),
            inout("lr") channels => _,
            out("q0") _,
            out("q1") _,
            out("q2") _,
            out("q3") _,
            out("q4") _,
            options(nostack),
        );
    }
}
