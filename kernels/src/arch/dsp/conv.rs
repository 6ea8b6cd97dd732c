//! Convolutions as products of an expanded input with packed weights.
//!
//! SMLAD multiplies two pairs of 16-bit values, so int8 values have to be widened first. The input is widened once per
//! window and used by every output channel; a weight is widened once for four windows. Of 13 instructions for 16
//! products 8 multiply; where two windows share a weight, as in CMSIS-NN, they are 1.5 for 2 products and more.
//!
//! Expanded windows: per 4 values of the depth eight words, bytes 0 and 2 of four windows as halves, then bytes 1 and 3.

use core::arch::{asm, naked_asm};

use super::rows;
use crate::conv::{Conv, gather, row_len};
use crate::element::Element;

/// Windows that share a widened weight.
const WINDOWS: usize = 4;
/// Steps of 4 values that the inner loop has unrolled.
const UNROLLED: usize = 8;

/// What [`four_windows`] needs beside the weights; the order is its own.
#[repr(C)]
struct Channels {
    bias: *const u8,
    multiplier: *const u8,
    shift: *const u8,
    output: *mut i8,
    /// Bytes from one position of the output to the next.
    pitch: usize,
    /// Twice the zero point, plus 1: the rounding half.
    zero: i32,
    windows: *const u32,
    /// Passes of the unrolled loop.
    passes: usize,
    end: *const u8,
}

/// All channels of one group for four expanded windows: from the sum to the stored value of `BITS`, 8 or 16, saturated.
///
/// The sum starts at the bias; `SMMLA` yields `zero·2^s + half + ⌊sum·multiplier / 2^32⌋` with s = shift - 32, so that one
/// arithmetic shift ends in `zero + round(sum·multiplier / 2^shift)`, as [`crate::Requant::apply`] defines it.
///
/// # Safety
/// The pointers cover what the shapes say, `weights` up to `end` at least one row; `skip` steps of the first pass are
/// none; each shift is 33..=54 (so that the sum in `SMMLA` stays below 2^31).
#[unsafe(naked)]
unsafe extern "C" fn four_windows<const BITS: u32>(channels: *const Channels, weights: *const u8, skip: usize) {
    naked_asm!(
        "push {{r4-r11, lr}}",
        "sub sp, #36",
        "ldm r0, {{r4-r12}}",
        "stm sp, {{r4-r12}}",
        // Where a row enters the loop: 52 bytes a step.
        "adr.w r3, 3f",
        "movs r0, #52",
        "mla r3, r2, r0, r3",
        "orr r3, r3, #1",
        "ldm sp, {{r8-r12, lr}}",
        // A channel: its bias, the windows, the passes.
        "2:",
        "ldr r4, [r8], #4",
        "stm sp, {{r8-r11}}",
        "mov r5, r4",
        "mov r6, r4",
        "mov r7, r4",
        "ldrd r0, r2, [sp, #24]",
        "bx r3",
        ".p2align 2",
        "3:",
        ".rept {unrolled}",
        "ldr.w r12, [r1], #4",
        "ldm.w r0!, {{r8-r11}}",
        "sxtb16 lr, r12",
        "smlad r4, r8, lr, r4",
        "smlad r5, r9, lr, r5",
        "smlad r6, r10, lr, r6",
        "smlad r7, r11, lr, r7",
        "ldm.w r0!, {{r8-r11}}",
        "sxtb16 lr, r12, ror #8",
        "smlad r4, r8, lr, r4",
        "smlad r5, r9, lr, r5",
        "smlad r6, r10, lr, r6",
        "smlad r7, r11, lr, r7",
        ".endr",
        "subs r2, #1",
        "bne.w 3b",
        "ldm sp, {{r8-r12, lr}}",
        "ldrb r0, [r10], #1",
        "ldr r2, [r9], #4",
        "sub r0, r0, #32",
        "lsl lr, lr, r0",
        "asr lr, lr, #1",
        "smmla r4, r4, r2, lr",
        "smmla r5, r5, r2, lr",
        "smmla r6, r6, r2, lr",
        "smmla r7, r7, r2, lr",
        "asr r4, r4, r0",
        "asr r5, r5, r0",
        "asr r6, r6, r0",
        "asr r7, r7, r0",
        "ssat r4, #{bits}, r4",
        "ssat r5, #{bits}, r5",
        "ssat r6, #{bits}, r6",
        "ssat r7, #{bits}, r7",
        "add lr, r11, r12",
        ".if {bits} == 8",
        "strb r7, [lr, r12, lsl #1]",
        "strb r6, [r11, r12, lsl #1]",
        "strb r5, [r11, r12]",
        "strb r4, [r11], #1",
        ".else",
        "strh r7, [lr, r12, lsl #1]",
        "strh r6, [r11, r12, lsl #1]",
        "strh r5, [r11, r12]",
        "strh r4, [r11], #2",
        ".endif",
        "ldr r0, [sp, #32]",
        "cmp r1, r0",
        "bne.w 2b",
        "add sp, #36",
        "pop {{r4-r11, pc}}",
        unrolled = const UNROLLED,
        bits = const BITS,
    )
}

/// Widens bytes into the place of one of `COUNT` windows; a rest behind the last whole word is left out.
#[inline(always)]
pub(super) fn expand<const COUNT: usize>(bytes: &[i8], windows: &mut [u32]) {
    let words = (bytes.len() / 4).min(windows.len().saturating_add(COUNT - 1) / (2 * COUNT));
    // SAFETY: word `n` of `words` is read from `bytes`, at any alignment, and written to elements 2n·COUNT and
    // (2n + 1)·COUNT of `windows`, which has at least 2·words·COUNT - COUNT + 1.
    unsafe {
        asm!(
            "lsrs {passes}, {words}, #2",
            "beq 3f",
            "2:",
            ".rept 4",
            "ldr {odd}, [{from}], #4",
            "sxtb16 {even}, {odd}",
            "sxtb16 {odd}, {odd}, ror #8",
            "str {even}, [{to}], #4*{count}",
            "str {odd}, [{to}], #4*{count}",
            ".endr",
            "subs {passes}, {passes}, #1",
            "bne 2b",
            "3:",
            "ands {words}, {words}, #3",
            "beq 5f",
            "4:",
            "ldr {odd}, [{from}], #4",
            "sxtb16 {even}, {odd}",
            "sxtb16 {odd}, {odd}, ror #8",
            "str {even}, [{to}], #4*{count}",
            "str {odd}, [{to}], #4*{count}",
            "subs {words}, {words}, #1",
            "bne 4b",
            "5:",
            from = inout(reg) bytes.as_ptr() => _,
            to = inout(reg) windows.as_mut_ptr() => _,
            words = inout(reg) words => _,
            passes = out(reg) _,
            even = out(reg) _,
            odd = out(reg) _,
            count = const COUNT,
            options(nostack),
        );
    }
}

/// Runs a checked convolution, if its shapes and its rescale are those that the instructions above can do.
pub(super) fn conv(op: &Conv<'_>, input: &[i8], output: &mut [i8], scratch: &mut [i8]) -> bool {
    let (outputs, groups) = (usize::from(op.output.channels), usize::from(op.groups));
    let channels = usize::from(op.input.channels) / groups;
    let row = row_len(op.window.kernel, channels);
    let (size, pitch) = (op.to.bytes(), op.output_bytes());
    let positions = output.len() / pitch;
    if !op.requant.is_short() {
        return false;
    }
    if positions < WINDOWS {
        // Few positions of a wide map are rare: no body of their own.
        if op.to != Element::Int8 {
            return false;
        }
        return rows::conv(op, input, output, scratch);
    }
    // SAFETY: every bit pattern is a u32 and an i8.
    let (_, words, _) = unsafe { scratch.align_to_mut::<u32>() };
    let Some((windows, rest)) = words.split_at_mut_checked(2 * row) else { return false };
    // SAFETY: as above.
    let (_, rest, _) = unsafe { rest.align_to_mut::<i8>() };
    let Some(bytes) = rest.get_mut(..row) else { return false };
    super::end_with_zeros(op, channels, bytes);
    let steps = row / 4;
    let body = if op.to == Element::Int8 { four_windows::<8> } else { four_windows::<16> };
    for group in 0..groups {
        let mut first = 0;
        while first < positions {
            // The last four again rather than less than four: the same inputs give the same outputs.
            let start = first.min(positions - WINDOWS);
            for window in 0..WINDOWS {
                let Some(place) = windows.get_mut(window..) else { return false };
                widen::<WINDOWS>(op, group * channels, channels, input, start + window, bytes, place);
            }
            let per_group = outputs / groups;
            let channel = group * per_group;
            let (from, to) = (channel * row, (channel + per_group) * row);
            let Some(weights) = op.weights.get(from..to) else { return false };
            let Some(output) = output.get_mut(start * pitch + channel * size..) else { return false };
            let passes = steps.div_ceil(UNROLLED);
            let channels = Channels {
                bias: op.requant.bias.as_ptr().wrapping_add(4 * channel),
                multiplier: op.requant.multiplier.as_ptr().wrapping_add(4 * channel),
                shift: op.requant.shift.as_ptr().wrapping_add(channel),
                output: output.as_mut_ptr(),
                pitch,
                zero: if op.to == Element::Int8 { 2 * i32::from(op.requant.zero_point) + 1 } else { 1 },
                windows: windows.as_ptr(),
                passes,
                end: weights.as_ptr_range().end,
            };
            // SAFETY: `windows` has 8 words for each of the `steps` of a row; `weights` has `per_group` whole rows, at
            // least one; the tables have an entry for every channel (checked by the caller); `output` has four positions
            // from here on, `pitch` apart; shifts were checked above.
            unsafe { body(&channels, weights.as_ptr(), passes * UNROLLED - steps) };
            first += WINDOWS;
        }
    }
    if op.to == Element::Int8 {
        super::clamp(op.requant.min, op.requant.max, output);
    }
    true
}

/// One window of the input, widened; `bytes` is of the length of a row, zeros behind the window.
#[inline(always)]
pub(super) fn widen<const COUNT: usize>(
    op: &Conv<'_>,
    channel: usize,
    channels: usize,
    input: &[i8],
    position: usize,
    bytes: &mut [i8],
    place: &mut [u32],
) {
    let (width, height) = (usize::from(op.input.width), usize::from(op.input.height));
    let outputs = usize::from(op.output.width);
    let pitch = usize::from(op.input.channels);
    let [rows, columns] = op.window.kernel.map(usize::from);
    let start = op.window.start(position / outputs, position % outputs);
    let [top, left] = start.map(|at| at as usize);
    let line = columns * channels;
    // A start in the padding is a huge number here.
    let inside = top < height && rows <= height - top && left < width && columns <= width - left;
    if !inside || pitch != channels {
        at_an_edge(op, channel, channels, input, start, bytes);
        expand::<COUNT>(bytes, place);
        return;
    }
    let words = line % 4 == 0;
    for y in 0..rows {
        let from = ((top + y) * width + left) * pitch;
        let Some(line) = input.get(from..from + line) else { return };
        if words {
            expand::<COUNT>(line, place.get_mut(y * line.len() / 2 * COUNT..).unwrap_or_default());
        } else {
            copy(line, bytes.get_mut(y * line.len()..).unwrap_or_default());
        }
    }
    if !words {
        expand::<COUNT>(bytes, place);
    }
}

/// Out of line: it is long, and most windows do without it.
#[cold]
#[inline(never)]
fn at_an_edge(op: &Conv<'_>, channel: usize, channels: usize, input: &[i8], start: [isize; 2], bytes: &mut [i8]) {
    gather(op, channel, channels, input, start, bytes);
}

/// Copies some bytes, such as nine: a call would take as long as the copy.
#[inline(always)]
fn copy(from: &[i8], to: &mut [i8]) {
    let len = from.len().min(to.len());
    // SAFETY: words, at any alignment, then bytes, `len` in all, are read from `from` and written to `to`.
    unsafe {
        asm!(
            "subs {len}, #4",
            "blo 3f",
            "2:",
            "ldr {word}, [{from}], #4",
            "str {word}, [{to}], #4",
            "subs {len}, #4",
            "bhs 2b",
            "3:",
            "adds {len}, #4",
            "beq 5f",
            "4:",
            "ldrb {word}, [{from}], #1",
            "strb {word}, [{to}], #1",
            "subs {len}, #1",
            "bne 4b",
            "5:",
            from = inout(reg) from.as_ptr() => _,
            to = inout(reg) to.as_mut_ptr() => _,
            len = inout(reg) len => _,
            word = out(reg) _,
            options(nostack),
        );
    }
}
