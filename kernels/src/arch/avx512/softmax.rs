//! Softmax, 16 logits at a time.

use core::arch::x86_64::{
    __m512i, _mm256_mask_storeu_epi16, _mm512_add_epi64, _mm512_and_si512, _mm512_cmplt_epi32_mask,
    _mm512_cvtsepi32_epi16, _mm512_mask_add_epi32, _mm512_mask_i32gather_epi32, _mm512_mask_loadu_epi32,
    _mm512_mask_mov_epi32, _mm512_mask_storeu_epi32, _mm512_maskz_loadu_epi32, _mm512_max_epi32, _mm512_mul_epu32,
    _mm512_reduce_add_epi32, _mm512_reduce_max_epi32, _mm512_set1_epi32, _mm512_set1_epi64, _mm512_setzero_si512,
    _mm512_srli_epi32, _mm512_srli_epi64, _mm512_srlv_epi32, _mm512_sub_epi32,
};

use super::rescale::lanes;
use super::tile::LANES;
use crate::arch::avx2::POWERS;
use crate::softmax::{VANISHED, inverse};

/// `crate::softmax::row`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn row(row: &mut [i8]) {
    let keys = row.len() / 4;
    let logits = row.as_mut_ptr().cast::<i32>();
    let mut most = _mm512_set1_epi32(i32::MIN);
    for key in (0..keys).step_by(LANES) {
        let (place, mask) = (logits.wrapping_add(key), lanes(keys - key));
        // SAFETY: lanes of the mask are logits of the row; alignment is not needed.
        most = _mm512_max_epi32(most, unsafe { _mm512_mask_loadu_epi32(most, mask, place) });
    }
    let most = _mm512_set1_epi32(_mm512_reduce_max_epi32(most));
    let mut sums = _mm512_setzero_si512();
    for key in (0..keys).step_by(LANES) {
        let (place, mask) = (logits.wrapping_add(key), lanes(keys - key));
        // SAFETY: as above.
        let below = _mm512_sub_epi32(most, unsafe { _mm512_maskz_loadu_epi32(mask, place) });
        // The difference of two logits fits 32 bits, so it is not negative.
        let counts = mask & _mm512_cmplt_epi32_mask(below, _mm512_set1_epi32(VANISHED as i32));
        let fraction = _mm512_and_si512(below, _mm512_set1_epi32(255));
        // SAFETY: indices are 0..=255, the places of the table.
        let power = unsafe {
            _mm512_mask_i32gather_epi32::<4>(_mm512_setzero_si512(), counts, fraction, POWERS.as_ptr().cast())
        };
        let power = _mm512_srlv_epi32(power, _mm512_srli_epi32::<8>(below));
        sums = _mm512_mask_add_epi32(sums, counts, sums, power);
        // SAFETY: as above.
        unsafe { _mm512_mask_storeu_epi32(place, mask, power) };
    }
    let factor = _mm512_set1_epi64(inverse(_mm512_reduce_add_epi32(sums) as u32).into());
    // Weights take the first half: a block is read before its place is written.
    for key in (0..keys).step_by(LANES) {
        let (place, mask) = (logits.wrapping_add(key), lanes(keys - key));
        // SAFETY: as above.
        let weights = weights(unsafe { _mm512_maskz_loadu_epi32(mask, place) }, factor);
        let to = logits.cast::<i16>().wrapping_add(key);
        // SAFETY: a weight of each key of the mask, of two bytes where its logit has four.
        unsafe { _mm256_mask_storeu_epi16(to, mask, _mm512_cvtsepi32_epi16(weights)) };
    }
}

/// `round(power·factor / 2^32)`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn weights(powers: __m512i, factor: __m512i) -> __m512i {
    const ODD: u16 = 0xaaaa;
    let half = _mm512_set1_epi64(1 << 31);
    let even = _mm512_add_epi64(_mm512_mul_epu32(powers, factor), half);
    let odd = _mm512_add_epi64(_mm512_mul_epu32(_mm512_srli_epi64::<32>(powers), factor), half);
    _mm512_mask_mov_epi32(_mm512_srli_epi64::<32>(even), ODD, odd)
}
