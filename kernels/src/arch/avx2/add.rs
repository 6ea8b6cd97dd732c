//! Addition, all bytes or all Int16: `vpmaddwd` of values of both operands side by side is both products and their sum.

use core::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_max_epi8, _mm256_min_epi8,
    _mm256_packs_epi16, _mm256_packs_epi32, _mm256_set1_epi8, _mm256_set1_epi32, _mm256_srai_epi16, _mm256_srav_epi32,
    _mm256_storeu_si256, _mm256_unpackhi_epi8, _mm256_unpackhi_epi16, _mm256_unpacklo_epi8, _mm256_unpacklo_epi16,
};

use crate::add::{Add, BYTES, WORDS};

/// Bytes of a vector.
const STEP: usize = 32;

/// The same for all elements.
struct Constants {
    /// Both factors, side by side.
    multiplier: __m256i,
    offset: __m256i,
    shift: __m256i,
    min: __m256i,
    max: __m256i,
}

impl Constants {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn new(op: &Add) -> Self {
        let [low, high] = op.multiplier.map(i16::cast_unsigned).map(u32::from);
        Self {
            multiplier: _mm256_set1_epi32((low | high << 16).cast_signed()),
            offset: _mm256_set1_epi32(op.offset),
            shift: _mm256_set1_epi32(op.shift.min(30).into()),
            min: _mm256_set1_epi8(op.min),
            max: _mm256_set1_epi8(op.max),
        }
    }

    /// Sums of eight pairs of values.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn sums(&self, pairs: __m256i) -> __m256i {
        _mm256_srav_epi32(_mm256_add_epi32(_mm256_madd_epi16(pairs, self.multiplier), self.offset), self.shift)
    }

    /// 16 values of 16 bits. Unpacking and packing, both of halves of a vector, leave the order as it is.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn words(&self, a: __m256i, b: __m256i) -> __m256i {
        let (low, high) = (_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b));
        _mm256_packs_epi32(self.sums(low), self.sums(high))
    }

    /// 32 bytes.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn bytes(&self, a: __m256i, b: __m256i) -> __m256i {
        // 16 pairs of bytes, each byte beside itself is a value of 16 bits moved up by 8.
        let eight = |pairs: __m256i| {
            let low = self.sums(_mm256_srai_epi16::<8>(_mm256_unpacklo_epi8(pairs, pairs)));
            let high = self.sums(_mm256_srai_epi16::<8>(_mm256_unpackhi_epi8(pairs, pairs)));
            _mm256_packs_epi32(low, high)
        };
        let both = _mm256_packs_epi16(eight(_mm256_unpacklo_epi8(a, b)), eight(_mm256_unpackhi_epi8(a, b)));
        _mm256_min_epi8(_mm256_max_epi8(both, self.min), self.max)
    }
}

/// Adds what of `len` bytes is whole vectors, and says how many elements that is.
///
/// # Safety
/// `len` bytes of `a` and `b` may be read, and as many of `output` written, which may be `a`.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn add(op: &Add, a: *const i8, b: *const i8, output: *mut i8, len: usize) -> usize {
    let constants = Constants::new(op);
    let bytes = op.elements == BYTES;
    if !bytes && op.elements != WORDS {
        return 0;
    }
    let len = len / STEP * STEP;
    for at in (0..len).step_by(STEP) {
        let load = |from: *const i8| {
            // SAFETY: a vector of it, at any address.
            unsafe { _mm256_loadu_si256(from.wrapping_add(at).cast()) }
        };
        let (a, b) = (load(a), load(b));
        let sums = if bytes { constants.bytes(a, b) } else { constants.words(a, b) };
        // SAFETY: a vector of it, whose place in `a` was read.
        unsafe { _mm256_storeu_si256(output.wrapping_add(at).cast(), sums) };
    }
    if bytes { len } else { len / 2 }
}
