//! Convolutions: tiles of up to eight positions by up to 48 output channels.
//!
//! A band of the map is widened once to a strip on the stack, padding included, and windows are read from it in place. Weights
//! of 16 to 48 channels, rows or blocks, are widened and interleaved on the stack, pair by pair of values, and serve all positions of
//! the band. Nothing is summed across a vector.

use super::ROOM;
use super::pack::{pack, pack_blocks};
use super::rescale::{Finish, Table};
use super::strip::Strip;
use super::tile::{Factors, LANES, ROWS, rows, tiles, vectors};
use crate::arch::room::with_room;
use crate::conv::{Conv, Packing, row_len};
use crate::requant::are_short;

/// Most values of 16 bits of a strip, and of packed weights.
const STRIP: usize = 160 << 10;
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
    let positions = output.len() / op.output_bytes();
    if positions < 4 || outputs / groups < 8 {
        return false;
    }
    let strip = Strip::new(op, channels);
    let of_vector = strip.lines * strip.line.div_ceil(2) * 2 * LANES;
    let most = vectors((outputs / groups).div_ceil(LANES)).min(WEIGHTS / of_vector.max(1));
    let Some(band) = strip.band(STRIP) else { return false };
    let band = band.min(positions);
    let values = strip.len(band).next_multiple_of(32);
    most > 0
        && with_room::<i16, ROOM>(values + most * of_vector, |room| {
            let columns = room.wrapping_add(values);
            let factors =
                Factors { rows: room, pitch: strip.pitch, lines: strip.lines, steps: strip.line.div_ceil(2), columns };
            for group in 0..groups {
                for start in (0..positions).step_by(band) {
                    let count = band.min(positions - start);
                    // SAFETY: there is room for a strip of `band` positions, and behind it for `most` vectors of weights.
                    unsafe {
                        strip.fill(input, group * channels, start, count, room);
                        group_of(op, group, &factors, &strip, [start, count], most, output);
                    }
                }
            }
        })
}

/// All channels of a group, for `count` positions from `start` on.
///
/// # Safety
/// The strip is that of these positions; there is room for `most` vectors of weights at `columns`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn group_of(
    op: &Conv<'_>,
    group: usize,
    factors: &Factors,
    strip: &Strip<'_>,
    [start, count]: [usize; 2],
    most: usize,
    output: &mut [i8],
) {
    let per_group = usize::from(op.output.channels) / usize::from(op.groups);
    let (row, pitch) = (row_len(op.window.kernel, strip.channels), op.output_bytes());
    let finish = Finish::of_conv(op, are_short(op.requant.shift));
    let mut done = 0;
    while done < per_group {
        let first = group * per_group + done;
        let vectors = vectors((per_group - done).div_ceil(LANES)).min(most);
        let size = (vectors * LANES).min(per_group - done);
        let Some(rows) = op.weights.get(first * row..(first + size) * row) else { return };
        let Some(output) = output.get_mut(start * pitch..(start + count) * pitch) else { return };
        let outputs = Outputs {
            finish,
            table: Table::new(&op.requant, first, size),
            first: output.as_mut_ptr().wrapping_add(first * op.to.bytes()),
            pitch,
        };
        // SAFETY: at most `most` vectors of weights, so there is room; the strip has the windows of `count` positions, the output
        // has as many.
        unsafe {
            match op.packing {
                Packing::Rows => pack(rows, row, vectors, [strip.lines, strip.line], factors.columns.cast_mut()),
                Packing::Blocks => pack_blocks(rows, vectors, factors.columns.cast_mut()),
            }
            band_of(factors, &outputs, strip, count, vectors);
        }
        done += size;
    }
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
    let sums: [[_; VECTORS]; COUNT] = unsafe { factors.wide(places) };
    for vector in 0..VECTORS {
        let constants = outputs.table.constants(&outputs.finish, vector * LANES);
        for (position, sums) in sums.iter().enumerate() {
            let output = outputs.first.wrapping_add((first + position) * outputs.pitch);
            // SAFETY: the output has this position, and the channels that the table has.
            unsafe { outputs.finish.store(&constants, sums[vector], output, vector * LANES) };
        }
    }
}
