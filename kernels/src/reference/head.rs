//! What a detector's head has with bodies of instruction sets below it.

use super::{layer_norm, save};
use crate::head::{GroupNorm, Mixing};
use crate::{Element, LayerNorm};

/// Most values of a group of a case.
const VALUES: usize = 256;

/// [`crate::head::mix`].
pub fn mix(op: &Mixing, points: &[i8], [channels, matrix]: [&[i8]; 2], output: &mut [i8]) {
    let [inputs, outputs, width] = [op.points_in, op.points_out, op.width].map(usize::from);
    let product = |a: i8, b: i8| i64::from(a) * i64::from(b);
    let mut mixed = [0; VALUES];
    let first = |index: usize| {
        let (out, point) = (index / inputs, index % inputs);
        (0..width).map(|channel| product(channels[out * width + channel], points[point * width + channel])).sum()
    };
    group_norm(&op.inner, first, &mut mixed[..width * inputs]);
    let second = |index: usize| {
        let (out, channel) = (index / width, index % width);
        (0..inputs).map(|point| product(matrix[out * inputs + point], mixed[channel * inputs + point])).sum()
    };
    group_norm(&op.outer, second, &mut output[..outputs * width]);
}

/// Sums narrowed to 15 bits by one shift, then a layer normalisation with equal constants in all channels.
fn group_norm(norm: &GroupNorm, sum: impl Fn(usize) -> i64, output: &mut [i8]) {
    let largest = (0..output.len()).map(|index| sum(index).abs()).max().unwrap();
    let mut step = 1;
    while largest / step >= 1 << 15 {
        step *= 2;
    }
    let mut row = [0; 2 * VALUES];
    for index in 0..output.len() {
        save(Element::Int16, &mut row, index, (sum(index) + step / 2).div_euclid(step));
    }
    let mut factor = [0; 2 * VALUES];
    factor.as_chunks_mut().0.fill(norm.factor.to_le_bytes());
    let mut offset = [0; 4 * VALUES];
    offset.as_chunks_mut().0.fill(norm.offset.to_le_bytes());
    let (channels, factor_bits, epsilon, min, max) = (output.len() as u16, norm.factor_bits, 0, norm.min, norm.max);
    let op = LayerNorm { channels, factor: &factor, factor_bits, offset: &offset, epsilon, min, max };
    layer_norm(&op, &row, output);
}
