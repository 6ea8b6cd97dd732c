//! Convolutions as products of an expanded input with packed weights.
//!
//! SMLAD multiplies two pairs of 16-bit values, so int8 values have to be widened first. The input is widened once per
//! window and used by every output channel; a weight is widened once for five windows, or for four where that leaves none
//! over. Of 15 instructions for 20 products 10 multiply; where two windows share a weight, as in CMSIS-NN, they are 1.5 for 2
//! products and more.
//!
//! Expanded windows: per 4 values of the depth ten words, bytes 0 and 2 of five windows as halves, then bytes 1 and 3.

use core::arch::{asm, naked_asm};

use super::rows;
use crate::conv::{Conv, gather, row_len};
use crate::element::Element;

/// Windows that share a widened weight: all that the registers hold, and less.
const MOST: usize = 5;
const LEAST: usize = 4;
/// Steps of 4 values that the inner loop has unrolled: divides those of 3x3 windows of 16 channels.
const UNROLLED: usize = 12;

/// What [`products`] needs beside the weights; the order is its own.
#[derive(Clone, Copy)]
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
    windows_end: *const u32,
    end: *const u8,
}

/// One half of a step: words of the windows, and the products of the weights in `lr` with them.
macro_rules! half {
    ($widen:literal) => {
        concat!(
            ".if {count} == 5\n",
            "ldm.w r0!, {{r2, r8-r11}}\n",
            ".else\n",
            "ldm.w r0!, {{r8-r11}}\n",
            ".endif\n",
            $widen,
            "\n",
            ".if {count} == 5\n",
            "smlad r3, r2, lr, r3\n",
            ".endif\n",
            "smlad r4, r8, lr, r4\n",
            "smlad r5, r9, lr, r5\n",
            "smlad r6, r10, lr, r6\n",
            "smlad r7, r11, lr, r7\n",
        )
    };
}

/// An instruction for each of the sums in `r4` to `r7`, and `r3` where there are five.
macro_rules! each {
    ($before:literal, $between:literal, $behind:literal) => {
        concat!(
            ".if {count} == 5\n",
            $before,
            "r3",
            $between,
            "r3",
            $behind,
            ".endif\n",
            $before,
            "r4",
            $between,
            "r4",
            $behind,
            $before,
            "r5",
            $between,
            "r5",
            $behind,
            $before,
            "r6",
            $between,
            "r6",
            $behind,
            $before,
            "r7",
            $between,
            "r7",
            $behind,
        )
    };
}

/// All channels of one group for `COUNT` expanded windows, 4 or 5: from the sum to the stored value of `BITS`, 8 or 16,
/// saturated.
///
/// The sum starts at the bias; `SMMLA` yields `zero·2^s + half + ⌊sum·multiplier / 2^32⌋` with s = shift - 32, so that one
/// arithmetic shift ends in `zero + round(sum·multiplier / 2^shift)`, as [`crate::Requant::apply`] defines it.
///
/// # Safety
/// The pointers cover what the shapes say, `weights` up to `end` at least one row; `skip` steps of the first pass are
/// none; each shift is 33..=54 (so that the sum in `SMMLA` stays below 2^31).
#[unsafe(naked)]
unsafe extern "C" fn products<const BITS: u32, const COUNT: usize>(
    channels: *const Channels,
    weights: *const u8,
    skip: usize,
) {
    naked_asm!(
        "push {{r4-r11, lr}}",
        "sub sp, #40",
        "ldm r0, {{r4-r12}}",
        "stm sp, {{r4-r12}}",
        // Where a row enters the loop: 20 bytes a step, and 8 for each window.
        "adr.w r3, 3f",
        "movs r0, #20 + 8 * {count}",
        "mla r3, r2, r0, r3",
        "orr r3, r3, #1",
        "str r3, [sp, #36]",
        "ldm sp, {{r8-r12, lr}}",
        // A channel: its bias, the windows, where the loop begins.
        "2:",
        "ldr r4, [r8], #4",
        "stm sp, {{r8-r11}}",
        "ldr r0, [sp, #24]",
        "ldr r12, [sp, #36]",
        ".if {count} == 5",
        "mov r3, r4",
        ".endif",
        "mov r5, r4",
        "mov r6, r4",
        "mov r7, r4",
        "bx r12",
        ".p2align 2",
        "3:",
        ".rept {unrolled}",
        "ldr.w r12, [r1], #4",
        half!("sxtb16 lr, r12"),
        half!("sxtb16 lr, r12, ror #8"),
        ".endr",
        "ldr r2, [sp, #28]",
        "cmp r0, r2",
        "bne.w 3b",
        "ldm sp, {{r8-r12, lr}}",
        "ldrb r0, [r10], #1",
        "ldr r2, [r9], #4",
        "sub r0, r0, #32",
        "lsl lr, lr, r0",
        "asr lr, lr, #1",
        each!("smmla ", ", ", ", r2, lr\n"),
        each!("asr ", ", ", ", r0\n"),
        each!("ssat ", ", #{bits}, ", "\n"),
        "add lr, r11, r12",
        ".if {bits} == 8",
        ".if {count} == 5",
        "strb r7, [r11, r12, lsl #2]",
        "strb r6, [lr, r12, lsl #1]",
        "strb r5, [r11, r12, lsl #1]",
        "strb r4, [r11, r12]",
        "strb r3, [r11], #1",
        ".else",
        "strb r7, [lr, r12, lsl #1]",
        "strb r6, [r11, r12, lsl #1]",
        "strb r5, [r11, r12]",
        "strb r4, [r11], #1",
        ".endif",
        ".else",
        ".if {count} == 5",
        "strh r7, [r11, r12, lsl #2]",
        "strh r6, [lr, r12, lsl #1]",
        "strh r5, [r11, r12, lsl #1]",
        "strh r4, [r11, r12]",
        "strh r3, [r11], #2",
        ".else",
        "strh r7, [lr, r12, lsl #1]",
        "strh r6, [r11, r12, lsl #1]",
        "strh r5, [r11, r12]",
        "strh r4, [r11], #2",
        ".endif",
        ".endif",
        "ldr r0, [sp, #32]",
        "cmp r1, r0",
        "bne.w 2b",
        "add sp, #40",
        "pop {{r4-r11, pc}}",
        unrolled = const UNROLLED,
        bits = const BITS,
        count = const COUNT,
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
            // Loads and stores that follow one another take a cycle less.
            ".rept 2",
            "ldr {odd}, [{from}], #4",
            "ldr {second}, [{from}], #4",
            "sxtb16 {even}, {odd}",
            "sxtb16 {odd}, {odd}, ror #8",
            "sxtb16 {third}, {second}",
            "sxtb16 {second}, {second}, ror #8",
            "str {even}, [{to}], #4*{count}",
            "str {odd}, [{to}], #4*{count}",
            "str {third}, [{to}], #4*{count}",
            "str {second}, [{to}], #4*{count}",
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
            third = out(reg) _,
            second = out(reg) _,
            count = const COUNT,
            options(nostack),
        );
    }
}

/// Runs a checked convolution whose shifts are short, if its shapes are those that the instructions above can do.
pub(super) fn conv(op: &Conv<'_>, input: &[i8], output: &mut [i8], scratch: &mut [i8]) -> bool {
    let groups = usize::from(op.groups);
    let channels = usize::from(op.input.channels) / groups;
    let row = row_len(op.window.kernel, channels);
    let positions = output.len() / op.output_bytes();
    if positions < LEAST {
        // Few positions of a wide map are rare: no body of their own.
        if op.to != Element::Int8 {
            return false;
        }
        return rows::conv(op, input, output, scratch);
    }
    // SAFETY: every bit pattern is a u32 and an i8.
    let (_, words, _) = unsafe { scratch.align_to_mut::<u32>() };
    let room = |count: usize| words.len() >= count * row / 2 + row / 4;
    let fives = positions >= MOST && room(MOST);
    if !room(LEAST) {
        return false;
    }
    let (bytes, windows) = words.split_at_mut(row / 4);
    // SAFETY: as above.
    let (_, bytes, _) = unsafe { bytes.align_to_mut::<i8>() };
    super::end_with_zeros(op, channels, bytes);
    // So many fours that fives end where the positions do; where there is no such number, the last ones come again, as the same
    // inputs give the same outputs.
    let fours = match (MOST - positions % MOST) % MOST {
        _ if !fives => positions,
        fours if LEAST * fours <= positions => LEAST * fours,
        _ => 0,
    };
    for group in 0..groups {
        let Some(part) = Part::new(op, group, input) else { return false };
        let mut first = 0;
        while first < positions {
            let done = if first < fours {
                let start = first.min(positions - LEAST);
                first += LEAST;
                part.run::<LEAST>(start, bytes, windows, output)
            } else {
                let start = first.min(positions - MOST);
                first += MOST;
                part.run::<MOST>(start, bytes, windows, output)
            };
            if !done {
                return false;
            }
        }
    }
    if op.to == Element::Int8 {
        super::clamp(op.requant.min, op.requant.max, output);
    }
    true
}

/// One group of a convolution.
struct Part<'a> {
    op: &'a Conv<'a>,
    windows: Windows<'a>,
    weights: &'a [u8],
    /// Bytes of a row of weights.
    row: usize,
    /// Bytes of an output position before the group's.
    before: usize,
    /// What is the same for all positions.
    constants: Channels,
}

impl<'a> Part<'a> {
    fn new(op: &'a Conv<'a>, group: usize, input: &'a [i8]) -> Option<Self> {
        let groups = usize::from(op.groups);
        let (channels, outputs) = (usize::from(op.input.channels) / groups, usize::from(op.output.channels) / groups);
        let (row, channel) = (row_len(op.window.kernel, channels), group * outputs);
        let weights = op.weights.get(channel * row..(channel + outputs) * row)?;
        let constants = Channels {
            bias: op.requant.bias.as_ptr().wrapping_add(4 * channel),
            multiplier: op.requant.multiplier.as_ptr().wrapping_add(4 * channel),
            shift: op.requant.shift.as_ptr().wrapping_add(channel),
            output: core::ptr::null_mut(),
            pitch: op.output_bytes(),
            zero: if op.to == Element::Int8 { 2 * i32::from(op.requant.zero_point) + 1 } else { 1 },
            windows: core::ptr::null(),
            windows_end: core::ptr::null(),
            end: weights.as_ptr_range().end,
        };
        let windows = Windows::new(op, input, group * channels, channels);
        Some(Self { op, windows, weights, row, before: channel * op.to.bytes(), constants })
    }

    /// `COUNT` positions from `start` on; false if a slice is too short.
    #[inline(never)]
    fn run<const COUNT: usize>(&self, start: usize, bytes: &mut [i8], windows: &mut [u32], output: &mut [i8]) -> bool {
        let &Self { op, weights, row, before, constants, .. } = self;
        let Some(windows) = windows.get_mut(..COUNT * row / 2) else { return false };
        for window in 0..COUNT {
            let Some(place) = windows.get_mut(window..) else { return false };
            self.windows.widen::<COUNT>(start + window, bytes, place);
        }
        let Some(output) = output.get_mut(start * constants.pitch + before..) else { return false };
        let ends = windows.as_ptr_range();
        let channels =
            Channels { output: output.as_mut_ptr(), windows: ends.start, windows_end: ends.end, ..constants };
        let (body, steps) =
            (if op.to == Element::Int8 { products::<8, COUNT> } else { products::<16, COUNT> }, row / 4);
        // SAFETY: `windows` has 2·`COUNT` words for each of the `steps` of a row; `weights` are whole rows, at least one;
        // the tables have an entry for every channel (checked by the caller); `output` has `COUNT` positions from here on,
        // a pitch apart; the caller has checked the shifts.
        unsafe { body(&raw const channels, weights.as_ptr(), steps.next_multiple_of(UNROLLED) - steps) };
        true
    }
}

/// The windows of an input, and what is the same for all of them.
pub(super) struct Windows<'a> {
    op: &'a Conv<'a>,
    input: &'a [i8],
    /// First channel, and how many.
    first: usize,
    channels: usize,
    /// Tops, and left edges, of windows that lie on the map: less than these; none where channels are left out.
    limits: [usize; 2],
    columns: usize,
    strides: [usize; 2],
    pads: [usize; 2],
    rows: usize,
    /// Bytes of a line of a window, and of the map.
    line: usize,
    pitch: usize,
}

impl<'a> Windows<'a> {
    /// Windows of some channels.
    pub(super) fn new(op: &'a Conv<'a>, input: &'a [i8], first: usize, channels: usize) -> Self {
        let [rows, columns] = op.window.kernel.map(usize::from);
        let limit = |side: u16, kernel: usize| (usize::from(side) + 1).saturating_sub(kernel);
        let limits = [limit(op.input.height, rows), limit(op.input.width, columns)];
        let all = usize::from(op.input.channels) == channels;
        Self {
            op,
            input,
            first,
            channels,
            limits: if all { limits } else { [0; 2] },
            columns: op.output.width.into(),
            strides: op.window.stride.map(usize::from),
            pads: [op.window.pad[0], op.window.pad[1]].map(usize::from),
            rows,
            line: columns * channels,
            pitch: usize::from(op.input.width) * channels,
        }
    }

    /// The window of a position, widened; `bytes` is of the length of a row, zeros behind the window. A call: five copies of it
    /// are 3 KB.
    #[inline(never)]
    pub(super) fn widen<const COUNT: usize>(&self, position: usize, bytes: &mut [i8], place: &mut [u32]) {
        let (row, column) = (position / self.columns, position % self.columns);
        // A start in the padding is a huge number here.
        let top = (row * self.strides[0]).wrapping_sub(self.pads[0]);
        let left = (column * self.strides[1]).wrapping_sub(self.pads[1]);
        let line = self.line;
        if top >= self.limits[0] || left >= self.limits[1] {
            let start = [top as isize, left as isize];
            if COUNT > 1 && self.channels % 4 == 0 && self.channels == usize::from(self.op.input.channels) {
                return padded::<COUNT>(self.op, self.input, start, place);
            }
            self.at_an_edge(start, bytes);
            return expand::<COUNT>(bytes, place);
        }
        let mut from = top * self.pitch + left * self.channels;
        if line % 4 == 0 {
            let mut place = place;
            for _ in 0..self.rows {
                let Some(pixels) = self.input.get(from..from + line) else { return };
                expand::<COUNT>(pixels, place);
                place = place.get_mut(line / 2 * COUNT..).unwrap_or_default();
                from += self.pitch;
            }
            return;
        }
        for line in bytes.chunks_exact_mut(line).take(self.rows) {
            let Some(pixels) = self.input.get(from..from + line.len()) else { return };
            copy(pixels, line);
            from += self.pitch;
        }
        expand::<COUNT>(bytes, place);
    }

    /// Out of line: it is long, and most windows do without it.
    #[cold]
    #[inline(never)]
    fn at_an_edge(&self, start: [isize; 2], bytes: &mut [i8]) {
        gather(self.op, self.first, self.channels, self.input, start, bytes);
    }
}

/// A window that reaches over an edge of a map whose pixels are whole words.
#[cold]
#[inline(never)]
fn padded<const COUNT: usize>(op: &Conv<'_>, input: &[i8], [top, left]: [isize; 2], place: &mut [u32]) {
    let [height, width, channels] = [op.input.height, op.input.width, op.input.channels].map(|side| side as isize);
    let [rows, columns] = op.window.kernel.map(isize::from);
    let zero = u32::from(i16::from(op.input_zero) as u16) * 0x1_0001;
    // Columns of the window that lie on the map.
    let from = (-left).clamp(0, columns);
    let to = (width - left).clamp(from, columns);
    let words = |columns: isize| (columns * channels / 2) as usize * COUNT;
    let fill = |place: &mut [u32]| place.iter_mut().step_by(COUNT).for_each(|word| *word = zero);
    let mut rest = place;
    for row in top..top + rows {
        let (line, behind) = rest.split_at_mut(words(columns).min(rest.len()));
        rest = behind;
        let at = ((row * width + left + from) * channels) as usize;
        let pixels = input.get(at..at.wrapping_add(((to - from) * channels) as usize));
        match pixels.filter(|_| (0..height).contains(&row)) {
            Some(pixels) => {
                let (before, line) = line.split_at_mut(words(from).min(line.len()));
                let (inside, behind) = line.split_at_mut(words(to - from).min(line.len()));
                fill(before);
                expand::<COUNT>(pixels, inside);
                fill(behind);
            }
            None => fill(line),
        }
    }
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
