//! Sums of products by SDOT: a tile of windows, and dot products of rows.
//!
//! A tile has sums of four windows in a vector, so nothing is added up across a vector. 16 bytes of eight rows of weights and
//! of eight windows are 12 to 16 loads for 64 SDOT, 1024 products.

use core::arch::aarch64::{
    int8x16_t, int16x8_t, int32x4_t, vaddvq_s32, vdupq_laneq_s32, vdupq_n_s8, vdupq_n_s16, vdupq_n_s32, vld1q_dup_s32,
    vld1q_lane_s32, vld1q_s8, vpaddq_s32, vreinterpretq_s8_s32, vreinterpretq_s16_s64, vreinterpretq_s32_s8,
    vreinterpretq_s64_s8, vreinterpretq_s64_s16, vst1q_lane_s64, vst1q_s16, vzip1q_s8, vzip1q_s16, vzip1q_s32,
    vzip1q_s64, vzip2q_s8, vzip2q_s16, vzip2q_s32, vzip2q_s64,
};
use core::arch::asm;

use super::conv::{CHANNELS, Run, next};
use super::rescale::{Constants, Rescale, scaled};
use crate::arch::unsigned;

/// Adds the products of bytes, four neighbours to each sum.
#[inline]
#[target_feature(enable = "dotprod")]
pub(super) fn sdot(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction changes nothing but its first operand; the feature is enabled here.
    unsafe {
        asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sums, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    sums
}

/// As [`sdot`], with the same four bytes of `b` for all sums.
#[inline]
#[target_feature(enable = "dotprod")]
fn sdot_lane<const LANE: u32>(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: as above.
    unsafe {
        asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.4b[{lane}]", inout(vreg) sums, in(vreg) a, in(vreg) b, lane = const LANE,
            options(pure, nomem, nostack, preserves_flags));
    }
    sums
}

/// Sums of four windows in each vector: for each four of windows, of each channel.
type Sums<const FOURS: usize> = [[int32x4_t; CHANNELS]; FOURS];

/// See [`super::conv::Tile`].
#[target_feature(enable = "dotprod")]
pub(super) unsafe fn tile<const FOURS: usize>(run: &Run) {
    for channel in run.tiles() {
        // SAFETY: eight channels from each first one of a tile on.
        let constants = unsafe { run.rescale.constants(channel) };
        let weights = run.weights.wrapping_add(channel * run.row).cast::<i8>();
        let mut rows: [_; CHANNELS] = core::array::from_fn(|number| weights.wrapping_add(number * run.row));
        let window = |four: usize, at: usize| run.windows.wrapping_add(4 * (four * run.row + at));
        let mut sums: Sums<FOURS> = [each(constants.bias); FOURS];
        let mut at = 0;
        while at + 16 <= run.row {
            let mut weights = [vdupq_n_s8(0); CHANNELS];
            for (row, weights) in rows.iter_mut().zip(&mut weights) {
                // SAFETY: 16 bytes of a row.
                *weights = unsafe { next(row) };
            }
            // SAFETY: 16 bytes of four windows, interleaved, are 64.
            unsafe {
                multiply::<FOURS, 0>(&mut sums, |four| vld1q_s8(window(four, at)), &weights);
                multiply::<FOURS, 1>(&mut sums, |four| vld1q_s8(window(four, at + 4)), &weights);
                multiply::<FOURS, 2>(&mut sums, |four| vld1q_s8(window(four, at + 8)), &weights);
                multiply::<FOURS, 3>(&mut sums, |four| vld1q_s8(window(four, at + 12)), &weights);
            }
            at += 16;
        }
        while at < run.row {
            let mut weights = [vdupq_n_s8(0); CHANNELS];
            for (row, weights) in rows.iter_mut().zip(&mut weights) {
                // SAFETY: rows are whole words.
                *weights = vreinterpretq_s8_s32(unsafe { vld1q_dup_s32(row.cast()) });
                *row = row.wrapping_add(4);
            }
            // SAFETY: a word of four windows, interleaved, is 16 bytes.
            unsafe { multiply::<FOURS, 0>(&mut sums, |four| vld1q_s8(window(four, at)), &weights) };
            at += 4;
        }
        // SAFETY: the output has four positions for each of `FOURS`, and eight channels from this one on.
        unsafe { store(run, &constants, channel, &sums) };
    }
}

#[inline]
#[target_feature(enable = "dotprod")]
fn multiply<const FOURS: usize, const LANE: u32>(
    sums: &mut Sums<FOURS>,
    windows: impl Fn(usize) -> int8x16_t,
    weights: &[int8x16_t; CHANNELS],
) {
    for (four, sums) in sums.iter_mut().enumerate() {
        let windows = windows(four);
        for (sum, &weights) in sums.iter_mut().zip(weights) {
            *sum = sdot_lane::<LANE>(*sum, windows, weights);
        }
    }
}

/// A vector of the same value for each of eight channels.
#[inline]
#[target_feature(enable = "neon")]
fn each([low, high]: [int32x4_t; 2]) -> [int32x4_t; CHANNELS] {
    [
        vdupq_laneq_s32::<0>(low),
        vdupq_laneq_s32::<1>(low),
        vdupq_laneq_s32::<2>(low),
        vdupq_laneq_s32::<3>(low),
        vdupq_laneq_s32::<0>(high),
        vdupq_laneq_s32::<1>(high),
        vdupq_laneq_s32::<2>(high),
        vdupq_laneq_s32::<3>(high),
    ]
}

/// Rescales, turns channels of positions to positions of channels, and stores.
///
/// # Safety
/// The output has the positions of `sums`, and eight channels from `channel` on.
#[inline]
#[target_feature(enable = "dotprod")]
unsafe fn store<const FOURS: usize>(run: &Run, constants: &Constants, channel: usize, sums: &Sums<FOURS>) {
    let (multiplier, shift) = (each(constants.multiplier), each(constants.shift));
    let mut halves = [vdupq_n_s16(0); CHANNELS];
    for (index, half) in halves.iter_mut().enumerate() {
        let scaled = |four: usize| scaled(sums[four][index], multiplier[index], shift[index]);
        // Of one four, twice: the second is not stored.
        *half = run.rescale.narrow(scaled(0), scaled(FOURS - 1));
    }
    let output = |position: usize| run.output.wrapping_add(position * run.pitch);
    if run.wide {
        for (position, values) in transposed(halves).into_iter().enumerate().take(4 * FOURS) {
            // SAFETY: eight values of 16 bits of a position; a vector may lie at any address.
            unsafe { vst1q_s16(output(position).wrapping_add(2 * channel).cast(), values) };
        }
        return;
    }
    for (pair, both) in pairs(&run.rescale, &halves).into_iter().enumerate().take(2 * FOURS) {
        let both = vreinterpretq_s64_s8(both);
        // SAFETY: eight bytes of both positions.
        unsafe {
            vst1q_lane_s64::<0>(output(2 * pair).wrapping_add(channel).cast(), both);
            vst1q_lane_s64::<1>(output(2 * pair + 1).wrapping_add(channel).cast(), both);
        }
    }
}

/// Eight channels of eight positions to eight bytes of each position, two positions in a vector.
#[inline]
#[target_feature(enable = "neon")]
fn pairs(rescale: &Rescale, halves: &[int16x8_t; 8]) -> [int8x16_t; 4] {
    let two = |channel: usize| rescale.bytes(halves[channel], halves[channel + 4]);
    let (a, b, c, d) = (two(0), two(1), two(2), two(3));
    let (even, odd) = ((vzip1q_s8(a, c), vzip2q_s8(a, c)), (vzip1q_s8(b, d), vzip2q_s8(b, d)));
    let words = |even, odd| {
        let (low, high) = (vzip1q_s8(even, odd), vzip2q_s8(even, odd));
        (vreinterpretq_s32_s8(low), vreinterpretq_s32_s8(high))
    };
    let (first, last) = (words(even.0, odd.0), words(even.1, odd.1));
    [
        vreinterpretq_s8_s32(vzip1q_s32(first.0, last.0)),
        vreinterpretq_s8_s32(vzip2q_s32(first.0, last.0)),
        vreinterpretq_s8_s32(vzip1q_s32(first.1, last.1)),
        vreinterpretq_s8_s32(vzip2q_s32(first.1, last.1)),
    ]
}

/// Eight channels of eight positions to eight positions of eight channels.
#[inline]
#[target_feature(enable = "neon")]
fn transposed([a, b, c, d, e, f, g, h]: [int16x8_t; 8]) -> [int16x8_t; 8] {
    // Four channels of two positions in a vector.
    let four = |a, b, c, d| {
        let (ac, bd) = ((vzip1q_s16(a, c), vzip2q_s16(a, c)), (vzip1q_s16(b, d), vzip2q_s16(b, d)));
        [vzip1q_s16(ac.0, bd.0), vzip2q_s16(ac.0, bd.0), vzip1q_s16(ac.1, bd.1), vzip2q_s16(ac.1, bd.1)]
            .map(|pair| vreinterpretq_s64_s16(pair))
    };
    let (low, high) = (four(a, b, c, d), four(e, f, g, h));
    let mut positions = [a; 8];
    for pair in 0..4 {
        positions[2 * pair] = vreinterpretq_s16_s64(vzip1q_s64(low[pair], high[pair]));
        positions[2 * pair + 1] = vreinterpretq_s16_s64(vzip2q_s64(low[pair], high[pair]));
    }
    positions
}

/// The sum of the lanes of each of four vectors.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn totals([a, b, c, d]: [int32x4_t; 4]) -> int32x4_t {
    vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d))
}

/// The vectors of a row: whole ones, then its last words, each with zeros behind it.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn vectors<const ROWS: usize>(rows: [&[u8]; ROWS], mut each: impl FnMut([int8x16_t; ROWS])) {
    let len = rows.iter().map(|row| row.len()).min().unwrap_or(0);
    let mut at = 0;
    while at + 16 <= len {
        // SAFETY: 16 bytes of the shortest row, so of each.
        each(rows.map(|row| unsafe { vld1q_s8(row.as_ptr().wrapping_add(at).cast()) }));
        at += 16;
    }
    while at + 4 <= len {
        // SAFETY: four bytes of each row.
        each(rows.map(|row| unsafe {
            let word = vld1q_lane_s32::<0>(row.as_ptr().wrapping_add(at).cast(), vdupq_n_s32(0));
            vreinterpretq_s8_s32(word)
        }));
        at += 4;
    }
}

/// See [`crate::Isa::dot_2x4`].
#[inline]
#[target_feature(enable = "dotprod")]
pub(super) fn dot_2x4([x0, x1]: [&[i8]; 2], [w0, w1, w2, w3]: [&[u8]; 4]) -> [[i32; 4]; 2] {
    let mut sums = [[vdupq_n_s32(0); 4]; 2];
    vectors([unsigned(x0), unsigned(x1), w0, w1, w2, w3], |[x0, x1, weights @ ..]| {
        for (sums, x) in sums.iter_mut().zip([x0, x1]) {
            for (sum, &weight) in sums.iter_mut().zip(&weights) {
                *sum = sdot(*sum, x, weight);
            }
        }
    });
    // SAFETY: both types are 16 bytes and every bit pattern is an array.
    sums.map(|sums| unsafe { core::mem::transmute::<int32x4_t, [i32; 4]>(totals(sums)) })
}

/// See [`crate::Isa::dot`].
#[inline]
#[target_feature(enable = "dotprod")]
pub(super) fn dot(row: &[i8], weights: &[u8]) -> i32 {
    let mut sums = vdupq_n_s32(0);
    vectors([unsigned(row), weights], |[row, weights]| sums = sdot(sums, row, weights));
    vaddvq_s32(sums)
}
