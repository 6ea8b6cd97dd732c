//! Adaptive mixing: a box's sampled points times two matrices that were made from its content.
//!
//! A norm over a whole group follows each product, so the scales of points and matrices fall out: matrices are narrowed to int8
//! with whichever shift fits, and sums to Int16 likewise. The norm is that of [`crate::layer_norm()`] over all values of a group,
//! with one factor and one offset.

use crate::arch;
use crate::element::{saturated, wide};
use crate::isa::Isa;
use crate::layer_norm::{LayerNorm, row_constants, value};
use crate::shape::{KernelError, check};
use crate::softmax::word;

/// Normalisation over all values of a group, and a clamp; constants as in [`LayerNorm`].
#[derive(Clone, Copy, Debug)]
pub struct GroupNorm {
    /// Output steps of a normalised value of 1, with [`Self::factor_bits`] fraction bits.
    pub factor: i16,
    /// 0..=15.
    pub factor_bits: u8,
    /// 1/64 output steps, with the zero point and the rounding half.
    pub offset: i32,
    /// Least output.
    pub min: i8,
    /// Largest output.
    pub max: i8,
}

/// A mixing of one group.
#[derive(Clone, Copy, Debug)]
pub struct Mixing {
    /// Points that were sampled, a multiple of 4.
    pub points_in: u16,
    /// Points after the second product, a multiple of 2.
    pub points_out: u16,
    /// Channels of a group, a multiple of 4.
    pub width: u16,
    /// After the first product; its zero point is 0.
    pub inner: GroupNorm,
    /// After the second product.
    pub outer: GroupNorm,
}

/// Scratch bytes of [`mix`].
#[must_use]
pub const fn mix_scratch(points_in: u16, points_out: u16, width: u16) -> usize {
    let most = if points_in > points_out { points_in } else { points_out };
    (width as usize).saturating_mul(points_in as usize + 4 * most as usize)
}

/// Runs a mixing. `points` are `[points_in, width]`, `channel_matrix` `[width of the output, width]`, `point_matrix`
/// `[points_out, points_in]`, the output `[points_out, width]`; the zero point of the three inputs is 0.
///
/// # Errors
/// [`KernelError`] if a slice has not the length that the geometry gives, or a group has more than 2048 values.
pub fn mix<I: Isa>(
    isa: I,
    op: &Mixing,
    points: &[i8],
    [channel_matrix, point_matrix]: [&[i8]; 2],
    output: &mut [i8],
    scratch: &mut [i8],
) -> Result<(), KernelError> {
    let [inputs, outputs, width] = [op.points_in, op.points_out, op.width].map(usize::from);
    let multiples = inputs.is_multiple_of(4) && outputs.is_multiple_of(2) && width.is_multiple_of(4);
    let sizes = [inputs * width, outputs * width];
    check(multiples && sizes.iter().all(|size| (2..=2048).contains(size)), KernelError::Geometry)?;
    check(op.inner.factor_bits <= 15 && op.outer.factor_bits <= 15, KernelError::Weights)?;
    check(points.len() == sizes[0], KernelError::Input)?;
    check(channel_matrix.len() == width * width && point_matrix.len() == outputs * inputs, KernelError::Weights)?;
    check(output.len() == sizes[1], KernelError::Output)?;
    check(scratch.len() >= mix_scratch(op.points_in, op.points_out, op.width), KernelError::Scratch)?;
    let (mixed, sums) = scratch.split_at_mut(sizes[0]);
    isa.enter(
        #[inline(always)]
        || {
            // Channels first, so that the second product finds the points of a channel side by side.
            product(isa, channel_matrix, points, width, sums);
            norm(isa, &op.inner, sums, mixed);
            product(isa, point_matrix, mixed, inputs, sums);
            norm(isa, &op.outer, sums, output);
        },
    );
    Ok(())
}

/// Sums `[rows of a, rows of b]`, i32, of rows of `depth` values.
#[inline(always)]
fn product<I: Isa>(isa: I, a: &[i8], b: &[i8], depth: usize, sums: &mut [i8]) {
    let columns = b.len() / depth;
    for (pair, sums) in a.chunks_exact(2 * depth).zip(sums.chunks_exact_mut(8 * columns)) {
        let (above, below) = sums.split_at_mut(4 * columns);
        let outs = above.as_chunks_mut::<16>().0.iter_mut().zip(below.as_chunks_mut::<16>().0);
        for (four, outs) in b.chunks_exact(4 * depth).zip(outs) {
            let (first, second) = pair.split_at(depth);
            let mut rows = four.chunks_exact(depth).map(arch::unsigned);
            let found = isa.dot_2x4([first, second], [(); 4].map(|()| rows.next().unwrap_or_default()));
            for (out, sums) in [outs.0, outs.1].into_iter().zip(found) {
                for (out, sum) in out.as_chunks_mut().0.iter_mut().zip(sums) {
                    *out = sum.to_le_bytes().map(u8::cast_signed);
                }
            }
        }
    }
}

/// Right shift that leaves the largest of some magnitudes `bits` bits.
#[inline(always)]
fn excess(magnitudes: impl Iterator<Item = u32>, bits: u32) -> u32 {
    let all = magnitudes.fold(0, |all, magnitude| all | magnitude);
    (u32::BITS - all.leading_zeros()).saturating_sub(bits)
}

#[inline(always)]
fn half_up(value: i32, shift: u32) -> i32 {
    (value + ((1 << shift) >> 1)) >> shift
}

/// Narrows sums to Int16 in place and normalises them.
#[inline(always)]
fn norm<I: Isa>(isa: I, norm: &GroupNorm, sums: &mut [i8], output: &mut [i8]) {
    let count = output.len();
    let words = sums.as_chunks_mut::<4>().0;
    let words = words.get_mut(..count).unwrap_or_default();
    let shift = excess(words.iter().map(|&sum| word(sum).unsigned_abs()), 15);
    // Value `index` lies before the sum that is read next.
    for index in 0..words.len() {
        let narrow = saturated(half_up(word(words[index]), shift));
        words[index / 2].as_chunks_mut().0[index % 2] = narrow;
    }
    let row = sums.get(..2 * count).unwrap_or_default();
    let (min, max, factor_bits) = (norm.min, norm.max, norm.factor_bits);
    let op = LayerNorm { channels: count as u16, factor: &[], factor_bits, offset: &[], epsilon: 0, min, max };
    let (sum, squares) = isa.moments(row);
    let constants = row_constants(&op, sum, squares);
    for (out, &pair) in output.iter_mut().zip(row.as_chunks().0) {
        *out = value(&constants, wide(pair), norm.factor, norm.offset, [min.into(), max.into()]);
    }
}

/// Narrows Int16 to int8 by one shift for all: the largest magnitude keeps seven bits. What was 2^shift has become 1.
///
/// # Errors
/// [`KernelError`] if the output has not half the length of the input.
pub fn narrow(input: &[i8], output: &mut [i8]) -> Result<(), KernelError> {
    let (values, rest) = input.as_chunks::<2>();
    check(values.len() == output.len() && rest.is_empty(), KernelError::Output)?;
    let shift = excess(values.iter().map(|&pair| wide(pair).unsigned_abs().into()), 7);
    for (out, &pair) in output.iter_mut().zip(values) {
        *out = half_up(wide(pair).into(), shift).min(i8::MAX.into()) as i8;
    }
    Ok(())
}
