//! What a transformer is made of.

pub use crate::softmax::EXP2;

use super::{load, requantised, rounded, save};
use crate::{Attention, Element, Heads, LayerNorm, Rescale, Roll, Shape};

/// `value / 2^shift`, rounded down.
fn floor(value: i128, shift: i128) -> i128 {
    value.div_euclid(1 << shift)
}

fn short(table: &[u8], index: usize) -> i128 {
    i16::from_le_bytes([table[2 * index], table[2 * index + 1]]).into()
}

/// [`crate::rescale_tensor`].
pub fn rescale_tensor(op: &Rescale<'_>, input: &[i8], output: &mut [i8]) {
    for index in 0..output.len() / op.to.bytes() {
        let channel = (index % usize::from(op.channels)) as i64;
        save(op.to, output, index, requantised(&op.requant, op.to, channel, load(op.from, input, index)));
    }
}

/// [`crate::curve`].
pub fn curve(table: &[u8; 256], input: &[i8], output: &mut [i8]) {
    for index in 0..output.len() {
        output[index] = table[i64::from(input[index]).rem_euclid(256) as usize] as i8;
    }
}

/// [`crate::prepend`].
pub fn prepend(tokens: &[u8], input: &[i8], output: &mut [i8]) {
    for index in 0..output.len() {
        output[index] = if index < tokens.len() { tokens[index] as i8 } else { input[index - tokens.len()] };
    }
}

/// [`crate::roll`].
pub fn roll(op: &Roll, input: &[i8], output: &mut [i8]) {
    let [height, width, channels] = [op.shape.height, op.shape.width, op.shape.channels].map(usize::from);
    for y in 0..height {
        for x in 0..width {
            for c in 0..channels {
                let (from_y, from_x) = ((y + usize::from(op.by[0])) % height, (x + usize::from(op.by[1])) % width);
                output[(y * width + x) * channels + c] = input[(from_y * width + from_x) * channels + c];
            }
        }
    }
}

/// As the definition says it, in one width that holds everything.
pub fn layer_norm(op: &LayerNorm<'_>, input: &[i8], output: &mut [i8]) {
    let n = usize::from(op.channels);
    for position in 0..output.len() / n {
        let x = |channel: usize| i128::from(load(Element::Int16, input, position * n + channel));
        let sum: i128 = (0..n).map(x).sum();
        let squares: i128 = (0..n).map(|channel| x(channel) * x(channel)).sum();
        let count = n as i128;
        let w = (count * squares - sum * sum + i128::from(op.epsilon)).max(count - 1);
        let mut e = 0;
        while w >= 4i128 << (2 * e) {
            e += 1;
        }
        let root = reciprocal_root(floor(w << 30, 2 * e));
        let p = count * root;
        let b = i128::from(128 - p.leading_zeros());
        let f = (14 + e - (b - 30)).min(24);
        let a = floor(p, 14 + e - f);
        let mean = floor(sum * root, 30 + e - f);
        for channel in 0..n {
            let h = floor(a * x(channel), 16) - mean;
            let t = floor(h * short(op.factor, channel), 16);
            let places = f + i128::from(op.factor_bits) - 22;
            let t = if places < 0 { t << -places } else { floor(t, places) };
            let offset: [u8; 4] = op.offset[4 * channel..4 * channel + 4].try_into().unwrap();
            let y = floor(t + i128::from(i32::from_le_bytes(offset)), 6);
            output[position * n + channel] = y.clamp(op.min.into(), op.max.into()) as i8;
        }
    }
}

/// The nearest to `2^15 / √v` at the 64th that v begins with, and two steps of Newton.
fn reciprocal_root(w: i128) -> i128 {
    let begin = floor(w, 24);
    let mut r = 0;
    for bit in (0..16).rev() {
        // r - 1/2 is not above 2^15 / √v, v = begin / 64.
        let next = r + (1 << bit);
        if (2 * next - 1) * (2 * next - 1) * begin <= 1 << 38 {
            r = next;
        }
    }
    r <<= 15;
    for _ in 0..2 {
        r = floor(r * ((3 << 30) - floor(floor(r * r, 30) * w, 30)), 31);
    }
    r
}

/// Weights of `keys` logits.
fn weights(keys: usize, logit: impl Fn(usize) -> i64, mut weight: impl FnMut(usize, i64)) {
    let most = (0..keys).map(&logit).max().unwrap();
    let power = |key: usize| {
        let (whole, fraction) = ((most - logit(key)) / 256, (most - logit(key)) % 256);
        if whole >= 20 { 0 } else { (i64::from(EXP2[fraction as usize]) * 32).div_euclid(1 << whole) }
    };
    let sum: i64 = (0..keys).map(power).sum();
    let factor = (1 << 47) / sum;
    for key in 0..keys {
        weight(key, (power(key) * factor + (1 << 31)).div_euclid(1 << 32).min(32_767));
    }
}

/// [`crate::softmax`]; the logits stay.
pub fn softmax(keys: u16, logits: &[i8], output: &mut [i8]) {
    let keys = usize::from(keys);
    for (row, output) in logits.chunks(4 * keys).zip(output.chunks_mut(2 * keys)) {
        let half = |index: usize| load(Element::Int16, row, index);
        let logit = |key: usize| half(2 * key).rem_euclid(65_536) + half(2 * key + 1) * 65_536;
        weights(keys, logit, |key, weight| save(Element::Int16, output, key, weight));
    }
}

/// Longest row of scores of a case.
const KEYS: usize = 256;

/// [`crate::attention`].
pub fn attention(op: &Attention<'_>, query: &[i8], keys_and_values: &[i8], output: &mut [i8]) {
    let size = |window: [u16; 2]| usize::from(window[0]) * usize::from(window[1]);
    let (queries, keys) = (size(op.query_window), size(op.key_window));
    let across = usize::from(op.query_map.width / op.query_window[1]);
    let windows = usize::from(op.query_map.height / op.query_window[0]) * across;
    let width = usize::from(op.value.width);
    let channels = width * usize::from(op.heads);
    // Position of element `number` of a window in its map.
    let place = |map: Shape, size: [u16; 2], window: usize, number: usize| {
        let [rows, columns] = size.map(usize::from);
        let y = window / across * rows + number / columns;
        y * usize::from(map.width) + window % across * columns + number % columns
    };
    let channel = |heads: Heads, head: usize| usize::from(heads.first) + head * usize::from(heads.per_head);
    let value = |values: &[i8], map: Shape, place: usize, channel: usize| {
        i64::from(values[place * usize::from(map.channels) + channel])
    };
    for window in 0..windows {
        for (head, number) in (0..usize::from(op.heads)).flat_map(|head| (0..queries).map(move |number| (head, number)))
        {
            let at = place(op.query_map, op.query_window, window, number);
            let mut logits = [0; KEYS];
            for (key, logit) in logits[..keys].iter_mut().enumerate() {
                let key_at = place(op.key_map, op.key_window, window, key);
                let sum: i64 = (0..usize::from(op.key.width))
                    .map(|index| {
                        value(query, op.query_map, at, channel(op.query, head) + index)
                            * value(keys_and_values, op.key_map, key_at, channel(op.key, head) + index)
                    })
                    .sum();
                let scaled = (i128::from(sum) * i128::from(op.logit_multiplier) + (1 << (op.logit_shift - 1)))
                    .div_euclid(1 << op.logit_shift);
                *logit = scaled.clamp(-16_777_216, 16_777_215) as i64;
                for (table, part) in [(op.bias, head), (op.mask, window)] {
                    if !table.is_empty() {
                        *logit += short(table, (part * queries + number) * keys + key) as i64;
                    }
                }
            }
            let mut mixing = [0; KEYS];
            weights(keys, |key| logits[key], |key, weight| mixing[key] = weight);
            for index in 0..width {
                let mut sum = 0;
                for (key, weight) in mixing[..keys].iter().enumerate() {
                    let key_at = place(op.key_map, op.key_window, window, key);
                    sum += weight * value(keys_and_values, op.key_map, key_at, channel(op.value, head) + index);
                }
                output[at * channels + head * width + index] =
                    rounded(sum, op.multiplier.into(), op.shift.into(), op.zero_point, op.min, op.max);
            }
        }
    }
}
