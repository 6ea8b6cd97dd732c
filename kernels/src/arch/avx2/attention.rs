//! Softmax of eight logits at a time; values of two keys mixed at a time.

use core::arch::x86_64::{
    __m128i, __m256i, _mm_unpackhi_epi8, _mm_unpacklo_epi8, _mm256_add_epi32, _mm256_add_epi64, _mm256_and_si256,
    _mm256_castsi256_si128, _mm256_cmpgt_epi32, _mm256_cvtepi8_epi16, _mm256_i32gather_epi32, _mm256_madd_epi16,
    _mm256_max_epi32, _mm256_mul_epu32, _mm256_or_si256, _mm256_packs_epi32, _mm256_permute4x64_epi64,
    _mm256_set1_epi32, _mm256_set1_epi64x, _mm256_setzero_si256, _mm256_slli_epi64, _mm256_srli_epi32,
    _mm256_srli_epi64, _mm256_srlv_epi32, _mm256_sub_epi32,
};

use super::{lanes, vector};
use crate::arch::bytes::unsigned;
use crate::attention::{ROWS, Rows};
use crate::softmax::{EXP2, VANISHED, inverse, power, word};

/// `EXP2` as a gather reads it, 20 fraction bits.
static POWERS: [i32; 256] = {
    let mut powers = [0; 256];
    let mut index = 0;
    while index < 256 {
        powers[index] = (EXP2[index] as i32) << 5;
        index += 1;
    }
    powers
};

#[inline(always)]
fn load(eight: &[i8; 32]) -> __m256i {
    // SAFETY: both types are 32 bytes and every bit pattern is a vector.
    unsafe { core::mem::transmute::<[i8; 32], __m256i>(*eight) }
}

/// `crate::softmax::row`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn softmax_row(row: &mut [i8]) {
    let (blocks, rest) = row.as_chunks_mut::<32>();
    let rest = rest.as_chunks_mut::<4>().0;
    let mut most = _mm256_set1_epi32(i32::MIN);
    for block in &*blocks {
        most = _mm256_max_epi32(most, load(block));
    }
    let most = lanes(most).into_iter().chain(rest.iter().map(|&logit| word(logit))).fold(i32::MIN, i32::max);
    let mut sums = _mm256_setzero_si256();
    for block in blocks {
        let below = _mm256_sub_epi32(_mm256_set1_epi32(most), load(block));
        let fraction = _mm256_and_si256(below, _mm256_set1_epi32(255));
        // SAFETY: indices are 0..=255, the places of the table.
        let power = unsafe { _mm256_i32gather_epi32::<4>(POWERS.as_ptr(), fraction) };
        // The difference of two logits fits 32 bits, so it is not negative.
        let counts = _mm256_cmpgt_epi32(_mm256_set1_epi32(VANISHED as i32), below);
        let power = _mm256_and_si256(_mm256_srlv_epi32(power, _mm256_srli_epi32::<8>(below)), counts);
        sums = _mm256_add_epi32(sums, power);
        // SAFETY: both types are 32 bytes and every bit pattern is an array.
        *block = unsafe { core::mem::transmute::<__m256i, [i8; 32]>(power) };
    }
    let mut sum = lanes(sums).into_iter().fold(0u32, |sum, lane| sum.wrapping_add(lane as u32));
    for logit in rest {
        let power = power(most.wrapping_sub(word(*logit)) as u32);
        sum = sum.wrapping_add(power);
        *logit = power.to_le_bytes().map(|byte| byte as i8);
    }
    weigh(row, inverse(sum));
}

/// The powers of a row to weights, in its first half: a block is read before its place is written.
#[inline]
#[target_feature(enable = "avx2")]
fn weigh(row: &mut [i8], factor: u32) {
    let (factor, half) = (_mm256_set1_epi64x(factor.into()), _mm256_set1_epi64x(1 << 31));
    let blocks = row.len() / 32;
    for block in 0..blocks {
        let Some(powers) = row.get(32 * block..).and_then(|rest| rest.first_chunk()) else { return };
        let powers = load(powers);
        let even = _mm256_add_epi64(_mm256_mul_epu32(powers, factor), half);
        let odd = _mm256_add_epi64(_mm256_mul_epu32(_mm256_srli_epi64::<32>(powers), factor), half);
        let high = _mm256_slli_epi64::<32>(_mm256_srli_epi64::<32>(odd));
        let weights = _mm256_or_si256(_mm256_srli_epi64::<32>(even), high);
        // Saturates to 32767.
        let packed = _mm256_permute4x64_epi64::<0b1000>(_mm256_packs_epi32(weights, weights));
        let Some(place) = row.get_mut(16 * block..).and_then(|rest| rest.first_chunk_mut()) else { return };
        // SAFETY: both types are 16 bytes and every bit pattern is an array.
        *place = unsafe { core::mem::transmute::<__m128i, [i8; 16]>(_mm256_castsi256_si128(packed)) };
    }
    crate::softmax::weigh(row, 8 * blocks, lanes(factor)[0] as u32);
}

/// `crate::attention::mix`: bytes of two keys side by side, so that one product adds both.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn mix(weights: [&[[i8; 2]]; ROWS], values: &Rows<'_>, channel: usize) -> [[i32; 16]; ROWS] {
    let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
    let keys = weights[0].len();
    let mut rows = values.each().take(keys).map(|row| {
        let sixteen = unsigned(row).get(channel..).and_then(|row| row.first_chunk());
        vector(sixteen.copied().unwrap_or_default())
    });
    for pair in 0..keys.div_ceil(2) {
        let (first, second) = (rows.next(), rows.next());
        let (first, second) = (first.unwrap_or(vector([0; 16])), second.unwrap_or(vector([0; 16])));
        let low = _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(first, second));
        let high = _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(first, second));
        for (sums, weights) in sums.iter_mut().zip(weights) {
            let [a, b] = [2 * pair, 2 * pair + 1].map(|key| weights.get(key).copied().unwrap_or_default());
            let both = _mm256_set1_epi32(i32::from_le_bytes([a[0], a[1], b[0], b[1]].map(|byte| byte as u8)));
            sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(low, both));
            sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(high, both));
        }
    }
    // SAFETY: both types are 64 bytes and every bit pattern is an array.
    sums.map(|sums| unsafe { core::mem::transmute::<[__m256i; 2], [i32; 16]>(sums) })
}
