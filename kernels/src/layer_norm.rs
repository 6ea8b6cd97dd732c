//! Layer normalisation: exact moments, a reciprocal root of 32 bits, one product with its factor per value.
//!
//! A row of n values x of 16 bits:
//!
//! ```text
//! S = Σx, Q = Σx²; W = max(n·Q - S² + epsilon, n - 1)     n² times the variance, exact. Values that are not all equal
//!                                                         have n - 1 at least, so the bound changes no other row
//! e = ⌊log2 W⌋ / 2, w = ⌊W·2^30 / 4^e⌋                     2^30 <= w < 2^32
//! R = reciprocal root of w, 30 fraction bits              (n·x - S)·R·2^(-30-e) is the normalised x
//! P = n·R, b its bit length; F = min(24, 14 + e - (b - 30)) fraction bits are what 32 bits hold of a normalised x
//! A = P >> (14 + e - F), B = -((S·R) >> (30 + e - F))
//! h = ((A·x) >> 16) + B                                   normalised x, F fraction bits, |h| < 2^30
//! t = (h·factor) >> 16, then by F + G - 22 more           6 fraction bits of an output step
//! y = clamp((t + offset) >> 6, min, max)
//! ```
//!
//! All shifts are floors. The reciprocal root starts at a table's entry for the 64th that v begins with, at most 0.8 % off,
//! and takes two Newton steps `r·(3 - v·r²) / 2`, each of which squares the error and takes 1.5 of it: what is left is less
//! than 2^-26.

use crate::element::wide;
use crate::isa::Isa;
use crate::shape::{KernelError, check};

/// A layer normalisation from Int16 to int8.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm<'a> {
    /// Channels, 2..=2048.
    pub channels: u16,
    /// `i16` per channel: output steps of a normalised value of 1, with [`Self::factor_bits`] fraction bits.
    pub factor: &'a [u8],
    /// G, 0..=15.
    pub factor_bits: u8,
    /// `i32` per channel: 1/64 output steps, with the zero point and the rounding half.
    pub offset: &'a [u8],
    /// Added to the variance: `channels²` times that of the integers, at most 2^62.
    pub epsilon: u64,
    /// Least output.
    pub min: i8,
    /// Largest output.
    pub max: i8,
}

/// Constants of one row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// A.
    pub(crate) scale: i32,
    /// B.
    pub(crate) shift: i32,
    /// F + G - 22.
    pub(crate) places: i32,
}

/// Runs a layer normalisation over positions of [`LayerNorm::channels`] values of Int16.
///
/// # Errors
/// [`KernelError`] if a slice has not the length that the channels give, or a constant is out of range.
pub fn layer_norm<I: Isa>(isa: I, op: &LayerNorm<'_>, input: &[i8], output: &mut [i8]) -> Result<(), KernelError> {
    let channels = usize::from(op.channels);
    check((2..=2048).contains(&channels), KernelError::Geometry)?;
    check(!input.is_empty() && input.len().is_multiple_of(2 * channels), KernelError::Input)?;
    check(2 * output.len() == input.len(), KernelError::Output)?;
    let constants = op.factor_bits <= 15 && op.epsilon <= 1 << 62;
    check(constants && op.factor.len() == 2 * channels && op.offset.len() == 4 * channels, KernelError::Weights)?;
    isa.enter(
        #[inline(always)]
        || {
            for (row, out) in input.chunks_exact(2 * channels).zip(output.chunks_exact_mut(channels)) {
                let (sum, squares) = isa.moments(row);
                isa.normalise(op, row_constants(op, sum, squares), row, out);
            }
        },
    );
    Ok(())
}

/// Sum and sum of squares of a row.
#[inline(always)]
pub(crate) fn moments(row: &[i8]) -> (i32, u64) {
    let (mut sum, mut squares) = (0, 0);
    let (blocks, rest) = row.as_chunks::<8>();
    for block in blocks {
        // Four squares, at most 2^30 each, fit 32 bits but for one value: two and two.
        let [a, b, c, d] = [0, 2, 4, 6].map(|at| i32::from(wide([block[at], block[at + 1]])));
        sum += a + b + c + d;
        squares += u64::from((a * a) as u32 + (b * b) as u32) + u64::from((c * c) as u32 + (d * d) as u32);
    }
    for &pair in rest.as_chunks().0 {
        let value = i32::from(wide(pair));
        sum += value;
        squares += u64::from((value * value) as u32);
    }
    (sum, squares)
}

/// What one row is scaled by, from its moments.
#[inline(always)]
pub(crate) fn row_constants(op: &LayerNorm<'_>, sum: i32, squares: u64) -> Row {
    let count = u64::from(op.channels);
    let square = u64::from(sum.unsigned_abs()) * u64::from(sum.unsigned_abs());
    let spread = (count * squares).wrapping_sub(square).wrapping_add(op.epsilon).max(count - 1).max(1);
    let half = spread.ilog2() / 2;
    let root = reciprocal_root(if half > 15 { spread >> (2 * half - 30) } else { spread << (30 - 2 * half) } as u32);
    let product = count * u64::from(root);
    let length = u64::BITS - product.leading_zeros();
    let fraction = (44 + half).saturating_sub(length).min(24);
    let shift = 14 + half - fraction;
    let mean = (i64::from(sum) * i64::from(root)) >> (shift + 16);
    Row {
        scale: (product >> shift) as i32,
        shift: (mean as i32).wrapping_neg(),
        places: (fraction + u32::from(op.factor_bits)) as i32 - 22,
    }
}

/// `round(2^15 / √(1 + i/64))`.
static ROOTS: [u16; 192] = {
    let mut table = [0; 192];
    let mut index = 0;
    while index < table.len() {
        // ⌊2x⌋ is the root, and half of it, rounded up, is the nearest to x.
        table[index] = ((1u64 << 38) / (64 + index as u64)).isqrt().div_ceil(2) as u16;
        index += 1;
    }
    table
};

/// `2^30 / √v` for `v = w / 2^30`, 1 <= v < 4, less than 2^-26 off.
pub(crate) fn reciprocal_root(w: u32) -> u32 {
    let seed = ROOTS[((w >> 24) as usize).clamp(64, 255) - 64];
    let w = u64::from(w);
    let mut root = u64::from(seed) << 15;
    for _ in 0..2 {
        let square = (root * root) >> 30;
        let product = (square * w) >> 30;
        root = (root * ((3 << 30) - product)) >> 31;
    }
    root as u32
}

/// One normalised value.
#[inline(always)]
pub(crate) fn value(row: &Row, x: i16, factor: i16, offset: i32, [min, max]: [i32; 2]) -> i8 {
    let high = |a: i32, b: i16| ((i64::from(a) * i64::from(b)) >> 16) as i32;
    let normalised = high(row.scale, x).wrapping_add(row.shift);
    let scaled = high(normalised, factor);
    let scaled = if row.places < 0 {
        scaled.wrapping_shl(row.places.unsigned_abs())
    } else {
        scaled.wrapping_shr(row.places.unsigned_abs())
    };
    (scaled.wrapping_add(offset) >> 6).min(max).max(min) as i8
}

/// The values of one row, channels from `first` on.
#[inline(always)]
pub(crate) fn normalise(op: &LayerNorm<'_>, row: Row, input: &[i8], output: &mut [i8]) {
    let bounds = [op.min.into(), op.max.into()];
    let constants = op.factor.as_chunks().0.iter().zip(op.offset.as_chunks().0);
    for (out, (&x, (&factor, &offset))) in output.iter_mut().zip(input.as_chunks().0.iter().zip(constants)) {
        *out = value(&row, wide(x), i16::from_le_bytes(factor), i32::from_le_bytes(offset), bounds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Golden integers that an independent implementation gave.
    #[test]
    fn roots_are_the_golden_ones() {
        assert_eq!([0, 1, 64, 191].map(|index| ROOTS[index]), [32_768, 32_515, 23_170, 16_416]);
        assert_eq!(ROOTS.iter().map(|&root| u32::from(root)).sum::<u32>(), 4_202_517);
        for (value, expected) in
            [(2u64, 759_250_125), (3, 619_925_131), (1000, 543_275_166), (123_456_789, 791_648_375)]
        {
            let half = value.ilog2() / 2;
            assert_eq!(reciprocal_root((value << 30 >> (2 * half)) as u32), expected, "{value}");
        }
    }

    #[test]
    fn roots_are_right_to_26_bits() {
        for w in (1 << 30..=u32::MAX).step_by(65_521).chain([u32::MAX]) {
            let exact = 2f64.powi(45) / f64::from(w).sqrt();
            assert!((f64::from(reciprocal_root(w)) / exact - 1.0).abs() < 2f64.powi(-26), "{w}");
        }
    }
}
