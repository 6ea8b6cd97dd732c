//! Pools, sixteen channels at a time; of a map with less, eight.

use core::arch::aarch64::{
    int8x16_t, int16x8_t, int32x4_t, vaddw_high_s8, vaddw_high_s16, vaddw_s8, vaddw_s16, vcombine_s8, vdup_n_s8,
    vdupq_n_s8, vdupq_n_s16, vdupq_n_s32, vget_low_s8, vget_low_s16, vld1_s8, vld1q_s8, vmaxq_s8, vminq_s8, vqaddq_s16,
    vqmovn_high_s16, vqmovn_high_s32, vqmovn_s16, vqmovn_s32, vst1_s8, vst1q_s8,
};

use super::rescale::scaled;
use crate::pool::{Pool, PoolKind};

/// Runs a checked pool of eight channels or more; a mean if its shift is one of [`scaled`].
#[target_feature(enable = "neon")]
pub(super) fn pool(op: &Pool, input: &[i8], output: &mut [i8]) -> bool {
    if op.kind == PoolKind::Average && op.shift < 33 {
        return false;
    }
    match op.output.channels {
        0..8 => return false,
        8..16 => positions::<8>(op, input, output),
        16.. => positions::<16>(op, input, output),
    }
    true
}

/// All positions, `BLOCK` channels at a time, 8 or 16, of as many or more.
#[target_feature(enable = "neon")]
fn positions<const BLOCK: usize>(op: &Pool, input: &[i8], output: &mut [i8]) {
    let channels = usize::from(op.output.channels);
    let pitch = usize::from(op.input.width) * channels;
    for (y, out) in output.chunks_exact_mut(usize::from(op.output.width) * channels).enumerate() {
        for (x, out) in out.chunks_exact_mut(channels).enumerate() {
            let [rows, columns] = op.under(y, x);
            let count = rows.len() * columns.len();
            let mut next = 0;
            while next < channels {
                // The last ones again rather than less: the same inputs give the same outputs.
                let channel = next.min(channels - BLOCK);
                next = channel + BLOCK;
                let lines = rows.clone().filter_map(|row| {
                    let from = row * pitch + columns.start * channels + channel;
                    input.get(from..from + (columns.len().checked_sub(1)? * channels + BLOCK))
                });
                let values = match op.kind {
                    PoolKind::Max => maxima::<BLOCK>(lines, channels),
                    PoolKind::Average => means::<BLOCK>(op, count, lines, channels),
                };
                let values = vmaxq_s8(vminq_s8(values, vdupq_n_s8(op.max)), vdupq_n_s8(op.min));
                if let Some(out) = out.get_mut(channel..).and_then(|out| out.first_chunk_mut()) {
                    store::<BLOCK>(out, values);
                }
            }
        }
    }
}

/// Of each channel of the first pixels of lines, `pitch` bytes apart, the largest value.
#[inline]
#[target_feature(enable = "neon")]
fn maxima<'a, const BLOCK: usize>(lines: impl Iterator<Item = &'a [i8]>, pitch: usize) -> int8x16_t {
    let mut most = vdupq_n_s8(i8::MIN);
    for line in lines {
        for pixel in line.chunks(pitch).filter_map(|pixel| pixel.first_chunk()) {
            most = vmaxq_s8(most, load::<BLOCK>(pixel));
        }
    }
    most
}

/// Of each channel, the mean of `count` pixels.
#[inline]
#[target_feature(enable = "neon")]
fn means<'a, const BLOCK: usize>(
    op: &Pool,
    count: usize,
    lines: impl Iterator<Item = &'a [i8]>,
    pitch: usize,
) -> int8x16_t {
    let mut sums = [vdupq_n_s32(-i32::from(op.input_zero) * count as i32); 4];
    for line in lines {
        // A line of a window is 255 pixels at most, whose sum fits 16 bits.
        let [mut low, mut high] = [vdupq_n_s16(0); 2];
        for pixel in line.chunks(pitch).filter_map(|pixel| pixel.first_chunk()) {
            let values = load::<BLOCK>(pixel);
            low = vaddw_s8(low, vget_low_s8(values));
            high = vaddw_high_s8(high, values);
        }
        let [a, b, c, d] = sums;
        sums = [
            vaddw_s16(a, vget_low_s16(low)),
            vaddw_high_s16(b, low),
            vaddw_s16(c, vget_low_s16(high)),
            vaddw_high_s16(d, high),
        ];
    }
    let half = |low: int32x4_t, high: int32x4_t| -> int16x8_t {
        let (multiplier, shift) = (vdupq_n_s32(op.multiplier), vdupq_n_s32(31 - i32::from(op.shift)));
        let [low, high] = [low, high].map(|sums| scaled(sums, multiplier, shift));
        vqaddq_s16(vqmovn_high_s32(vqmovn_s32(low), high), vdupq_n_s16(op.zero_point.into()))
    };
    let [a, b, c, d] = sums;
    vqmovn_high_s16(vqmovn_s16(half(a, b)), half(c, d))
}

/// Eight bytes, and zeros behind them, or sixteen.
#[inline]
#[target_feature(enable = "neon")]
fn load<const BLOCK: usize>(from: &[i8; BLOCK]) -> int8x16_t {
    const { assert!(BLOCK == 8 || BLOCK == 16) }
    if BLOCK == 8 {
        // SAFETY: eight bytes.
        return vcombine_s8(unsafe { vld1_s8(from.as_ptr()) }, vdup_n_s8(0));
    }
    // SAFETY: sixteen bytes.
    unsafe { vld1q_s8(from.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
fn store<const BLOCK: usize>(to: &mut [i8; BLOCK], values: int8x16_t) {
    const { assert!(BLOCK == 8 || BLOCK == 16) }
    if BLOCK == 8 {
        // SAFETY: eight bytes.
        unsafe { vst1_s8(to.as_mut_ptr(), vget_low_s8(values)) };
    } else {
        // SAFETY: sixteen bytes.
        unsafe { vst1q_s8(to.as_mut_ptr(), values) };
    }
}
