//! Convolutions: tiles of up to eight positions by up to 48 output channels.
//!
//! A band of the map is widened once to a strip on the stack, padding included, and windows are read from it in place. Rows of
//! weights lie in the image as for every other CPU; 16 to 48 of them are widened and interleaved on the stack, pair by pair of
//! values, and serve all positions of the band. Nothing is summed across a vector.

use core::mem::MaybeUninit;

use super::pack::pack;
use super::rescale::{Finish, Table};
use super::strip::{Strip, Values};
use super::tile::{Factors, LANES, ROWS, rows, tiles, vectors};
use crate::conv::{Conv, row_len};

/// Values of 16 bits of a strip, and of packed weights: 128 and 320 KiB of the stack, most of it untouched by small layers.
pub(super) const STRIP: usize = 64 << 10;
const WEIGHTS: usize = 160 << 10;

/// Outputs of a tile's channels.
struct Outputs {
    finish: Finish,
    table: Table,
    /// First of them of the band's first position.
    first: *mut i8,
    /// Bytes from one position to the next.
    pitch: usize,
}

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
    let finish = Finish::of_conv(op, op.requant.is_short());
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
                let factors = Factors {
                    rows: values,
                    pitch: strip.pitch,
                    lines: strip.lines,
                    pairs: strip.line.div_ceil(2),
                    columns: packed,
                };
                let outputs = Outputs {
                    finish,
                    table: Table::new(&op.requant, first + done, size),
                    first: output[start * pitch..].as_mut_ptr().wrapping_add((first + done) * op.to.bytes()),
                    pitch,
                };
                // SAFETY: the strip has the windows of `count` positions, packed are weights for `vectors`, the output has
                // `count` positions from `start` on.
                unsafe { band_of(&factors, &outputs, &strip, count, vectors) };
                done += size;
            }
        }
    }
    true
}

/// All positions of a band.
///
/// # Safety
/// The factors are a band of `count` positions and `vectors` of channels; the outputs have as many positions.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn band_of(factors: &Factors, outputs: &Outputs, strip: &Strip<'_>, count: usize, vectors: usize) {
    let mut done = 0;
    let mut windows = strip.places();
    while done < count {
        let size = rows(count - done);
        let mut places = [0; ROWS];
        places.iter_mut().take(size).for_each(|place| *place = windows.next());
        // SAFETY: as the caller says; `size` of them are left.
        unsafe { tiles!(size, vectors, tile(factors, outputs, &places, done)) }
        done += size;
    }
}

/// `COUNT` positions of a band, from `first` on.
///
/// # Safety
/// As [`band_of`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn tile<const COUNT: usize, const VECTORS: usize>(
    factors: &Factors,
    outputs: &Outputs,
    places: &[usize; ROWS],
    first: usize,
) {
    // SAFETY: the windows lie in the strip, and there are weights for all vectors.
    let sums: [[_; VECTORS]; COUNT] = unsafe { factors.products(places) };
    for vector in 0..VECTORS {
        let constants = outputs.table.constants(&outputs.finish, vector * LANES);
        for (position, sums) in sums.iter().enumerate() {
            let output = outputs.first.wrapping_add((first + position) * outputs.pitch);
            // SAFETY: the output has this position, and the channels that the table has.
            unsafe { outputs.finish.store(&constants, sums[vector], output, vector * LANES) };
        }
    }
}
