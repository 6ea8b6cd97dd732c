//! Dense layers: one widened row, two output channels at a time.
//!
//! A weight serves one product, so it is widened for that one: 19 instructions for 16 products.

use core::arch::naked_asm;

use super::conv::{Windows, expand};
use crate::conv::{Conv, row_len};

/// Steps of 8 values that the inner loop has unrolled.
const UNROLLED: usize = 4;

/// What [`pairs`] needs beside the weights; the order is its own.
#[repr(C)]
struct Channels {
    bias: *const u8,
    multiplier: *const u8,
    shift: *const u8,
    output: *mut i8,
    /// Twice the zero point, plus 1: the rounding half.
    zero: i32,
    row: *const u32,
    /// Passes of the unrolled loop.
    passes: usize,
    end: *const i8,
    /// Bytes of a row of weights.
    len: usize,
}

/// Pairs of channels up to `end`, from the sum to the stored byte, clamped to -128..=127.
///
/// # Safety
/// The pointers cover what the lengths say; `end` is a multiple of two, and not 0, behind `output`; rows are multiples of
/// 8 bytes, `skip` steps of the first pass are none; weights are aligned to words; each shift is 33..=54.
#[unsafe(naked)]
unsafe extern "C" fn pairs(channels: *const Channels, weights: *const u8, skip: usize) {
    naked_asm!(
        "push {{r4-r11, lr}}",
        "sub sp, #44",
        "ldm r0, {{r4-r12}}",
        "stm sp, {{r4-r12}}",
        // Where a row enters the loop: 76 bytes a step.
        "adr.w r4, 3f",
        "movs r5, #76",
        "mla r4, r2, r5, r4",
        "orr r4, r4, #1",
        "str r4, [sp, #36]",
        "add r2, r1, r12",
        "2:",
        "ldr r6, [sp]",
        "ldr r4, [r6], #4",
        "ldr r5, [r6], #4",
        "str r6, [sp]",
        "ldrd r0, r3, [sp, #20]",
        "ldr r6, [sp, #36]",
        "bx r6",
        ".p2align 2",
        "3:",
        ".rept {unrolled}",
        "ldm.w r0!, {{r8-r11}}",
        "ldrd r6, r7, [r1], #8",
        "sxtb16 r12, r6",
        "sxtb16 r6, r6, ror #8",
        "smlad r4, r8, r12, r4",
        "smlad r4, r9, r6, r4",
        "sxtb16 r12, r7",
        "sxtb16 r7, r7, ror #8",
        "smlad r4, r10, r12, r4",
        "smlad r4, r11, r7, r4",
        "ldrd r6, r7, [r2], #8",
        "sxtb16 r12, r6",
        "sxtb16 r6, r6, ror #8",
        "smlad r5, r8, r12, r5",
        "smlad r5, r9, r6, r5",
        "sxtb16 r12, r7",
        "sxtb16 r7, r7, ror #8",
        "smlad r5, r10, r12, r5",
        "smlad r5, r11, r7, r5",
        ".endr",
        "subs r3, #1",
        "bne.w 3b",
        "ldm sp, {{r6-r10}}",
        "ldrb r11, [r8], #1",
        "ldrb r12, [r8], #1",
        "ldr r0, [r7], #4",
        "ldr r3, [r7], #4",
        "sub r11, r11, #32",
        "sub r12, r12, #32",
        "lsl lr, r10, r11",
        "asr lr, lr, #1",
        "smmla r4, r4, r0, lr",
        "lsl lr, r10, r12",
        "asr lr, lr, #1",
        "smmla r5, r5, r3, lr",
        "asr r4, r4, r11",
        "asr r5, r5, r12",
        "ssat r4, #8, r4",
        "ssat r5, #8, r5",
        "strb r4, [r9], #1",
        "strb r5, [r9], #1",
        "strd r7, r8, [sp, #4]",
        "str r9, [sp, #12]",
        // The second row ends where the next one begins.
        "mov r1, r2",
        "ldrd r0, r12, [sp, #28]",
        "add r2, r1, r12",
        "cmp r9, r0",
        "bne.w 2b",
        "add sp, #44",
        "pop {{r4-r11, pc}}",
        unrolled = const UNROLLED,
    )
}

/// Runs a checked convolution of few positions, each for itself.
pub(super) fn conv(op: &Conv<'_>, input: &[i8], output: &mut [i8], scratch: &mut [i8]) -> bool {
    let outputs = usize::from(op.output.channels);
    let len = row_len(op.window.kernel, usize::from(op.input.channels));
    if op.groups != 1 || outputs < 2 || len % 8 != 0 || !op.weights.as_ptr().cast::<u32>().is_aligned() {
        return false;
    }
    // SAFETY: every bit pattern is a u32 and an i8.
    let (_, words, _) = unsafe { scratch.align_to_mut::<u32>() };
    let Some((row, rest)) = words.split_at_mut_checked(len / 2) else { return false };
    if is_whole(op) && input.len() == len {
        // A window that is the map is read in place.
        expand::<1>(input, row);
        for_all(op, row, output);
        super::clamp(op.requant.min, op.requant.max, output);
        return true;
    }
    // SAFETY: as above.
    let (_, rest, _) = unsafe { rest.align_to_mut::<i8>() };
    let Some(bytes) = rest.get_mut(..len) else { return false };
    super::end_with_zeros(op, usize::from(op.input.channels), bytes);
    let windows = Windows::new(op, input, 0, op.input.channels.into());
    for (position, out) in output.chunks_exact_mut(outputs).enumerate() {
        windows.widen::<1>(position, bytes, row);
        for_all(op, row, out);
    }
    super::clamp(op.requant.min, op.requant.max, output);
    true
}

/// Whether the only window of a convolution is its map.
fn is_whole(op: &Conv<'_>) -> bool {
    let [height, width] = op.window.kernel.map(u16::from);
    let map = [op.input.height, op.input.width] == [height, width];
    map && [op.output.height, op.output.width] == [1, 1] && [op.window.pad[0], op.window.pad[1]] == [0, 0]
}

/// Every output channel of one position.
fn for_all(op: &Conv<'_>, row: &[u32], out: &mut [i8]) {
    two_by_two(op, row, 0, out);
    if out.len() % 2 != 0 {
        // The last one, with its neighbour again.
        two_by_two(op, row, out.len() - 2, out);
    }
}

/// The channels from `first` on, an odd one at the end left out.
fn two_by_two(op: &Conv<'_>, row: &[u32], first: usize, out: &mut [i8]) {
    let (len, steps) = (2 * row.len(), row.len() / 4);
    let count = (out.len() - first) & !1;
    let Some(out) = out.get_mut(first..first + count) else { return };
    let Some(weights) = op.weights.get(first * len..(first + count) * len) else { return };
    let passes = steps.div_ceil(UNROLLED);
    let channels = Channels {
        bias: op.requant.bias.as_ptr().wrapping_add(4 * first),
        multiplier: op.requant.multiplier.as_ptr().wrapping_add(4 * first),
        shift: op.requant.shift.as_ptr().wrapping_add(first),
        output: out.as_mut_ptr(),
        zero: 2 * i32::from(op.requant.zero_point) + 1,
        row: row.as_ptr(),
        passes,
        end: out.as_ptr_range().end,
        len,
    };
    // SAFETY: `count` rows of weights, entries of the tables and bytes of the output, `count` even and not 0; the row has
    // 4 words for each of `steps`; alignment, length and shifts were checked by the caller.
    unsafe { pairs(&raw const channels, weights.as_ptr(), passes * UNROLLED - steps) };
}
