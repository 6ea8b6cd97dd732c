//! x86-64 with AVX2: 16 products at a time, widened to 16 bits first so that nothing saturates.
#![allow(unsafe_code)]

use core::arch::x86_64::{
    __cpuid, __cpuid_count, __m128i, __m256i, _mm_add_epi32, _mm_cvtepi8_epi16, _mm_cvtsi32_si128, _mm_cvtsi64_si128,
    _mm_cvtsi128_si32, _mm_hadd_epi32, _mm_madd_epi16, _mm_set1_epi32, _mm_setr_epi32, _mm_setzero_si128,
    _mm_shuffle_epi8, _mm_storeu_si128, _mm256_add_epi32, _mm256_add_epi64, _mm256_blendv_epi8, _mm256_castsi256_si128,
    _mm256_cmpgt_epi64, _mm256_cvtepi8_epi16, _mm256_cvtepi32_epi64, _mm256_cvtepu8_epi64, _mm256_extracti128_si256,
    _mm256_madd_epi16, _mm256_mul_epi32, _mm256_permutevar8x32_epi32, _mm256_set1_epi64x, _mm256_setr_epi32,
    _mm256_setzero_si256, _mm256_sllv_epi64, _mm256_srlv_epi64, _mm256_sub_epi64, _mm256_xor_si256, _xgetbv,
};

use crate::isa::Isa;
use crate::requant::Requant;

/// A CPU with AVX2.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Avx2 {
    /// A proof that CPU and operating system support AVX2, if they do.
    #[must_use]
    pub fn new() -> Option<Self> {
        // Intel SDM vol. 1, 14.7.1: OSXSAVE and AVX, then XCR0 says that the system keeps the registers, then AVX2.
        if __cpuid(0).eax < 7 {
            return None;
        }
        let features = __cpuid(1).ecx;
        if features & (1 << 27) == 0 || features & (1 << 28) == 0 {
            return None;
        }
        // SAFETY: OSXSAVE is set, so the instruction exists and user code may run it.
        let kept = unsafe { xcr0() };
        (kept & 6 == 6 && __cpuid_count(7, 0).ebx & (1 << 5) != 0).then_some(Self(()))
    }
}

/// # Safety
/// The CPU reports OSXSAVE.
#[target_feature(enable = "xsave")]
unsafe fn xcr0() -> u64 {
    // SAFETY: the caller has seen OSXSAVE; register 0 always exists.
    unsafe { _xgetbv(0) }
}

#[target_feature(enable = "avx2")]
fn with_avx2<R>(body: impl FnOnce() -> R) -> R {
    body()
}

#[inline(always)]
fn vector(bytes: [u8; 16]) -> __m128i {
    // SAFETY: both types are 16 bytes and every bit pattern is a vector.
    unsafe { core::mem::transmute::<[u8; 16], __m128i>(bytes) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn wide(bytes: [u8; 16]) -> __m256i {
    _mm256_cvtepi8_epi16(vector(bytes))
}

#[inline]
#[target_feature(enable = "avx2")]
fn half(bytes: [u8; 8]) -> __m128i {
    _mm_cvtepi8_epi16(_mm_cvtsi64_si128(i64::from_le_bytes(bytes)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn quarter(bytes: [u8; 4]) -> __m128i {
    _mm_cvtepi8_epi16(_mm_cvtsi32_si128(i32::from_le_bytes(bytes)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn fold(sum: __m256i) -> __m128i {
    _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum))
}

/// A slice as blocks of 16, then at most one of 8 and one of 4.
#[derive(Clone, Copy)]
struct Blocks<'a> {
    wide: &'a [[u8; 16]],
    half: Option<[u8; 8]>,
    quarter: Option<[u8; 4]>,
}

impl<'a> Blocks<'a> {
    #[inline(always)]
    fn new(bytes: &'a [u8]) -> Self {
        let (wide, rest) = bytes.as_chunks::<16>();
        let (half, rest) = rest.split_at(rest.len() / 8 * 8);
        Self { wide, half: half.first_chunk().copied(), quarter: rest.first_chunk().copied() }
    }
}

#[inline(always)]
fn as_bytes(row: &[i8]) -> &[u8] {
    // SAFETY: i8 and u8 have one size, one alignment and no invalid bit pattern.
    unsafe { core::slice::from_raw_parts(row.as_ptr().cast(), row.len()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn dot_2x4(rows: [&[i8]; 2], weights: [&[u8]; 4]) -> [[i32; 4]; 2] {
    let rows = rows.map(|row| Blocks::new(as_bytes(row)));
    let weights = weights.map(Blocks::new);
    let blocks = weights.iter().map(|blocks| blocks.wide.len()).min().unwrap_or(0);
    let blocks = blocks.min(rows[0].wide.len()).min(rows[1].wide.len());
    let [x0, x1] = rows.map(|row| &row.wide[..blocks]);
    let w = weights.map(|row| &row.wide[..blocks]);
    let mut sums = [[_mm256_setzero_si256(); 4]; 2];
    for block in 0..blocks {
        let (a, b) = (wide(x0[block]), wide(x1[block]));
        for channel in 0..4 {
            let weight = wide(w[channel][block]);
            sums[0][channel] = _mm256_add_epi32(sums[0][channel], _mm256_madd_epi16(a, weight));
            sums[1][channel] = _mm256_add_epi32(sums[1][channel], _mm256_madd_epi16(b, weight));
        }
    }
    let mut result = [[0; 4]; 2];
    for (row, (sums, result)) in rows.iter().zip(sums.iter().zip(&mut result)) {
        let mut folded = [_mm_setzero_si128(); 4];
        for ((folded, &sum), weight) in folded.iter_mut().zip(sums).zip(&weights) {
            *folded = fold(sum);
            if let (Some(x), Some(w)) = (row.half, weight.half) {
                *folded = _mm_add_epi32(*folded, _mm_madd_epi16(half(x), half(w)));
            }
            if let (Some(x), Some(w)) = (row.quarter, weight.quarter) {
                *folded = _mm_add_epi32(*folded, _mm_madd_epi16(quarter(x), quarter(w)));
            }
        }
        let [a, b, c, d] = folded;
        let four = _mm_hadd_epi32(_mm_hadd_epi32(a, b), _mm_hadd_epi32(c, d));
        // SAFETY: `result` is 16 writable bytes; the store needs no alignment.
        unsafe { _mm_storeu_si128(result.as_mut_ptr().cast(), four) };
    }
    result
}

#[inline]
#[target_feature(enable = "avx2")]
fn dot(row: &[i8], weights: &[u8]) -> i32 {
    let (row, weights) = (Blocks::new(as_bytes(row)), Blocks::new(weights));
    let mut sum = _mm256_setzero_si256();
    for (&x, &w) in row.wide.iter().zip(weights.wide) {
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(wide(x), wide(w)));
    }
    let mut folded = fold(sum);
    if let (Some(x), Some(w)) = (row.half, weights.half) {
        folded = _mm_add_epi32(folded, _mm_madd_epi16(half(x), half(w)));
    }
    if let (Some(x), Some(w)) = (row.quarter, weights.quarter) {
        folded = _mm_add_epi32(folded, _mm_madd_epi16(quarter(x), quarter(w)));
    }
    let two = _mm_hadd_epi32(folded, folded);
    _mm_cvtsi128_si32(_mm_hadd_epi32(two, two))
}

/// `crate::requant::rescale` and `finish`, four lanes of 64 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn requant4(requant: &Requant<'_>, channel: usize, sums: [i32; 4]) -> [i8; 4] {
    let Some(four) = requant.four(channel) else { return [0; 4] };
    let [s0, s1, s2, s3] = sums;
    let acc = _mm_add_epi32(_mm_setr_epi32(s0, s1, s2, s3), vector(*four.bias));
    let product = _mm256_mul_epi32(_mm256_cvtepi32_epi64(acc), _mm256_cvtepi32_epi64(vector(*four.multiplier)));
    let shift = _mm256_cvtepu8_epi64(_mm_cvtsi32_si128(i32::from_le_bytes(four.shift)));
    let one = _mm256_set1_epi64x(1);
    let rounded = _mm256_add_epi64(product, _mm256_sllv_epi64(one, _mm256_sub_epi64(shift, one)));
    // AVX2 has no arithmetic shift of 64 bits: shift the value moved up by 2^63 and move it down again.
    let sign = _mm256_set1_epi64x(i64::MIN);
    let scaled =
        _mm256_sub_epi64(_mm256_srlv_epi64(_mm256_xor_si256(rounded, sign), shift), _mm256_srlv_epi64(sign, shift));
    // Clamped before the zero point is added: nothing can wrap, and the low words are enough from here on.
    let zero = i64::from(requant.zero_point);
    let max = _mm256_set1_epi64x(i64::from(requant.max) - zero);
    let min = _mm256_set1_epi64x(i64::from(requant.min) - zero);
    let capped = _mm256_blendv_epi8(scaled, max, _mm256_cmpgt_epi64(scaled, max));
    let clamped = _mm256_blendv_epi8(capped, min, _mm256_cmpgt_epi64(min, capped));
    let low = _mm256_permutevar8x32_epi32(clamped, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6));
    let values = _mm_add_epi32(_mm256_castsi256_si128(low), _mm_set1_epi32(i32::from(requant.zero_point)));
    let bytes = _mm_shuffle_epi8(values, _mm_set1_epi32(0x0c08_0400));
    _mm_cvtsi128_si32(bytes).to_le_bytes().map(|byte| byte as i8)
}

impl Isa for Avx2 {
    const NAME: &'static str = "avx2";

    #[inline(always)]
    fn enter<R>(self, body: impl FnOnce() -> R) -> R {
        // SAFETY: `self` proves AVX2.
        unsafe { with_avx2(body) }
    }

    #[inline(always)]
    fn dot_2x4(self, rows: [&[i8]; 2], weights: [&[u8]; 4]) -> [[i32; 4]; 2] {
        // SAFETY: `self` proves AVX2.
        unsafe { dot_2x4(rows, weights) }
    }

    #[inline(always)]
    fn requant4(self, requant: &Requant<'_>, channel: usize, sums: [i32; 4]) -> [i8; 4] {
        // SAFETY: `self` proves AVX2.
        unsafe { requant4(requant, channel, sums) }
    }

    #[inline(always)]
    fn dot(self, row: &[i8], weights: &[u8]) -> i32 {
        // SAFETY: `self` proves AVX2.
        unsafe { dot(row, weights) }
    }
}
