//! Float evaluation of attention: window by window, head by head.

use super::{Matrix, product};
use crate::graph::{Attention, Heads};

/// Values and shape `[H, W, C]` of a map.
type Map<'a> = (&'a [f32], [usize; 3]);

/// The output `[H, W, heads·width of V]` for the maps of queries, keys and values.
pub(super) fn evaluate(attention: &Attention, [query, key, value]: [Map<'_>; 3], output: [usize; 3]) -> Vec<f32> {
    let Attention { heads, query_window, key_window, scale, .. } = *attention;
    let (queries, keys, width, wide) =
        (attention.queries(), attention.keys(), attention.query.width, attention.value.width);
    let mut result = vec![0.0; output.iter().product()];
    let [_, columns, channels] = output;
    let across = (columns / query_window[1]).max(1);
    let windows = output[0] * columns / queries.max(1);
    for (window, head) in (0..windows).flat_map(|window| (0..heads).map(move |head| (window, head))) {
        let at = [window / across, window % across];
        let [q, k, v] = [
            gather(query, attention.query, head, at, query_window),
            gather(key, attention.key, head, at, key_window),
            gather(value, attention.value, head, at, key_window),
        ];
        let mut scores = vec![0.0; queries * keys];
        product(
            Matrix { values: &q, rows: queries, columns: width, pitch: [width, 1] },
            Matrix { values: &k, rows: width, columns: keys, pitch: [1, width] },
            &mut scores,
            keys,
        );
        scores.iter_mut().for_each(|score| *score *= scale);
        for (table, number) in [(&attention.bias, head), (&attention.mask, window)] {
            let of_all = table.get(number * queries * keys..(number + 1) * queries * keys).unwrap_or_default();
            scores.iter_mut().zip(of_all).for_each(|(score, offset)| *score += offset);
        }
        scores.chunks_exact_mut(keys).for_each(softmax);
        let mut mixed = vec![0.0; queries * wide];
        product(
            Matrix { values: &scores, rows: queries, columns: keys, pitch: [keys, 1] },
            Matrix { values: &v, rows: keys, columns: wide, pitch: [wide, 1] },
            &mut mixed,
            wide,
        );
        for (number, mixed) in mixed.chunks_exact(wide).enumerate() {
            let position = position(number, at, query_window, columns);
            result[position * channels + head * wide..][..wide].copy_from_slice(mixed);
        }
    }
    result
}

/// Position in a map of `columns` of element `number` of the window at row and column `at` of windows.
fn position(number: usize, at: [usize; 2], window: [usize; 2], columns: usize) -> usize {
    let (y, x) = (at[0] * window[0] + number / window[1], at[1] * window[1] + number % window[1]);
    y * columns + x
}

/// `[positions of the window, width]` of one head.
fn gather((values, shape): Map<'_>, part: Heads, head: usize, at: [usize; 2], window: [usize; 2]) -> Vec<f32> {
    let first = part.first + head * part.per_head;
    (0..window[0] * window[1])
        .flat_map(|number| &values[position(number, at, window, shape[1]) * shape[2] + first..][..part.width])
        .copied()
        .collect()
}

fn softmax(scores: &mut [f32]) {
    let largest = scores.iter().fold(f32::NEG_INFINITY, |largest, &score| largest.max(score));
    scores.iter_mut().for_each(|score| *score = (*score - largest).exp());
    let sum: f32 = scores.iter().sum();
    scores.iter_mut().for_each(|score| *score /= sum);
}
