//! From sums to outputs: [`crate::Requant::apply`], 16 channels at a time.
//!
//! Products are of 64 bits. From shift 33 on their low word decides nothing; up to 54 the half and the zero point, moved to the
//! place of the result, are one constant of 32 bits. Any other shift is done in 64 bits, in which nothing overflows: a product
//! is less than 2^62. Narrowing saturates, as the clamp that follows does.

use core::arch::x86_64::{
    __m128i, __m256i, __m512i, __mmask16, _mm_mask_storeu_epi8, _mm_maskz_loadu_epi8, _mm_max_epi8, _mm_min_epi8,
    _mm_set1_epi8, _mm_srli_si128, _mm256_mask_storeu_epi16, _mm512_add_epi32, _mm512_add_epi64,
    _mm512_castsi256_si512, _mm512_castsi512_si256, _mm512_cvtepi32_epi64, _mm512_cvtepu8_epi32, _mm512_cvtepu8_epi64,
    _mm512_cvtsepi32_epi8, _mm512_cvtsepi32_epi16, _mm512_cvtsepi64_epi32, _mm512_extracti64x4_epi64,
    _mm512_inserti64x4, _mm512_mask_mov_epi32, _mm512_maskz_loadu_epi32, _mm512_mul_epi32, _mm512_set1_epi32,
    _mm512_set1_epi64, _mm512_setzero_si512, _mm512_sllv_epi32, _mm512_sllv_epi64, _mm512_srai_epi32,
    _mm512_srav_epi32, _mm512_srav_epi64, _mm512_srli_epi64, _mm512_sub_epi32, _mm512_sub_epi64,
};

use super::tile::LANES;
use crate::conv::Conv;
use crate::element::Element;
use crate::requant::Requant;

/// The tables of a run of channels.
pub(in crate::arch) struct Table {
    bias: *const i32,
    multiplier: *const i32,
    shift: *const u8,
    channels: usize,
}

/// Constants of 16 neighbouring channels, or of fewer at the end.
pub(in crate::arch) struct Constants {
    bias: __m512i,
    multiplier: __m512i,
    /// Of the odd channels, in the low words.
    odd: __m512i,
    /// With the zero point.
    half: __m512i,
    /// By how much the high words are shifted.
    shift: __m512i,
    /// All of the shift.
    shifts: __m128i,
    mask: __mmask16,
}

/// What is the same for all channels.
#[derive(Clone, Copy)]
pub(in crate::arch) struct Finish {
    zero: i32,
    min: __m128i,
    max: __m128i,
    /// Whether outputs are Int16.
    wide: bool,
    /// Whether all shifts are 33 to 54.
    short: bool,
}

/// The first `left` lanes, or all of them.
#[inline(always)]
pub(in crate::arch) fn lanes(left: usize) -> __mmask16 {
    ((1u32 << left.min(LANES)) - 1) as __mmask16
}

impl Table {
    /// Of `channels` from `first` on; the tables have an entry for each (`Requant::check`).
    pub(in crate::arch) fn new(requant: &Requant<'_>, first: usize, channels: usize) -> Self {
        Self {
            bias: requant.bias.as_ptr().wrapping_add(4 * first).cast(),
            multiplier: requant.multiplier.as_ptr().wrapping_add(4 * first).cast(),
            shift: requant.shift.as_ptr().wrapping_add(first),
            channels,
        }
    }

    /// The biases of 16 channels from `channel` of them on, 0 where there are none.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(in crate::arch) fn biases(&self, channel: usize) -> __m512i {
        let mask = lanes(self.channels.saturating_sub(channel));
        // SAFETY: lanes of the mask are channels that the table has; others are not read. No alignment is needed.
        unsafe { _mm512_maskz_loadu_epi32(mask, self.bias.wrapping_add(channel)) }
    }

    /// With other biases, as many.
    pub(in crate::arch) fn with_bias(self, bias: *const i32) -> Self {
        Self { bias, ..self }
    }

    /// From `channel` of them on.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(super) fn constants(&self, finish: &Finish, channel: usize) -> Constants {
        let mask = lanes(self.channels.saturating_sub(channel));
        // SAFETY: lanes of the mask are channels that the tables have; others are not read. No alignment is needed.
        let (bias, multiplier, shifts) = unsafe {
            (
                _mm512_maskz_loadu_epi32(mask, self.bias.wrapping_add(channel)),
                _mm512_maskz_loadu_epi32(mask, self.multiplier.wrapping_add(channel)),
                _mm_maskz_loadu_epi8(mask, self.shift.wrapping_add(channel).cast()),
            )
        };
        Constants::new(finish, bias, multiplier, shifts, mask)
    }
}

impl Constants {
    /// The same multiplier and shift for the first `left` lanes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(super) fn same(finish: &Finish, multiplier: i32, shift: u8, left: usize) -> Self {
        let shifts = _mm_set1_epi8(shift.cast_signed());
        Self::new(finish, _mm512_setzero_si512(), _mm512_set1_epi32(multiplier), shifts, lanes(left))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn new(finish: &Finish, bias: __m512i, multiplier: __m512i, shifts: __m128i, mask: __mmask16) -> Self {
        let shift = _mm512_sub_epi32(_mm512_cvtepu8_epi32(shifts), _mm512_set1_epi32(32));
        let zero = _mm512_sllv_epi32(_mm512_set1_epi32(finish.zero), shift);
        // 2^(shift-1), also where the shift is 1.
        let half = _mm512_srai_epi32::<1>(_mm512_sllv_epi32(_mm512_set1_epi32(1), shift));
        let odd = _mm512_srli_epi64::<32>(multiplier);
        Self { bias, multiplier, odd, half: _mm512_add_epi32(half, zero), shift, shifts, mask }
    }

    /// With other biases.
    pub(super) fn with_bias(self, bias: __m512i) -> Self {
        Self { bias, ..self }
    }
}

impl Finish {
    /// Of a convolution; `short` as [`crate::requant::are_short`] says.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(super) fn of_conv(op: &Conv<'_>, short: bool) -> Self {
        let wide = op.to == Element::Int16;
        let zero = if wide { 0 } else { op.requant.zero_point };
        Self { wide, ..Self::new(zero, [op.requant.min, op.requant.max], short) }
    }

    /// To int8.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(super) fn new(zero: i8, [min, max]: [i8; 2], short: bool) -> Self {
        Self { zero: zero.into(), min: _mm_set1_epi8(min), max: _mm_set1_epi8(max), wide: false, short }
    }

    /// 16 sums to outputs that are not narrowed yet.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(super) fn scaled(&self, constants: &Constants, sums: __m512i) -> __m512i {
        const ODD: __mmask16 = 0xaaaa;
        let sums = _mm512_add_epi32(sums, constants.bias);
        if self.short {
            let even = _mm512_srli_epi64::<32>(_mm512_mul_epi32(sums, constants.multiplier));
            let odd = _mm512_mul_epi32(_mm512_srli_epi64::<32>(sums), constants.odd);
            let high = _mm512_mask_mov_epi32(even, ODD, odd);
            return _mm512_srav_epi32(_mm512_add_epi32(high, constants.half), constants.shift);
        }
        let eight = |sums: __m256i, multipliers: __m256i, shifts: __m128i| {
            let (shift, one) = (_mm512_cvtepu8_epi64(shifts), _mm512_set1_epi64(1));
            let product = _mm512_mul_epi32(_mm512_cvtepi32_epi64(sums), _mm512_cvtepi32_epi64(multipliers));
            let half = _mm512_sllv_epi64(one, _mm512_sub_epi64(shift, one));
            let scaled = _mm512_srav_epi64(_mm512_add_epi64(product, half), shift);
            _mm512_cvtsepi64_epi32(_mm512_add_epi64(scaled, _mm512_set1_epi64(self.zero.into())))
        };
        let [low, high] = [_mm512_castsi512_si256(sums), _mm512_extracti64x4_epi64::<1>(sums)];
        let multiplier = constants.multiplier;
        let low = eight(low, _mm512_castsi512_si256(multiplier), constants.shifts);
        let last = _mm_srli_si128::<8>(constants.shifts);
        let high = eight(high, _mm512_extracti64x4_epi64::<1>(multiplier), last);
        _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
    }

    /// Rescales and stores the sums of one position, whose channels begin at `output`.
    ///
    /// # Safety
    /// The output has the channels that there are from `channel` on.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(super) unsafe fn store(&self, constants: &Constants, sums: __m512i, output: *mut i8, channel: usize) {
        let scaled = self.scaled(constants, sums);
        if self.wide {
            let output = output.wrapping_add(2 * channel).cast();
            // SAFETY: two bytes of each channel of the mask; others are not written.
            unsafe { _mm256_mask_storeu_epi16(output, constants.mask, _mm512_cvtsepi32_epi16(scaled)) };
        } else {
            let values = _mm_min_epi8(_mm_max_epi8(_mm512_cvtsepi32_epi8(scaled), self.min), self.max);
            // SAFETY: a byte of each channel of the mask; others are not written.
            unsafe { _mm_mask_storeu_epi8(output.wrapping_add(channel), constants.mask, values) };
        }
    }
}
