//! Weights as tiles read them.

use core::arch::aarch64::{
    int8x16_t, vdupq_n_s8, vld1q_s8, vreinterpretq_s8_s32, vreinterpretq_s8_s64, vreinterpretq_s32_s8,
    vreinterpretq_s64_s8, vreinterpretq_s64_s32, vst1q_s8, vzip1q_s32, vzip1q_s64, vzip2q_s32, vzip2q_s64,
};
use core::array::from_fn;

use super::product::next;
use crate::arch::signed;
#[cfg(doc)]
use crate::conv::Packing;

/// Packs the weights of some channels, `row` bytes of each, which begin with a number of lines of a number of bytes. Lines are
/// padded with zeros to whole units. Says where the packed ones are: in the room, or where they were.
///
/// # Safety
/// There is room; channels come in fours, those of a block in sixteens.
pub(super) type Pack = unsafe fn(weights: &[u8], row: usize, lines: [usize; 2], room: *mut i8) -> *const i8;

/// A block of [`Packing::Blocks`] is what SDOT needs.
///
/// # Safety
/// None.
pub(super) unsafe fn blocks(block: &[u8], _: usize, _: [usize; 2], _: *mut i8) -> *const i8 {
    block.as_ptr().cast()
}

/// `[lines][line/8][16][8]` from a block of [`Packing::Blocks`], for SMMLA.
///
/// # Safety
/// See [`Pack`]; units are eight bytes.
#[target_feature(enable = "neon")]
pub(super) unsafe fn pairs_of_blocks(block: &[u8], _: usize, [lines, line]: [usize; 2], room: *mut i8) -> *const i8 {
    let (mut words, mut to) = (block.as_ptr().cast::<i8>(), room);
    for _ in 0..lines {
        for at in (0..line).step_by(8) {
            let next = words.wrapping_add(64);
            for four in [0, 16, 32, 48] {
                // SAFETY: a word of four channels; the next one is none where a line ends.
                let two = unsafe {
                    let first = vld1q_s8(words.wrapping_add(four));
                    [first, if line - at > 4 { vld1q_s8(next.wrapping_add(four)) } else { vdupq_n_s8(0) }]
                };
                let [a, b] = two.map(|words| vreinterpretq_s32_s8(words));
                // SAFETY: eight bytes of four channels.
                unsafe {
                    vst1q_s8(to, vreinterpretq_s8_s32(vzip1q_s32(a, b)));
                    vst1q_s8(to.wrapping_add(16), vreinterpretq_s8_s32(vzip2q_s32(a, b)));
                }
                to = to.wrapping_add(32);
            }
            words = if line - at > 4 { next.wrapping_add(64) } else { next };
        }
    }
    room
}

/// `[lines][line/4][channels][4]`, for SDOT.
///
/// # Safety
/// See [`Pack`]; units are four bytes.
#[target_feature(enable = "neon")]
pub(super) unsafe fn words(rows: &[u8], row: usize, lines: [usize; 2], room: *mut i8) -> *const i8 {
    // SAFETY: as the caller says.
    unsafe { pack::<4, 4>(rows, row, lines, room, |rows| transposed(rows)) };
    room
}

/// `[lines][line/8][channels][8]`, for SMMLA.
///
/// # Safety
/// See [`Pack`]; units are eight bytes.
#[target_feature(enable = "neon")]
pub(super) unsafe fn pairs(rows: &[u8], row: usize, lines: [usize; 2], room: *mut i8) -> *const i8 {
    // SAFETY: as the caller says.
    unsafe { pack::<2, 8>(rows, row, lines, room, |rows| zipped(rows)) };
    room
}

/// `ROWS` rows at a time: `turn` has 16 bytes of each, and gives the units of each place in a line.
///
/// # Safety
/// See [`Pack`]; `ROWS` units are 16 bytes.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn pack<const ROWS: usize, const UNIT: usize>(
    rows: &[u8],
    row: usize,
    [lines, line]: [usize; 2],
    packed: *mut i8,
    turn: impl Fn([int8x16_t; ROWS]) -> [int8x16_t; ROWS],
) {
    let step = rows.len() / row * UNIT;
    for (number, some) in signed(rows).chunks_exact(ROWS * row).enumerate() {
        let mut to = packed.wrapping_add(16 * number);
        let mut put = |units| {
            // SAFETY: the room has a unit for each row.
            unsafe { vst1q_s8(to, units) };
            to = to.wrapping_add(step);
        };
        for start in (0..lines).map(|number| number * line) {
            let mut places: [_; ROWS] = from_fn(|channel| some.as_ptr().wrapping_add(channel * row + start));
            for _ in 0..line / 16 {
                // SAFETY: 16 bytes of a line of each row.
                turn(places.each_mut().map(|place| unsafe { next(place) })).into_iter().for_each(&mut put);
            }
            let (rest, whole) = (line % 16, line - line % 16);
            if rest > 0 {
                let bytes = from_fn(|channel| {
                    let mut bytes = [0; 16];
                    let from = channel * row + start + whole;
                    let from = some.get(from..from + rest).unwrap_or_default();
                    bytes.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
                    // SAFETY: 16 bytes.
                    unsafe { vld1q_s8(bytes.as_ptr()) }
                });
                turn(bytes).into_iter().take(rest.div_ceil(UNIT)).for_each(&mut put);
            }
        }
    }
}

/// The first eight bytes of both, and the last.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn zipped(both: [int8x16_t; 2]) -> [int8x16_t; 2] {
    let [a, b] = both.map(|bytes| vreinterpretq_s64_s8(bytes));
    [vreinterpretq_s8_s64(vzip1q_s64(a, b)), vreinterpretq_s8_s64(vzip2q_s64(a, b))]
}

/// Four rows of four words to four columns.
#[inline]
#[target_feature(enable = "neon")]
fn transposed(rows: [int8x16_t; 4]) -> [int8x16_t; 4] {
    let [a, b, c, d] = rows.map(|row| vreinterpretq_s32_s8(row));
    let ab = [vzip1q_s32(a, b), vzip2q_s32(a, b)].map(|pairs| vreinterpretq_s64_s32(pairs));
    let cd = [vzip1q_s32(c, d), vzip2q_s32(c, d)].map(|pairs| vreinterpretq_s64_s32(pairs));
    [vzip1q_s64(ab[0], cd[0]), vzip2q_s64(ab[0], cd[0]), vzip1q_s64(ab[1], cd[1]), vzip2q_s64(ab[1], cd[1])]
        .map(|column| vreinterpretq_s8_s64(column))
}
