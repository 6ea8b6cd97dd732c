//! Depthwise convolution, 3x3, eight channels at a time.
//!
//! Of a column of three pixels, the upper two lie side by side as values of 16 bits, the third one in words of 32 bits, so that
//! two `vpmaddwd` are its products and their sums. A column is widened once and serves all positions that see it. Padding beside
//! the map is a column of the zero point; rows above and below it are left out by weights of 0, and what they add, the zero
//! point times their weights, goes into the bias.

use core::arch::x86_64::{
    __m256i, _mm_loadl_epi64, _mm_packs_epi16, _mm_packs_epi32, _mm_storel_epi64, _mm_unpacklo_epi8, _mm256_add_epi32,
    _mm256_and_si256, _mm256_andnot_si256, _mm256_castsi256_si128, _mm256_cvtepi8_epi16, _mm256_cvtepi8_epi32,
    _mm256_extracti128_si256, _mm256_madd_epi16, _mm256_set1_epi16, _mm256_set1_epi32,
};

use super::rescale::{Bounds, LANES, Rescale};
use crate::conv::Conv;

/// A column of three pixels of eight channels: `[channel][upper two]`, and `[channel][the third, its sign]`.
type Column = [__m256i; 2];

/// Runs a checked depthwise convolution whose shifts are short, if its window is 3x3 and its channels are eight or more.
#[target_feature(enable = "avx2")]
pub(super) fn depthwise(op: &Conv<'_>, input: &[i8], output: &mut [i8]) -> bool {
    let channels = usize::from(op.output.channels);
    if op.window.kernel != [3, 3] || channels < LANES {
        return false;
    }
    for first in (0..channels).step_by(LANES) {
        // The last ones again rather than less than eight.
        let channel = first.min(channels - LANES);
        let Some(rescale) = Rescale::of(&op.requant, channel) else { return false };
        let mut weights = [[rescale.bias; 2]; 3];
        for (column, weights) in weights.iter_mut().enumerate() {
            let tap = |row: usize| {
                let at = (3 * row + column) * channels + channel;
                op.weights.get(at..at + LANES)
            };
            let (Some(a), Some(b), Some(c)) = (tap(0), tap(1), tap(2)) else { return false };
            // SAFETY: eight bytes each.
            *weights = unsafe { widened([a, b, c].map(|taps| taps.as_ptr().cast())) };
            // Nothing meets a sign.
            weights[1] = _mm256_and_si256(weights[1], _mm256_set1_epi32(0xffff));
        }
        for (y, out) in output.chunks_exact_mut(usize::from(op.output.width) * channels).enumerate() {
            let Some(out) = out.get_mut(channel..) else { return false };
            let line = Line::new(op, input, rescale, weights, [y, channel]);
            match op.window.stride[1] {
                1 => line.run::<1>(out),
                2 => line.run::<2>(out),
                _ => line.run::<3>(out),
            }
        }
    }
    true
}

/// # Safety
/// Each row has eight bytes.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn widened([a, b, c]: [*const i8; 3]) -> Column {
    // SAFETY: as the caller says.
    let (a, b, c) = unsafe { (_mm_loadl_epi64(a.cast()), _mm_loadl_epi64(b.cast()), _mm_loadl_epi64(c.cast())) };
    [_mm256_cvtepi8_epi16(_mm_unpacklo_epi8(a, b)), _mm256_cvtepi8_epi32(c)]
}

/// Eight channels of a row of the output.
struct Line<'a> {
    op: &'a Conv<'a>,
    rescale: Rescale,
    bounds: Bounds,
    weights: [Column; 3],
    bias: __m256i,
    /// The channels in the first pixel of the three rows of the map; any row where there is none, its weights are 0.
    rows: [*const i8; 3],
}

impl<'a> Line<'a> {
    /// Of row `y`, channels from `channel` on, of which there are eight.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn new(
        op: &'a Conv<'a>,
        input: &[i8],
        rescale: Rescale,
        mut weights: [Column; 3],
        [y, channel]: [usize; 2],
    ) -> Self {
        let [top, _] = op.window.start(y, 0);
        let under = [0, 1, 2].map(|row| top.wrapping_add(row) as usize);
        let on_map = under.map(|row| row < op.input.height.into());
        let mut bias = rescale.bias;
        if on_map != [true; 3] {
            let there = |row: usize, bits: u32| if on_map[row] { bits } else { 0 };
            let masks = [there(0, 0xffff) | there(1, 0xffff_0000), there(2, 0xffff)];
            let zero = _mm256_set1_epi16(op.input_zero.into());
            for (weights, mask) in weights.iter_mut().flat_map(|column| column.iter_mut().zip(masks)) {
                let mask = _mm256_set1_epi32(mask.cast_signed());
                bias = _mm256_add_epi32(bias, _mm256_madd_epi16(_mm256_andnot_si256(mask, *weights), zero));
                *weights = _mm256_and_si256(*weights, mask);
            }
        }
        let pitch = usize::from(op.input.width) * usize::from(op.input.channels);
        let rows = [0, 1, 2].map(|row| {
            let start = if on_map[row] { under[row] * pitch } else { 0 };
            input.as_ptr().wrapping_add(start + channel)
        });
        Self { op, rescale, bounds: Bounds::new(op.requant.min, op.requant.max), weights, bias, rows }
    }

    /// All positions; `STEP` 3 is any step.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn run<const STEP: usize>(&self, out: &mut [i8]) {
        let step = isize::from(self.op.window.stride[1] as i16);
        let [_, mut left] = self.op.window.start(0, 0);
        let padding = [_mm256_set1_epi16(self.op.input_zero.into()); 2];
        let mut window = [padding; 3];
        match STEP {
            1 => window = [padding, self.column(left), self.column(left + 1)],
            2 => window[2] = self.column(left),
            _ => {}
        }
        for out in out.chunks_mut(self.op.output.channels.into()) {
            let [_, b, c] = window;
            window = match STEP {
                1 => [b, c, self.column(left + 2)],
                2 => [c, self.column(left + 1), self.column(left + 2)],
                _ => [self.column(left), self.column(left + 1), self.column(left + 2)],
            };
            left += step;
            let mut sums = self.bias;
            for (column, weights) in window.iter().zip(&self.weights) {
                for (&pixels, &weights) in column.iter().zip(weights) {
                    sums = _mm256_add_epi32(sums, _mm256_madd_epi16(pixels, weights));
                }
            }
            let scaled = self.rescale.scaled(sums);
            let words = _mm_packs_epi32(_mm256_castsi256_si128(scaled), _mm256_extracti128_si256::<1>(scaled));
            let Some(out) = out.first_chunk_mut::<LANES>() else { return };
            // SAFETY: eight bytes.
            unsafe { _mm_storel_epi64(out.as_mut_ptr().cast(), self.bounds.clamp(_mm_packs_epi16(words, words))) };
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn column(&self, at: isize) -> Column {
        let (at, op) = (at as usize, self.op);
        if at >= op.input.width.into() {
            return [_mm256_set1_epi16(op.input_zero.into()); 2];
        }
        let pixel = at * usize::from(op.input.channels);
        // SAFETY: the input was checked: a row of it has `width` pixels, and each the eight channels.
        unsafe { widened(self.rows.map(|row| row.wrapping_add(pixel))) }
    }
}
