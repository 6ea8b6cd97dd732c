//! Softmax, 16 logits at a time.

use core::arch::x86_64::{
    __m512i, _mm256_mask_storeu_epi16, _mm512_add_epi32, _mm512_add_epi64, _mm512_and_si512, _mm512_cmplt_epi32_mask,
    _mm512_cvtsepi32_epi16, _mm512_loadu_si512, _mm512_mask_loadu_epi32, _mm512_mask_mov_epi16, _mm512_mask_mov_epi32,
    _mm512_mask_storeu_epi32, _mm512_maskz_loadu_epi32, _mm512_maskz_srlv_epi32, _mm512_max_epi32, _mm512_mul_epu32,
    _mm512_permutex2var_epi16, _mm512_reduce_add_epi32, _mm512_reduce_max_epi32, _mm512_set1_epi16, _mm512_set1_epi32,
    _mm512_set1_epi64, _mm512_setzero_si512, _mm512_slli_epi32, _mm512_srli_epi32, _mm512_srli_epi64, _mm512_sub_epi32,
    _mm512_test_epi16_mask,
};

use super::rescale::lanes;
use super::tile::LANES;
use crate::softmax::{EXP2, VANISHED, inverse};

/// [`EXP2`], 32 words in a vector.
struct Table([__m512i; 8]);

impl Table {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn new() -> Self {
        let mut table = [_mm512_setzero_si512(); 8];
        for (vector, words) in table.iter_mut().zip(EXP2.as_chunks::<32>().0) {
            // SAFETY: 32 words; a vector may lie at any address.
            *vector = unsafe { _mm512_loadu_si512(words.as_ptr().cast()) };
        }
        Self(table)
    }

    /// The entries for the last eight bits of two times 16 numbers, 20 fraction bits. Four shuffles of 64 words for all of them:
    /// a gather takes 16 loads for each half, and far more on CPUs that must not gather ahead.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn powers(&self, [low, high]: [__m512i; 2]) -> [__m512i; 2] {
        // The numbers of the second half in the upper words.
        let index = _mm512_mask_mov_epi16(low, 0xaaaa_aaaa, _mm512_slli_epi32::<16>(high));
        let [bit6, bit7] = [64, 128].map(|bit| _mm512_test_epi16_mask(index, _mm512_set1_epi16(bit)));
        let quarter = |number: usize| _mm512_permutex2var_epi16(self.0[2 * number], index, self.0[2 * number + 1]);
        let lower = _mm512_mask_mov_epi16(quarter(0), bit6, quarter(1));
        let upper = _mm512_mask_mov_epi16(quarter(2), bit6, quarter(3));
        let words = _mm512_mask_mov_epi16(lower, bit7, upper);
        let low = _mm512_and_si512(words, _mm512_set1_epi32(0xffff));
        [_mm512_slli_epi32::<5>(low), _mm512_slli_epi32::<5>(_mm512_srli_epi32::<16>(words))]
    }
}

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
    let table = Table::new();
    let mut sums = _mm512_setzero_si512();
    for key in (0..keys).step_by(2 * LANES) {
        let places = [key, key + LANES].map(|key| logits.wrapping_add(key));
        let masks = [keys - key, (keys - key).saturating_sub(LANES)].map(lanes);
        let below = |half: usize| {
            // SAFETY: as above.
            _mm512_sub_epi32(most, unsafe { _mm512_maskz_loadu_epi32(masks[half], places[half]) })
        };
        let below = [below(0), below(1)];
        let powers = table.powers(below);
        for half in 0..2 {
            // The difference of two logits fits 32 bits, so it is not negative.
            let counts = masks[half] & _mm512_cmplt_epi32_mask(below[half], _mm512_set1_epi32(VANISHED as i32));
            let power = _mm512_maskz_srlv_epi32(counts, powers[half], _mm512_srli_epi32::<8>(below[half]));
            sums = _mm512_add_epi32(sums, power);
            // SAFETY: as above.
            unsafe { _mm512_mask_storeu_epi32(places[half], masks[half], power) };
        }
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
