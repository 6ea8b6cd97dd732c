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
    let count = a.len().min(b.len()).min(output.len()) / 16;
    // SAFETY: each slice has as many vectors.
    unsafe { vectors(op, a.as_ptr(), b.as_ptr(), output.as_mut_ptr(), count) }
}

/// [`add`] whose output takes the place of `a`.
#[target_feature(enable = "neon")]
pub(super) fn add_in_place(op: &Add, a: &mut [i8], b: &[i8]) -> usize {
    let (count, values) = (a.len().min(b.len()) / 16, a.as_mut_ptr());
    // SAFETY: both slices have as many vectors.
    unsafe { vectors(op, values, b.as_ptr(), values, count) }
}

/// `count` vectors of 16 bytes; returns how many elements they hold.
///
/// # Safety
/// `a`, `b` and `output` have them. `output` may be `a`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn vectors(op: &Add, a: *const i8, b: *const i8, output: *mut i8, count: usize) -> usize {
    let [first, second] = op.multiplier;
    let (offset, shift) = (vdupq_n_s32(op.offset), vdupq_n_s32(-i32::from(op.shift.min(30))));
    let (min, max) = (vdupq_n_s8(op.min), vdupq_n_s8(op.max));
    let scaled = |products: int32x4_t| vshlq_s32(vaddq_s32(products, offset), shift);
    let sums = |a: int16x8_t, b: int16x8_t| {
        let low = vmlal_n_s16(vmull_n_s16(vget_low_s16(a), first), vget_low_s16(b), second);
        let high = vmlal_high_n_s16(vmull_high_n_s16(a, first), b, second);
        vqmovn_high_s32(vqmovn_s32(scaled(low)), scaled(high))
    };
    match op.elements {
        BYTES => {
            for at in (0..count).map(|number| 16 * number) {
                // SAFETY: 16 bytes each; an element is read before it is written.
                let (a, b) = unsafe { (vld1q_s8(a.add(at)), vld1q_s8(b.add(at))) };
                let low = sums(vmovl_s8(vget_low_s8(a)), vmovl_s8(vget_low_s8(b)));
                let both = vqmovn_high_s16(vqmovn_s16(low), sums(vmovl_high_s8(a), vmovl_high_s8(b)));
                // SAFETY: 16 bytes.
                unsafe { vst1q_s8(output.add(at), vminq_s8(vmaxq_s8(both, min), max)) };
            }
            16 * count
        }
        WORDS => {
            for at in (0..count).map(|number| 16 * number) {
                // SAFETY: eight values of 16 bits each; a vector may lie at any address.
                let (a, b) = unsafe { (vld1q_s16(a.add(at).cast()), vld1q_s16(b.add(at).cast())) };
                // SAFETY: as above.
                unsafe { vst1q_s16(output.add(at).cast(), sums(a, b)) };
            }
            8 * count
        }
        _ => 0,
    }
}
