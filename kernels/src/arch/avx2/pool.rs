//! Pools of 8, 16 or 32 channels at a time: maxima of bytes, and sums of 16 bits, widened before they could overflow.

use core::arch::x86_64::{
    __m128i, __m256i, _mm_loadl_epi64, _mm_loadu_si128, _mm_max_epi8, _mm_set1_epi8, _mm_setzero_si128,
    _mm_storel_epi64, _mm_storeu_si128, _mm256_add_epi16, _mm256_add_epi32, _mm256_castsi256_si128,
    _mm256_cvtepi8_epi16, _mm256_cvtepi16_epi32, _mm256_extracti128_si256, _mm256_set1_epi32, _mm256_setzero_si256,
};

use super::rescale::{Bounds, Rescale};
use crate::pool::{Pool, PoolKind};
use crate::requant::is_short;

/// Bytes of which the sum fits 16 bits.
const FIT: usize = 256;

/// Runs a checked pool of 8 channels or more; a mean, if its shift is short.
#[target_feature(enable = "avx2")]
pub(super) fn pool(op: &Pool, input: &[i8], output: &mut [i8]) -> bool {
    if op.kind == PoolKind::Average && !is_short(op.shift) {
        return false;
    }
    match op.output.channels {
        0..8 => return false,
        8..16 => positions::<8>(op, input, output),
        16..32 => positions::<16>(op, input, output),
        _ => positions::<32>(op, input, output),
    }
    true
}

/// The part of a window that lies on the map.
struct Part {
    /// Of its first pixel.
    first: *const i8,
    lines: usize,
    pixels: usize,
    /// Bytes from one line, and from one pixel, to the next.
    pitch: [usize; 2],
}

impl Part {
    #[inline(always)]
    fn new(op: &Pool, input: &[i8], y: usize, x: usize) -> Self {
        let [rows, columns] = op.under(y, x);
        let (width, channels) = (usize::from(op.input.width), usize::from(op.input.channels));
        let start = (rows.start * width + columns.start) * channels;
        // Where the windows see nothing but padding, there may be no such place.
        let first = input.as_ptr().wrapping_add(start);
        Self { first, lines: rows.len(), pixels: columns.len(), pitch: [width * channels, channels] }
    }

    /// Calls `with` the channels of each pixel from `channel` on.
    #[inline(always)]
    fn each(&self, channel: usize, mut with: impl FnMut(*const i8)) {
        let mut line = self.first.wrapping_add(channel);
        for _ in 0..self.lines {
            let mut pixel = line;
            for _ in 0..self.pixels {
                with(pixel);
                pixel = pixel.wrapping_add(self.pitch[1]);
            }
            line = line.wrapping_add(self.pitch[0]);
        }
    }
}

/// All outputs, `LEN` channels at a time.
#[target_feature(enable = "avx2")]
fn positions<const LEN: usize>(op: &Pool, input: &[i8], output: &mut [i8]) {
    let channels = usize::from(op.output.channels);
    let (rescale, bounds) = (Rescale::same(op.multiplier, op.shift, op.zero_point), Bounds::new(op.min, op.max));
    for (y, out) in output.chunks_exact_mut(usize::from(op.output.width) * channels).enumerate() {
        for (x, out) in out.chunks_exact_mut(channels).enumerate() {
            let part = Part::new(op, input, y, x);
            let zero = -(i32::from(op.input_zero) * (part.lines * part.pixels) as i32);
            let mut next = 0;
            while next < channels {
                // The last ones again rather than less.
                let channel = next.min(channels - LEN);
                next = channel + LEN;
                let values = if op.kind == PoolKind::Max {
                    maxima::<LEN>(&part, channel).map(|most| bounds.clamp(most))
                } else {
                    let sums = sums::<LEN>(&part, channel, zero);
                    sums.map(|[low, high]| bounds.bytes(rescale.scaled(low), rescale.scaled(high)))
                };
                let Some(out) = out.get_mut(channel..next) else { return };
                let to: *mut __m128i = out.as_mut_ptr().cast();
                // SAFETY: `LEN` bytes; a vector may lie at any address.
                unsafe {
                    if LEN == 8 {
                        _mm_storel_epi64(to, values[0]);
                    } else {
                        _mm_storeu_si128(to, values[0]);
                    }
                    if LEN == 32 {
                        _mm_storeu_si128(to.wrapping_add(1), values[1]);
                    }
                }
            }
        }
    }
}

/// `LEN` bytes; zeros behind them.
///
/// # Safety
/// They are there.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load<const LEN: usize>(at: *const i8) -> [__m128i; 2] {
    let at: *const __m128i = at.cast();
    // SAFETY: as the caller says; a vector may lie at any address.
    unsafe {
        match LEN {
            8 => [_mm_loadl_epi64(at), _mm_setzero_si128()],
            16 => [_mm_loadu_si128(at), _mm_setzero_si128()],
            _ => [_mm_loadu_si128(at), _mm_loadu_si128(at.wrapping_add(1))],
        }
    }
}

/// The largest of each of `LEN` channels.
#[inline]
#[target_feature(enable = "avx2")]
fn maxima<const LEN: usize>(part: &Part, channel: usize) -> [__m128i; 2] {
    let mut most = [_mm_set1_epi8(i8::MIN); 2];
    part.each(channel, |pixel| {
        // SAFETY: a pixel of the map has `LEN` channels from this one on.
        let [low, high] = unsafe { load::<LEN>(pixel) };
        most = [_mm_max_epi8(most[0], low), _mm_max_epi8(most[1], high)];
    });
    most
}

/// The sum of each of `LEN` channels, and of `zero`.
#[inline]
#[target_feature(enable = "avx2")]
fn sums<const LEN: usize>(part: &Part, channel: usize, zero: i32) -> [[__m256i; 2]; 2] {
    let mut sums = [[_mm256_set1_epi32(zero); 2]; 2];
    let (mut short, mut count) = ([_mm256_setzero_si256(); 2], 0);
    let widened = |sums: [[__m256i; 2]; 2], short: [__m256i; 2]| {
        let more = |[low, high]: [__m256i; 2], short: __m256i| {
            let (a, b) = (_mm256_castsi256_si128(short), _mm256_extracti128_si256::<1>(short));
            [_mm256_add_epi32(low, _mm256_cvtepi16_epi32(a)), _mm256_add_epi32(high, _mm256_cvtepi16_epi32(b))]
        };
        [more(sums[0], short[0]), more(sums[1], short[1])]
    };
    part.each(channel, |pixel| {
        // SAFETY: a pixel of the map has `LEN` channels from this one on.
        let [low, high] = unsafe { load::<LEN>(pixel) };
        let values = [_mm256_cvtepi8_epi16(low), _mm256_cvtepi8_epi16(high)];
        short = [_mm256_add_epi16(short[0], values[0]), _mm256_add_epi16(short[1], values[1])];
        count += 1;
        if count == FIT {
            (sums, short, count) = (widened(sums, short), [_mm256_setzero_si256(); 2], 0);
        }
    });
    widened(sums, short)
}
