//! Convolutions: products of windows with rows of weights, 16 at an instruction.
//!
//! VMLAVA adds 16 products of bytes to a register of the core, one with an even number. Three windows and two rows of
//! weights are six sums and five loads: 12 instructions for 96 products, loop included. Rows of weights lie as the
//! portable body has them; what a row's end lacks of 16 bytes, the loop's tail predication leaves out.

use core::arch::{asm, naked_asm};

use crate::conv::{Conv, gather, row_len};
use crate::element::Element;

/// Windows that share a row of weights.
const WINDOWS: usize = 3;
/// Channels of a block.
const BLOCK: usize = 4;

/// What a body needs; the order is its own.
#[repr(C)]
struct Run {
    windows: [*const i8; WINDOWS],
    bias: *const u8,
    multiplier: *const u8,
    shift: *const u8,
    output: *mut i8,
    /// Bytes from one position of the output to the next.
    pitch: usize,
    zero: i32,
    /// Blocks of four channels, at least one.
    blocks: usize,
    /// Bytes of a row of weights, and of a window.
    len: usize,
    weights: *const u8,
    min: i32,
    max: i32,
}

/// All blocks of channels for three windows: from the bias to the stored value of `BITS`, 8 or 16.
///
/// VMULH keeps the high word of the product, VRSHL adds the half and shifts by shift - 32: [`crate::Requant::apply`] for
/// shifts from 33 on. The sum with the zero point stays far below 2^31.
///
/// # Safety
/// The pointers cover what the lengths say; each shift is 33..=54; an output of 16 bits lies at even addresses.
#[unsafe(naked)]
unsafe extern "C" fn three_windows<const BITS: u32>(run: *const Run) {
    naked_asm!(
        ".cpu cortex-m55",
        "push {{r3-r11, lr}}",
        "vpush {{d8-d13}}",
        "sub sp, #88",
        "ldm r0!, {{r1-r10}}",
        "stm sp, {{r1-r10}}",
        "ldm r0, {{r1-r4}}",
        "mov r11, r1",
        "mov r12, r2",
        "vdup.32 q4, r3",
        "vdup.32 q5, r4",
        "movs r0, #32",
        "vdup.32 q6, r0",
        "2:",
        ".irp half, 0, 8",
        "ldm sp, {{r1, r3, r5}}",
        "mov r7, r12",
        "add r9, r12, r11",
        "add r12, r9, r11",
        "ldr lr, [sp, #12]",
        "ldr r0, [lr], #4",
        "ldr r2, [lr], #4",
        "str lr, [sp, #12]",
        "mov r4, r0",
        "mov r6, r2",
        "mov r8, r0",
        "mov r10, r2",
        "dlstp.8 lr, r11",
        "3:",
        "vldrb.u8 q0, [r1], #16",
        "vldrb.u8 q1, [r7], #16",
        "vmlava.s8 r0, q0, q1",
        "vldrb.u8 q2, [r9], #16",
        "vmlava.s8 r2, q0, q2",
        "vldrb.u8 q3, [r3], #16",
        "vmlava.s8 r4, q3, q1",
        "vldrb.u8 q0, [r5], #16",
        "vmlava.s8 r6, q3, q2",
        "vmlava.s8 r8, q0, q1",
        "vmlava.s8 r10, q0, q2",
        "letp lr, 3b",
        "strd r0, r2, [sp, #40 + \\half]",
        "strd r4, r6, [sp, #56 + \\half]",
        "strd r8, r10, [sp, #72 + \\half]",
        ".endr",
        "ldrd r0, r1, [sp, #16]",
        "vldrb.u8 q0, [r0], #16",
        "vldrb.u32 q1, [r1], #4",
        "strd r0, r1, [sp, #16]",
        "vsub.i32 q1, q6, q1",
        "ldrd r2, r4, [sp, #24]",
        "ldr r6, [sp, #32]",
        "add r3, r2, r4",
        "add r4, r3, r4",
        ".irp window, 2, 3, 4",
        "vldrw.u32 q2, [sp, #(\\window * 16 + 8)]",
        "vmulh.s32 q2, q2, q0",
        "vrshl.s32 q2, q2, q1",
        "vadd.i32 q2, q2, r6",
        "vmax.s32 q2, q2, q4",
        "vmin.s32 q2, q2, q5",
        ".if {bits} == 8",
        "vstrb.32 q2, [r\\window]",
        ".else",
        "vstrh.32 q2, [r\\window]",
        ".endif",
        ".endr",
        "adds r2, #{bits} / 2",
        "ldr r0, [sp, #36]",
        "str r2, [sp, #24]",
        "subs r0, #1",
        "str r0, [sp, #36]",
        "bne.w 2b",
        "add sp, #88",
        "vpop {{d8-d13}}",
        "pop {{r3-r11, pc}}",
        bits = const BITS,
    )
}

/// As [`three_windows`] for the first window alone: four rows of weights, 10 instructions for 64 products.
///
/// # Safety
/// As there.
#[unsafe(naked)]
unsafe extern "C" fn one_window<const BITS: u32>(run: *const Run) {
    naked_asm!(
        ".cpu cortex-m55",
        "push {{r3-r11, lr}}",
        "vpush {{d8-d13}}",
        "sub sp, #40",
        "ldm r0!, {{r1-r10}}",
        "stm sp, {{r1-r10}}",
        "mov r8, r9",
        "ldm r0, {{r1-r4}}",
        "mov r11, r1",
        "mov r12, r2",
        "vdup.32 q4, r3",
        "vdup.32 q5, r4",
        "movs r0, #32",
        "vdup.32 q6, r0",
        "2:",
        "ldr r1, [sp]",
        "mov r3, r12",
        "add r5, r3, r11",
        "add r7, r5, r11",
        "add r9, r7, r11",
        "add r12, r9, r11",
        "ldr lr, [sp, #12]",
        "ldr r0, [lr], #4",
        "ldr r2, [lr], #4",
        "ldr r4, [lr], #4",
        "ldr r6, [lr], #4",
        "str lr, [sp, #12]",
        "dlstp.8 lr, r11",
        "3:",
        "vldrb.u8 q0, [r1], #16",
        "vldrb.u8 q1, [r3], #16",
        "vmlava.s8 r0, q0, q1",
        "vldrb.u8 q2, [r5], #16",
        "vmlava.s8 r2, q0, q2",
        "vldrb.u8 q1, [r7], #16",
        "vmlava.s8 r4, q0, q1",
        "vldrb.u8 q2, [r9], #16",
        "vmlava.s8 r6, q0, q2",
        "letp lr, 3b",
        "vmov q2[2], q2[0], r0, r4",
        "vmov q2[3], q2[1], r2, r6",
        "ldrd r0, r1, [sp, #16]",
        "vldrb.u8 q0, [r0], #16",
        "vldrb.u32 q1, [r1], #4",
        "strd r0, r1, [sp, #16]",
        "vsub.i32 q1, q6, q1",
        "vmulh.s32 q2, q2, q0",
        "vrshl.s32 q2, q2, q1",
        "vadd.i32 q2, q2, r8",
        "ldr r2, [sp, #24]",
        "vmax.s32 q2, q2, q4",
        "vmin.s32 q2, q2, q5",
        ".if {bits} == 8",
        "vstrb.32 q2, [r2], #4",
        ".else",
        "vstrh.32 q2, [r2], #8",
        ".endif",
        "str r2, [sp, #24]",
        "subs r10, #1",
        "bne.w 2b",
        "add sp, #40",
        "vpop {{d8-d13}}",
        "pop {{r3-r11, pc}}",
        bits = const BITS,
    )
}

/// Runs a checked convolution, if its shapes and its rescale are those that the instructions above can do.
pub(super) fn conv(op: &Conv<'_>, input: &[i8], output: &mut [i8], scratch: &mut [i8]) -> bool {
    let (outputs, groups) = (usize::from(op.output.channels), usize::from(op.groups));
    let channels = usize::from(op.input.channels) / groups;
    let row = row_len(op.window.kernel, channels);
    let positions = output.len() / op.output_bytes();
    let aligned = op.to == Element::Int8 || output.as_ptr().addr() % 2 == 0;
    if !op.requant.is_short() || outputs / groups < BLOCK || !aligned {
        return false;
    }
    // Without a window to gather, the input itself is the matrix.
    let direct = op.window.is_point() && groups == 1 && channels % 4 == 0 && input.len() / channels == positions;
    let many = positions >= WINDOWS && (direct || scratch.len() >= WINDOWS * row);
    let count = if many { WINDOWS } else { 1 };
    if !direct {
        if scratch.len() < count * row {
            return false;
        }
        // The end of a row, behind the window, meets the zeros that pad the weights; gathering does not touch it.
        scratch.fill(0);
    }
    for group in 0..groups {
        let mut first = 0;
        while first < positions {
            // The last three again rather than less than three: the same inputs give the same outputs.
            let start = first.min(positions - count);
            let rows = if direct {
                input.get(start * row..(start + count) * row)
            } else {
                for (next, place) in scratch.chunks_exact_mut(row).take(count).enumerate() {
                    window(op, group * channels, channels, input, start + next, place);
                }
                scratch.get(..count * row)
            };
            let Some(rows) = rows else { return false };
            if !blocks(op, group, rows, row, start, output) {
                return false;
            }
            first += count;
        }
    }
    true
}

/// All channels of a group for one or three neighbouring positions, whose windows are `rows`.
#[inline(always)]
fn blocks(op: &Conv<'_>, group: usize, rows: &[i8], row: usize, start: usize, output: &mut [i8]) -> bool {
    let (size, pitch) = (op.to.bytes(), op.output_bytes());
    let per_group = usize::from(op.output.channels) / usize::from(op.groups);
    let count = rows.len() / row;
    let wide = op.to != Element::Int8;
    let (zero, min, max) = if wide {
        (0, i16::MIN.into(), i16::MAX.into())
    } else {
        (op.requant.zero_point.into(), op.requant.min.into(), op.requant.max.into())
    };
    let body = match (count == WINDOWS, wide) {
        (true, false) => three_windows::<8>,
        (true, true) => three_windows::<16>,
        (false, false) => one_window::<8>,
        (false, true) => one_window::<16>,
    };
    let Some(output) = output.get_mut(start * pitch..(start + count) * pitch) else { return false };
    let mut from = 0;
    while from < per_group {
        // All whole blocks; then the last four channels again.
        let (first, blocks) = if from == 0 { (0, per_group / BLOCK) } else { (per_group - BLOCK, 1) };
        let channel = group * per_group + first;
        let Some(weights) = op.weights.get(channel * row..(channel + blocks * BLOCK) * row) else { return false };
        let Some(output) = output.get_mut(channel * size..) else { return false };
        let window = |index: usize| rows.as_ptr().wrapping_add(index * row);
        let run = Run {
            windows: [window(0), window(1), window(2)],
            bias: op.requant.bias.as_ptr().wrapping_add(4 * channel),
            multiplier: op.requant.multiplier.as_ptr().wrapping_add(4 * channel),
            shift: op.requant.shift.as_ptr().wrapping_add(channel),
            output: output.as_mut_ptr(),
            pitch,
            zero,
            blocks,
            len: row,
            weights: weights.as_ptr(),
            min,
            max,
        };
        // SAFETY: `rows` has `count` rows, and the body reads as many; `weights` has `blocks`, at least one, times four
        // rows; the tables have an entry for every channel (checked by the caller); `output` has `count` positions from
        // here on, `pitch` apart; shifts and alignment were checked by `conv`.
        unsafe { body(&raw const run) };
        from = first + blocks * BLOCK;
    }
    true
}

/// One window of the input; `place` is of the length of a row.
#[inline(always)]
fn window(op: &Conv<'_>, channel: usize, channels: usize, input: &[i8], position: usize, place: &mut [i8]) {
    let (width, height) = (usize::from(op.input.width), usize::from(op.input.height));
    let outputs = usize::from(op.output.width);
    let pitch = usize::from(op.input.channels);
    let [rows, columns] = op.window.kernel.map(usize::from);
    let start = op.window.start(position / outputs, position % outputs);
    let [top, left] = start.map(|at| at as usize);
    // A start in the padding is a huge number here.
    let inside = top < height && rows <= height - top && left < width && columns <= width - left;
    if !inside || pitch != channels {
        return at_an_edge(op, channel, channels, input, start, place);
    }
    let line = columns * channels;
    for (y, place) in place.chunks_exact_mut(line).take(rows).enumerate() {
        let from = ((top + y) * width + left) * pitch;
        let Some(line) = input.get(from..from + line) else { return };
        copy(line, place);
    }
}

/// Out of line: it is long, and most windows do without it.
#[cold]
#[inline(never)]
fn at_an_edge(op: &Conv<'_>, channel: usize, channels: usize, input: &[i8], start: [isize; 2], place: &mut [i8]) {
    gather(op, channel, channels, input, start, place);
}

/// Copies what both have, 16 bytes at a time.
#[inline(always)]
fn copy(from: &[i8], to: &mut [i8]) {
    let len = from.len().min(to.len());
    // SAFETY: `len` bytes are read from `from` and written to `to`; the tail predication leaves out the rest of the last 16.
    unsafe {
        asm!(
            "wlstp.8 lr, {len}, 3f",
            "2:",
            "vldrb.u8 q0, [{from}], #16",
            "vstrb.8 q0, [{to}], #16",
            "letp lr, 2b",
            "3:",
            from = inout(reg) from.as_ptr() => _,
            to = inout(reg) to.as_mut_ptr() => _,
            len = in(reg) len,
            out("q0") _,
            out("lr") _,
            options(nostack, preserves_flags),
        );
    }
}
