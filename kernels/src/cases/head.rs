//! Cases of what a detector's head has with bodies of instruction sets below it.

use super::{Case, Failure, Memory, Paint, compare, take};
use crate::head::{GroupNorm, Mixing, mix, mix_scratch};
use crate::{Isa, reference};

/// A mixing; at most 256 values in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MixCase {
    /// Points in and out, channels.
    pub shape: [u16; 3],
    /// Contents: points, and both matrices.
    pub paint: Paint,
}

pub(super) fn run<I: Isa>(isa: I, case: &MixCase, memory: &mut Memory) -> Result<(), Failure> {
    let [points_in, points_out, width] = case.shape;
    let [inputs, outputs, channels] = case.shape.map(usize::from);
    let inner = GroupNorm { factor: 32 << 9, factor_bits: 9, offset: 32, min: 0, max: 127 };
    let outer = GroupNorm { factor: -20 << 10, factor_bits: 10, offset: -640, min: -100, max: 127 };
    let op = Mixing { points_in, points_out, width, inner, outer };
    let mut rest = &mut memory.activations[..];
    let points = take(&mut rest, inputs * channels)?;
    let (matrix, other) = (take(&mut rest, channels * channels)?, take(&mut rest, outputs * inputs)?);
    let (found, expected) = (take(&mut rest, outputs * channels)?, take(&mut rest, outputs * channels)?);
    let scratch = take(&mut rest, mix_scratch(points_in, points_out, width))?;
    points.fill_with(case.paint.values(false));
    let mut values = case.paint.values(true);
    matrix.fill_with(&mut values);
    other.fill_with(values);
    found.fill(0x55);
    scratch.fill(0x33);
    reference::mix(&op, points, [matrix, other], expected);
    mix(isa, &op, points, [matrix, other], found, scratch)?;
    compare(found, expected)
}

pub(super) fn table(visit: &mut dyn FnMut(&Case)) {
    use Paint::{All, Extremes, Period, Random};
    for shape in [[8, 16, 16], [8, 8, 32], [4, 2, 4], [16, 6, 12], [12, 10, 20], [4, 4, 64]] {
        for paint in [Period, Random(1), Random(2), Extremes(3), All(0, 0), All(-128, -128), All(127, -128)] {
            visit(&Case::Mix(MixCase { shape, paint }));
        }
    }
}
