//! Depthwise convolutions of 3x3, four channels at a time.
//!
//! A strip of three rows of these four channels is widened once, padding included, and walked by the window; a row of the
//! map enters it once. The constants of the four channels lie beside it on the stack.

use core::arch::{asm, naked_asm};

use super::{even, odd};
use crate::conv::Conv;

/// Columns of a strip.
const COLUMNS: usize = 34;

/// A pixel of four channels: 0 and 2 as halves, then 1 and 3.
type Pixel = [u32; 2];

/// Constants of four channels, in the order of the assembly.
#[repr(C)]
struct Four {
    bias: [i32; 4],
    taps: [Pixel; 9],
    /// Multiplier; half and zero point in units of 2^-shift; shift beyond 32.
    rescale: [[i32; 3]; 4],
}

/// One call of [`positions`], in the order of the assembly.
#[repr(C)]
struct Run {
    rows: [*const Pixel; 3],
    four: *const Four,
    output: *mut i8,
    count: usize,
    /// Outputs, and bytes of a strip, from one position to the next.
    pitch: usize,
    step: usize,
}

macro_rules! tap {
    ($row:literal, $column:literal, $tap:literal) => {
        concat!(
            "ldrd r8, r9, [",
            $row,
            ", #8*",
            $column,
            "]\n",
            "ldrd r10, r11, [r3, #16+8*",
            $tap,
            "]\n",
            "smlabb r4, r8, r10, r4\n",
            "smlatt r6, r8, r10, r6\n",
            "smlabb r5, r9, r11, r5\n",
            "smlatt r7, r9, r11, r7\n",
        )
    };
}

/// As in the point convolution: one SMMLA and one shift are the whole rescale.
macro_rules! rescale {
    ($sum:literal) => {
        concat!(
            "ldm r8!, {{r9-r11}}\n",
            "smmla ",
            $sum,
            ", ",
            $sum,
            ", r9, r10\n",
            "asr ",
            $sum,
            ", ",
            $sum,
            ", r11\n",
            "ssat ",
            $sum,
            ", #8, ",
            $sum,
            "\n",
        )
    };
}

/// `count` neighbours of one row of the output.
///
/// # Safety
/// The pointers cover what the counts say.
#[unsafe(naked)]
unsafe extern "C" fn positions(run: *const Run) {
    naked_asm!(
        "push {{r4-r11, lr}}",
        "ldrd r4, r5, [r0, #24]",
        "push {{r4, r5}}",
        "ldr r12, [r0, #16]",
        "ldr lr, [r0, #20]",
        "ldm.w r0, {{r0-r3}}",
        "2:",
        "ldm.w r3, {{r4-r7}}",
        tap!("r0", 0, 0),
        tap!("r0", 1, 1),
        tap!("r0", 2, 2),
        tap!("r1", 0, 3),
        tap!("r1", 1, 4),
        tap!("r1", 2, 5),
        tap!("r2", 0, 6),
        tap!("r2", 1, 7),
        tap!("r2", 2, 8),
        "add r8, r3, #88",
        rescale!("r4"),
        rescale!("r5"),
        rescale!("r6"),
        rescale!("r7"),
        "bfi r4, r5, #8, #8",
        "bfi r4, r6, #16, #8",
        "bfi r4, r7, #24, #8",
        "ldrd r8, r9, [sp]",
        "str r4, [r12]",
        "add r12, r12, r8",
        "add r0, r0, r9",
        "add r1, r1, r9",
        "add r2, r2, r9",
        "subs lr, lr, #1",
        "bne.w 2b",
        "add sp, #8",
        "pop {{r4-r11, pc}}",
    )
}

/// Runs a checked convolution, if its shapes and its rescale are those that the instructions above can do.
pub(super) fn depthwise(op: &Conv<'_>, input: &[i8], output: &mut [i8]) -> bool {
    let channels = usize::from(op.output.channels);
    let step = usize::from(op.window.stride[1]);
    let per_strip = (COLUMNS - 3).checked_div(step).map_or(0, |more| more + 1);
    if op.window.kernel != [3, 3] || channels % 4 != 0 || per_strip == 0 || !op.requant.is_short() {
        return false;
    }
    let (mut four, mut strip) = (Four::EMPTY, [[[0; 2]; COLUMNS]; 3]);
    for channel in (0..channels).step_by(4) {
        if !four.load(op, channel) {
            return false;
        }
        for column in (0..usize::from(op.output.width)).step_by(per_strip) {
            let count = per_strip.min(usize::from(op.output.width) - column);
            let part = Part { op, channel, column, count };
            if !part.run(&four, input, output, &mut strip) {
                return false;
            }
        }
    }
    super::clamp(op.requant.min, op.requant.max, output);
    true
}

impl Four {
    const EMPTY: Self = Self { bias: [0; 4], taps: [[0; 2]; 9], rescale: [[0; 3]; 4] };

    /// The constants of the channels from `channel` on; false behind the end.
    fn load(&mut self, op: &Conv<'_>, channel: usize) -> bool {
        let Some(constants) = op.requant.four(channel) else { return false };
        for (tap, values) in self.taps.iter_mut().zip(op.weights.chunks_exact(usize::from(op.output.channels))) {
            let Some(four) = values.get(channel..).and_then(|values| values.first_chunk()) else { return false };
            let word = u32::from_le_bytes(*four);
            *tap = [even(word), odd(word)];
        }
        let (bias, multiplier) = (constants.bias.as_chunks::<4>().0, constants.multiplier.as_chunks::<4>().0);
        for lane in 0..4 {
            self.bias[lane] = i32::from_le_bytes(bias[lane]);
            let shift = u32::from(constants.shift[lane]).wrapping_sub(32);
            let half = (2 * i32::from(op.requant.zero_point) + 1).wrapping_shl(shift) >> 1;
            self.rescale[lane] = [i32::from_le_bytes(multiplier[lane]), half, shift as i32];
        }
        true
    }
}

/// Four channels of some neighbouring columns of the output.
struct Part<'a> {
    op: &'a Conv<'a>,
    channel: usize,
    column: usize,
    count: usize,
}

impl Part<'_> {
    /// All rows of the output; false if a slice is too short.
    #[inline(always)]
    fn run(&self, four: &Four, input: &[i8], output: &mut [i8], strip: &mut [[Pixel; COLUMNS]; 3]) -> bool {
        let &Self { op, channel, column, count } = self;
        let (channels, step) = (usize::from(op.output.channels), usize::from(op.window.stride[1]));
        let zero = [u32::from(i16::from(op.input_zero) as u16) * 0x1_0001; 2];
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
            if out.len() < (count - 1) * channels + 4 {
                return false;
            }
            let line = |row: usize| strip.get(row % 3).map_or(core::ptr::null(), |row| row.as_ptr());
            let run = Run {
                rows: [line(top), line(top + 1), line(top + 2)],
                four,
                output: out.as_mut_ptr(),
                count,
                pitch: channels,
                step: step * size_of::<Pixel>(),
            };
            // SAFETY: a position reads three pixels of each row of the strip, `step` apart, `columns` in all, at most
            // `COLUMNS`; `out` has room for four values of each of `count` positions, `pitch` apart.
            unsafe { positions(&raw const run) };
        }
        true
    }
}

/// Words of neighbouring pixels, `pitch` bytes apart, widened; false if there are fewer.
#[inline(always)]
fn widen(pixels: &[i8], pitch: usize, line: &mut [Pixel]) -> bool {
    if line.is_empty() || pixels.len() < (line.len() - 1) * pitch + 4 {
        return false;
    }
    // SAFETY: a word is read, at any alignment, and a pixel written for each of `count`, which is not 0.
    unsafe {
        asm!(
            "2:",
            "ldr {odd}, [{from}]",
            "add {from}, {from}, {pitch}",
            "sxtb16 {even}, {odd}",
            "sxtb16 {odd}, {odd}, ror #8",
            "strd {even}, {odd}, [{to}], #8",
            "subs {count}, {count}, #1",
            "bne 2b",
            from = inout(reg) pixels.as_ptr() => _,
            to = inout(reg) line.as_mut_ptr() => _,
            count = inout(reg) line.len() => _,
            pitch = in(reg) pitch,
            even = out(reg) _,
            odd = out(reg) _,
            options(nostack),
        );
    }
    true
}
