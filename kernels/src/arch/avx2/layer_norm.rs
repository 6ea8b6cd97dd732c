//! Layer normalisation, eight values at a time.

use core::arch::x86_64::{
    __m256i, _mm_cvtsi32_si128, _mm_loadu_si128, _mm_max_epi8, _mm_min_epi8, _mm_packs_epi16, _mm_packs_epi32,
    _mm_set1_epi8, _mm_storel_epi64, _mm256_add_epi32, _mm256_add_epi64, _mm256_and_si256, _mm256_blend_epi32,
    _mm256_castsi256_si128, _mm256_cvtepi16_epi32, _mm256_extracti128_si256, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_mul_epi32, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_epi64x, _mm256_setzero_si256, _mm256_sll_epi32,
    _mm256_slli_epi64, _mm256_sra_epi32, _mm256_srai_epi32, _mm256_srli_epi64,
};

use super::lanes;
use crate::layer_norm::{self, LayerNorm, Row};

/// See [`crate::Isa::moments`].
#[target_feature(enable = "avx2")]
pub(super) fn moments(row: &[i8]) -> (i32, u64) {
    let (ones, low) = (_mm256_set1_epi16(1), _mm256_set1_epi64x(u32::MAX.into()));
    let (mut sums, mut squares) = (_mm256_setzero_si256(), _mm256_setzero_si256());
    let (blocks, rest) = row.as_chunks::<32>();
    for block in blocks {
        // SAFETY: 16 values; a vector may lie at any address.
        let values = unsafe { _mm256_loadu_si256(block.as_ptr().cast()) };
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(values, ones));
        // Two squares are 2^31 at most, without a sign.
        let pairs = _mm256_madd_epi16(values, values);
        squares = _mm256_add_epi64(squares, _mm256_and_si256(pairs, low));
        squares = _mm256_add_epi64(squares, _mm256_srli_epi64::<32>(pairs));
    }
    let (sum, square) = layer_norm::moments(rest);
    // SAFETY: both types are 32 bytes and every bit pattern is an array.
    let squares = unsafe { core::mem::transmute::<__m256i, [u64; 4]>(squares) };
    (lanes(sums).into_iter().sum::<i32>() + sum, squares.into_iter().sum::<u64>() + square)
}

/// `(a · b) >> 16` of each lane.
#[inline]
#[target_feature(enable = "avx2")]
fn high(a: __m256i, b: __m256i) -> __m256i {
    let even = _mm256_srli_epi64::<16>(_mm256_mul_epi32(a, b));
    let odd = _mm256_mul_epi32(_mm256_srli_epi64::<32>(a), _mm256_srli_epi64::<32>(b));
    _mm256_blend_epi32::<0b1010_1010>(even, _mm256_slli_epi64::<16>(odd))
}

/// See [`crate::Isa::normalise`].
#[target_feature(enable = "avx2")]
pub(super) fn normalise(op: &LayerNorm<'_>, row: Row, input: &[i8], output: &mut [i8]) {
    let (scale, shift) = (_mm256_set1_epi32(row.scale), _mm256_set1_epi32(row.shift));
    let places = _mm_cvtsi32_si128(row.places.unsigned_abs().cast_signed());
    let (min, max) = (_mm_set1_epi8(op.min), _mm_set1_epi8(op.max));
    let channels = output.len().min(input.len() / 2).min(op.factor.len() / 2).min(op.offset.len() / 4);
    if channels < 8 {
        return layer_norm::normalise(op, row, input, output);
    }
    for first in (0..channels).step_by(8) {
        // The last ones again rather than less than eight.
        let channel = first.min(channels - 8);
        // SAFETY: eight values of each of them; a vector may lie at any address.
        let (values, factors, offsets) = unsafe {
            (
                _mm_loadu_si128(input.as_ptr().wrapping_add(2 * channel).cast()),
                _mm_loadu_si128(op.factor.as_ptr().wrapping_add(2 * channel).cast()),
                _mm256_loadu_si256(op.offset.as_ptr().wrapping_add(4 * channel).cast()),
            )
        };
        let normalised = _mm256_add_epi32(high(scale, _mm256_cvtepi16_epi32(values)), shift);
        let scaled = high(normalised, _mm256_cvtepi16_epi32(factors));
        let scaled = if row.places < 0 { _mm256_sll_epi32(scaled, places) } else { _mm256_sra_epi32(scaled, places) };
        let steps = _mm256_srai_epi32::<6>(_mm256_add_epi32(scaled, offsets));
        let steps = _mm_packs_epi32(_mm256_castsi256_si128(steps), _mm256_extracti128_si256::<1>(steps));
        let values = _mm_min_epi8(_mm_max_epi8(_mm_packs_epi16(steps, steps), min), max);
        // SAFETY: eight bytes.
        unsafe { _mm_storel_epi64(output.as_mut_ptr().wrapping_add(channel).cast(), values) };
    }
}
