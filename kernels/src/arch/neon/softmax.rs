//! Softmax, four logits at a time: powers looked up one by one, the rest in vectors.

use core::arch::aarch64::{
    int32x4_t, vaddq_u32, vaddvq_u32, vandq_u32, vcltq_u32, vcombine_u32, vdup_n_u32, vdupq_n_s32, vdupq_n_u32,
    vget_low_u32, vld1q_s32, vld1q_u32, vmaxq_s32, vmaxvq_s32, vmull_high_u32, vmull_u32, vnegq_s32, vqmovn_s32,
    vreinterpretq_s32_u32, vreinterpretq_u32_s32, vrshrn_n_u64, vshlq_u32, vshrq_n_u32, vst1_s16, vst1q_u32, vsubq_s32,
};

use crate::softmax::{EXP2, VANISHED, inverse, power, word};

/// `EXP2` with 20 fraction bits.
static POWERS: [u32; 256] = {
    let mut powers = [0; 256];
    let mut index = 0;
    while index < 256 {
        powers[index] = (EXP2[index] as u32) << 5;
        index += 1;
    }
    powers
};

#[inline]
#[target_feature(enable = "neon")]
fn load(four: &[i8; 16]) -> int32x4_t {
    // SAFETY: four words; a vector may lie at any address.
    unsafe { vld1q_s32(four.as_ptr().cast()) }
}

/// `crate::softmax::row`.
#[target_feature(enable = "neon")]
pub(super) fn row(row: &mut [i8]) {
    let (fours, rest) = row.as_chunks_mut::<16>();
    let rest = rest.as_chunks_mut::<4>().0;
    let mut most = vdupq_n_s32(i32::MIN);
    for four in &*fours {
        most = vmaxq_s32(most, load(four));
    }
    let most = rest.iter().map(|&logit| word(logit)).fold(vmaxvq_s32(most), i32::max);
    let mut sums = vdupq_n_u32(0);
    for four in fours {
        // The difference of two logits fits 32 bits, so it is not negative.
        let below = vreinterpretq_u32_s32(vsubq_s32(vdupq_n_s32(most), load(four)));
        let mut places = [0u32; 4];
        // SAFETY: four words.
        unsafe { vst1q_u32(places.as_mut_ptr(), vandq_u32(below, vdupq_n_u32(255))) };
        let powers = places.map(|place| POWERS[(place & 255) as usize]);
        // SAFETY: four words.
        let powers = unsafe { vld1q_u32(powers.as_ptr()) };
        let shift = vnegq_s32(vreinterpretq_s32_u32(vshrq_n_u32::<8>(below)));
        let powers = vandq_u32(vshlq_u32(powers, shift), vcltq_u32(below, vdupq_n_u32(VANISHED)));
        sums = vaddq_u32(sums, powers);
        // SAFETY: four words.
        unsafe { vst1q_u32(four.as_mut_ptr().cast(), powers) };
    }
    let mut sum = vaddvq_u32(sums);
    for logit in rest {
        let power = power(most.wrapping_sub(word(*logit)) as u32);
        sum = sum.wrapping_add(power);
        *logit = power.to_le_bytes().map(|byte| byte as i8);
    }
    weigh(row, inverse(sum));
}

/// The powers of a row to weights, in its first half: four are read before their place is written.
#[inline]
#[target_feature(enable = "neon")]
fn weigh(row: &mut [i8], factor: u32) {
    let factors = vdup_n_u32(factor);
    let fours = row.len() / 16;
    let start = row.as_mut_ptr();
    for four in 0..fours {
        // SAFETY: four words of the row.
        let powers = unsafe { vld1q_u32(start.wrapping_add(16 * four).cast()) };
        let low = vrshrn_n_u64::<32>(vmull_u32(vget_low_u32(powers), factors));
        let high = vrshrn_n_u64::<32>(vmull_high_u32(powers, vcombine_u32(factors, factors)));
        // Saturates to 32767.
        let weights = vqmovn_s32(vreinterpretq_s32_u32(vcombine_u32(low, high)));
        // SAFETY: four values of 16 bits, of the first half of the row, none behind what was read.
        unsafe { vst1_s16(start.wrapping_add(8 * four).cast(), weights) };
    }
    crate::softmax::weigh(row, 4 * fours, factor);
}
