//! x86-64 with AVX2: 16 products at a time, widened to 16 bits first so that nothing saturates.
#![allow(unsafe_code)]

mod add;
mod attention;
mod depthwise;
mod layer_norm;
mod pool;
mod rescale;

use core::arch::x86_64::{
    __cpuid, __cpuid_count, __m128i, __m256i, _mm_add_epi32, _mm_cmpgt_epi32, _mm_cvtsi32_si128, _mm_cvtsi128_si32,
    _mm_maskload_epi32, _mm_set1_epi32, _mm_setr_epi32, _mm_shuffle_epi8, _mm256_add_epi32, _mm256_add_epi64,
    _mm256_blendv_epi8, _mm256_castsi256_si128, _mm256_cmpgt_epi64, _mm256_cvtepi8_epi16, _mm256_cvtepi32_epi64,
    _mm256_cvtepu8_epi64, _mm256_extracti128_si256, _mm256_hadd_epi32, _mm256_madd_epi16, _mm256_mul_epi32,
    _mm256_permute4x64_epi64, _mm256_permutevar8x32_epi32, _mm256_set1_epi64x, _mm256_setr_epi32, _mm256_setzero_si256,
    _mm256_sllv_epi64, _mm256_srlv_epi64, _mm256_sub_epi64, _mm256_xor_si256, _xgetbv,
};

use super::bytes::unsigned;
use crate::add::Add;
use crate::attention::{ROWS, Rows};
use crate::conv::{Conv, row_by_blocks};
use crate::isa::Isa;
use crate::layer_norm::{LayerNorm, Row};
use crate::pool::Pool;
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

/// The registers that the system keeps.
pub(super) fn kept(_: Avx2) -> u64 {
    // SAFETY: a CPU with AVX2 reports OSXSAVE.
    unsafe { xcr0() }
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

#[inline(always)]
fn lanes(vector: __m256i) -> [i32; 8] {
    // SAFETY: both types are 32 bytes and every bit pattern is an array.
    unsafe { core::mem::transmute::<__m256i, [i32; 8]>(vector) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn wide(bytes: [u8; 16]) -> __m256i {
    _mm256_cvtepi8_epi16(vector(bytes))
}

#[inline]
#[target_feature(enable = "avx2")]
fn fold(sum: __m256i) -> __m128i {
    _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum))
}

/// What follows the blocks of 16: 4, 8 or 12 bytes, then zeros, widened. A masked load, as a copy into a block of zeros
/// would stall on its own stores.
#[inline]
#[target_feature(enable = "avx2")]
fn end(bytes: &[u8]) -> __m256i {
    let words = bytes.len().min(12) / 4;
    let mask = _mm_cmpgt_epi32(_mm_set1_epi32(words as i32), _mm_setr_epi32(0, 1, 2, 3));
    // SAFETY: only lanes below `words` are read, and as many words lie in `bytes`; alignment is not needed.
    _mm256_cvtepi8_epi16(unsafe { _mm_maskload_epi32(bytes.as_ptr().cast(), mask) })
}

#[inline]
#[target_feature(enable = "avx2")]
fn dot_2x4([x0, x1]: [&[u8]; 2], [w0, w1, w2, w3]: [&[u8]; 4]) -> [[i32; 4]; 2] {
    let len = x0.len();
    // Equal by the contract; known here, no block below needs a bounds check.
    if [x1.len(), w0.len(), w1.len(), w2.len(), w3.len()] != [len; 5] {
        return [[0; 4]; 2];
    }
    let mut sums = [[_mm256_setzero_si256(); 4]; 2];
    let ((x0, x0_end), (x1, x1_end)) = (x0.as_chunks::<16>(), x1.as_chunks::<16>());
    let ((w0, w0_end), (w1, w1_end)) = (w0.as_chunks::<16>(), w1.as_chunks::<16>());
    let ((w2, w2_end), (w3, w3_end)) = (w2.as_chunks::<16>(), w3.as_chunks::<16>());
    for block in 0..len / 16 {
        let weights = [wide(w0[block]), wide(w1[block]), wide(w2[block]), wide(w3[block])];
        add_products(&mut sums, [wide(x0[block]), wide(x1[block])], weights);
    }
    if len % 16 != 0 {
        let weights = [end(w0_end), end(w1_end), end(w2_end), end(w3_end)];
        add_products(&mut sums, [end(x0_end), end(x1_end)], weights);
    }
    let [first, second] = sums;
    [totals(first), totals(second)]
}

#[inline]
#[target_feature(enable = "avx2")]
fn add_products(sums: &mut [[__m256i; 4]; 2], [a, b]: [__m256i; 2], w: [__m256i; 4]) {
    for (channel, weight) in w.into_iter().enumerate() {
        sums[0][channel] = _mm256_add_epi32(sums[0][channel], _mm256_madd_epi16(a, weight));
        sums[1][channel] = _mm256_add_epi32(sums[1][channel], _mm256_madd_epi16(b, weight));
    }
}

/// See [`row_by_blocks`].
#[target_feature(enable = "avx2")]
fn dot_16(row: &[i8], block: &[u8]) -> [[i32; 4]; 4] {
    // Of each channel two sums side by side.
    let mut sums = [_mm256_setzero_si256(); 4];
    for (word, weights) in unsigned(row).as_chunks::<4>().0.iter().zip(block.as_chunks::<64>().0) {
        let word = _mm256_cvtepi8_epi16(_mm_set1_epi32(i32::from_le_bytes(*word)));
        for (sum, weights) in sums.iter_mut().zip(weights.as_chunks::<16>().0) {
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(word, wide(*weights)));
        }
    }
    // Two channels of one and two of the other vector in each half.
    let [a, b, c, d] = sums;
    let eights =
        [_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d)].map(|both| _mm256_permute4x64_epi64::<0b11_01_10_00>(both));
    // SAFETY: both types are 64 bytes and every bit pattern is an array.
    unsafe { core::mem::transmute::<[__m256i; 2], [[i32; 4]; 4]>(eights) }
}

/// The sum of the lanes of each of four vectors.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn totals([a, b, c, d]: [__m256i; 4]) -> [i32; 4] {
    let four = fold(_mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d)));
    // SAFETY: both types are 16 bytes and every bit pattern is an array.
    unsafe { core::mem::transmute::<__m128i, [i32; 4]>(four) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn dot(row: &[u8], weights: &[u8]) -> i32 {
    let ((row, row_end), (weights, weights_end)) = (row.as_chunks::<16>(), weights.as_chunks::<16>());
    let mut sum = _mm256_madd_epi16(end(row_end), end(weights_end));
    for (&x, &w) in row.iter().zip(weights) {
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(wide(x), wide(w)));
    }
    let zero = _mm256_setzero_si256();
    let [total, ..] = totals([sum, zero, zero, zero]);
    total
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
    fn depthwise(self, op: &Conv<'_>, input: &[i8], output: &mut [i8], short: bool) -> bool {
        // SAFETY: `self` proves AVX2.
        short && unsafe { depthwise::depthwise(op, input, output) }
    }

    #[inline(always)]
    fn pool(self, op: &Pool, input: &[i8], output: &mut [i8]) -> bool {
        // SAFETY: `self` proves AVX2.
        unsafe { pool::pool(op, input, output) }
    }

    #[inline(always)]
    fn add(self, op: &Add, a: &[i8], b: &[i8], output: &mut [i8]) -> usize {
        let len = a.len().min(b.len()).min(output.len());
        // SAFETY: `self` proves AVX2; all have `len` bytes.
        unsafe { add::add(op, a.as_ptr(), b.as_ptr(), output.as_mut_ptr(), len) }
    }

    #[inline(always)]
    fn add_in_place(self, op: &Add, a_and_output: &mut [i8], b: &[i8]) -> usize {
        let (len, output) = (a_and_output.len().min(b.len()), a_and_output.as_mut_ptr());
        // SAFETY: `self` proves AVX2; both have `len` bytes.
        unsafe { add::add(op, output, b.as_ptr(), output, len) }
    }

    #[inline(always)]
    fn moments(self, row: &[i8]) -> (i32, u64) {
        // SAFETY: `self` proves AVX2.
        unsafe { layer_norm::moments(row) }
    }

    #[inline(always)]
    fn normalise(self, op: &LayerNorm<'_>, row: Row, input: &[i8], output: &mut [i8]) {
        // SAFETY: `self` proves AVX2.
        unsafe { layer_norm::normalise(op, row, input, output) }
    }

    #[inline(always)]
    fn dot_2x4(self, rows: [&[i8]; 2], weights: [&[u8]; 4]) -> [[i32; 4]; 2] {
        // SAFETY: `self` proves AVX2.
        unsafe { dot_2x4([unsigned(rows[0]), unsigned(rows[1])], weights) }
    }

    #[inline(always)]
    fn requant4(self, requant: &Requant<'_>, channel: usize, sums: [i32; 4]) -> [i8; 4] {
        // SAFETY: `self` proves AVX2.
        unsafe { requant4(requant, channel, sums) }
    }

    #[inline(always)]
    fn softmax_row(self, row: &mut [i8]) {
        // SAFETY: `self` proves AVX2.
        unsafe { attention::softmax_row(row) }
    }

    #[inline(always)]
    fn mix(self, weights: [&[[i8; 2]]; ROWS], values: &Rows<'_>, channel: usize) -> [[i32; 16]; ROWS] {
        // SAFETY: `self` proves AVX2.
        unsafe { attention::mix(weights, values, channel) }
    }

    #[inline(always)]
    fn row_in_blocks(self, op: &Conv<'_>, row: &[i8], out: &mut [i8]) {
        // SAFETY: `self` proves AVX2.
        row_by_blocks(self, op, row, out, |block| unsafe { dot_16(row, block) });
    }

    #[inline(always)]
    fn dot(self, row: &[i8], weights: &[u8]) -> i32 {
        // SAFETY: `self` proves AVX2.
        unsafe { dot(unsigned(row), weights) }
    }
}
