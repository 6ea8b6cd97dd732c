//! Addition, all bytes or all Int16: both products and the constant in 32 bits, narrowed by saturation.

use core::arch::aarch64::{
    int16x8_t, int32x4_t, vaddq_s32, vdupq_n_s8, vdupq_n_s32, vget_low_s8, vget_low_s16, vld1q_s8, vld1q_s16, vmaxq_s8,
    vminq_s8, vmlal_high_n_s16, vmlal_n_s16, vmovl_high_s8, vmovl_s8, vmull_high_n_s16, vmull_n_s16, vqmovn_high_s16,
    vqmovn_high_s32, vqmovn_s16, vqmovn_s32, vshlq_s32, vst1q_s8, vst1q_s16,
};

use crate::add::{Add, BYTES, WORDS};

/// Adds whole vectors, and says how many elements they hold.
#[target_feature(enable = "neon")]
pub(super) fn add(op: &Add, a: &[i8], b: &[i8], output: &mut [i8]) -> usize {
    let [first, second] = op.multiplier;
    let (offset, shift) = (vdupq_n_s32(op.offset), vdupq_n_s32(-i32::from(op.shift.min(30))));
    let (min, max) = (vdupq_n_s8(op.min), vdupq_n_s8(op.max));
    let scaled = |products: int32x4_t| vshlq_s32(vaddq_s32(products, offset), shift);
    let sums = |a: int16x8_t, b: int16x8_t| {
        let low = vmlal_n_s16(vmull_n_s16(vget_low_s16(a), first), vget_low_s16(b), second);
        let high = vmlal_high_n_s16(vmull_high_n_s16(a, first), b, second);
        vqmovn_high_s32(vqmovn_s32(scaled(low)), scaled(high))
    };
    let operands = a.as_chunks::<16>().0.iter().zip(b.as_chunks::<16>().0);
    let (outputs, _) = output.as_chunks_mut::<16>();
    let count = operands.len().min(outputs.len());
    match op.elements {
        BYTES => {
            for (out, (a, b)) in outputs.iter_mut().zip(operands) {
                // SAFETY: 16 bytes each.
                let (a, b) = unsafe { (vld1q_s8(a.as_ptr()), vld1q_s8(b.as_ptr())) };
                let low = sums(vmovl_s8(vget_low_s8(a)), vmovl_s8(vget_low_s8(b)));
                let both = vqmovn_high_s16(vqmovn_s16(low), sums(vmovl_high_s8(a), vmovl_high_s8(b)));
                // SAFETY: 16 bytes.
                unsafe { vst1q_s8(out.as_mut_ptr(), vminq_s8(vmaxq_s8(both, min), max)) };
            }
            16 * count
        }
        WORDS => {
            for (out, (a, b)) in outputs.iter_mut().zip(operands) {
                // SAFETY: eight values of 16 bits each; a vector may lie at any address.
                let (a, b) = unsafe { (vld1q_s16(a.as_ptr().cast()), vld1q_s16(b.as_ptr().cast())) };
                // SAFETY: as above.
                unsafe { vst1q_s16(out.as_mut_ptr().cast(), sums(a, b)) };
            }
            8 * count
        }
        _ => 0,
    }
}
