//! Tiles by SMMLA: two windows times two rows of weights, eight places each, 32 products an instruction.
//!
//! 16 bytes of eight rows of weights and of eight windows are 12 to 16 loads, eight ZIP that bring two rows of weights
//! together, and 32 SMMLA, 1024 products.

use core::arch::aarch64::{
    int8x16_t, int32x4_t, vcombine_s8, vdupq_laneq_s64, vdupq_n_s8, vld1_s8, vld1q_s8, vreinterpretq_s8_s16,
    vreinterpretq_s8_s64, vreinterpretq_s16_s8, vreinterpretq_s16_s32, vreinterpretq_s32_s16, vreinterpretq_s32_s64,
    vreinterpretq_s64_s8, vreinterpretq_s64_s32, vst1q_lane_s64, vst1q_s16, vuzp1q_s16, vuzp1q_s32, vuzp2q_s16,
    vuzp2q_s32, vzip1q_s64, vzip2q_s64,
};
use core::arch::asm;

use super::conv::{CHANNELS, Run, next};
use super::rescale::{Constants, scaled};

/// `sums` as rows of two: window and channel, `[w0·c0, w0·c1, w1·c0, w1·c1]`.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn smmla(mut sums: int32x4_t, windows: int8x16_t, weights: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction changes nothing but its first operand; the feature is enabled here.
    unsafe {
        asm!("smmla {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sums, in(vreg) windows, in(vreg) weights,
            options(pure, nomem, nostack, preserves_flags));
    }
    sums
}

/// Pairs of channels.
const PAIRS: usize = CHANNELS / 2;

/// See [`super::conv::Tile`]: two or four pairs of windows.
#[target_feature(enable = "neon,i8mm")]
pub(super) unsafe fn tile<const WINDOWS: usize>(run: &Run) {
    for channel in run.tiles() {
        // SAFETY: eight channels from each first one of a tile on.
        let constants = unsafe { run.rescale.constants(channel) };
        let weights = run.weights.wrapping_add(channel * run.row).cast::<i8>();
        let mut rows: [_; CHANNELS] = core::array::from_fn(|number| weights.wrapping_add(number * run.row));
        let window = |pair: usize, at: usize| run.windows.wrapping_add(2 * (pair * run.row + at));
        let mut sums = [each(constants.bias); WINDOWS];
        let mut at = 0;
        while at + 16 <= run.row {
            let mut weights = [[vdupq_n_s8(0); 2]; PAIRS];
            for ([even, odd], weights) in rows.as_chunks_mut().0.iter_mut().zip(&mut weights) {
                // SAFETY: 16 bytes of two rows.
                let (even, odd) = unsafe { (next(even), next(odd)) };
                let (even, odd) = (vreinterpretq_s64_s8(even), vreinterpretq_s64_s8(odd));
                *weights = [vreinterpretq_s8_s64(vzip1q_s64(even, odd)), vreinterpretq_s8_s64(vzip2q_s64(even, odd))];
            }
            for (pair, sums) in sums.iter_mut().enumerate() {
                // SAFETY: 16 bytes of two windows, interleaved, are 32.
                let windows = unsafe { [vld1q_s8(window(pair, at)), vld1q_s8(window(pair, at + 8))] };
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = smmla(smmla(*sum, windows[0], weights[0]), windows[1], weights[1]);
                }
            }
            at += 16;
        }
        if at < run.row {
            let mut weights = [vdupq_n_s8(0); PAIRS];
            for ([even, odd], weights) in rows.as_chunks().0.iter().zip(&mut weights) {
                // SAFETY: rows are multiples of eight bytes.
                *weights = unsafe { vcombine_s8(vld1_s8(*even), vld1_s8(*odd)) };
            }
            for (pair, sums) in sums.iter_mut().enumerate() {
                // SAFETY: eight bytes of two windows.
                let windows = unsafe { vld1q_s8(window(pair, at)) };
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = smmla(*sum, windows, weights);
                }
            }
        }
        // SAFETY: the output has the positions of the windows, and eight channels from this one on.
        unsafe { store(run, &constants, channel, &sums) };
    }
}

/// The values of two channels, twice.
#[inline]
#[target_feature(enable = "neon")]
fn each([low, high]: [int32x4_t; 2]) -> [int32x4_t; PAIRS] {
    let (low, high) = (vreinterpretq_s64_s32(low), vreinterpretq_s64_s32(high));
    [vdupq_laneq_s64::<0>(low), vdupq_laneq_s64::<1>(low), vdupq_laneq_s64::<0>(high), vdupq_laneq_s64::<1>(high)]
        .map(|pair| vreinterpretq_s32_s64(pair))
}

/// Rescales, brings the channels of a position together, and stores.
///
/// # Safety
/// The output has two positions for each entry of `sums`, and eight channels from `channel` on.
#[inline]
#[target_feature(enable = "neon,i8mm")]
unsafe fn store<const WINDOWS: usize>(
    run: &Run,
    constants: &Constants,
    channel: usize,
    sums: &[[int32x4_t; PAIRS]; WINDOWS],
) {
    let (multiplier, shift) = (each(constants.multiplier), each(constants.shift));
    let output = |position: usize| run.output.wrapping_add(position * run.pitch);
    // Two channels of one position, of the other, the next two of the one: of four channels, and of the other four.
    let halves = |window: usize| {
        let sums = &sums[window];
        let scaled = |pair: usize| scaled(sums[pair], multiplier[pair], shift[pair]);
        [run.rescale.narrow(scaled(0), scaled(1)), run.rescale.narrow(scaled(2), scaled(3))]
    };
    if run.wide {
        for window in 0..WINDOWS {
            let [low, high] = halves(window).map(|half| vreinterpretq_s32_s16(half));
            let positions = [vuzp1q_s32(low, high), vuzp2q_s32(low, high)];
            for (index, values) in positions.into_iter().enumerate() {
                let place = output(2 * window + index).wrapping_add(2 * channel);
                // SAFETY: eight values of 16 bits of a position; a vector may lie at any address.
                unsafe { vst1q_s16(place.cast(), vreinterpretq_s16_s32(values)) };
            }
        }
        return;
    }
    for two in (0..WINDOWS).step_by(2) {
        let bytes = |window: usize| {
            let [low, high] = halves(window);
            vreinterpretq_s16_s8(run.rescale.bytes(low, high))
        };
        let (first, second) = (bytes(two), bytes(two + 1));
        let positions = [vuzp1q_s16(first, second), vuzp2q_s16(first, second)];
        for (index, both) in positions.into_iter().enumerate() {
            let both = vreinterpretq_s64_s8(vreinterpretq_s8_s16(both));
            // SAFETY: eight bytes of both positions.
            unsafe {
                vst1q_lane_s64::<0>(output(2 * two + index).wrapping_add(channel).cast(), both);
                vst1q_lane_s64::<1>(output(2 * two + 2 + index).wrapping_add(channel).cast(), both);
            }
        }
    }
}
