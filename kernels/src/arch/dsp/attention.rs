//! Attention: four queries at a time, widened once; scores as cells of four words, one cell a key.
//!
//! The product with the keys is the inner loop of a convolution whose weights are the keys. A softmax leaves weights of two
//! keys in a word, so SMLAD takes two keys at once; two bytes of two rows of values make one word, whose even bytes are one
//! channel and whose odd bytes the next: 17 instructions for 16 products.

use core::arch::naked_asm;

use super::conv::expand;
use super::softmax;
use crate::attention::{Attention, Part, ROWS};

/// Steps of 4 channels that the loop of [`scores`] has unrolled.
const UNROLLED: usize = 8;
/// Pairs of keys that the loop of [`mix`] has unrolled.
const PAIRS: usize = 4;

/// What [`scores`] needs; the order is its own.
#[repr(C)]
struct Scores {
    queries: *const u32,
    passes: usize,
    cells: *mut u32,
    end: *mut u32,
    multiplier: i32,
    /// The rounding half, 2^(shift - 33).
    half: i32,
    /// Right shift of the high word.
    shift: u32,
    /// Bytes from the end of a key to the next key.
    gap: usize,
}

/// Logits of four queries and neighbouring keys.
///
/// # Safety
/// Pointers cover what the lengths say; `cells` is not `end`; `skip` steps of the first pass are none.
#[unsafe(naked)]
unsafe extern "C" fn scores(run: *const Scores, keys: *const i8, skip: usize) {
    naked_asm!(
        "push {{r4-r11, lr}}",
        "sub sp, #32",
        "ldm r0, {{r4-r11}}",
        "stm sp, {{r4-r11}}",
        // Where a key enters the loop: 52 bytes a step.
        "adr.w r3, 3f",
        "movs r0, #52",
        "mla r3, r2, r0, r3",
        "orr r3, r3, #1",
        "2:",
        "ldrd r0, r2, [sp]",
        "movs r4, #0",
        "movs r5, #0",
        "movs r6, #0",
        "movs r7, #0",
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
        "add r0, sp, #8",
        "ldm r0, {{r8-r12, lr}}",
        "smmla r4, r4, r10, r11",
        "smmla r5, r5, r10, r11",
        "smmla r6, r6, r10, r11",
        "smmla r7, r7, r10, r11",
        "asr r4, r4, r12",
        "asr r5, r5, r12",
        "asr r6, r6, r12",
        "asr r7, r7, r12",
        "ssat r4, #25, r4",
        "ssat r5, #25, r5",
        "ssat r6, #25, r6",
        "ssat r7, #25, r7",
        "stm r8!, {{r4-r7}}",
        "add r1, r1, lr",
        "str r8, [sp, #8]",
        "cmp r8, r9",
        "bne.w 2b",
        "add sp, #32",
        "pop {{r4-r11, pc}}",
        unrolled = const UNROLLED,
    )
}

/// What [`mix`] needs; the order is its own.
#[repr(C)]
struct Mix {
    /// Two channels of each of four queries.
    sums: [i32; 2 * ROWS],
    /// Bytes from one position to the next.
    pitch: usize,
    /// Behind the cells of whole pairs.
    end: *const u32,
    /// Whether a single key follows.
    odd: usize,
}

/// Adds values of neighbouring keys, weighted, to the sums of four queries and two channels.
///
/// # Safety
/// The pointers cover what the lengths say; `skip` pairs of the first pass are none.
#[unsafe(naked)]
unsafe extern "C" fn mix(run: *mut Mix, values: *const i8, cells: *const u32, skip: usize) {
    naked_asm!(
        "push {{r0, r4-r11, lr}}",
        "sub sp, #12",
        "add r12, r0, #32",
        "ldm r12, {{r4-r6}}",
        "stm sp, {{r4-r6}}",
        "ldm r0, {{r4-r11}}",
        "mov r0, r1",
        "mov r1, r2",
        "ldr r2, [sp, #4]",
        "cmp r1, r2",
        "beq 4f",
        // Where the first pass enters the loop: 68 bytes a pair.
        "adr.w r12, 3f",
        "movs r2, #68",
        "mla r12, r3, r2, r12",
        "orr r12, r12, #1",
        "bx r12",
        ".p2align 2",
        "3:",
        ".rept {pairs}",
        "ldr.w r2, [sp]",
        "ldrh.w r3, [r0, r2]",
        "ldrh.w r12, [r0]",
        "add.w r0, r0, r2, lsl #1",
        "orr.w r3, r12, r3, lsl #16",
        "sxtb16 r12, r3",
        "sxtb16 r3, r3, ror #8",
        "ldrd r2, lr, [r1], #8",
        "smlad r4, r2, r12, r4",
        "smlad r5, r2, r3, r5",
        "smlad r6, lr, r12, r6",
        "smlad r7, lr, r3, r7",
        "ldrd r2, lr, [r1], #8",
        "smlad r8, r2, r12, r8",
        "smlad r9, r2, r3, r9",
        "smlad r10, lr, r12, r10",
        "smlad r11, lr, r3, r11",
        ".endr",
        "ldr r2, [sp, #4]",
        "cmp r1, r2",
        "bne.w 3b",
        "4:",
        "ldr r2, [sp, #8]",
        "cbz r2, 5f",
        // The upper half of this weight is 0, as that of these values.
        "ldrh r3, [r0]",
        "sxtb16 r12, r3",
        "sxtb16 r3, r3, ror #8",
        "ldrd r2, lr, [r1], #8",
        "smlad r4, r2, r12, r4",
        "smlad r5, r2, r3, r5",
        "smlad r6, lr, r12, r6",
        "smlad r7, lr, r3, r7",
        "ldrd r2, lr, [r1], #8",
        "smlad r8, r2, r12, r8",
        "smlad r9, r2, r3, r9",
        "smlad r10, lr, r12, r10",
        "smlad r11, lr, r3, r11",
        "5:",
        "ldr r0, [sp, #12]",
        "stm r0, {{r4-r11}}",
        "add sp, #16",
        "pop {{r4-r11, pc}}",
        pairs = const PAIRS,
    )
}

/// Runs a checked attention, if its widths and its rescale are those that the instructions above can do.
pub(super) fn attention(
    op: &Attention<'_>,
    query: &[i8],
    keys_and_values: &[i8],
    output: &mut [i8],
    scratch: &mut [i8],
) -> bool {
    let (width, keys) = (usize::from(op.query.width), op.keys());
    if width % 4 != 0 || !op.value.width.is_multiple_of(2) || op.logit_shift < 33 {
        return false;
    }
    // SAFETY: every bit pattern is a u32.
    let (_, words, _) = unsafe { scratch.align_to_mut::<u32>() };
    let Some((queries, rest)) = words.split_at_mut_checked(2 * width) else { return false };
    let Some(cells) = rest.get_mut(..ROWS * keys) else { return false };
    op.each_part(query, keys_and_values, |part| {
        let mut first = 0;
        while first < op.queries() {
            // The last four again rather than less than four: the same inputs give the same outputs.
            let start = first.min(op.queries().saturating_sub(ROWS));
            block(op, &part, start, queries, cells, output);
            first += ROWS;
        }
    });
    true
}

/// Four queries from `first` on, or the last one again.
fn block(op: &Attention<'_>, part: &Part<'_>, first: usize, queries: &mut [u32], cells: &mut [u32], output: &mut [i8]) {
    let numbers = [0, 1, 2, 3].map(|row| (first + row).min(op.queries() - 1));
    for (row, number) in numbers.into_iter().enumerate() {
        expand::<ROWS>(part.query.row(number), queries.get_mut(row..).unwrap_or_default());
    }
    let [rows, columns] = op.key_window.map(usize::from);
    // Keys that are neighbours in memory: all of them, or those of a row of the window.
    let (runs, len) = if op.key_window[1] == op.key_map.width { (1, rows * columns) } else { (rows, columns) };
    for (run, cells) in cells.chunks_exact_mut(ROWS * len).enumerate() {
        logits(op, part, run * len, queries, cells);
    }
    for (row, number) in numbers.into_iter().enumerate() {
        for table in op.offsets(part, number) {
            for (cell, &offset) in cells.chunks_exact_mut(ROWS).zip(table) {
                if let Some(logit) = cell.get_mut(row) {
                    *logit = logit.wrapping_add_signed(i16::from_le_bytes(offset).into());
                }
            }
        }
        // SAFETY: a cell of four words for each of `runs` times `len` keys, from the word of the first cell on.
        unsafe { softmax::column::<{ 4 * ROWS }>(cells.as_mut_ptr().wrapping_add(row), runs, len) };
    }
    for channel in (0..usize::from(op.value.width)).step_by(2) {
        let sums = mixed(op, part, channel, [runs, len], cells);
        for (number, sums) in numbers.into_iter().zip(sums.as_chunks::<2>().0) {
            let at = part.output.at(number) + channel;
            if let Some(out) = output.get_mut(at..).and_then(|out| out.first_chunk_mut()) {
                *out = sums.map(|sum| op.finish(sum));
            }
        }
    }
}

/// The logits of a run of keys, from key `first` on.
fn logits(op: &Attention<'_>, part: &Part<'_>, first: usize, queries: &[u32], cells: &mut [u32]) {
    let (width, pitch) = (usize::from(op.key.width), usize::from(op.key_map.channels));
    let keys = part.key.run(first, cells.len() / ROWS);
    if keys.is_empty() {
        return;
    }
    let (steps, passes) = (width / 4, (width / 4).div_ceil(UNROLLED));
    let run = Scores {
        queries: queries.as_ptr(),
        passes,
        cells: cells.as_mut_ptr(),
        end: cells.as_mut_ptr_range().end,
        multiplier: op.logit_multiplier,
        half: 1 << (op.logit_shift - 33),
        shift: u32::from(op.logit_shift) - 32,
        gap: pitch - width,
    };
    // SAFETY: a key of `width` bytes, `pitch` apart, for each whole cell, at least one; 8 words of queries for each of
    // `steps`.
    unsafe { scores(&raw const run, keys.as_ptr(), passes * UNROLLED - steps) };
}

/// Sums of two channels for four queries.
fn mixed(op: &Attention<'_>, part: &Part<'_>, channel: usize, [runs, len]: [usize; 2], cells: &[u32]) -> [i32; 8] {
    let (pairs, width) = (len / 2, ROWS * len.div_ceil(2));
    let mut mixing = Mix { sums: [0; 8], pitch: op.key_map.channels.into(), end: core::ptr::null(), odd: len % 2 };
    for (run, cells) in cells.chunks_exact(width).take(runs).enumerate() {
        let values = part.value.run(run * len, len);
        let Some(from) = values.get(channel..).filter(|from| from.len() >= 2) else { return mixing.sums };
        mixing.end = cells.as_ptr().wrapping_add(ROWS * pairs);
        let skip = pairs.next_multiple_of(PAIRS) - pairs;
        // SAFETY: two channels of `len` positions, `pitch` apart, as `run` has seen; a cell for each pair of them, and
        // one for an odd last one.
        unsafe { mix(&raw mut mixing, from.as_ptr(), cells.as_ptr(), skip) };
    }
    mixing.sums
}
