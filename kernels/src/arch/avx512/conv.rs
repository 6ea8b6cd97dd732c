//! Convolutions: tiles of up to eight positions by up to 48 output channels.
//!
//! A band of the map is widened once to a strip on the stack, padding included, and windows are read from it in place. Rows of
//! weights lie in the image as for every other CPU; 16 to 48 of them are widened and interleaved on the stack, pair by pair of
//! values, and serve all positions of the band. Nothing is summed across a vector.

use core::mem::MaybeUninit;

use super::pack::pack;
use super::rescale::Rescale;
use super::strip::{Strip, Values};
use super::tile::{LANES, Run, tile};
use crate::conv::{Conv, row_len};

/// Values of 16 bits of a strip, and of packed weights: 128 and 192 KiB of the stack, most of it untouched by small layers.
pub(super) const STRIP: usize = 64 << 10;
const WEIGHTS: usize = 96 << 10;

/// Positions of a tile.
pub(super) const POSITIONS: usize = 8;

/// Runs a checked convolution, if it has the positions and channels that packing pays for.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn conv(op: &Conv<'_>, input: &[i8], output: &mut [i8]) -> bool {
    let (outputs, groups) = (usize::from(op.output.channels), usize::from(op.groups));
    let channels = usize::from(op.input.channels) / groups;
    let (row, pitch) = (row_len(op.window.kernel, channels), op.output_bytes());
    let (positions, per_group) = (output.len() / pitch, outputs / groups);
    if positions < 4 || per_group < 8 {
        return false;
    }
    let short = op.requant.is_short();
    let strip = Strip::new(op, channels);
    // Of each line of a window, with a zero behind it where a pair would reach into the next line.
    let pairs = strip.lines * strip.line.div_ceil(2);
    let most = WEIGHTS / (2 * LANES * pairs.max(1));
    let Some(band) = strip.band() else { return false };
    if most == 0 {
        return false;
    }
    let mut values = MaybeUninit::<Values<STRIP>>::uninit();
    let mut packed = MaybeUninit::<Values<WEIGHTS>>::uninit();
    let (values, packed) = (values.as_mut_ptr().cast::<i16>(), packed.as_mut_ptr().cast::<i16>());
    for group in 0..groups {
        let first = group * per_group;
        let Some(weights) = op.weights.get(first * row..(first + per_group) * row) else { return false };
        for start in (0..positions).step_by(band) {
            let count = band.min(positions - start);
            // SAFETY: a strip of `band` positions has room.
            unsafe { strip.fill(input, group * channels, start, count, values) };
            let mut done = 0;
            while done < per_group {
                let vectors = vectors((per_group - done).div_ceil(LANES)).min(most);
                let size = (vectors * LANES).min(per_group - done);
                let rows = &weights[done * row..(done + size) * row];
                // SAFETY: at most `most` vectors of each pair, so there is room; rows are those of `size` channels.
                unsafe { pack(rows, row, vectors, [strip.lines, strip.line], packed) };
                let run = Run {
                    strip: values,
                    weights: packed,
                    lines: strip.lines,
                    pairs: strip.line.div_ceil(2),
                    pitch: strip.pitch,
                    rescale: Rescale::new(op, short, first + done, size),
                    output: output[start * pitch..].as_mut_ptr().wrapping_add((first + done) * op.to.bytes()),
                    output_pitch: pitch,
                };
                // SAFETY: the strip has the windows of `count` positions, packed are weights for `vectors`, the output has
                // `count` positions from `start` on.
                unsafe { tiles(&run, &strip, count, vectors) };
                done += size;
            }
        }
    }
    true
}

/// Vectors of the next tile where so many are left: three, two, and one where only one is left.
fn vectors(left: usize) -> usize {
    if left == 4 { 2 } else { left.min(3) }
}

/// All positions of a band.
///
/// # Safety
/// As [`tile`], for all `count` positions of the band.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn tiles(run: &Run, strip: &Strip<'_>, count: usize, vectors: usize) {
    let mut done = 0;
    let mut places = strip.places();
    while done < count {
        let mut offsets = [0; POSITIONS];
        let size = 1 << (count - done).min(POSITIONS).ilog2();
        offsets.iter_mut().take(size).for_each(|offset| *offset = places.next());
        // SAFETY: as the caller says; `size` of them are left.
        unsafe {
            match (size, vectors) {
                (8, 3) => tile::<8, 3>(run, &offsets, done),
                (8, 2) => tile::<8, 2>(run, &offsets, done),
                (8, _) => tile::<8, 1>(run, &offsets, done),
                (4, 3) => tile::<4, 3>(run, &offsets, done),
                (4, 2) => tile::<4, 2>(run, &offsets, done),
                (4, _) => tile::<4, 1>(run, &offsets, done),
                (2, 3) => tile::<2, 3>(run, &offsets, done),
                (2, 2) => tile::<2, 2>(run, &offsets, done),
                (2, _) => tile::<2, 1>(run, &offsets, done),
                (_, 3) => tile::<1, 3>(run, &offsets, done),
                (_, 2) => tile::<1, 2>(run, &offsets, done),
                (_, _) => tile::<1, 1>(run, &offsets, done),
            }
        }
        done += size;
    }
}
