//! Values mixed by weights, one key after the other.

use core::arch::aarch64::{
    int8x16_t, int16x4_t, int16x8_t, int32x4_t, vdupq_n_s32, vget_low_s8, vget_low_s16, vld1_dup_s16, vld1_s16,
    vld1q_s8, vld1q_s32, vmaxq_s32, vminq_s32, vmlal_high_lane_s16, vmlal_lane_s16, vmovl_high_s8, vmovl_s8, vst1q_s32,
};

use super::rescale::scaled;
use crate::attention::{self, Attention, LOGIT, ROWS, Rows};

/// Sixteen channels of each row.
type Sums = [[int32x4_t; 4]; ROWS];

/// See [`crate::Isa::mix`].
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn mix(weights: [&[[i8; 2]]; ROWS], values: &Rows<'_>, channel: usize) -> [[i32; 16]; ROWS] {
    let mut sums: Sums = [[vdupq_n_s32(0); 4]; ROWS];
    let (keys, columns, pixel) = (weights[0].len(), values.grid.columns, values.grid.pixel);
    let mut first = 0;
    while first < keys && weights.iter().all(|row| row.len() == keys) {
        // The keys of a line of the window lie one beside the other.
        let count = columns.min(keys - first);
        let line = values.run(first, count).get(channel..).unwrap_or_default();
        if line.len() < (count - 1) * pixel + 16 {
            break;
        }
        let value = |key: usize| {
            // SAFETY: 16 channels of the last key of the line are there, so of each.
            unsafe { vld1q_s8(line.as_ptr().wrapping_add(key * pixel)) }
        };
        let mut key = 0;
        while key + 4 <= count {
            // SAFETY: four weights of 16 bits of a row of `keys`; a vector may lie at any address.
            let four = weights.map(|row| unsafe { vld1_s16(row.as_ptr().wrapping_add(first + key).cast()) });
            add::<0>(&mut sums, value(key), four);
            add::<1>(&mut sums, value(key + 1), four);
            add::<2>(&mut sums, value(key + 2), four);
            add::<3>(&mut sums, value(key + 3), four);
            key += 4;
        }
        while key < count {
            // SAFETY: a weight of a row of `keys`; two bytes may lie at any address.
            let one = weights.map(|row| unsafe { vld1_dup_s16(row.as_ptr().wrapping_add(first + key).cast()) });
            add::<0>(&mut sums, value(key), one);
            key += 1;
        }
        first += count;
    }
    // SAFETY: both types are 64 bytes and every bit pattern is an array.
    sums.map(|sums| unsafe { core::mem::transmute::<[int32x4_t; 4], [i32; 16]>(sums) })
}

/// One key: 16 values times the weight of each row in `LANE`.
#[inline]
#[target_feature(enable = "neon")]
fn add<const LANE: i32>(sums: &mut Sums, values: int8x16_t, weights: [int16x4_t; ROWS]) {
    let [low, high]: [int16x8_t; 2] = [vmovl_s8(vget_low_s8(values)), vmovl_high_s8(values)];
    for ([a, b, c, d], weights) in sums.iter_mut().zip(weights) {
        *a = vmlal_lane_s16::<LANE>(*a, vget_low_s16(low), weights);
        *b = vmlal_high_lane_s16::<LANE>(*b, low, weights);
        *c = vmlal_lane_s16::<LANE>(*c, vget_low_s16(high), weights);
        *d = vmlal_high_lane_s16::<LANE>(*d, high, weights);
    }
}

/// See [`crate::Isa::put`].
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn put(op: &Attention<'_>, row: &mut [i8], sums: [i32; 4]) {
    if op.logit_shift < 33 || row.len() < 16 {
        return attention::put(op, row, sums);
    }
    // SAFETY: four words.
    let sums = unsafe { vld1q_s32(sums.as_ptr()) };
    let logits = scaled(sums, vdupq_n_s32(op.logit_multiplier), vdupq_n_s32(31 - i32::from(op.logit_shift)));
    let logits = vminq_s32(vmaxq_s32(logits, vdupq_n_s32(-LOGIT)), vdupq_n_s32(LOGIT - 1));
    // SAFETY: the row has four words; a vector may lie at any address.
    unsafe { vst1q_s32(row.as_mut_ptr().cast(), logits) };
}
