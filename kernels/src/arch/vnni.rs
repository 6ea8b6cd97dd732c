//! x86-64 with AVX-VNNI: 32 products an instruction, summed in 32 bits without an intermediate that saturates.
//!
//! `vpdpbusd` multiplies unsigned by signed bytes. An input is made unsigned by adding 128, which flips its top bit, and
//! `Σ x·w = Σ (x + 128)·w − Σ 128·w`: the second sum is one more `vpdpbusd` a weight, shared by the input rows. Sums wrap
//! in 32 bits, so the difference is exact whatever the parts are.
#![allow(unsafe_code)]

use core::arch::x86_64::{
    __cpuid_count, __m256i, _mm256_cmpgt_epi32, _mm256_dpbusd_avx_epi32, _mm256_maskload_epi32, _mm256_set1_epi8,
    _mm256_set1_epi32, _mm256_setr_epi32, _mm256_setzero_si256, _mm256_sub_epi32, _mm256_xor_si256,
};

use super::avx2::{self, Avx2};
use super::bytes::unsigned;
use crate::add::Add;
use crate::attention::{ROWS, Rows};
use crate::conv::Conv;
use crate::isa::Isa;
use crate::layer_norm::{LayerNorm, Row};
use crate::pool::Pool;
use crate::requant::Requant;

/// Rows shorter than this go through AVX2's leaf: the offsets' sums cost as much as they save. Convolutions on a Zen 5
/// (`cargo bench -p benches --bench kernels`, this constant 0): with rows of 64 and 144 a tenth faster there, with rows of
/// 288, 576 and 1,008 1.2, 1.5 and 1.6 times as fast here.
const SHORT: usize = 256;

/// A CPU with AVX-VNNI, and AVX2 with it.
#[derive(Clone, Copy, Debug)]
pub struct Vnni(Avx2);

impl Vnni {
    /// A proof that CPU and operating system support AVX-VNNI, if they do.
    #[must_use]
    pub fn new() -> Option<Self> {
        let avx2 = Avx2::new()?;
        // Intel SDM vol. 2, CPUID: leaf 7 tells its last subleaf in EAX; subleaf 1 has AVX-VNNI in bit 4 of EAX.
        let known = __cpuid_count(7, 0).eax >= 1;
        (known && __cpuid_count(7, 1).eax & (1 << 4) != 0).then_some(Self(avx2))
    }
}

#[target_feature(enable = "avx2,avxvnni")]
fn with_vnni<R>(body: impl FnOnce() -> R) -> R {
    body()
}

#[inline(always)]
fn vector(bytes: [u8; 32]) -> __m256i {
    // SAFETY: both types are 32 bytes and every bit pattern is a vector.
    unsafe { core::mem::transmute::<[u8; 32], __m256i>(bytes) }
}

/// What follows the blocks of 32: up to 28 bytes, whole words, then zeros. A masked load, as a copy into a block of
/// zeros would stall on its own stores: with it a convolution with rows of 144 took twice as long.
#[inline]
#[target_feature(enable = "avx2,avxvnni")]
fn end(bytes: &[u8]) -> __m256i {
    let words = bytes.len().min(28) / 4;
    let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    let mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(words as i32), lanes);
    // SAFETY: only lanes below `words` are read, and as many words lie in `bytes`; alignment is not needed.
    unsafe { _mm256_maskload_epi32(bytes.as_ptr().cast(), mask) }
}

/// Sums of two rows and of the constant 128, with four weights each.
type Sums = [[__m256i; 4]; 3];

#[inline]
#[target_feature(enable = "avx2,avxvnni")]
fn dot_2x4([x0, x1]: [&[u8]; 2], [w0, w1, w2, w3]: [&[u8]; 4]) -> [[i32; 4]; 2] {
    let len = x0.len();
    // Equal by the contract; known here, no block below needs a bounds check.
    if [x1.len(), w0.len(), w1.len(), w2.len(), w3.len()] != [len; 5] {
        return [[0; 4]; 2];
    }
    let mut sums: Sums = [[_mm256_setzero_si256(); 4]; 3];
    let ((x0, x0_end), (x1, x1_end)) = (x0.as_chunks::<32>(), x1.as_chunks::<32>());
    let ((w0, w0_end), (w1, w1_end)) = (w0.as_chunks::<32>(), w1.as_chunks::<32>());
    let ((w2, w2_end), (w3, w3_end)) = (w2.as_chunks::<32>(), w3.as_chunks::<32>());
    for block in 0..len / 32 {
        let weights = [w0[block], w1[block], w2[block], w3[block]].map(vector);
        add_products(&mut sums, [x0[block], x1[block]].map(vector), weights);
    }
    if len % 32 != 0 {
        let weights = [end(w0_end), end(w1_end), end(w2_end), end(w3_end)];
        add_products(&mut sums, [end(x0_end), end(x1_end)], weights);
    }
    let [first, second, offsets] = sums;
    [less(first, offsets), less(second, offsets)]
}

#[inline]
#[target_feature(enable = "avx2,avxvnni")]
fn add_products(sums: &mut Sums, [x0, x1]: [__m256i; 2], w: [__m256i; 4]) {
    // 128 as an unsigned byte, and the bit that adds it.
    let offset = _mm256_set1_epi8(i8::MIN);
    let (a, b) = (_mm256_xor_si256(x0, offset), _mm256_xor_si256(x1, offset));
    for (channel, weight) in w.into_iter().enumerate() {
        sums[0][channel] = _mm256_dpbusd_avx_epi32(sums[0][channel], a, weight);
        sums[1][channel] = _mm256_dpbusd_avx_epi32(sums[1][channel], b, weight);
        sums[2][channel] = _mm256_dpbusd_avx_epi32(sums[2][channel], offset, weight);
    }
}

#[inline]
#[target_feature(enable = "avx2,avxvnni")]
fn less([a, b, c, d]: [__m256i; 4], [e, f, g, h]: [__m256i; 4]) -> [i32; 4] {
    avx2::totals([_mm256_sub_epi32(a, e), _mm256_sub_epi32(b, f), _mm256_sub_epi32(c, g), _mm256_sub_epi32(d, h)])
}

impl Isa for Vnni {
    const NAME: &'static str = "vnni";

    #[inline(always)]
    fn enter<R>(self, body: impl FnOnce() -> R) -> R {
        // SAFETY: `self` proves AVX2 and AVX-VNNI.
        unsafe { with_vnni(body) }
    }

    #[inline(always)]
    fn depthwise(self, op: &Conv<'_>, input: &[i8], output: &mut [i8], short: bool) -> bool {
        self.0.depthwise(op, input, output, short)
    }

    #[inline(always)]
    fn pool(self, op: &Pool, input: &[i8], output: &mut [i8]) -> bool {
        self.0.pool(op, input, output)
    }

    #[inline(always)]
    fn add(self, op: &Add, a: &[i8], b: &[i8], output: &mut [i8]) -> usize {
        self.0.add(op, a, b, output)
    }

    #[inline(always)]
    fn add_in_place(self, op: &Add, a_and_output: &mut [i8], b: &[i8]) -> usize {
        self.0.add_in_place(op, a_and_output, b)
    }

    #[inline(always)]
    fn moments(self, row: &[i8]) -> (i32, u64) {
        self.0.moments(row)
    }

    #[inline(always)]
    fn normalise(self, op: &LayerNorm<'_>, row: Row, input: &[i8], output: &mut [i8]) {
        self.0.normalise(op, row, input, output);
    }

    #[inline(always)]
    fn dot_2x4(self, rows: [&[i8]; 2], weights: [&[u8]; 4]) -> [[i32; 4]; 2] {
        if rows[0].len() < SHORT {
            return self.0.dot_2x4(rows, weights);
        }
        // SAFETY: `self` proves AVX2 and AVX-VNNI.
        unsafe { dot_2x4([unsigned(rows[0]), unsigned(rows[1])], weights) }
    }

    #[inline(always)]
    fn requant4(self, requant: &Requant<'_>, channel: usize, sums: [i32; 4]) -> [i8; 4] {
        self.0.requant4(requant, channel, sums)
    }

    #[inline(always)]
    fn softmax_row(self, row: &mut [i8]) {
        self.0.softmax_row(row);
    }

    #[inline(always)]
    fn mix(self, weights: [&[[i8; 2]]; ROWS], values: &Rows<'_>, channel: usize) -> [[i32; 16]; ROWS] {
        self.0.mix(weights, values, channel)
    }

    #[inline(always)]
    fn row_in_blocks(self, op: &Conv<'_>, row: &[i8], out: &mut [i8]) {
        self.0.row_in_blocks(op, row, out);
    }

    #[inline(always)]
    fn dot(self, row: &[i8], weights: &[u8]) -> i32 {
        self.0.dot(row, weights)
    }
}

#[cfg(test)]
mod tests {
    use super::{Vnni, dot_2x4, unsigned};
    use crate::arch::Scalar;
    use crate::isa::Isa;

    /// The leaf itself, at lengths that the ops send elsewhere too: every end of a row, and the extremes.
    #[test]
    fn every_length_gives_the_scalar_sums() {
        if Vnni::new().is_none() {
            return;
        }
        // 251 is the largest prime below 256: no two rows line up.
        let mut painted = [0i8; 6 * 320];
        painted.iter_mut().enumerate().for_each(|(index, value)| *value = (index * 7 % 251) as u8 as i8);
        for values in [painted, [i8::MIN; 6 * 320], [i8::MAX; 6 * 320]] {
            for len in (4..=320).step_by(4) {
                let row = |number: usize| &values[number * 320..][..len];
                let (rows, weights) = ([row(0), row(1)], [2, 3, 4, 5].map(|number| unsigned(row(number))));
                // SAFETY: `Vnni::new` has seen the CPU's features.
                let found = unsafe { dot_2x4(rows.map(unsigned), weights) };
                assert_eq!(found, Scalar.dot_2x4(rows, weights), "{len}");
            }
        }
    }
}
