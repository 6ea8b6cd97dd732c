//! Layer normalisation, eight values at a time.
//!
//! SQDMULH of a factor and a value of 16 bits moved up by 15 keeps the high 32 of 48 bits of their product.

use core::arch::aarch64::{
    int32x4_t, uint64x2_t, vaddq_s32, vaddvq_s32, vaddvq_u64, vdup_n_s8, vdupq_n_s32, vdupq_n_u64, vget_low_s16,
    vld1q_s16, vld1q_s32, vmax_s8, vmin_s8, vmull_high_s16, vmull_s16, vpadalq_s16, vpadalq_u32, vqdmulhq_s32,
    vqmovn_s16, vqshrn_high_n_s32, vqshrn_n_s32, vreinterpretq_u32_s32, vshll_high_n_s16, vshll_n_s16, vshlq_s32,
    vst1_s8,
};

use crate::layer_norm::{self, LayerNorm, Row};

/// See [`crate::Isa::moments`].
#[target_feature(enable = "neon")]
pub(super) fn moments(row: &[i8]) -> (i32, u64) {
    let (mut sums, mut squares): (int32x4_t, uint64x2_t) = (vdupq_n_s32(0), vdupq_n_u64(0));
    let (eights, rest) = row.as_chunks::<16>();
    for eight in eights {
        // SAFETY: eight values of 16 bits; a vector may lie at any address.
        let values = unsafe { vld1q_s16(eight.as_ptr().cast()) };
        let (low, high) = (vmull_s16(vget_low_s16(values), vget_low_s16(values)), vmull_high_s16(values, values));
        sums = vpadalq_s16(sums, values);
        squares = vpadalq_u32(vpadalq_u32(squares, vreinterpretq_u32_s32(low)), vreinterpretq_u32_s32(high));
    }
    let (sum, square) = layer_norm::moments(rest);
    (vaddvq_s32(sums) + sum, vaddvq_u64(squares) + square)
}

/// See [`crate::Isa::normalise`].
#[target_feature(enable = "neon")]
pub(super) fn normalise(op: &LayerNorm<'_>, row: Row, input: &[i8], output: &mut [i8]) {
    let (scale, shift, places) = (vdupq_n_s32(row.scale), vdupq_n_s32(row.shift), vdupq_n_s32(-row.places));
    let (min, max) = (vdup_n_s8(op.min), vdup_n_s8(op.max));
    let four = |values: int32x4_t, factors: int32x4_t, offsets: int32x4_t| {
        let normalised = vaddq_s32(vqdmulhq_s32(scale, values), shift);
        vaddq_s32(vshlq_s32(vqdmulhq_s32(normalised, factors), places), offsets)
    };
    let constants = op.factor.as_chunks::<16>().0.iter().zip(op.offset.as_chunks::<32>().0);
    let values = input.as_chunks::<16>().0.iter().zip(constants);
    let (eights, _) = output.as_chunks_mut::<8>();
    let done = 8 * eights.len();
    for (out, (values, (factors, offsets))) in eights.iter_mut().zip(values) {
        let offsets = offsets.as_ptr().cast::<i32>();
        // SAFETY: eight values of 16 bits, twice, and eight of 32; a vector may lie at any address.
        let (values, factors, offsets) = unsafe {
            let offsets = [vld1q_s32(offsets), vld1q_s32(offsets.wrapping_add(4))];
            (vld1q_s16(values.as_ptr().cast()), vld1q_s16(factors.as_ptr().cast()), offsets)
        };
        let (x, f) = (vshll_n_s16::<15>(vget_low_s16(values)), vshll_n_s16::<15>(vget_low_s16(factors)));
        let low = four(x, f, offsets[0]);
        let high = four(vshll_high_n_s16::<15>(values), vshll_high_n_s16::<15>(factors), offsets[1]);
        let steps = vqmovn_s16(vqshrn_high_n_s32::<6>(vqshrn_n_s32::<6>(low), high));
        // SAFETY: eight bytes.
        unsafe { vst1_s8(out.as_mut_ptr(), vmin_s8(vmax_s8(steps, min), max)) };
    }
    let rest = LayerNorm {
        factor: op.factor.get(2 * done..).unwrap_or_default(),
        offset: op.offset.get(4 * done..).unwrap_or_default(),
        ..*op
    };
    let (input, output) = (input.get(2 * done..).unwrap_or_default(), output.get_mut(done..).unwrap_or_default());
    layer_norm::normalise(&rest, row, input, output);
}
