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
#[derive(Clone, Copy)]
struct Run {
    windows: [*const i8; WINDOWS],
    bias: *const u8,
    multiplier: *const u8,
    shift: *const u8,
    output: *mut i8,
    /// Bytes from one position of the output to the next.
    pitch: usize,
    zero: i32,
    /// Channels, at least one; [`three_windows`] does whole blocks of them, at least one.
    channels: usize,
    min: i32,
    max: i32,
    /// Bytes of a row of weights, and of a window.
    len: usize,
    weights: *const u8,
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
        "lsr r10, r10, #2",
        "stm sp, {{r1-r10}}",
        "ldm r0, {{r3, r4, r11, r12}}",
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

/// As [`three_windows`] for the first window alone, and for all channels: four rows of weights, 10 instructions for 64
/// products. Where less than four are left, the last row stands for one that is not there, two are a loop of their own, and P0
/// leaves out what is no channel.
///
/// # Safety
/// As there.
#[unsafe(naked)]
unsafe extern "C" fn one_window<const BITS: u32>(run: *const Run) {
    naked_asm!(
        ".cpu cortex-m55",
        "push {{r3-r11, lr}}",
        "vpush {{d8-d15}}",
        "ldm r0!, {{r1-r10}}",
        // Bias, multiplier, shift, output.
        "push {{r4-r7}}",
        "mov r8, r1",
        "vdup.32 q7, r9",
        "ldm r0, {{r3, r4, r11, r12}}",
        "vdup.32 q4, r3",
        "vdup.32 q5, r4",
        "movs r0, #32",
        "vdup.32 q6, r0",
        "vctp.32 r10",
        "subs r10, #4",
        "blt 5f",
        "2:",
        "mov r3, r12",
        "add r5, r3, r11",
        "add r7, r5, r11",
        "add r9, r7, r11",
        "add r12, r9, r11",
        "7:",
        "mov r1, r8",
        "movs r0, #0",
        "movs r2, #0",
        "movs r4, #0",
        "movs r6, #0",
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
        "4:",
        "vmov q2[2], q2[0], r0, r4",
        "vmov q2[3], q2[1], r2, r6",
        "ldm sp, {{r0-r3}}",
        "vpsttt",
        "vldrbt.u8 q0, [r0], #16",
        "vldrbt.u8 q1, [r1], #16",
        "vldrbt.u32 q3, [r2], #4",
        "vadd.i32 q2, q2, q0",
        "vsub.i32 q3, q6, q3",
        "vmulh.s32 q2, q2, q1",
        "vrshl.s32 q2, q2, q3",
        "vadd.i32 q2, q2, q7",
        "vmax.s32 q2, q2, q4",
        "vmin.s32 q2, q2, q5",
        "vpst",
        ".if {bits} == 8",
        "vstrbt.32 q2, [r3], #4",
        ".else",
        "vstrht.32 q2, [r3], #8",
        ".endif",
        "stm sp, {{r0-r3}}",
        "subs r10, #4",
        "bge 2b",
        "5:",
        "adds r10, #4",
        "beq 6f",
        "vctp.32 r10",
        "cmp r10, #2",
        "mov r10, #0",
        "mov r3, r12",
        "mov r5, r12",
        "it hs",
        "addhs r5, r5, r11",
        "add r7, r5, r11",
        "mov r9, r7",
        "bhi 7b",
        "mov r1, r8",
        "movs r0, #0",
        "movs r2, #0",
        "movs r4, #0",
        "movs r6, #0",
        "dlstp.8 lr, r11",
        "8:",
        "vldrb.u8 q0, [r1], #16",
        "vldrb.u8 q1, [r3], #16",
        "vmlava.s8 r0, q0, q1",
        "vldrb.u8 q2, [r5], #16",
        "vmlava.s8 r2, q0, q2",
        "letp lr, 8b",
        "b 4b",
        "6:",
        "add sp, #16",
        "vpop {{d8-d15}}",
        "pop {{r3-r11, pc}}",
        bits = const BITS,
    )
}

/// Whether all shifts are 33..=54, sixteen at a time.
#[inline(always)]
pub(super) fn are_short(shifts: &[u8]) -> bool {
    let most: u32;
    // SAFETY: as many bytes are read as there are shifts; tail predication leaves out the rest of the last 16.
    unsafe {
        asm!(
            "vmov.i8 q1, #0",
            "wlstp.8 lr, {len}, 3f",
            "2:",
            "vldrb.u8 q0, [{from}], #16",
            "vsub.i8 q0, q0, {least}",
            "vmax.u8 q1, q1, q0",
            "letp lr, 2b",
            "3:",
            "vmaxv.u8 {most}, q1",
            from = inout(reg) shifts.as_ptr() => _,
            len = in(reg) shifts.len(),
            least = in(reg) 33,
            most = inout(reg) 0 => most,
            out("q0") _,
            out("q1") _,
            out("lr") _,
            options(nostack, readonly, preserves_flags),
        );
    }
    most <= 54 - 33
}

/// Runs a checked convolution whose shifts are short, if its shapes are those that the instructions above can do.
pub(super) fn conv(op: &Conv<'_>, input: &[i8], output: &mut [i8], scratch: &mut [i8]) -> bool {
    if op.to != Element::Int8 && output.as_ptr().addr() % 2 != 0 {
        return false;
    }
    let groups = usize::from(op.groups);
    let (channels, per_group) = (usize::from(op.input.channels) / groups, usize::from(op.output.channels) / groups);
    let row = row_len(op.window.kernel, channels);
    let positions = usize::from(op.output.height) * usize::from(op.output.width);
    let direct = op.is_matrix();
    let many = positions >= WINDOWS && per_group >= BLOCK && (direct || scratch.len() >= WINDOWS * row);
    let count = if many { WINDOWS } else { 1 };
    if direct {
        let mut part = Part::new(op, 0, per_group, row);
        let mut first = 0;
        while first < positions {
            // The last three again rather than less than three: the same inputs give the same outputs.
            let start = first.min(positions - count);
            let Some(rows) = input.get(start * row..(start + count) * row) else { return false };
            if !part.run(rows, start, output) {
                return false;
            }
            first += count;
        }
        return true;
    }
    let Some(rows) = scratch.get_mut(..count * row) else { return false };
    // The end of a row, behind the window, meets the zeros that pad the weights; gathering does not touch it.
    rows.fill(0);
    for group in 0..groups {
        let mut part = Part::new(op, group, per_group, row);
        let mut first = 0;
        while first < positions {
            let start = first.min(positions - count);
            for (next, place) in rows.chunks_exact_mut(row).enumerate() {
                window(op, group * channels, channels, input, start + next, place);
            }
            if !part.run(rows, start, output) {
                return false;
            }
            first += count;
        }
    }
    true
}

/// One group of a convolution.
struct Part {
    /// All but windows and output.
    run: Run,
    /// Bytes of a position of the output before the group's, and from one channel to the next.
    before: usize,
    size: usize,
}

impl Part {
    /// Of a checked convolution.
    #[inline(always)]
    fn new(op: &Conv<'_>, group: usize, channels: usize, len: usize) -> Self {
        let first = group * channels;
        let size = op.to.bytes();
        let (zero, min, max) = if op.to == Element::Int8 {
            (op.requant.zero_point.into(), op.requant.min.into(), op.requant.max.into())
        } else {
            (0, i16::MIN.into(), i16::MAX.into())
        };
        let run = Run {
            windows: [core::ptr::null(); WINDOWS],
            bias: op.requant.bias.as_ptr().wrapping_add(4 * first),
            multiplier: op.requant.multiplier.as_ptr().wrapping_add(4 * first),
            shift: op.requant.shift.as_ptr().wrapping_add(first),
            output: core::ptr::null_mut(),
            pitch: op.output_bytes(),
            zero,
            channels,
            min,
            max,
            len,
            weights: op.weights.as_ptr().wrapping_add(first * len),
        };
        Self { run, before: first * size, size }
    }

    /// All channels of the group for one or three neighbouring positions, the first of them `start`, whose windows are `rows`.
    #[inline(always)]
    fn run(&mut self, rows: &[i8], start: usize, output: &mut [i8]) -> bool {
        let &mut Self { ref mut run, before, size } = self;
        let many = rows.len() > run.len;
        let count = if many { WINDOWS } else { 1 };
        let Some(output) = output.get_mut(start * run.pitch..(start + count) * run.pitch) else { return false };
        let window = |index: usize| rows.as_ptr().wrapping_add(index * run.len);
        run.windows = [window(0), window(1), window(2)];
        run.output = output.as_mut_ptr().wrapping_add(before);
        let wide = size == 2;
        if !many {
            let body = if wide { one_window::<16> } else { one_window::<8> };
            // SAFETY: `rows` is one row, and the body reads one; weights and tables have entries for all channels of the group
            // (checked by the caller), at least one; `output` is one position; shifts are short; `conv` checked the alignment.
            unsafe { body(&raw const *run) };
            return true;
        }
        let body = if wide { three_windows::<16> } else { three_windows::<8> };
        // SAFETY: as above with three rows and three positions, `pitch` apart; `conv` takes three for a block or more.
        unsafe { body(&raw const *run) };
        if run.channels % BLOCK != 0 {
            // The last four channels again rather than less than four.
            let skipped = run.channels - BLOCK;
            let last = Run {
                bias: run.bias.wrapping_add(4 * skipped),
                multiplier: run.multiplier.wrapping_add(4 * skipped),
                shift: run.shift.wrapping_add(skipped),
                output: run.output.wrapping_add(skipped * size),
                channels: BLOCK,
                weights: run.weights.wrapping_add(skipped * run.len),
                ..*run
            };
            // SAFETY: as above; four channels are left.
            unsafe { body(&raw const last) };
        }
        true
    }
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
