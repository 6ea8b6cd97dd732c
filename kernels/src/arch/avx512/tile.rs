//! Sums of products by `vpmaddwd`: a pair of a window's values, the same for all lanes, times that of 16 channels.

use core::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_loadu_si512, _mm512_madd_epi16, _mm512_set1_epi32, _mm512_setzero_si512,
};

use super::conv::POSITIONS;
use super::rescale::Rescale;

/// Output channels of a vector.
pub(super) const LANES: usize = 16;

/// What a tile needs.
pub(super) struct Run {
    /// Widened windows.
    pub(super) strip: *const i16,
    /// `[lines][pairs][vectors][16 channels][2]`.
    pub(super) weights: *const i16,
    /// Lines of a window.
    pub(super) lines: usize,
    /// Pairs of values in a line.
    pub(super) pairs: usize,
    /// Values from one line of the strip to the next.
    pub(super) pitch: usize,
    pub(super) rescale: Rescale,
    /// First channel of the band's first position.
    pub(super) output: *mut i8,
    /// Bytes from one position of the output to the next.
    pub(super) output_pitch: usize,
}

/// `POSITIONS` from `first` of the band on, whose windows lie at these places of the strip, by `VECTORS` of channels.
///
/// # Safety
/// Strip, weights and output have what the lengths of `run` say, for these positions and `VECTORS` vectors of which the
/// last one may be partly filled, as the rescale knows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn tile<const COUNT: usize, const VECTORS: usize>(
    run: &Run,
    offsets: &[usize; POSITIONS],
    first: usize,
) {
    let mut sums = [[_mm512_setzero_si512(); VECTORS]; COUNT];
    let mut weights = run.weights;
    let mut windows: [*const i16; COUNT] = core::array::from_fn(|position| run.strip.wrapping_add(offsets[position]));
    for _ in 0..run.lines {
        for pair in 0..run.pairs {
            // SAFETY: 32 values of each vector of this pair.
            let of_pair: [__m512i; VECTORS] = core::array::from_fn(|vector| unsafe {
                _mm512_loadu_si512(weights.wrapping_add(2 * LANES * vector).cast())
            });
            for (sums, window) in sums.iter_mut().zip(windows) {
                // SAFETY: the pair lies in the line, or its second value behind it, in the strip.
                let values = unsafe { window.wrapping_add(2 * pair).cast::<i32>().read_unaligned() };
                let values = _mm512_set1_epi32(values);
                for (sum, weights) in sums.iter_mut().zip(of_pair) {
                    *sum = _mm512_add_epi32(*sum, _mm512_madd_epi16(values, weights));
                }
            }
            weights = weights.wrapping_add(2 * LANES * VECTORS);
        }
        windows = windows.map(|window| window.wrapping_add(run.pitch));
    }
    for vector in 0..VECTORS {
        let constants = run.rescale.constants(vector * LANES);
        for (position, sums) in sums.iter().enumerate() {
            let output = run.output.wrapping_add((first + position) * run.output_pitch);
            // SAFETY: the output has this position, and the channels that the rescale knows.
            unsafe { run.rescale.store(&constants, sums[vector], output, vector * LANES) };
        }
    }
}
