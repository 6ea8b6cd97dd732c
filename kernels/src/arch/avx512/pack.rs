//! Rows of weights, widened and interleaved: two values of each of 16 channels in a vector.

use core::arch::x86_64::{
    __m128i, __m512i, _mm_loadu_si128, _mm_maskz_loadu_epi8, _mm_unpackhi_epi8, _mm_unpacklo_epi8, _mm256_set_m128i,
    _mm512_castsi128_si512, _mm512_cvtepi8_epi16, _mm512_inserti32x4, _mm512_loadu_si512, _mm512_set4_epi32,
    _mm512_shuffle_epi8, _mm512_srai_epi16, _mm512_storeu_si512, _mm512_unpackhi_epi8, _mm512_unpackhi_epi16,
    _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi8, _mm512_unpacklo_epi16, _mm512_unpacklo_epi32,
    _mm512_unpacklo_epi64,
};
use core::ptr::null;

use super::rescale::lanes;
use super::tile::LANES;
#[cfg(doc)]
use crate::conv::Packing;

/// Writes `[lines][pairs of a line][vectors][16 channels][2]` from rows of `row` bytes, one a channel, each of which begins
/// with `lines` lines of `line` bytes. What is missing of a last pair or a last vector is zero.
///
/// # Safety
/// There is room for it at `packed`; `vectors` times 16 channels are at least those of `rows`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn pack(rows: &[u8], row: usize, vectors: usize, [lines, line]: [usize; 2], packed: *mut i16) {
    for vector in 0..vectors {
        for number in 0..lines {
            let starts = |channel: usize| {
                let start = (vector * LANES + channel) * row + number * line;
                if start < rows.len() { rows.as_ptr().wrapping_add(start) } else { null() }
            };
            let place = (number * line.div_ceil(2) * vectors + vector) * 2 * LANES;
            // SAFETY: a line of each row that is there; the line's part of the room.
            unsafe { pack_line(core::array::from_fn(starts), line, vectors, packed.wrapping_add(place)) };
        }
    }
}

/// As [`pack`], from a block of [`Packing::Blocks`] for each vector.
///
/// # Safety
/// There is room.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn pack_blocks(blocks: &[u8], vectors: usize, packed: *mut i16) {
    for (vector, block) in blocks.chunks_exact((blocks.len() / vectors).max(1)).enumerate() {
        let mut to = packed.wrapping_add(vector * 2 * LANES);
        for words in block.as_chunks::<64>().0 {
            // SAFETY: 64 bytes.
            let words = unsafe { _mm512_loadu_si512(words.as_ptr().cast()) };
            // A byte moved to the upper half of a lane of 16 bits, and the sign drawn down behind it.
            for pair in [
                [0x0180_0080, 0x0580_0480, 0x0980_0880, 0x0d80_0c80],
                [0x0380_0280, 0x0780_0680, 0x0b80_0a80, 0x0f80_0e80],
            ] {
                let [a, b, c, d] = pair;
                let places = _mm512_set4_epi32(d, c, b, a);
                let pair = _mm512_srai_epi16::<8>(_mm512_shuffle_epi8(words, places));
                // SAFETY: 32 values of the room.
                unsafe { _mm512_storeu_si512(to.cast(), pair) };
                to = to.wrapping_add(vectors * 2 * LANES);
            }
        }
    }
}

/// Writes `[pairs][16 channels][2]`, `vectors` such vectors apart, from lines of `len` bytes, zeros for one that is null.
///
/// # Safety
/// The lines have `len` bytes, and there is room.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn pack_line(lines: [*const u8; LANES], len: usize, vectors: usize, mut packed: *mut i16) {
    let pairs = len.div_ceil(2);
    let all = lines.iter().all(|line| !line.is_null());
    for first in (0..pairs).step_by(8) {
        let place = |channel: usize| lines[channel].wrapping_add(2 * first);
        let of_pairs = if all && 2 * first + 16 <= len {
            // SAFETY: 16 bytes of each line.
            interleaved(|channel| unsafe { _mm_loadu_si128(place(channel).cast()) })
        } else {
            let mask = lanes(len - 2 * first);
            interleaved(|channel| {
                // Nothing is read of a line that is not there, but from a place that is: a load from nowhere, masked or not,
                // is an exception inside of the CPU.
                let (mask, place) = if lines[channel].is_null() { (0, place(0)) } else { (mask, place(channel)) };
                // SAFETY: the bytes of the mask lie in the line; others are not read.
                unsafe { _mm_maskz_loadu_epi8(mask, place.cast()) }
            })
        };
        for &values in of_pairs.iter().take(pairs - first) {
            // SAFETY: 32 values of the room.
            unsafe { _mm512_storeu_si512(packed.cast(), values) };
            packed = packed.wrapping_add(vectors * 2 * LANES);
        }
    }
}

/// Writes `[words][16 channels][4]`, bytes as they are, from lines of up to 16 bytes, zeros for one that is null.
///
/// # Safety
/// The lines have `len` bytes, and there is room for four vectors.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn pack_words(lines: [*const u8; LANES], len: usize, packed: *mut u8) {
    let mask = lanes(len);
    let bytes = |channel: usize| {
        // As in `pack_line`.
        let (mask, line) = if lines[channel].is_null() { (0, lines[0]) } else { (mask, lines[channel]) };
        // SAFETY: the bytes of the mask lie in the line; others are not read.
        unsafe { _mm_maskz_loadu_epi8(mask, line.cast()) }
    };
    // SAFETY: as the caller says.
    unsafe { put_words(bytes, packed) };
}

/// Writes `[4 words][16 channels][4]` from 16 bytes of each channel.
///
/// # Safety
/// There is room for four vectors.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(in crate::arch) unsafe fn put_words(bytes: impl Fn(usize) -> __m128i, packed: *mut u8) {
    let [a, b, c, d] = fours(bytes);
    let low = [_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d)];
    let high = [_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d)];
    let words = [
        _mm512_unpacklo_epi64(low[0], low[1]),
        _mm512_unpackhi_epi64(low[0], low[1]),
        _mm512_unpacklo_epi64(high[0], high[1]),
        _mm512_unpackhi_epi64(high[0], high[1]),
    ];
    for (number, words) in words.into_iter().enumerate() {
        // SAFETY: a vector of the room.
        unsafe { _mm512_storeu_si512(packed.wrapping_add(64 * number).cast(), words) };
    }
}

/// Writes `[pairs of rows][vectors][16 columns][2]` from rows of bytes, `vectors` times 16 at most: two rows side by side, zeros
/// where there are none.
///
/// # Safety
/// There is room for it at `packed`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn pack_pairs<'a>(mut rows: impl Iterator<Item = &'a [u8]>, vectors: usize, mut packed: *mut i16) {
    while let Some(first) = rows.next() {
        let second = rows.next().unwrap_or(&first[..0]);
        for vector in 0..vectors {
            let bytes = |row: &[u8]| {
                let (at, mask) = (vector * LANES, lanes(row.len().saturating_sub(vector * LANES)));
                // SAFETY: only bytes of the row are read.
                unsafe { _mm_maskz_loadu_epi8(mask, row.as_ptr().wrapping_add(at).cast()) }
            };
            let (a, b) = (bytes(first), bytes(second));
            let both = _mm256_set_m128i(_mm_unpackhi_epi8(a, b), _mm_unpacklo_epi8(a, b));
            // SAFETY: 32 values of the room.
            unsafe { _mm512_storeu_si512(packed.cast(), _mm512_cvtepi8_epi16(both)) };
            packed = packed.wrapping_add(2 * LANES);
        }
    }
}

/// 16 bytes of 16 channels; vector v has channels v, 4 + v, 8 + v and 12 + v, so that what is interleaved inside of lanes then
/// has four channels in order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn fours(bytes: impl Fn(usize) -> __m128i) -> [__m512i; 4] {
    let four = |number: usize| {
        let low = _mm512_castsi128_si512(bytes(number));
        let low = _mm512_inserti32x4::<1>(low, bytes(number + 4));
        _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(low, bytes(number + 8)), bytes(number + 12))
    };
    [four(0), four(1), four(2), four(3)]
}

/// 16 bytes of 16 channels to eight pairs of all channels, widened.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn interleaved(bytes: impl Fn(usize) -> __m128i) -> [__m512i; 8] {
    let [a, b, c, d] = fours(bytes);
    let low = [_mm512_unpacklo_epi16(a, b), _mm512_unpacklo_epi16(c, d)];
    let high = [_mm512_unpackhi_epi16(a, b), _mm512_unpackhi_epi16(c, d)];
    // Two pairs of four channels in each lane.
    let twos = [
        _mm512_unpacklo_epi32(low[0], low[1]),
        _mm512_unpackhi_epi32(low[0], low[1]),
        _mm512_unpacklo_epi32(high[0], high[1]),
        _mm512_unpackhi_epi32(high[0], high[1]),
    ];
    let mut pairs = [a; 8];
    for (two, values) in pairs.as_chunks_mut::<2>().0.iter_mut().zip(twos) {
        // Each byte beside itself is a value of 16 bits moved up by 8.
        let (first, second) = (_mm512_unpacklo_epi8(values, values), _mm512_unpackhi_epi8(values, values));
        *two = [_mm512_srai_epi16::<8>(first), _mm512_srai_epi16::<8>(second)];
    }
    pairs
}
