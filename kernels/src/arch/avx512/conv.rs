//! Convolutions: tiles of up to eight positions by up to 48 output channels.
//!
//! A band of the map is copied once to a strip on the stack, padding included, and windows are read from it in place. Weights
//! of 16 to 48 channels are brought into the order of the products on the stack, and serve all positions of the band. Nothing
//! is summed across a vector. What a strip holds, and how weights lie, is that of the [`Products`].

use core::arch::x86_64::__m512i;

use super::ROOM;
use super::products::{MOST, Products, Weights};
use super::rescale::{Finish, Table};
use super::strip::Strip;
use super::tile::{Factors, LANES, ROWS, rows, tiles, vectors};
use crate::arch::room::with_room;
use crate::conv::{Conv, row_len};

/// Most bytes of a strip, and of packed weights.
const STRIP: usize = 320 << 10;
const WEIGHTS: usize = 320 << 10;

/// Outputs of a tile's channels.
struct Outputs {
    finish: Finish,
    table: Table,
    /// First of them of the band's first position.
    first: *mut i8,
    /// Bytes from one position to the next.
    pitch: usize,
}

impl Outputs {
    /// Rescales and stores the sums of the positions from `first` on.
    ///
    /// # Safety
    /// There are outputs for them.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn store<const COUNT: usize, const VECTORS: usize>(&self, sums: &[[__m512i; VECTORS]; COUNT], first: usize) {
        for vector in 0..VECTORS {
            let constants = self.table.constants(&self.finish, vector * LANES);
            for (position, sums) in sums.iter().enumerate() {
                let output = self.first.wrapping_add((first + position) * self.pitch);
                // SAFETY: the output has this position, and the channels that the table has.
                unsafe { self.finish.store(&constants, sums[vector], output, vector * LANES) };
            }
        }
    }
}

/// Runs a checked convolution, if it has the positions and channels that packing pays for; `short` as for [`Finish::of_conv`].
///
/// # Safety
/// The CPU has the instruction set of the products.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(in crate::arch) unsafe fn conv<P: Products>(op: &Conv<'_>, input: &[i8], output: &mut [i8], short: bool) -> bool {
    let (outputs, groups) = (usize::from(op.output.channels), usize::from(op.groups));
    let channels = usize::from(op.input.channels) / groups;
    let positions = output.len() / op.output_bytes();
    if positions < 4 || outputs / groups < 8 {
        return false;
    }
    let strip = Strip::new(op, channels);
    let size = size_of::<P::Value>();
    let steps = strip.line.div_ceil(P::STEP);
    let of_vector = strip.lines * steps * P::STEP * LANES;
    let most = vectors((outputs / groups).div_ceil(LANES)).min(WEIGHTS / size / of_vector.max(1));
    let Some(band) = strip.band(STRIP / size) else { return false };
    let band = band.min(positions);
    let values = strip.len(band).next_multiple_of(64);
    let finish = Finish::of_conv(op, short);
    // Behind the weights a vector of channels may be written to whole sixteens of their values.
    most > 0
        && with_room::<P::Value, ROOM>(values + most * of_vector + 12 * LANES, |room| {
            let columns = room.wrapping_add(values);
            let factors = Factors {
                rows: room.cast_const(),
                pitch: strip.pitch,
                lines: strip.lines,
                steps,
                columns: columns.cast_const(),
            };
            for group in 0..groups {
                for start in (0..positions).step_by(band) {
                    let count = band.min(positions - start);
                    // SAFETY: there is room for a strip of `band` positions, and behind it for `most` vectors of weights.
                    unsafe {
                        strip.fill(input, group * channels, start, count, room);
                        group_of::<P>(finish, group, &factors, &strip, [start, count], most, output);
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
unsafe fn group_of<P: Products>(
    finish: Finish,
    group: usize,
    factors: &Factors<P::Value>,
    strip: &Strip<'_>,
    [start, count]: [usize; 2],
    most: usize,
    output: &mut [i8],
) {
    let op = strip.op;
    let per_group = usize::from(op.output.channels) / usize::from(op.groups);
    let (row, pitch) = (row_len(op.window.kernel, strip.channels), op.output_bytes());
    let mut biases = [0; MOST * LANES];
    let mut done = 0;
    while done < per_group {
        let first = group * per_group + done;
        let vectors = vectors((per_group - done).div_ceil(LANES)).min(most);
        let size = (vectors * LANES).min(per_group - done);
        let Some(bytes) = op.weights.get(first * row..(first + size) * row) else { return };
        let Some(output) = output.get_mut(start * pitch..(start + count) * pitch) else { return };
        let weights = Weights { bytes, packing: op.packing, row, vectors, lines: strip.lines, line: strip.line };
        let table = Table::new(&op.requant, first, size);
        // SAFETY: at most `most` vectors of weights, so there is room; the strip has the windows of `count` positions, the output
        // has as many.
        unsafe {
            let (columns, table) = P::pack(&weights, table, &mut biases, factors.columns.cast_mut());
            let factors = Factors { columns, ..*factors };
            let outputs =
                Outputs { finish, table, first: output.as_mut_ptr().wrapping_add(first * op.to.bytes()), pitch };
            band_of::<P>(&factors, &outputs, strip, count, vectors);
        }
        done += size;
    }
}

/// All positions of a band.
///
/// # Safety
/// The factors are a band of `count` positions and `vectors` of channels; the outputs have as many positions.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn band_of<P: Products>(
    factors: &Factors<P::Value>,
    outputs: &Outputs,
    strip: &Strip<'_>,
    count: usize,
    vectors: usize,
) {
    let mut done = 0;
    let mut windows = strip.places();
    while done < count {
        let size = rows(count - done);
        let mut places = [0; ROWS];
        places.iter_mut().take(size).for_each(|place| *place = windows.next());
        // SAFETY: as the caller says; `size` of them are left.
        unsafe { tiles!(size, vectors, P::tile(factors, &places, |sums| outputs.store(&sums, done))) }
        done += size;
    }
}
