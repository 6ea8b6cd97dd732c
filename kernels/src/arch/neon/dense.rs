//! Dense layers: nothing shares a weight, so each row of weights is multiplied with the one window as they lie.

use core::arch::aarch64::{vaddq_s32, vdupq_n_s32, vget_low_s8, vst1_s8, vst1q_s16};

use super::conv::CHANNELS;
use super::product::{sdot, totals, vectors};
use super::rescale::{Rescale, scaled};
use crate::arch::unsigned;
use crate::conv::{Conv, gather, row_len};
use crate::element::Element;

/// Runs a checked convolution of few positions, each for itself; false if there is too little scratch.
///
/// # Safety
/// Shifts are 33..=54, and a group has [`CHANNELS`] output channels or more.
#[target_feature(enable = "dotprod")]
pub(super) unsafe fn dense(op: &Conv<'_>, input: &[i8], output: &mut [i8], scratch: &mut [i8]) -> bool {
    let groups = usize::from(op.groups);
    let channels = usize::from(op.input.channels) / groups;
    let per_group = usize::from(op.output.channels) / groups;
    let row = row_len(op.window.kernel, channels);
    let (size, width) = (op.to.bytes(), usize::from(op.output.width));
    let Some(window) = scratch.get_mut(..row) else { return false };
    window.fill(0);
    for group in 0..groups {
        let Some(weights) = op.weights.get(group * per_group * row..(group + 1) * per_group * row) else {
            return false;
        };
        for (position, out) in output.chunks_exact_mut(op.output_bytes()).enumerate() {
            let start = op.window.start(position / width, position % width);
            gather(op, group * channels, channels, input, start, window);
            let Some(out) = out.get_mut(group * per_group * size..(group + 1) * per_group * size) else { return false };
            let rescale = Rescale::new(op, group * per_group);
            let mut first = 0;
            while first < per_group {
                // The last ones again rather than less than eight.
                let channel = first.min(per_group - CHANNELS);
                first = channel + CHANNELS;
                let (Some(weights), Some(out)) = (
                    weights.get(channel * row..(channel + CHANNELS) * row),
                    out.get_mut(channel * size..(channel + CHANNELS) * size),
                ) else {
                    return false;
                };
                // SAFETY: eight channels from this one on.
                unsafe { eight(op, &rescale, channel, window, weights, out) };
            }
        }
    }
    true
}

/// # Safety
/// `rescale` has [`CHANNELS`] channels from `channel` on, `weights` as many rows, and `out` as many values.
#[inline]
#[target_feature(enable = "dotprod")]
unsafe fn eight(op: &Conv<'_>, rescale: &Rescale, channel: usize, window: &[i8], weights: &[u8], out: &mut [i8]) {
    // SAFETY: as the caller promises.
    let constants = unsafe { rescale.constants(channel) };
    let row = |number: usize| weights.get(number * window.len()..(number + 1) * window.len()).unwrap_or_default();
    let rows = [unsigned(window), row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7)];
    let mut sums = [[vdupq_n_s32(0); 4]; 2];
    vectors(rows, |[window, weights @ ..]| {
        for (sums, weights) in sums.iter_mut().zip(weights.as_chunks::<4>().0) {
            for (sum, &weights) in sums.iter_mut().zip(weights) {
                *sum = sdot(*sum, window, weights);
            }
        }
    });
    let rescaled = |half: usize| {
        let sums = vaddq_s32(totals(sums[half]), constants.bias[half]);
        scaled(sums, constants.multiplier[half], constants.shift[half])
    };
    let narrow = rescale.narrow(rescaled(0), rescaled(1));
    if op.to == Element::Int16 {
        // SAFETY: eight values of 16 bits; a vector may lie at any address.
        unsafe { vst1q_s16(out.as_mut_ptr().cast(), narrow) };
    } else {
        // SAFETY: eight bytes.
        unsafe { vst1_s8(out.as_mut_ptr(), vget_low_s8(rescale.bytes(narrow, narrow))) };
    }
}
