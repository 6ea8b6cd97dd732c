//! Depthwise convolutions of 3x3, eight channels of 16 bits at a time: the leaf of [`strip`].
//!
//! VMULLB and VMULLT multiply the even and the odd channels to 32 bits: 6 instructions for 8 products.
//! The constants of the eight channels lie beside the strip on the stack, even channels first.

use core::arch::{asm, naked_asm};

use crate::arch::strip::{self, Leaf};
use crate::conv::Conv;

/// Channels of a block.
const BLOCK: usize = 8;

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

/// Runs a checked convolution whose shifts are short, if its shapes are those that the instructions above can do.
pub(super) fn depthwise(op: &Conv<'_>, input: &[i8], output: &mut [i8]) -> bool {
    strip::depthwise::<Eight>(op, input, output)
}

impl Leaf for Eight {
    const CHANNELS: usize = BLOCK;
    type Pixel = Pixel;

    fn empty() -> Self {
        Self { taps: [[0; BLOCK]; 9], bias: [[0; 4]; 2], multiplier: [[0; 4]; 2], shift: [[0; 4]; 2] }
    }

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

    fn all(value: i8) -> Pixel {
        [value.into(); BLOCK]
    }

    #[inline(always)]
    fn widen(pixels: &[i8], pitch: usize, line: &mut [Pixel]) -> bool {
        widen(pixels, pitch, line)
    }

    #[inline(always)]
    unsafe fn positions(&self, op: &Conv<'_>, rows: [*const Pixel; 3], output: *mut i8, count: usize, step: usize) {
        let run = Run {
            rows,
            eight: self,
            output,
            count,
            pitch: op.output.channels.into(),
            step,
            zero: op.requant.zero_point.into(),
            min: op.requant.min.into(),
            max: op.requant.max.into(),
        };
        // SAFETY: the caller's promise is that of `positions`.
        unsafe { positions(&raw const run) };
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
