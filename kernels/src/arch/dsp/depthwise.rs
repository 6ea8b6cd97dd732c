//! Depthwise convolutions of 3x3, four channels at a time: the leaf of [`strip`].

use core::arch::{asm, naked_asm};

use crate::arch::strip::{self, Leaf};
use crate::conv::Conv;

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

/// Runs a checked convolution whose shifts are short, if its shapes are those that the instructions above can do.
pub(super) fn depthwise(op: &Conv<'_>, input: &[i8], output: &mut [i8]) -> bool {
    let done = strip::depthwise::<Four>(op, input, output);
    if done {
        super::clamp(op.requant.min, op.requant.max, output);
    }
    done
}

impl Leaf for Four {
    const CHANNELS: usize = 4;
    type Pixel = Pixel;

    fn empty() -> Self {
        Self { bias: [0; 4], taps: [[0; 2]; 9], rescale: [[0; 3]; 4] }
    }

    #[inline(always)]
    fn load(&mut self, op: &Conv<'_>, channel: usize) -> bool {
        let Some(constants) = op.requant.four(channel) else { return false };
        let (bias, multiplier) = (constants.bias.as_chunks::<4>().0, constants.multiplier.as_chunks::<4>().0);
        let zero = 2 * i32::from(op.requant.zero_point) + 1;
        for lane in 0..4 {
            self.bias[lane] = i32::from_le_bytes(bias[lane]);
            let shift = u32::from(constants.shift[lane]).wrapping_sub(32);
            self.rescale[lane] = [i32::from_le_bytes(multiplier[lane]), zero.wrapping_shl(shift) >> 1, shift as i32];
        }
        let weights = crate::arch::signed(op.weights).get(channel..).unwrap_or_default();
        Self::widen(weights, op.output.channels.into(), &mut self.taps)
    }

    fn all(value: i8) -> Pixel {
        [u32::from(i16::from(value) as u16) * 0x1_0001; 2]
    }

    #[inline(always)]
    fn widen(pixels: &[i8], pitch: usize, line: &mut [Pixel]) -> bool {
        widen(pixels, pitch, line)
    }

    #[inline(always)]
    unsafe fn positions(&self, op: &Conv<'_>, rows: [*const Pixel; 3], output: *mut i8, count: usize, step: usize) {
        let run = Run { rows, four: self, output, count, pitch: op.output.channels.into(), step };
        // SAFETY: the caller's promise is that of `positions`.
        unsafe { positions(&raw const run) };
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
