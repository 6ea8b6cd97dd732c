//! Depthwise convolution, 3x3, eight channels at a time.
//!
//! The three pixels of a column are interleaved, `[channel][3 rows, and one of no weight]`, so SDOT adds the three products of
//! four channels at once. A column is interleaved once and serves all positions that see it: for a step of 1, three loads, four
//! ZIP and six SDOT for eight outputs. Padding beside the map is a column of the zero point; rows above and below it are
//! left out by weights of 0, and what they add, the zero point times their weights, goes into the bias.

use core::arch::aarch64::{
    int8x8_t, int8x16_t, int32x4_t, vandq_s8, vcombine_s8, vdup_n_s8, vdupq_n_s8, vdupq_n_u32, vget_low_s8, vld1_s8,
    vmvnq_s8, vreinterpretq_s8_s16, vreinterpretq_s8_u32, vreinterpretq_s16_s8, vst1_s8, vzip1q_s8, vzip1q_s16,
    vzip2q_s16,
};

use super::conv::CHANNELS;
use super::product::sdot;
use super::rescale::{Constants, Rescale, scaled};
use crate::conv::Conv;

/// A column of three pixels, interleaved: channels 0 to 3, and 4 to 7.
type Column = [int8x16_t; 2];

/// Runs a checked depthwise convolution whose shifts are short, if its window is 3x3 and its channels are eight or more.
#[target_feature(enable = "dotprod")]
pub(super) fn depthwise(op: &Conv<'_>, input: &[i8], output: &mut [i8]) -> bool {
    let channels = usize::from(op.output.channels);
    if op.window.kernel != [3, 3] || channels < CHANNELS {
        return false;
    }
    let rescale = Rescale::new(op, 0);
    let mut first = 0;
    while first < channels {
        // The last ones again rather than less than eight.
        let channel = first.min(channels - CHANNELS);
        first = channel + CHANNELS;
        // SAFETY: eight channels from this one on.
        let constants = unsafe { rescale.constants(channel) };
        let weights = [0, 1, 2].map(|column| {
            let tap = |row: usize| {
                let at = (3 * row + column) * channels + channel;
                op.weights.get(at..at + CHANNELS).map_or(vdup_n_s8(0), |taps| {
                    // SAFETY: eight bytes.
                    unsafe { vld1_s8(taps.as_ptr().cast()) }
                })
            };
            interleaved([tap(0), tap(1), tap(2)], vdup_n_s8(0))
        });
        for (y, out) in output.chunks_exact_mut(usize::from(op.output.width) * channels).enumerate() {
            let Some(out) = out.get_mut(channel..) else { return false };
            let line = Line::new(op, &rescale, constants, weights, input, y, channel);
            match op.window.stride[1] {
                1 => line.run::<1>(out),
                2 => line.run::<2>(out),
                _ => line.run::<3>(out),
            }
        }
    }
    true
}

#[inline]
#[target_feature(enable = "neon")]
fn interleaved([a, b, c]: [int8x8_t; 3], last: int8x8_t) -> Column {
    let wide = |low| vcombine_s8(low, low);
    let (first, second) = (vzip1q_s8(wide(a), wide(b)), vzip1q_s8(wide(c), wide(last)));
    let (first, second) = (vreinterpretq_s16_s8(first), vreinterpretq_s16_s8(second));
    [vreinterpretq_s8_s16(vzip1q_s16(first, second)), vreinterpretq_s8_s16(vzip2q_s16(first, second))]
}

/// Eight channels of a row of the output.
struct Line<'a> {
    op: &'a Conv<'a>,
    rescale: &'a Rescale,
    constants: Constants,
    weights: [Column; 3],
    bias: [int32x4_t; 2],
    /// The three rows of the map from this channel on; any row where there is none, its weights are 0.
    rows: [&'a [i8]; 3],
}

impl<'a> Line<'a> {
    #[inline]
    #[target_feature(enable = "dotprod")]
    fn new(
        op: &'a Conv<'a>,
        rescale: &'a Rescale,
        constants: Constants,
        mut weights: [Column; 3],
        input: &'a [i8],
        y: usize,
        channel: usize,
    ) -> Self {
        let (height, channels) = (usize::from(op.input.height), usize::from(op.input.channels));
        let pitch = usize::from(op.input.width) * channels;
        let [top, _] = op.window.start(y, 0);
        let mut bias = constants.bias;
        let (mut rows, mut inside) = ([&[][..]; 3], 0u32);
        for (index, row) in rows.iter_mut().enumerate() {
            let at = top.wrapping_add_unsigned(index) as usize;
            let there = at < height;
            inside |= if there { 0xff << (8 * index) } else { 0 };
            *row = input
                .get(if there { at * pitch + channel..(at + 1) * pitch } else { channel..pitch })
                .unwrap_or_default();
        }
        if inside != 0xff_ffff {
            let (inside, zero) = (vreinterpretq_s8_u32(vdupq_n_u32(inside)), vdupq_n_s8(op.input_zero));
            for half in weights.iter_mut().flat_map(|column| column.iter_mut().enumerate()) {
                let (index, weights) = half;
                bias[index] = sdot(bias[index], vandq_s8(*weights, vmvnq_s8(inside)), zero);
                *weights = vandq_s8(*weights, inside);
            }
        }
        Self { op, rescale, constants, weights, bias, rows }
    }

    /// All positions; `STEP` 3 is any step.
    #[inline]
    #[target_feature(enable = "dotprod")]
    fn run<const STEP: usize>(&self, out: &mut [i8]) {
        let (op, channels) = (self.op, usize::from(self.op.output.channels));
        let step = isize::from(op.window.stride[1] as i16);
        let [_, mut left] = op.window.start(0, 0);
        let width = usize::from(op.input.width);
        let column = |at: isize| self.column(at as usize, width, channels);
        let padding = [vdupq_n_s8(op.input_zero); 2];
        let mut window = [padding; 3];
        match STEP {
            1 => window = [padding, column(left), column(left + 1)],
            2 => window[2] = column(left),
            _ => {}
        }
        let mut from = 0;
        for _ in 0..op.output.width {
            let [_, b, c] = window;
            window = match STEP {
                1 => [b, c, column(left + 2)],
                2 => [c, column(left + 1), column(left + 2)],
                _ => [column(left), column(left + 1), column(left + 2)],
            };
            left += step;
            let mut sums = self.bias;
            for (column, weights) in window.iter().zip(&self.weights) {
                for (index, sum) in sums.iter_mut().enumerate() {
                    *sum = sdot(*sum, column[index], weights[index]);
                }
            }
            let Constants { multiplier, shift, .. } = self.constants;
            let half = |index: usize| scaled(sums[index], multiplier[index], shift[index]);
            let narrow = self.rescale.narrow(half(0), half(1));
            let Some(out) = out.get_mut(from..from + CHANNELS) else { return };
            // SAFETY: eight bytes.
            unsafe { vst1_s8(out.as_mut_ptr(), vget_low_s8(self.rescale.bytes(narrow, narrow))) };
            from += channels;
        }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn column(&self, at: usize, width: usize, channels: usize) -> Column {
        if at >= width {
            return [vdupq_n_s8(self.op.input_zero); 2];
        }
        let pixels = self.rows.map(|row| {
            row.get(at * channels..at * channels + CHANNELS).map_or(vdup_n_s8(0), |pixel| {
                // SAFETY: eight bytes.
                unsafe { vld1_s8(pixel.as_ptr()) }
            })
        });
        interleaved(pixels, pixels[2])
    }
}
