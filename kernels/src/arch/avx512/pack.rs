//! Rows of weights, widened and interleaved: two values of each of 16 channels in a vector.

use core::arch::x86_64::{
    __m128i, __m512i, __mmask16, _mm_maskz_loadu_epi8, _mm512_castsi128_si512, _mm512_castsi512_si256,
    _mm512_cvtepi8_epi16, _mm512_extracti64x4_epi64, _mm512_inserti32x4, _mm512_permutexvar_epi64, _mm512_setr_epi64,
    _mm512_storeu_si512, _mm512_unpackhi_epi16, _mm512_unpackhi_epi32, _mm512_unpacklo_epi16, _mm512_unpacklo_epi32,
};

use super::tile::LANES;

/// Writes `[lines][pairs of a line][vectors][16 channels][2]` from rows of `row` bytes, one a channel, each of which begins
/// with `lines` lines of `line` bytes. What is missing of a last pair or a last vector is zero.
///
/// # Safety
/// There is room for it at `packed`; `vectors` times 16 channels are at least those of `rows`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn pack(rows: &[u8], row: usize, vectors: usize, [lines, line]: [usize; 2], packed: *mut i16) {
    let pairs = line.div_ceil(2);
    for vector in 0..vectors {
        let channels: &[u8] = rows.get(vector * LANES * row..).unwrap_or_default();
        for number in 0..lines {
            for first in (0..pairs).step_by(8) {
                let at = number * line + 2 * first;
                let mask = ((1u32 << (line - 2 * first).min(16)) - 1) as __mmask16;
                let bytes = |channel: usize| {
                    let start = channel * row + at;
                    // A channel that is not there is not read.
                    let mask = if start < channels.len() { mask } else { 0 };
                    // SAFETY: the bytes of the mask lie in a line of the channel's row; others are not read.
                    unsafe { _mm_maskz_loadu_epi8(mask, channels.as_ptr().wrapping_add(start).cast()) }
                };
                let of_pairs = interleaved(bytes);
                for (pair, &values) in of_pairs.iter().enumerate().take(pairs - first) {
                    let place = ((number * pairs + first + pair) * vectors + vector) * 2 * LANES;
                    // SAFETY: 32 values of the room.
                    unsafe { _mm512_storeu_si512(packed.wrapping_add(place).cast(), values) };
                }
            }
        }
    }
}

/// 16 bytes of 16 channels to eight pairs of all channels, widened.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn interleaved(bytes: impl Fn(usize) -> __m128i) -> [__m512i; 8] {
    // Channels 4·lane + number: what is interleaved inside of lanes then has four channels in order.
    let lanes = |number: usize| {
        let low = _mm512_castsi128_si512(bytes(number));
        let low = _mm512_inserti32x4::<1>(low, bytes(number + 4));
        _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(low, bytes(number + 8)), bytes(number + 12))
    };
    let (a, b, c, d) = (lanes(0), lanes(1), lanes(2), lanes(3));
    let low = [_mm512_unpacklo_epi16(a, b), _mm512_unpacklo_epi16(c, d)];
    let high = [_mm512_unpackhi_epi16(a, b), _mm512_unpackhi_epi16(c, d)];
    // Two pairs of four channels in each lane.
    let twos = [
        _mm512_unpacklo_epi32(low[0], low[1]),
        _mm512_unpackhi_epi32(low[0], low[1]),
        _mm512_unpacklo_epi32(high[0], high[1]),
        _mm512_unpackhi_epi32(high[0], high[1]),
    ];
    let order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    let mut pairs = [a; 8];
    for (two, values) in pairs.as_chunks_mut::<2>().0.iter_mut().zip(twos) {
        let values = _mm512_permutexvar_epi64(order, values);
        *two = [
            _mm512_cvtepi8_epi16(_mm512_castsi512_si256(values)),
            _mm512_cvtepi8_epi16(_mm512_extracti64x4_epi64::<1>(values)),
        ];
    }
    pairs
}
