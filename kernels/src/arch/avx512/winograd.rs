//! Convolutions of 3x3 in steps of one by F(2x2, 3x3) of Winograd (Lavin and Gray 2015, arXiv 1509.09308, section 4.1): 16
//! products for four outputs instead of 36, exactly.
//!
//! ```text
//! D = Bᵀ·d·B        d: 4x4 values of a channel; two subtractions of bytes in turn, |D| <= 512
//! G = 2g·w·(2g)ᵀ    w: 3x3 weights; 2g has rows 2 0 0, 1 1 1, 1 -1 1, 0 0 2, so |G| <= 1152
//! 4·y = Aᵀ·(Σ D∘G)·A over channels: 2x2 outputs
//! ```
//!
//! The halves of the paper's g are what makes it a float algorithm; doubled, everything is an integer of 16 bits, and sums of 32
//! bits wrap: only the last one, four times an output's sum, has to fit. Then a shift by two is exact.

use core::arch::x86_64::{
    __m512i, _mm256_loadu_si256, _mm512_add_epi16, _mm512_add_epi32, _mm512_cvtepi8_epi16, _mm512_mask_storeu_epi16,
    _mm512_maskz_loadu_epi16, _mm512_setzero_si512, _mm512_srai_epi32, _mm512_storeu_si512, _mm512_sub_epi16,
    _mm512_sub_epi32,
};

use core::mem::MaybeUninit;
use core::ops::RangeInclusive;
use core::ptr::null;

use super::ROOM;
use super::pack::pack_words;
use super::rescale::{Constants, Finish, Table};
use super::strip::{Strip, mask};
use super::tile::{self, DEPTH, Factors, HALVES, LANES, ROWS};
use crate::arch::room::with_room;
use crate::conv::{Conv, Packing, row_len};
use crate::shape::Shape;

/// Places of a tile of the map, or of its transform.
const PLACES: usize = 16;

/// Channels of the map whose weights are put together at once.
const CHUNK: usize = 16;

/// Fewer do not pay for the transforms; the sums of more, 9·2^14 a channel at most, may not fit 32 bits four times.
const CHANNELS: RangeInclusive<usize> = 8..=3600;

/// What a band of tiles needs. A tile is 2x2 outputs; at the right and at the bottom some of it may lie outside.
struct Band<'a> {
    op: &'a Conv<'a>,
    finish: Finish,
    strip: Strip<'a>,
    /// Tiles of a row, and of the band.
    across: usize,
    tiles: usize,
    /// First row of outputs.
    top: usize,
    /// Channels, of whole steps.
    depth: usize,
    /// `[16 places][tiles][depth]`.
    maps: *mut i16,
    /// `[16 places][steps][2][8 outputs][4]`.
    weights: *mut i16,
}

/// Where outputs of 16 channels go.
struct Outputs {
    finish: Finish,
    constants: Constants,
    /// Of the first position of the map.
    first: *mut i8,
    pitch: usize,
}

/// Values from one place to the next: a line of the cache more than there are, as places a power of two apart would drive each
/// other out of it.
const fn apart(values: usize) -> usize {
    values + 32
}

/// Runs a checked convolution, if it is one of 3x3 in steps of one, large enough; `short` as for [`Finish::of_conv`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn conv(op: &Conv<'_>, input: &[i8], output: &mut [i8], short: bool) -> bool {
    let (outputs, groups) = (usize::from(op.output.channels), usize::from(op.groups));
    let channels = usize::from(op.input.channels) / groups;
    let positions = output.len() / op.output_bytes();
    let applies = op.window.kernel == [3, 3] && op.window.stride == [1, 1];
    if !applies || positions < 16 || outputs / groups < 8 || !CHANNELS.contains(&channels) {
        return false;
    }
    let even = |side: u16| side.checked_next_multiple_of(2);
    let (Some(height), Some(width)) = (even(op.output.height), even(op.output.width)) else { return false };
    let whole = Conv { output: Shape { height, width, ..op.output }, ..*op };
    let strip = Strip::new(&whole, channels);
    let (rows, across) = (usize::from(height) / 2, usize::from(width) / 2);
    let depth = channels.next_multiple_of(DEPTH);
    let weights = PLACES * apart(depth * LANES);
    let need = |rows: usize| {
        let strip = strip.len(2 * rows * usize::from(width)).next_multiple_of(32);
        [strip, PLACES * apart(rows * across * depth)]
    };
    let fits = |rows: &usize| need(*rows).iter().sum::<usize>() + weights <= ROOM / size_of::<i16>();
    let Some(band) = (1..=rows).rev().find(fits) else { return false };
    let [of_strip, of_maps] = need(band);
    let finish = Finish::of_conv(op, short);
    with_room::<i16, ROOM>(of_strip + of_maps + weights, |room| {
        let maps = room.wrapping_add(of_strip);
        for group in 0..groups {
            for row in (0..rows).step_by(band) {
                let count = band.min(rows - row);
                let strip = Strip::new(&whole, channels);
                let (tiles, top, weights) = (count * across, 2 * row, maps.wrapping_add(of_maps));
                let band = Band { op, finish, strip, across, tiles, top, depth, maps, weights };
                let positions = [top * usize::from(width), 2 * tiles * 2];
                // SAFETY: there is room for the strip of a band's positions, for its tiles, and for weights.
                unsafe {
                    band.strip.fill(input, group * channels, positions[0], positions[1], room);
                    band.transform(room);
                    band.group(group, output);
                }
            }
        }
    })
}

/// Applies a matrix to each column of a square of vectors, and then to each row: `$one` takes `$from` vectors and gives `$to`.
/// Loops, as functions of arrays would not be compiled for the instruction set.
macro_rules! both_ways {
    ($one:ident, $from:literal, $to:literal, $square:expr) => {{
        let (square, zero) = ($square, _mm512_setzero_si512());
        let mut half = [[zero; $from]; $to];
        for column in 0..$from {
            let mut line = [zero; $from];
            for row in 0..$from {
                line[row] = square[row][column];
            }
            let line = $one(line);
            for row in 0..$to {
                half[row][column] = line[row];
            }
        }
        let mut whole = [[zero; $to]; $to];
        for row in 0..$to {
            whole[row] = $one(half[row]);
        }
        whole
    }};
}

/// Bᵀ·d.
#[inline]
#[target_feature(enable = "avx512bw")]
fn of_map([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    [_mm512_sub_epi16(a, c), _mm512_add_epi16(b, c), _mm512_sub_epi16(c, b), _mm512_sub_epi16(b, d)]
}

/// 2g·w.
#[inline]
#[target_feature(enable = "avx512bw")]
fn of_weights([a, b, c]: [__m512i; 3]) -> [__m512i; 4] {
    let ends = _mm512_add_epi16(a, c);
    [_mm512_add_epi16(a, a), _mm512_add_epi16(ends, b), _mm512_sub_epi16(ends, b), _mm512_add_epi16(c, c)]
}

/// Aᵀ·m.
#[inline]
#[target_feature(enable = "avx512f")]
fn of_sums([a, b, c, d]: [__m512i; 4]) -> [__m512i; 2] {
    [_mm512_add_epi32(_mm512_add_epi32(a, b), c), _mm512_sub_epi32(_mm512_sub_epi32(b, c), d)]
}

impl Band<'_> {
    /// The strip's tiles, 32 channels at a time.
    ///
    /// # Safety
    /// `strip` is that of the band; there is room for the maps.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn transform(&self, strip: *const i16) {
        let (channels, pitch) = (self.strip.channels, self.strip.pitch);
        for row in 0..self.tiles / self.across {
            for channel in (0..channels).step_by(32) {
                let (read, write) = (mask((channels - channel).min(32)), mask((self.depth - channel).min(32)));
                let line = strip.wrapping_add(2 * row * pitch + channel);
                // Neighbours have two columns in common, and so what becomes of them.
                let column = |number: usize| {
                    let pixel = |row: usize| {
                        let place = line.wrapping_add(row * pitch + number * channels);
                        // SAFETY: lanes of the mask are channels of a pixel of the strip; others are not read.
                        unsafe { _mm512_maskz_loadu_epi16(read, place) }
                    };
                    of_map([pixel(0), pixel(1), pixel(2), pixel(3)])
                };
                let mut left = [column(0), column(1)];
                for tile in 0..self.across {
                    let right = [column(2 * tile + 2), column(2 * tile + 3)];
                    for row_of_places in 0..4 {
                        let [a, b] = [left[0][row_of_places], left[1][row_of_places]];
                        let [c, d] = [right[0][row_of_places], right[1][row_of_places]];
                        for (place, values) in of_map([a, b, c, d]).into_iter().enumerate() {
                            let place = (4 * row_of_places + place) * apart(self.tiles * self.depth);
                            let to = place + (row * self.across + tile) * self.depth + channel;
                            // SAFETY: lanes of the mask are of this tile's depth; others are not written.
                            unsafe {
                                _mm512_mask_storeu_epi16(self.maps.wrapping_add(to), write, values);
                            }
                        }
                    }
                    left = right;
                }
            }
        }
    }

    /// All channels of a group.
    ///
    /// # Safety
    /// The maps are written, and there is room for weights.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn group(&self, group: usize, output: &mut [i8]) {
        let (op, finish) = (self.op, self.finish);
        let per_group = usize::from(op.output.channels) / usize::from(op.groups);
        let row = row_len(op.window.kernel, self.strip.channels);
        for done in (0..per_group).step_by(LANES) {
            let (first, left) = (group * per_group + done, LANES.min(per_group - done));
            let Some(rows) = op.weights.get(first * row..(first + left) * row) else { return };
            let outputs = Outputs {
                finish,
                constants: Table::new(&op.requant, first, left).constants(&finish, 0),
                first: output.as_mut_ptr().wrapping_add(first * op.to.bytes()),
                pitch: op.output_bytes(),
            };
            // SAFETY: rows of up to 16 channels; there is room.
            unsafe { self.pack(rows, row) };
            let mut done = 0;
            while done < self.tiles {
                let count = tile::rows(self.tiles - done);
                // SAFETY: maps and weights are written; the output is that of the convolution.
                unsafe {
                    match count {
                        8 => self.tile::<8>(&outputs, done),
                        4 => self.tile::<4>(&outputs, done),
                        2 => self.tile::<2>(&outputs, done),
                        _ => self.tile::<1>(&outputs, done),
                    }
                }
                done += count;
            }
        }
    }

    /// Transforms the weights of up to 16 channels, `row` bytes of each.
    ///
    /// # Safety
    /// There is room.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn pack(&self, rows: &[u8], row: usize) {
        let channels = self.strip.channels;
        let mut words = [const { MaybeUninit::<[u8; LANES * CHUNK]>::uninit() }; 9];
        for channel in (0..channels).step_by(CHUNK) {
            let len = CHUNK.min(channels - channel);
            // Where `[16 channels][4]` of each tap lie, and bytes from one tap to the next.
            let (first, pitch) = if self.op.packing == Packing::Blocks {
                (rows.as_ptr().wrapping_add(LANES * channel), LANES * channels)
            } else {
                for (tap, words) in words.iter_mut().enumerate() {
                    let line = |output: usize| {
                        let start = output * row + tap * channels + channel;
                        if start < rows.len() { rows.as_ptr().wrapping_add(start) } else { null() }
                    };
                    // SAFETY: a part of each row that is there; four vectors.
                    unsafe { pack_words(core::array::from_fn(line), len, words.as_mut_ptr().cast()) };
                }
                (words.as_ptr().cast(), LANES * CHUNK)
            };
            for half in 0..HALVES * len.div_ceil(DEPTH) {
                let mut taps = [[_mm512_setzero_si512(); 3]; 3];
                for (number, tap) in taps.as_flattened_mut().iter_mut().enumerate() {
                    let place = first.wrapping_add(number * pitch + 32 * half);
                    // SAFETY: four values of eight channels.
                    *tap = _mm512_cvtepi8_epi16(unsafe { _mm256_loadu_si256(place.cast()) });
                }
                let places = both_ways!(of_weights, 3, 4, taps);
                for (place, &values) in places.as_flattened().iter().enumerate() {
                    let to = place * apart(self.depth * LANES) + channel * LANES + 32 * half;
                    // SAFETY: 32 values of the room.
                    unsafe { _mm512_storeu_si512(self.weights.wrapping_add(to).cast(), values) };
                }
            }
        }
    }

    /// `COUNT` tiles from `first` on.
    ///
    /// # Safety
    /// Maps and weights are written, and there are as many tiles; the output is that of the convolution.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn tile<const COUNT: usize>(&self, outputs: &Outputs, first: usize) {
        let mut places = [0; ROWS];
        places.iter_mut().take(COUNT).enumerate().for_each(|(tile, place)| *place = tile * self.depth);
        let steps = self.depth / DEPTH;
        let mut sums = [const { MaybeUninit::<[__m512i; COUNT]>::uninit() }; PLACES];
        for (place, sums) in sums.iter_mut().enumerate() {
            let factors = Factors {
                rows: self.maps.wrapping_add(place * apart(self.tiles * self.depth) + first * self.depth),
                pitch: 0,
                lines: 1,
                steps,
                columns: self.weights.wrapping_add(place * apart(self.depth * LANES)),
            };
            // SAFETY: `COUNT` tiles of this place, and its weights.
            sums.write(unsafe { factors.deep(&places) });
        }
        let (height, width) = (usize::from(self.op.output.height), usize::from(self.op.output.width));
        let (mut row, mut column) = (first / self.across, first % self.across);
        for tile in 0..COUNT {
            let mut values = [[_mm512_setzero_si512(); 4]; 4];
            for place in 0..PLACES {
                // SAFETY: all places were written.
                values[place / 4][place % 4] = unsafe { sums[place].assume_init_ref() }[tile];
            }
            let results = both_ways!(of_sums, 4, 2, values);
            for (y, line) in results.into_iter().enumerate() {
                for (x, sums) in line.into_iter().enumerate() {
                    let at = [self.top + 2 * row + y, 2 * column + x];
                    if at[0] < height && at[1] < width {
                        let output = outputs.first.wrapping_add((at[0] * width + at[1]) * outputs.pitch);
                        // SAFETY: a position of the output, and the channels that the constants have.
                        unsafe { outputs.finish.store(&outputs.constants, _mm512_srai_epi32::<2>(sums), output, 0) };
                    }
                }
            }
            column += 1;
            if column == self.across {
                (row, column) = (row + 1, 0);
            }
        }
    }
}
