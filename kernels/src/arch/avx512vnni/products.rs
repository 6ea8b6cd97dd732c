//! Products of bytes by `vpdpbusd`: a step is four values of a line and of each of 16 channels.
//!
//! A strip holds the values plus 128. What that adds to a sum, 128 times the sum of the weights, is the same for all positions,
//! and is taken off the biases.

use core::arch::x86_64::{
    __m512i, _mm_loadu_si128, _mm_maskz_loadu_epi8, _mm512_dpbusd_epi32, _mm512_dpwssd_epi32, _mm512_loadu_si512,
    _mm512_mask_storeu_epi8, _mm512_maskz_loadu_epi8, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_setzero_si512,
    _mm512_storeu_si512, _mm512_sub_epi32, _mm512_xor_si512,
};
use core::array::from_fn;
use core::ptr::null;

use crate::arch::avx512::pack::put_words;
use crate::arch::avx512::products::{MOST, Products, Weights};
use crate::arch::avx512::rescale::{Table, lanes};
use crate::arch::avx512::strip::Value;
use crate::arch::avx512::tile::{Factors, LANES, ROWS};
use crate::arch::unsigned;
use crate::conv::Packing;

/// Bytes of a vector.
const BYTES: usize = 64;

/// The value plus 128.
impl Value for u8 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn copy(values: &[i8], mut to: *mut Self) -> *mut Self {
        let offset = _mm512_set1_epi8(i8::MIN);
        let (blocks, rest) = unsigned(values).as_chunks::<BYTES>();
        for block in blocks {
            // SAFETY: 64 bytes are read and written; a vector may lie at any address.
            unsafe {
                _mm512_storeu_si512(to.cast(), _mm512_xor_si512(_mm512_loadu_si512(block.as_ptr().cast()), offset))
            };
            to = to.wrapping_add(BYTES);
        }
        let mask = (1u64 << rest.len()) - 1;
        // SAFETY: only lanes of the mask are read and written.
        unsafe {
            let values = _mm512_maskz_loadu_epi8(mask, rest.as_ptr().cast());
            _mm512_mask_storeu_epi8(to.cast(), mask, _mm512_xor_si512(values, offset));
        }
        to.wrapping_add(rest.len())
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn fill(value: i8, count: usize, mut to: *mut Self) -> *mut Self {
        let values = _mm512_xor_si512(_mm512_set1_epi8(value), _mm512_set1_epi8(i8::MIN));
        for _ in 0..count / BYTES {
            // SAFETY: 64 bytes of the room.
            unsafe { _mm512_storeu_si512(to.cast(), values) };
            to = to.wrapping_add(BYTES);
        }
        let rest = count % BYTES;
        // SAFETY: only lanes of the mask are written.
        unsafe { _mm512_mask_storeu_epi8(to.cast(), (1 << rest) - 1, values) };
        to.wrapping_add(rest)
    }
}

/// Columns are `[vectors][lines][steps][16 channels][4]`.
pub(super) struct Bytes;

impl Products for Bytes {
    type Value = u8;
    const STEP: usize = 4;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn pack(
        weights: &Weights<'_>,
        table: Table,
        biases: &mut [i32; MOST * LANES],
        room: *mut u8,
    ) -> (*const u8, Table) {
        let &Weights { bytes, vectors, lines, line, .. } = weights;
        let of_vector = lines * line.div_ceil(Self::STEP) * BYTES;
        let (columns, copy) = match weights.packing {
            Packing::Rows => {
                // SAFETY: as the caller says.
                unsafe { interleave(weights, room) };
                (room.cast_const(), None)
            }
            Packing::Blocks if bytes.as_ptr().addr().is_multiple_of(BYTES) => (bytes.as_ptr(), None),
            Packing::Blocks => (bytes.as_ptr(), Some(room)),
        };
        for (vector, biases) in biases.as_chunks_mut::<LANES>().0.iter_mut().enumerate().take(vectors) {
            let columns = columns.wrapping_add(vector * of_vector);
            let copy = copy.map(|copy| copy.wrapping_add(vector * of_vector));
            // SAFETY: the weights of 16 channels, and as much room; 16 words.
            unsafe {
                let offsets = _mm512_sub_epi32(table.biases(vector * LANES), offsets(columns, of_vector, copy));
                _mm512_storeu_si512(biases.as_mut_ptr().cast(), offsets);
            }
        }
        (copy.map_or(columns, |copy| copy.cast_const()), table.with_bias(biases.as_ptr()))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn pack_keys<'a>(
        mut keys: impl Iterator<Item = &'a [u8]>,
        width: usize,
        vectors: usize,
        biases: *mut i32,
        mut room: *mut u8,
    ) {
        let len = width.div_ceil(Self::STEP) * BYTES;
        for vector in 0..vectors {
            let mut last = null();
            let lines = [0; LANES].map(|_| {
                last = keys.next().map_or(last, <[u8]>::as_ptr);
                last
            });
            let columns = room.cast_const();
            for part in (0..width).step_by(LANES) {
                let left = (width - part).min(LANES);
                let place = |key: usize| lines[key].wrapping_add(part);
                // SAFETY: so many bytes of each key, of which each vector has one; the part of the room, and what is behind it.
                unsafe { put_line(place, left, left == LANES, room) };
                room = room.wrapping_add(left.div_ceil(Self::STEP) * BYTES);
            }
            // SAFETY: what was written; 16 words.
            unsafe {
                let offsets = offsets(columns, len, None);
                let biases = biases.wrapping_add(vector * LANES).cast();
                _mm512_storeu_si512(biases, _mm512_sub_epi32(_mm512_setzero_si512(), offsets));
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn tile<const COUNT: usize, const VECTORS: usize>(
        factors: &Factors<u8>,
        places: &[usize; ROWS],
        put: impl FnOnce([[__m512i; VECTORS]; COUNT]),
    ) {
        // SAFETY: as the caller says.
        put(unsafe { sums(factors, places) });
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn mixed<const COUNT: usize, const VECTORS: usize>(
        factors: &Factors,
        places: &[usize; ROWS],
        put: impl FnOnce([[__m512i; VECTORS]; COUNT]),
    ) {
        // SAFETY: as the caller says.
        put(unsafe { sums_of_words(factors, places) });
    }
}

/// Four words of each of 16 lines, `left` bytes of them; if `whole`, what is behind them is read, too.
///
/// # Safety
/// The lines have 16 bytes, or `left`; there is room for four vectors.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn put_line(place: impl Fn(usize) -> *const u8, left: usize, whole: bool, to: *mut u8) {
    // SAFETY: as the caller says; lanes that are not of the mask are not read.
    unsafe {
        if whole {
            put_words(|line| _mm_loadu_si128(place(line).cast()), to);
        } else {
            put_words(|line| _mm_maskz_loadu_epi8(lanes(left), place(line).cast()), to);
        }
    }
}

/// Rows of weights as columns. Where there are fewer channels than lanes, the last one again: nothing is made of its sums.
///
/// # Safety
/// There is room for them, and for three vectors behind.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn interleave(weights: &Weights<'_>, mut to: *mut u8) {
    let &Weights { bytes, row, vectors, lines, line, .. } = weights;
    let last = bytes.len() / row - 1;
    for vector in 0..vectors {
        let rows: [_; LANES] = from_fn(|channel| (vector * LANES + channel).min(last) * row);
        for number in 0..lines {
            for part in (0..line).step_by(LANES) {
                let (start, left) = (number * line + part, (line - part).min(LANES));
                let place = |channel: usize| bytes.as_ptr().wrapping_add(rows[channel] + start);
                // Words behind the line's, which the next ones replace, may be anything.
                let whole = left.is_multiple_of(Bytes::STEP) && rows[LANES - 1] + start + LANES <= bytes.len();
                // SAFETY: 16 bytes of the weights, or those of the line; room for the vectors that count, and for those
                // behind them.
                unsafe { put_line(place, left, whole, to) };
                to = to.wrapping_add(left.div_ceil(Bytes::STEP) * BYTES);
            }
        }
    }
}

/// 128 times the sums of the weights of 16 channels, `len` bytes. A line of the cache is a vector, and the weights of an image
/// may lie across two: there is a copy for tiles to read.
///
/// # Safety
/// There are so many, and room for the copy.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn offsets(columns: *const u8, len: usize, copy: Option<*mut u8>) -> __m512i {
    // 128 as an unsigned byte.
    let offset = _mm512_set1_epi8(i8::MIN);
    let mut sums = _mm512_setzero_si512();
    for at in (0..len).step_by(BYTES) {
        // SAFETY: a vector of the weights.
        let weights = unsafe { _mm512_loadu_si512(columns.wrapping_add(at).cast()) };
        sums = _mm512_dpbusd_epi32(sums, offset, weights);
        if let Some(copy) = copy {
            // SAFETY: a vector of the room.
            unsafe { _mm512_storeu_si512(copy.wrapping_add(at).cast(), weights) };
        }
    }
    sums
}

/// The products of the lines that begin at these places with 16 channels in each vector.
///
/// # Safety
/// Rows and columns have what the lengths say, rows three bytes more.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn sums<const COUNT: usize, const VECTORS: usize>(
    factors: &Factors<u8>,
    places: &[usize; ROWS],
) -> [[__m512i; VECTORS]; COUNT] {
    let mut sums = [[_mm512_setzero_si512(); VECTORS]; COUNT];
    let apart = factors.lines * factors.steps * BYTES;
    let mut columns = factors.columns;
    let mut rows: [*const u8; COUNT] = from_fn(|row| factors.rows.wrapping_add(places[row]));
    for _ in 0..factors.lines {
        for step in 0..factors.steps {
            // SAFETY: a vector of the weights of each 16 channels.
            let of_step: [__m512i; VECTORS] =
                from_fn(|vector| unsafe { _mm512_loadu_si512(columns.wrapping_add(vector * apart).cast()) });
            for (sums, row) in sums.iter_mut().zip(rows) {
                // SAFETY: four bytes of the line, or behind it.
                let word = unsafe { row.wrapping_add(4 * step).cast::<i32>().read_unaligned() };
                let values = _mm512_set1_epi32(word);
                for (sum, column) in sums.iter_mut().zip(of_step) {
                    *sum = _mm512_dpbusd_epi32(*sum, values, column);
                }
            }
            columns = columns.wrapping_add(BYTES);
        }
        rows = rows.map(|row| row.wrapping_add(factors.pitch));
    }
    sums
}

/// [`Factors::wide`] of one line by `vpdpwssd`: product and sum in one.
///
/// # Safety
/// Rows, of one line, and columns have what the lengths say.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn sums_of_words<const COUNT: usize, const VECTORS: usize>(
    factors: &Factors,
    places: &[usize; ROWS],
) -> [[__m512i; VECTORS]; COUNT] {
    debug_assert_eq!(factors.lines, 1);
    let mut sums = [[_mm512_setzero_si512(); VECTORS]; COUNT];
    let mut columns = factors.columns;
    let rows: [*const i16; COUNT] = from_fn(|row| factors.rows.wrapping_add(places[row]));
    for step in 0..factors.steps {
        // SAFETY: a vector of 16 columns each.
        let of_step: [__m512i; VECTORS] =
            from_fn(|vector| unsafe { _mm512_loadu_si512(columns.wrapping_add(2 * LANES * vector).cast()) });
        for (sums, row) in sums.iter_mut().zip(rows) {
            // SAFETY: two values of the row.
            let pair = unsafe { row.wrapping_add(2 * step).cast::<i32>().read_unaligned() };
            let values = _mm512_set1_epi32(pair);
            for (sum, column) in sums.iter_mut().zip(of_step) {
                *sum = _mm512_dpwssd_epi32(*sum, values, column);
            }
        }
        columns = columns.wrapping_add(2 * LANES * VECTORS);
    }
    sums
}
