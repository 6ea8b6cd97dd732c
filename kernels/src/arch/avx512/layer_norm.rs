//! Layer normalisation, 16 values at a time. Products of 64 bits, of which 32 from bit 16 on are kept.

use core::arch::x86_64::{
    __m512i, _mm_cvtsi32_si128, _mm_mask_storeu_epi8, _mm_max_epi8, _mm_min_epi8, _mm_set1_epi8,
    _mm256_maskz_loadu_epi16, _mm512_add_epi32, _mm512_add_epi64, _mm512_and_si512, _mm512_cvtepi16_epi32,
    _mm512_cvtsepi32_epi8, _mm512_madd_epi16, _mm512_mask_mov_epi32, _mm512_maskz_loadu_epi16,
    _mm512_maskz_loadu_epi32, _mm512_mul_epi32, _mm512_reduce_add_epi32, _mm512_reduce_add_epi64, _mm512_set1_epi16,
    _mm512_set1_epi32, _mm512_set1_epi64, _mm512_setzero_si512, _mm512_sll_epi32, _mm512_slli_epi64, _mm512_sra_epi32,
    _mm512_srai_epi32, _mm512_srli_epi64,
};

use super::rescale::lanes;
use super::strip::mask;
use super::tile::LANES;
use crate::layer_norm::{LayerNorm, Row};

/// See [`crate::Isa::moments`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn moments(row: &[i8]) -> (i32, u64) {
    let (ones, low) = (_mm512_set1_epi16(1), _mm512_set1_epi64(u32::MAX.into()));
    let (mut sums, mut squares) = (_mm512_setzero_si512(), _mm512_setzero_si512());
    for block in row.chunks(64) {
        // SAFETY: lanes of the mask are values of the row; others are not read.
        let values = unsafe { _mm512_maskz_loadu_epi16(mask(block.len() / 2), block.as_ptr().cast()) };
        sums = _mm512_add_epi32(sums, _mm512_madd_epi16(values, ones));
        // Two squares are 2^31 at most, without a sign.
        let pairs = _mm512_madd_epi16(values, values);
        squares = _mm512_add_epi64(squares, _mm512_and_si512(pairs, low));
        squares = _mm512_add_epi64(squares, _mm512_srli_epi64::<32>(pairs));
    }
    (_mm512_reduce_add_epi32(sums), _mm512_reduce_add_epi64(squares).cast_unsigned())
}

/// `(a · b) >> 16` of each lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn high(a: __m512i, b: __m512i) -> __m512i {
    const ODD: u16 = 0xaaaa;
    let even = _mm512_srli_epi64::<16>(_mm512_mul_epi32(a, b));
    let odd = _mm512_mul_epi32(_mm512_srli_epi64::<32>(a), _mm512_srli_epi64::<32>(b));
    _mm512_mask_mov_epi32(even, ODD, _mm512_slli_epi64::<16>(odd))
}

/// See [`crate::Isa::normalise`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn normalise(op: &LayerNorm<'_>, row: Row, input: &[i8], output: &mut [i8]) {
    let (scale, shift) = (_mm512_set1_epi32(row.scale), _mm512_set1_epi32(row.shift));
    let places = _mm_cvtsi32_si128(row.places.unsigned_abs().cast_signed());
    let (min, max) = (_mm_set1_epi8(op.min), _mm_set1_epi8(op.max));
    let channels = output.len().min(input.len() / 2).min(op.factor.len() / 2).min(op.offset.len() / 4);
    for channel in (0..channels).step_by(LANES) {
        let mask = lanes(channels - channel);
        // SAFETY: lanes of the mask are channels of the row and of the tables; others are not read.
        let (values, factors, offsets) = unsafe {
            (
                _mm256_maskz_loadu_epi16(mask, input.as_ptr().cast::<i16>().wrapping_add(channel)),
                _mm256_maskz_loadu_epi16(mask, op.factor.as_ptr().cast::<i16>().wrapping_add(channel)),
                _mm512_maskz_loadu_epi32(mask, op.offset.as_ptr().cast::<i32>().wrapping_add(channel)),
            )
        };
        let normalised = _mm512_add_epi32(high(scale, _mm512_cvtepi16_epi32(values)), shift);
        let scaled = high(normalised, _mm512_cvtepi16_epi32(factors));
        let scaled = if row.places < 0 { _mm512_sll_epi32(scaled, places) } else { _mm512_sra_epi32(scaled, places) };
        let steps = _mm512_cvtsepi32_epi8(_mm512_srai_epi32::<6>(_mm512_add_epi32(scaled, offsets)));
        let place = output.as_mut_ptr().wrapping_add(channel);
        // SAFETY: a byte of each channel of the mask; others are not written.
        unsafe { _mm_mask_storeu_epi8(place, mask, _mm_min_epi8(_mm_max_epi8(steps, min), max)) };
    }
}
