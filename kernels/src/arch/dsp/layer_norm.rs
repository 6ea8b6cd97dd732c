//! Layer normalisation: moments of two values at a time, products of 32 by 16 bits.

use core::arch::{asm, naked_asm};

use crate::layer_norm::{self, LayerNorm, Row};

/// Sum and sum of squares.
pub(super) fn moments(row: &[i8]) -> (i32, u64) {
    let (mut sum, mut low, mut high) = (0i32, 0u32, 0u32);
    let words = row.len() / 4;
    // SAFETY: `words` words are read from `row`, at any alignment.
    unsafe {
        asm!(
            "lsrs {passes}, {words}, #3",
            "beq 3f",
            "2:",
            ".rept 8",
            "ldr {pair}, [{from}], #4",
            "smlad {sum}, {pair}, {ones}, {sum}",
            "smlald {low}, {high}, {pair}, {pair}",
            ".endr",
            "subs {passes}, {passes}, #1",
            "bne 2b",
            "3:",
            "ands {words}, {words}, #7",
            "beq 5f",
            "4:",
            "ldr {pair}, [{from}], #4",
            "smlad {sum}, {pair}, {ones}, {sum}",
            "smlald {low}, {high}, {pair}, {pair}",
            "subs {words}, {words}, #1",
            "bne 4b",
            "5:",
            from = inout(reg) row.as_ptr() => _,
            words = inout(reg) words => _,
            passes = out(reg) _,
            pair = out(reg) _,
            ones = in(reg) 0x1_0001,
            sum = inout(reg) sum,
            low = inout(reg) low,
            high = inout(reg) high,
            options(nostack, readonly),
        );
    }
    let (rest, squares) = layer_norm::moments(row.get(4 * words..).unwrap_or_default());
    (sum + rest, (u64::from(high) << 32 | u64::from(low)) + squares)
}

/// Pairs that the loop of [`pairs`] has unrolled.
const UNROLLED: usize = 4;

/// What [`pairs`] needs; the order is its own.
#[repr(C)]
struct Pairs {
    scale: i32,
    shift: i32,
    places: i32,
    input: *const i8,
    factor: *const u8,
    offset: *const u8,
    output: *mut i8,
    passes: usize,
}

/// Pairs of values, clamped to -128..=127.
///
/// # Safety
/// The pointers cover as many pairs as `passes` and `skip`, pairs of the first pass that are none, say; `passes` is not 0;
/// `offset` is aligned to words; `places` is not negative.
#[unsafe(naked)]
unsafe extern "C" fn pairs(row: *const Pairs, skip: usize) {
    naked_asm!(
        "push {{r4-r11, lr}}",
        // Where the first pass enters the loop: 60 bytes a pair.
        "adr.w r12, 2f",
        "movs r2, #60",
        "mla r12, r1, r2, r12",
        "orr r12, r12, #1",
        "ldm r0, {{r0-r7}}",
        "bx r12",
        ".p2align 2",
        "2:",
        ".rept {unrolled}",
        "ldr r8, [r3], #4",
        "ldr r9, [r4], #4",
        "smlawb r10, r0, r8, r1",
        "smlawt r11, r0, r8, r1",
        "smulwb r10, r10, r9",
        "smulwt r11, r11, r9",
        "asr.w r10, r10, r2",
        "asr.w r11, r11, r2",
        "ldrd r8, r9, [r5], #8",
        "add.w r10, r10, r8",
        "add.w r11, r11, r9",
        "ssat r10, #8, r10, asr #6",
        "ssat r11, #8, r11, asr #6",
        "bfi r10, r11, #8, #8",
        "strh r10, [r6], #2",
        ".endr",
        "subs r7, #1",
        "bne 2b",
        "pop {{r4-r11, pc}}",
        unrolled = const UNROLLED,
    )
}

/// A row; what the instructions above cannot do goes to the portable body.
pub(super) fn normalise(op: &LayerNorm<'_>, row: Row, input: &[i8], output: &mut [i8]) {
    let channels = usize::from(op.channels);
    let whole = input.len() == 2 * channels && output.len() == channels;
    let tables = op.factor.len() == 2 * channels && op.offset.len() == 4 * channels;
    let aligned = op.offset.as_ptr().cast::<u32>().is_aligned();
    if !whole || !tables || !aligned || row.places < 0 || channels % 2 != 0 {
        portable(op, row, input, output);
        return;
    }
    let count = channels / 2;
    let passes = count.div_ceil(UNROLLED);
    let constants = Pairs {
        scale: row.scale,
        shift: row.shift,
        places: row.places,
        input: input.as_ptr(),
        factor: op.factor.as_ptr(),
        offset: op.offset.as_ptr(),
        output: output.as_mut_ptr(),
        passes,
    };
    // SAFETY: each slice has `count` pairs, not 0 as there are two channels; the offsets are aligned.
    unsafe { pairs(&raw const constants, passes * UNROLLED - count) };
    super::clamp(op.min, op.max, output);
}

/// Out of line: an odd number of channels, or hardly any variance.
#[cold]
#[inline(never)]
fn portable(op: &LayerNorm<'_>, row: Row, input: &[i8], output: &mut [i8]) {
    layer_norm::normalise(op, row, input, output);
}
