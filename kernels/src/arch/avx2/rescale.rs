//! From sums to outputs, eight at a time, for shifts of 33..=54: [`crate::Requant::apply`] in 32 bits. The low word of a product
//! decides nothing; the half and the zero point, moved to the place of the result, are one constant. Narrowing saturates, as the
//! clamp that follows does.

use core::arch::x86_64::{
    __m128i, __m256i, _mm_loadl_epi64, _mm_max_epi8, _mm_min_epi8, _mm_packs_epi16, _mm_set1_epi8, _mm256_add_epi32,
    _mm256_blend_epi32, _mm256_castsi256_si128, _mm256_cvtepu8_epi32, _mm256_extracti128_si256, _mm256_loadu_si256,
    _mm256_mul_epi32, _mm256_packs_epi32, _mm256_permute4x64_epi64, _mm256_set1_epi32, _mm256_setzero_si256,
    _mm256_sllv_epi32, _mm256_srai_epi32, _mm256_srav_epi32, _mm256_srli_epi64, _mm256_sub_epi32,
};

use crate::requant::Requant;

/// Channels at a time.
pub(super) const LANES: usize = 8;

/// Constants of eight channels.
#[derive(Clone, Copy)]
pub(super) struct Rescale {
    pub(super) bias: __m256i,
    multiplier: __m256i,
    /// Of the odd channels, in the low words.
    odd: __m256i,
    /// With the zero point.
    half: __m256i,
    /// By how much the high words are shifted.
    shift: __m256i,
}

impl Rescale {
    /// Of the channels from `channel` on; `None` behind the end.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn of(requant: &Requant<'_>, channel: usize) -> Option<Self> {
        let word = |table: &[u8]| {
            let eight = table.get(4 * channel..)?.first_chunk::<{ 4 * LANES }>()?;
            // SAFETY: 32 bytes; a vector may lie at any address.
            Some(unsafe { _mm256_loadu_si256(eight.as_ptr().cast()) })
        };
        let shifts = requant.shift.get(channel..)?.first_chunk::<LANES>()?;
        // SAFETY: eight bytes.
        let shifts = _mm256_cvtepu8_epi32(unsafe { _mm_loadl_epi64(shifts.as_ptr().cast()) });
        Some(Self::new(word(requant.bias)?, word(requant.multiplier)?, shifts, requant.zero_point))
    }

    /// The same for all, without a bias.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn same(multiplier: i32, shift: u8, zero: i8) -> Self {
        Self::new(_mm256_setzero_si256(), _mm256_set1_epi32(multiplier), _mm256_set1_epi32(shift.into()), zero)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn new(bias: __m256i, multiplier: __m256i, shifts: __m256i, zero: i8) -> Self {
        let shift = _mm256_sub_epi32(shifts, _mm256_set1_epi32(32));
        let zero = _mm256_sllv_epi32(_mm256_set1_epi32(zero.into()), shift);
        // 2^(shift-1), also where the shift is 1.
        let half = _mm256_srai_epi32::<1>(_mm256_sllv_epi32(_mm256_set1_epi32(1), shift));
        let odd = _mm256_srli_epi64::<32>(multiplier);
        Self { bias, multiplier, odd, half: _mm256_add_epi32(half, zero), shift }
    }

    /// Sums that have the bias already, to outputs that are not narrowed yet.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn scaled(&self, sums: __m256i) -> __m256i {
        let even = _mm256_srli_epi64::<32>(_mm256_mul_epi32(sums, self.multiplier));
        let odd = _mm256_mul_epi32(_mm256_srli_epi64::<32>(sums), self.odd);
        let high = _mm256_blend_epi32::<0b1010_1010>(even, odd);
        _mm256_srav_epi32(_mm256_add_epi32(high, self.half), self.shift)
    }
}

/// Bounds of outputs.
#[derive(Clone, Copy)]
pub(super) struct Bounds([__m128i; 2]);

impl Bounds {
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn new(min: i8, max: i8) -> Self {
        Self([_mm_set1_epi8(min), _mm_set1_epi8(max)])
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn clamp(&self, values: __m128i) -> __m128i {
        let Self([min, max]) = *self;
        _mm_min_epi8(_mm_max_epi8(values, min), max)
    }

    /// 16 values to bytes.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn bytes(&self, low: __m256i, high: __m256i) -> __m128i {
        // Packed half by half: the inner quarters change places.
        let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
        self.clamp(_mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words)))
    }
}
