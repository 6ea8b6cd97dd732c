//! Depthwise convolutions of 3x3, eight channels at a time.
//!
//! A strip of three rows of these channels is widened to 16 bits once, padding included, and walked by the window; a row of
//! the map enters it once. VMULLB and VMULLT multiply the even and the odd channels to 32 bits: 6 instructions for 8 products.
//! The constants of the eight channels lie beside the strip on the stack, even channels first.

use core::arch::{asm, naked_asm};

use crate::conv::Conv;

/// Channels of a block.
const BLOCK: usize = 8;
/// Columns of a strip.
const COLUMNS: usize = 34;

/// A pixel of eight channels.
type Pixel = [i16; BLOCK];

/// Constants of eight channels, in the order of the assembly: four even channels, then four odd ones.
#[repr(C, align(16))]
struct Eight {
    taps: [Pixel; 9],
    bias: [[i32; 4]; 2],
    multiplier: [[i32; 4]; 2],
    /// To the left: negative.
    shift: [[i32; 4]; 2],
}

/// One call of [`positions`], in the order of the assembly.
#[repr(C)]
struct Run {
    rows: [*const Pixel; 3],
    eight: *const Eight,
    output: *mut i8,
    count: usize,
    /// Outputs, and bytes of a strip, from one position to the next.
    pitch: usize,
    step: usize,
    zero: i32,
    min: i32,
    max: i32,
}

macro_rules! tap {
    ($row:literal, $column:literal, $tap:literal) => {
        concat!(
            "vldrh.u16 q2, [",
            $row,
            ", #16*",
            $column,
            "]\n",
            "vldrh.u16 q3, [r3, #16*",
            $tap,
            "]\n",
            "vmullb.s16 q4, q2, q3\n",
            "vmullt.s16 q5, q2, q3\n",
            "vadd.i32 q0, q0, q4\n",
            "vadd.i32 q1, q1, q5\n",
        )
    };
}

/// `count` neighbours of one row of the output.
///
/// A rescaled sum is saturated to 16 bits, and so is its sum with the zero point: both lie outside the clamp's bounds where
/// that changes them.
///
/// # Safety
/// The pointers cover what the counts say, `count` is not 0, and each shift is -22..=-1.
#[unsafe(naked)]
unsafe extern "C" fn positions(run: *const Run) {
    naked_asm!(
        ".cpu cortex-m55",
        "push {{r4-r10, lr}}",
        "vpush {{d8-d15}}",
        "ldm r0, {{r0-r10}}",
        "vdup.16 q6, r9",
        "vdup.16 q7, r10",
        "dls lr, r5",
        "2:",
        "vldrw.u32 q0, [r3, #144]",
        "vldrw.u32 q1, [r3, #160]",
        tap!("r0", 0, 0),
        tap!("r0", 1, 1),
        tap!("r0", 2, 2),
        tap!("r1", 0, 3),
        tap!("r1", 1, 4),
        tap!("r1", 2, 5),
        tap!("r2", 0, 6),
        tap!("r2", 1, 7),
        tap!("r2", 2, 8),
        "vldrw.u32 q2, [r3, #176]",
        "vldrw.u32 q3, [r3, #192]",
        "vmulh.s32 q0, q0, q2",
        "vmulh.s32 q1, q1, q3",
        "vldrw.u32 q2, [r3, #208]",
        "vldrw.u32 q3, [r3, #224]",
        "vrshl.s32 q0, q0, q2",
        "vrshl.s32 q1, q1, q3",
        "vqmovnb.s32 q0, q0",
        "vqmovnt.s32 q0, q1",
        "vqadd.s16 q0, q0, r8",
        "vmax.s16 q0, q0, q6",
        "vmin.s16 q0, q0, q7",
        "vstrb.16 q0, [r4]",
        "add r4, r6",
        "add r0, r7",
        "add r1, r7",
        "add r2, r7",
        "le lr, 2b",
        "vpop {{d8-d15}}",
        "pop {{r4-r10, pc}}",
    )
}

/// Runs a checked convolution, if its shapes and its rescale are those that the instructions above can do.
pub(super) fn depthwise(op: &Conv<'_>, input: &[i8], output: &mut [i8]) -> bool {
    let channels = usize::from(op.output.channels);
    let step = usize::from(op.window.stride[1]);
    let per_strip = (COLUMNS - 3).checked_div(step).map_or(0, |more| more + 1);
    if op.window.kernel != [3, 3] || channels < BLOCK || per_strip == 0 || !op.requant.is_short() {
        return false;
    }
    let mut strip = [[[0; BLOCK]; COLUMNS]; 3];
    let mut eight = Eight::EMPTY;
    let mut next = 0;
    while next < channels {
        // The last eight again rather than less than eight: the same inputs give the same outputs.
        let channel = next.min(channels - BLOCK);
        if !eight.load(op, channel) {
            return false;
        }
        for column in (0..usize::from(op.output.width)).step_by(per_strip) {
            let count = per_strip.min(usize::from(op.output.width) - column);
            let part = Part { op, channel, column, count };
            if !part.run(&eight, input, output, &mut strip) {
                return false;
            }
        }
        next = channel + BLOCK;
    }
    true
}

impl Eight {
    const EMPTY: Self = Self { taps: [[0; BLOCK]; 9], bias: [[0; 4]; 2], multiplier: [[0; 4]; 2], shift: [[0; 4]; 2] };

    /// The constants of the channels from `channel` on; false behind the end.
    #[inline(always)]
    fn load(&mut self, op: &Conv<'_>, channel: usize) -> bool {
        let channels = usize::from(op.output.channels);
        let weights = crate::arch::signed(op.weights).get(channel..).unwrap_or_default();
        let (Some(low), Some(high)) = (op.requant.four(channel), op.requant.four(channel + 4)) else { return false };
        let words = |bytes: &[u8; 16]| {
            let word = |at: usize| i32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
            [word(0), word(4), word(8), word(12)]
        };
        let apart = |[a, b, c, d]: [i32; 4], [e, f, g, h]: [i32; 4]| [[a, c, e, g], [b, d, f, h]];
        self.bias = apart(words(low.bias), words(high.bias));
        self.multiplier = apart(words(low.multiplier), words(high.multiplier));
        self.shift = apart(low.shift.map(|shift| 32 - i32::from(shift)), high.shift.map(|shift| 32 - i32::from(shift)));
        widen(weights, channels, &mut self.taps)
    }
}

/// Eight channels of some neighbouring columns of the output.
struct Part<'a> {
    op: &'a Conv<'a>,
    channel: usize,
    column: usize,
    count: usize,
}

impl Part<'_> {
    /// All rows of the output; false if a slice is too short.
    #[inline(always)]
    fn run(&self, eight: &Eight, input: &[i8], output: &mut [i8], strip: &mut [[Pixel; COLUMNS]; 3]) -> bool {
        let &Self { op, channel, column, count } = self;
        let (channels, step) = (usize::from(op.output.channels), usize::from(op.window.stride[1]));
        let zero = [i16::from(op.input_zero); BLOCK];
        // Columns of the strip that lie on the map; the others are padding in every row.
        let columns = (count - 1) * step + 3;
        let [_, left] = op.window.start(0, column);
        let from = (-left).clamp(0, columns as isize) as usize;
        let to = (usize::from(op.input.width) as isize - left).clamp(from as isize, columns as isize) as usize;
        for line in &mut *strip {
            line.get_mut(..columns).unwrap_or_default().fill(zero);
        }
        let top_padding = usize::from(op.window.pad[0]);
        // Rows, counted from the upper edge of the padding, that the strip has seen.
        let mut seen = top_padding;
        for (y, out) in output.chunks_exact_mut(usize::from(op.output.width) * channels).enumerate() {
            let top = y * usize::from(op.window.stride[0]);
            // What lies above the map has the padding that was there from the start.
            for row in seen.max(top)..top + 3 {
                let Some(line) = strip.get_mut(row % 3).and_then(|line| line.get_mut(from..to)) else { return false };
                if row - top_padding >= usize::from(op.input.height) {
                    line.fill(zero);
                } else if !line.is_empty() {
                    let pixel = (row - top_padding) * usize::from(op.input.width) + (left + from as isize) as usize;
                    if !widen(input.get(pixel * channels + channel..).unwrap_or_default(), channels, line) {
                        return false;
                    }
                }
            }
            seen = seen.max(top + 3);
            let Some(out) = out.get_mut(column * channels + channel..) else { return false };
            if out.len() < (count - 1) * channels + BLOCK {
                return false;
            }
            let line = |row: usize| strip.get(row % 3).map_or(core::ptr::null(), |row| row.as_ptr());
            let run = Run {
                rows: [line(top), line(top + 1), line(top + 2)],
                eight,
                output: out.as_mut_ptr(),
                count,
                pitch: channels,
                step: step * size_of::<Pixel>(),
                zero: op.requant.zero_point.into(),
                min: op.requant.min.into(),
                max: op.requant.max.into(),
            };
            // SAFETY: a position reads three pixels of each row of the strip, `step` apart, `columns` in all, at most
            // `COLUMNS`; `out` has room for eight values of each of `count` positions, `pitch` apart; `depthwise` has
            // checked the shifts.
            unsafe { positions(&raw const run) };
        }
        true
    }
}

/// Eight values each of neighbouring pixels, `pitch` bytes apart, widened; false if there are fewer.
#[inline(always)]
fn widen(pixels: &[i8], pitch: usize, line: &mut [Pixel]) -> bool {
    if line.is_empty() || pixels.len() < (line.len() - 1) * pitch + BLOCK {
        return false;
    }
    // SAFETY: eight bytes are read, at any alignment, and a pixel written for each of `count`, which is not 0.
    unsafe {
        asm!(
            "dls lr, {count}",
            "2:",
            "vldrb.s16 q0, [r0]",
            "add r0, {pitch}",
            "vstrh.16 q0, [{to}], #16",
            "le lr, 2b",
            // The widening load takes a low register.
            inout("r0") pixels.as_ptr() => _,
            to = inout(reg) line.as_mut_ptr() => _,
            count = in(reg) line.len(),
            pitch = in(reg) pitch,
            out("q0") _,
            out("lr") _,
            options(nostack, preserves_flags),
        );
    }
    true
}
