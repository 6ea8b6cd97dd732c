//! Attention of eight queries at a time: keys and values of a head are packed once, as the weights of a convolution are, and
//! serve all queries.
//!
//! Keys are the columns of the scores, channels those of the mixed values, whose rows are the weights that softmax leaves.

use core::arch::x86_64::{
    __m512i, _mm512_loadu_si512, _mm512_mask_storeu_epi32, _mm512_max_epi32, _mm512_min_epi32, _mm512_set1_epi32,
};

use super::ROOM;
use super::pack::pack_pairs;
use super::products::Products;
use super::rescale::{Constants, Finish, lanes};
use super::softmax;
use super::strip::Value;
use super::tile::{Factors, LANES, ROWS, rows, tiles, vectors};
use crate::arch::room::with_room;
use crate::arch::unsigned;
use crate::attention::{Attention, LOGIT, Part, add_offsets};
use crate::requant::is_short;

/// One head of one window.
struct Head<'a, P: Products> {
    op: &'a Attention<'a>,
    part: &'a Part<'a>,
    /// What is added to the sums of a key, keys, values, words of 32 bits for scores, queries. Scores become weights of 16 bits
    /// in the first half of each row.
    biases: *mut i32,
    keys: *mut P::Value,
    values: *mut i16,
    scores: *mut i32,
    queries: *mut P::Value,
    /// Of logits and of outputs.
    finish: [Finish; 2],
}

/// Runs a checked attention, if a head has room.
///
/// # Safety
/// The CPU has the instruction set of the products.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(in crate::arch) unsafe fn attention<P: Products>(
    op: &Attention<'_>,
    query: &[i8],
    keys_and_values: &[i8],
    output: &mut [i8],
) -> bool {
    let (keys, width, channels) = (op.keys(), usize::from(op.key.width), usize::from(op.value.width));
    let (columns, width) = (keys.next_multiple_of(LANES), width.next_multiple_of(P::STEP));
    // In bytes: whole vectors, but for the queries behind them.
    let of_keys = columns * width * size_of::<P::Value>();
    let of_values = 2 * keys.next_multiple_of(2) * channels.next_multiple_of(LANES);
    let of_scores = (4 * ROWS * keys).next_multiple_of(4 * LANES);
    let of_queries = ROWS * width * size_of::<P::Value>();
    let logit = Finish::new(0, [i8::MIN, i8::MAX], is_short(op.logit_shift));
    let finish = [logit, Finish::new(op.zero_point, [op.min, op.max], is_short(op.shift))];
    // Behind keys three vectors may be written before what lies there is.
    with_room::<u8, ROOM>(4 * columns + of_keys + of_values + of_scores + of_queries + 12 * LANES, |room| {
        let biases = room.cast();
        let keys = room.wrapping_add(4 * columns);
        let values = keys.wrapping_add(of_keys);
        let scores = values.wrapping_add(of_values);
        let queries = scores.wrapping_add(of_scores);
        let (keys, values, scores, queries) = (keys.cast(), values.cast(), scores.cast(), queries.cast());
        op.each_part(query, keys_and_values, |part| {
            let head = Head::<P> { op, part: &part, biases, keys, values, scores, queries, finish };
            // SAFETY: there is room for keys and values, and for eight queries and their scores.
            unsafe {
                head.pack();
                let mut first = 0;
                while first < op.queries() {
                    let count = rows(op.queries() - first);
                    head.block(first, count, output);
                    first += count;
                }
            }
        });
    })
}

impl<P: Products> Head<'_, P> {
    /// Packs keys and values, tile after tile of columns.
    ///
    /// # Safety
    /// There is room.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn pack(&self) {
        let (keys, width) = (self.op.keys(), usize::from(self.op.key.width));
        let mut rows = self.part.key.each().take(keys).map(unsigned);
        let (mut done, mut key) = (self.keys, 0);
        while key < keys {
            let count = vectors((keys - key).div_ceil(LANES));
            // SAFETY: a key has `width` bytes; the parts of the room for `count` vectors.
            unsafe { P::pack_keys(rows.by_ref(), width, count, self.biases.wrapping_add(key), done) };
            done = done.wrapping_add(count * LANES * width.next_multiple_of(P::STEP));
            key += count * LANES;
        }
        let channels = usize::from(self.op.value.width);
        let (mut done, mut channel) = (self.values, 0);
        while channel < channels {
            let count = vectors((channels - channel).div_ceil(LANES));
            let columns = channel..(channel + count * LANES).min(channels);
            let rows = self.part.value.each().take(keys);
            let rows = rows.map(|row| unsigned(row).get(columns.clone()).unwrap_or_default());
            // SAFETY: the part of the room for `count` vectors.
            unsafe { pack_pairs(rows, count, done) };
            done = done.wrapping_add(count * LANES * keys.next_multiple_of(2));
            channel += count * LANES;
        }
    }

    /// `count` queries from `first` on.
    ///
    /// # Safety
    /// Keys and values are packed; `count` is 8, 4, 2 or 1, and there are as many queries.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn block(&self, first: usize, count: usize, output: &mut [i8]) {
        let (op, keys) = (self.op, self.op.keys());
        let (width, channels) = (usize::from(op.key.width), usize::from(op.value.width));
        let pitch = width.next_multiple_of(P::STEP);
        for row in 0..count {
            // SAFETY: `pitch` values of each query.
            unsafe {
                let end = P::Value::copy(self.part.query.row(first + row), self.queries.wrapping_add(row * pitch));
                if pitch > width {
                    P::Value::fill(0, pitch - width, end);
                }
            }
        }
        let places = core::array::from_fn(|row| row * pitch);
        let (mut columns, mut key) = (self.keys, 0);
        while key < keys {
            let vectors = vectors((keys - key).div_ceil(LANES));
            let steps = pitch / P::STEP;
            let factors =
                Factors { rows: self.queries.cast_const(), pitch: 0, lines: 1, steps, columns: columns.cast_const() };
            // SAFETY: queries are widened, keys are packed, and there are scores for all of them.
            unsafe { tiles!(count, vectors, P::tile(&factors, &places, |sums| self.logits(&sums, key))) };
            columns = columns.wrapping_add(vectors * LANES * pitch);
            key += vectors * LANES;
        }
        for row in 0..count {
            // SAFETY: all logits of the row are written; any bytes are logits.
            let row_of =
                unsafe { core::slice::from_raw_parts_mut(self.scores.wrapping_add(row * keys).cast::<i8>(), 4 * keys) };
            for table in op.offsets(self.part, first + row) {
                add_offsets(row_of, table);
            }
            softmax::row(row_of);
        }
        let places = core::array::from_fn(|row| row * 2 * keys);
        let (mut columns, mut channel) = (self.values, 0);
        while channel < channels {
            let vectors = vectors((channels - channel).div_ceil(LANES));
            let (rows, steps) = (self.scores.cast_const().cast(), keys.div_ceil(2));
            let factors = Factors { rows, pitch: 0, lines: 1, steps, columns: columns.cast_const() };
            // SAFETY: weights lie in the first halves of the rows of scores, and what is behind the last one is there too;
            // values are packed.
            unsafe {
                tiles!(count, vectors, P::mixed(&factors, &places, |sums| self.mix(&sums, first, channel, output)))
            };
            columns = columns.wrapping_add(vectors * LANES * keys.next_multiple_of(2));
            channel += vectors * LANES;
        }
    }

    /// Logits of `COUNT` queries, keys from `key` on.
    ///
    /// # Safety
    /// There are scores for them, and biases.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn logits<const COUNT: usize, const VECTORS: usize>(&self, sums: &[[__m512i; VECTORS]; COUNT], key: usize) {
        let (op, finish, keys) = (self.op, &self.finish[0], self.op.keys());
        for vector in 0..VECTORS {
            let key = key + vector * LANES;
            let mask = lanes(keys.saturating_sub(key));
            // SAFETY: a bias of each lane.
            let bias = unsafe { _mm512_loadu_si512(self.biases.wrapping_add(key).cast()) };
            let constants = Constants::same(finish, op.logit_multiplier, op.logit_shift, LANES).with_bias(bias);
            for (row, sums) in sums.iter().enumerate() {
                let scaled = finish.scaled(&constants, sums[vector]);
                let logits = _mm512_max_epi32(scaled, _mm512_set1_epi32(-LOGIT));
                let logits = _mm512_min_epi32(logits, _mm512_set1_epi32(LOGIT - 1));
                // SAFETY: lanes of the mask are keys; others are not written.
                unsafe { _mm512_mask_storeu_epi32(self.scores.wrapping_add(row * keys + key), mask, logits) };
            }
        }
    }

    /// Mixed values of `COUNT` queries from `first` on, channels from `channel` on.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn mix<const COUNT: usize, const VECTORS: usize>(
        &self,
        sums: &[[__m512i; VECTORS]; COUNT],
        first: usize,
        channel: usize,
        output: &mut [i8],
    ) {
        let (op, finish, channels) = (self.op, &self.finish[1], usize::from(self.op.value.width));
        for (row, sums) in sums.iter().enumerate() {
            let at = self.part.output.at(first + row);
            let Some(output) = output.get_mut(at..at + channels) else { return };
            for (vector, &sums) in sums.iter().enumerate() {
                let channel = channel + vector * LANES;
                let constants = Constants::same(finish, op.multiplier, op.shift, channels.saturating_sub(channel));
                // SAFETY: the output has the channels of the mask.
                unsafe { finish.store(&constants, sums, output.as_mut_ptr(), channel) };
            }
        }
    }
}
