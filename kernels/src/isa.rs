//! Where instruction sets differ.

use crate::add::Add;
use crate::arch;
use crate::attention::{self, Attention, ROWS, Rows};
use crate::conv::{self, Conv, Packing};
use crate::curve;
use crate::layer_norm::{self, LayerNorm, Row};
use crate::pool::Pool;
use crate::requant::{self, Requant};
use crate::softmax;

/// Leaf functions of one instruction set. A value of such a type proves that the CPU has it, so the leaves are
/// safe to call. Slices of one call have one length, a multiple of 4.
pub trait Isa: Copy {
    /// `scalar`, `avx2`, `vnni`, `avx512`, `avx512vnni`, `neon`, `i8mm`, `dsp`, `mve`.
    const NAME: &'static str;

    /// How the weights of a convolution lie best; if in blocks, [`Self::conv`] takes them as rows, too. What it does not take
    /// is for the leaves.
    const PACKING: Packing = Packing::Rows;

    /// Runs `body` compiled for this instruction set.
    fn enter<R>(self, body: impl FnOnce() -> R) -> R {
        body()
    }

    /// Whether all shifts of a rescale are 33..=54, for which one 32-bit sum and one shift are enough.
    #[inline(always)]
    fn are_short(self, shifts: &[u8]) -> bool {
        requant::are_short(shifts)
    }

    /// Runs a convolution whose slices were checked in a way of its own; `short` as [`Self::are_short`] says of its shifts.
    /// False if it has none for these shapes, or too little scratch; then the body made of the leaves below runs.
    #[inline(always)]
    fn conv(self, _op: &Conv<'_>, _input: &[i8], _output: &mut [i8], _scratch: &mut [i8], _short: bool) -> bool {
        false
    }

    /// As [`Self::conv`], for a depthwise convolution.
    #[inline(always)]
    fn depthwise(self, _op: &Conv<'_>, _input: &[i8], _output: &mut [i8], _short: bool) -> bool {
        false
    }

    /// As [`Self::conv`], for a pool.
    #[inline(always)]
    fn pool(self, _op: &Pool, _input: &[i8], _output: &mut [i8]) -> bool {
        false
    }

    /// The curve behind a convolution, in place.
    #[inline(always)]
    fn curve(self, table: &[u8; 256], values: &mut [i8]) {
        curve::in_place(table, values);
    }

    /// Adds the first elements, and says how many it did; the portable body does the rest.
    #[inline(always)]
    fn add(self, _op: &Add, _a: &[i8], _b: &[i8], _output: &mut [i8]) -> usize {
        0
    }

    /// As [`Self::add`], with an output that takes the place of `a`.
    #[inline(always)]
    fn add_in_place(self, _op: &Add, _a_and_output: &mut [i8], _b: &[i8]) -> usize {
        0
    }

    /// As [`Self::conv`], for an attention.
    #[inline(always)]
    fn attention(self, _op: &Attention<'_>, _query: &[i8], _key: &[i8], _out: &mut [i8], _scratch: &mut [i8]) -> bool {
        false
    }

    /// Rescales four sums to the logits at the start of a row; less where the row ends.
    #[inline(always)]
    fn put(self, op: &Attention<'_>, row: &mut [i8], sums: [i32; 4]) {
        attention::put(op, row, sums);
    }

    /// Softmax of a row of logits in place.
    #[inline(always)]
    fn softmax_row(self, row: &mut [i8]) {
        softmax::row(row);
    }

    /// Values mixed by four rows of weights, 16 channels from `channel` on.
    #[inline(always)]
    fn mix(self, weights: [&[[i8; 2]]; ROWS], values: &Rows<'_>, channel: usize) -> [[i32; 16]; ROWS] {
        attention::mix(weights, values, channel)
    }

    /// Sum and sum of squares of a row of Int16.
    #[inline(always)]
    fn moments(self, row: &[i8]) -> (i32, u64) {
        layer_norm::moments(row)
    }

    /// A row of a layer normalisation, with the constants of the row.
    #[inline(always)]
    fn normalise(self, op: &LayerNorm<'_>, row: Row, input: &[i8], output: &mut [i8]) {
        layer_norm::normalise(op, row, input, output);
    }

    /// Dot products of two input rows with four weight rows (int8 as bytes).
    fn dot_2x4(self, rows: [&[i8]; 2], weights: [&[u8]; 4]) -> [[i32; 4]; 2];

    /// A position of a convolution, with weights as [`Packing::Blocks`]: its window is `row`.
    #[inline(always)]
    fn row_in_blocks(self, op: &Conv<'_>, row: &[i8], out: &mut [i8]) {
        conv::row_in_blocks(op, row, out);
    }

    /// [`Requant::apply`] to four sums, of the channels from `channel` on.
    #[inline(always)]
    fn requant4(self, requant: &Requant<'_>, channel: usize, sums: [i32; 4]) -> [i8; 4] {
        requant.apply4(channel, sums)
    }

    /// Dot product of one input row with one weight row.
    fn dot(self, row: &[i8], weights: &[u8]) -> i32;
}

/// The instruction sets of this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Portable.
    Scalar,
    /// x86-64 with AVX2.
    Avx2,
    /// x86-64 with AVX-VNNI.
    Vnni,
    /// x86-64 with AVX-512BW.
    Avx512,
    /// x86-64 with AVX-512BW and AVX-512-VNNI.
    Avx512Vnni,
    /// AArch64 with dot products.
    Neon,
    /// AArch64 with dot products and matrix products.
    I8mm,
    /// Armv7E-M with DSP instructions.
    Dsp,
    /// Armv8.1-M with integer vectors.
    Mve,
}

impl Level {
    /// Those that this CPU has, slowest first.
    pub fn available() -> impl Iterator<Item = Self> {
        let x86 = [Self::Avx2, Self::Vnni, Self::Avx512, Self::Avx512Vnni];
        let others = [Self::Neon, Self::I8mm, Self::Dsp, Self::Mve];
        [Self::Scalar].into_iter().chain(x86).chain(others).filter(|level| match level {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => arch::Avx2::new().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => arch::Avx512::new().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => arch::Avx512Vnni::new().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Vnni => arch::Vnni::new().is_some(),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => arch::Neon::new().is_some(),
            #[cfg(target_arch = "aarch64")]
            Self::I8mm => arch::I8mm::new().is_some(),
            #[cfg(all(target_arch = "arm", feature = "dsp"))]
            Self::Dsp => true,
            #[cfg(all(target_arch = "arm", feature = "mve"))]
            Self::Mve => true,
            #[allow(unreachable_patterns, reason = "levels of other architectures")]
            _ => false,
        })
    }

    /// The fastest one that this CPU has.
    #[must_use]
    pub fn best() -> Self {
        Self::available().last().unwrap_or(Self::Scalar)
    }

    /// As the documentation calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => arch::Scalar::NAME,
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512vnni",
            Self::Vnni => "vnni",
            Self::Neon => "neon",
            Self::I8mm => "i8mm",
            Self::Dsp => "dsp",
            Self::Mve => "mve",
        }
    }
}

/// `with_isa!(level, |isa| body)`: the value of `body`, compiled once for each instruction set of the host and run with
/// that of `level`, or with `Scalar` where the CPU lacks it. For hosts; firmware knows its instruction set and names it.
#[macro_export]
macro_rules! with_isa {
    ($level:expr, |$isa:ident| $body:expr) => {
        'chosen: {
            #[cfg(target_arch = "x86_64")]
            match $level {
                $crate::Level::Vnni => {
                    if let Some($isa) = $crate::arch::Vnni::new() {
                        break 'chosen $body;
                    }
                }
                $crate::Level::Avx512Vnni => {
                    if let Some($isa) = $crate::arch::Avx512Vnni::new() {
                        break 'chosen $body;
                    }
                }
                $crate::Level::Avx512 => {
                    if let Some($isa) = $crate::arch::Avx512::new() {
                        break 'chosen $body;
                    }
                }
                $crate::Level::Avx2 => {
                    if let Some($isa) = $crate::arch::Avx2::new() {
                        break 'chosen $body;
                    }
                }
                _ => {}
            }
            #[cfg(target_arch = "aarch64")]
            match $level {
                $crate::Level::I8mm => {
                    if let Some($isa) = $crate::arch::I8mm::new() {
                        break 'chosen $body;
                    }
                }
                $crate::Level::Neon => {
                    if let Some($isa) = $crate::arch::Neon::new() {
                        break 'chosen $body;
                    }
                }
                _ => {}
            }
            #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
            let _ = $level;
            let $isa = $crate::arch::Scalar;
            $body
        }
    };
}
