//! Weights as tiles read them.

use core::arch::aarch64::{
    int8x16_t, vld1q_s8, vreinterpretq_s8_s64, vreinterpretq_s32_s8, vreinterpretq_s64_s8, vreinterpretq_s64_s32,
    vst1q_s8, vzip1q_s32, vzip1q_s64, vzip2q_s32, vzip2q_s64,
};
use core::array::from_fn;

use super::product::next;
use crate::arch::signed;

/// Packs rows of weights, each of `row` bytes, which begin with a number of lines of a number of bytes. Lines are padded with
/// zeros to whole units.
///
/// # Safety
/// There is room; rows come in fours.
pub(super) type Pack = unsafe fn(rows: &[u8], row: usize, lines: [usize; 2], packed: *mut i8);

/// `[lines][line/4][channels][4]`, for SDOT.
///
/// # Safety
/// See [`Pack`]; units are four bytes.
#[target_feature(enable = "neon")]
pub(super) unsafe fn words(rows: &[u8], row: usize, lines: [usize; 2], packed: *mut i8) {
    // SAFETY: as the caller says.
    unsafe { pack::<4, 4>(rows, row, lines, packed, |rows| transposed(rows)) };
}

/// `[lines][line/8][channels][8]`, for SMMLA.
///
/// # Safety
/// See [`Pack`]; units are eight bytes.
#[target_feature(enable = "neon")]
pub(super) unsafe fn pairs(rows: &[u8], row: usize, lines: [usize; 2], packed: *mut i8) {
    // SAFETY: as the caller says.
    unsafe { pack::<2, 8>(rows, row, lines, packed, |rows| zipped(rows)) };
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
