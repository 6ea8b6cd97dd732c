//! Attention, fused: four rows of scores at a time, the whole matrix never exists.
//!
//! Queries, keys and values are channels of int8 maps of zero point 0. The maps are divided into windows, row by row; window
//! n of the queries sees window n of the keys. For each window, head and query:
//!
//! ```text
//! t_k = clamp(rescale(Σ q·k, logit multiplier, logit shift), -2^24, 2^24 - 1) + bias + mask
//! p   = softmax of the row, see `softmax`                        15 fraction bits
//! y_d = clamp(zero_point + rescale(Σ p_k·v_k,d, multiplier, shift))
//! ```

use crate::arch;
use crate::element::wide;
use crate::isa::Isa;
use crate::requant::{finish, is_shift, rescale};
use crate::shape::{KernelError, Shape, check};
use crate::softmax::MOST_KEYS;

/// Query rows that are worked on at once.
pub(crate) const ROWS: usize = 4;

/// Logits are less than this, and not less than its negative.
pub(crate) const LOGIT: i32 = 1 << 24;

/// The channels of each head: head h has `width` of them from `first + h·per_head` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// First channel of the first head.
    pub first: u16,
    /// Channels from one head to the next.
    pub per_head: u16,
    /// Channels of a head.
    pub width: u16,
}

/// An attention.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Map of the queries. The output has its rows and columns, and the heads' values as channels, head by head.
    pub query_map: Shape,
    /// Map of keys and values.
    pub key_map: Shape,
    /// Heads.
    pub heads: u16,
    /// Channels of the queries.
    pub query: Heads,
    /// Channels of the keys, as wide as the queries.
    pub key: Heads,
    /// Channels of the values.
    pub value: Heads,
    /// Rows and columns of a window of queries; divide the map.
    pub query_window: [u16; 2],
    /// Rows and columns of a window of keys; at most 2048 positions, and as many windows as of queries in each direction.
    pub key_window: [u16; 2],
    /// Rescale of a product of query and key to a logit, an exponent of 2 with 8 fraction bits.
    pub logit_multiplier: i32,
    /// Right shift, 1..=62.
    pub logit_shift: u8,
    /// Added to the logits of each window: `i16` `[heads, queries, keys]`, or empty.
    pub bias: &'a [u8],
    /// Added to the logits of each head: `i16` `[windows, queries, keys]`, or empty.
    pub mask: &'a [u8],
    /// Rescale of a mixed value.
    pub multiplier: i32,
    /// Right shift, 1..=62.
    pub shift: u8,
    /// Integer that stands for 0.0 in the output.
    pub zero_point: i8,
    /// Least output.
    pub min: i8,
    /// Largest output.
    pub max: i8,
}

/// Scratch bytes of [`attention`] on every instruction set, from the positions of a window of keys and the width of a key:
/// four rows of scores, and four widened queries.
#[must_use]
pub const fn attention_scratch(keys: usize, key_width: u16) -> usize {
    let queries = 2 * ROWS * (key_width as usize).next_multiple_of(4);
    keys.saturating_mul(4 * ROWS).saturating_add(queries).saturating_add(3)
}

/// Runs an attention. Both maps may be the same slice.
///
/// # Errors
/// [`KernelError`] if a slice has not the length that the shapes give, or windows or heads do not fit their maps.
pub fn attention<I: Isa>(
    isa: I,
    op: &Attention<'_>,
    query: &[i8],
    keys_and_values: &[i8],
    output: &mut [i8],
    scratch: &mut [i8],
) -> Result<(), KernelError> {
    check(op.has_geometry(), KernelError::Geometry)?;
    check(query.len() == op.query_map.len() && keys_and_values.len() == op.key_map.len(), KernelError::Input)?;
    let positions = usize::from(op.query_map.height) * usize::from(op.query_map.width);
    check(output.len() == positions.saturating_mul(op.output_channels()), KernelError::Output)?;
    check(is_shift(op.shift) && is_shift(op.logit_shift), KernelError::Weights)?;
    let table = |table: &[u8], count: usize| {
        let scores = op.queries().saturating_mul(op.keys()).saturating_mul(count);
        table.is_empty() || table.len() == scores.saturating_mul(2)
    };
    check(table(op.bias, op.heads.into()) && table(op.mask, op.windows()), KernelError::Weights)?;
    check(scratch.len() >= attention_scratch(op.keys(), op.key.width), KernelError::Scratch)?;
    if isa.attention(op, query, keys_and_values, output, scratch) {
        return Ok(());
    }
    isa.enter(
        #[inline(always)]
        || {
            op.each_part(query, keys_and_values, |part| {
                for first in (0..op.queries()).step_by(ROWS) {
                    block(isa, op, &part, first, output, scratch);
                }
            });
        },
    );
    Ok(())
}

impl Attention<'_> {
    fn has_geometry(&self) -> bool {
        let windows = |map: Shape, [rows, columns]: [u16; 2]| {
            let whole = rows > 0 && columns > 0 && map.height.is_multiple_of(rows) && map.width.is_multiple_of(columns);
            (whole && !map.is_empty()).then(|| [map.height / rows, map.width / columns])
        };
        let of_queries = windows(self.query_map, self.query_window);
        let fits = |heads: Heads, map: Shape| {
            let [count, first, per_head, width] = [self.heads, heads.first, heads.per_head, heads.width].map(u64::from);
            width > 0 && count > 0 && first + (count - 1) * per_head + width <= map.channels.into()
        };
        of_queries.is_some()
            && of_queries == windows(self.key_map, self.key_window)
            && self.keys() <= MOST_KEYS
            && self.query.width == self.key.width
            && fits(self.query, self.query_map)
            && fits(self.key, self.key_map)
            && fits(self.value, self.key_map)
    }

    /// Queries of a window.
    pub(crate) fn queries(&self) -> usize {
        usize::from(self.query_window[0]) * usize::from(self.query_window[1])
    }

    /// Keys of a window.
    pub(crate) fn keys(&self) -> usize {
        usize::from(self.key_window[0]) * usize::from(self.key_window[1])
    }

    /// Windows; those of a checked geometry.
    fn windows(&self) -> usize {
        let [rows, columns] = self.query_window.map(usize::from);
        usize::from(self.query_map.height) / rows.max(1) * (usize::from(self.query_map.width) / columns.max(1))
    }

    fn output_channels(&self) -> usize {
        usize::from(self.heads).saturating_mul(self.value.width.into())
    }

    /// Visits each head of each window.
    #[inline(always)]
    pub(crate) fn each_part<'a>(&self, query: &'a [i8], keys_and_values: &'a [i8], mut visit: impl FnMut(Part<'a>)) {
        let across = (usize::from(self.query_map.width) / usize::from(self.query_window[1]).max(1)).max(1);
        let width = usize::from(self.query_map.width);
        for window in 0..self.windows() {
            let at = [window / across, window % across];
            for head in 0..usize::from(self.heads) {
                let [rows, columns] = self.query_window.map(usize::from);
                let channels = self.output_channels();
                let first = (at[0] * rows * width + at[1] * columns) * channels + head * usize::from(self.value.width);
                visit(Part {
                    window,
                    head,
                    query: Rows::new(query, self.query_map, self.query_window, self.query, head, at),
                    key: Rows::new(keys_and_values, self.key_map, self.key_window, self.key, head, at),
                    value: Rows::new(keys_and_values, self.key_map, self.key_window, self.value, head, at),
                    output: Grid { first, columns, line: width * channels, pixel: channels },
                });
            }
        }
    }

    /// Bias and mask of one query of a part, each empty or of `keys` values.
    #[inline(always)]
    pub(crate) fn offsets<'a>(&'a self, part: &Part<'_>, query: usize) -> [&'a [[u8; 2]]; 2] {
        let (queries, keys) = (self.queries(), self.keys());
        [(self.bias, part.head), (self.mask, part.window)].map(|(table, number)| {
            let from = (number * queries + query) * keys;
            table.as_chunks().0.get(from..from + keys).unwrap_or_default()
        })
    }

    /// Rescale of a mixed value.
    #[inline(always)]
    pub(crate) fn finish(&self, sum: i32) -> i8 {
        finish(rescale(sum, self.multiplier, self.shift), self.zero_point, self.min, self.max)
    }

    /// Rescale of a product of query and key. 25 bits: with bias and mask no difference of two overflows.
    #[inline(always)]
    pub(crate) fn logit(&self, sum: i32) -> i32 {
        rescale(sum, self.logit_multiplier, self.logit_shift).clamp(-LOGIT, LOGIT - 1)
    }
}

/// Places of the positions of a window.
#[derive(Clone, Copy)]
pub struct Grid {
    first: usize,
    pub(crate) columns: usize,
    line: usize,
    pub(crate) pixel: usize,
}

impl Grid {
    #[inline(always)]
    pub(crate) fn at(&self, number: usize) -> usize {
        self.first + number / self.columns * self.line + number % self.columns * self.pixel
    }
}

/// The channels of one head in the positions of one window.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    values: &'a [i8],
    pub(crate) grid: Grid,
    width: usize,
}

impl<'a> Rows<'a> {
    fn new(values: &'a [i8], map: Shape, window: [u16; 2], heads: Heads, head: usize, at: [usize; 2]) -> Self {
        let [rows, columns] = window.map(usize::from);
        let pixel = usize::from(map.channels);
        let line = usize::from(map.width) * pixel;
        let channel = usize::from(heads.first) + head * usize::from(heads.per_head);
        let first = at[0] * rows * line + at[1] * columns * pixel + channel;
        Self { values, grid: Grid { first, columns, line, pixel }, width: heads.width.into() }
    }

    #[inline(always)]
    pub(crate) fn row(&self, number: usize) -> &'a [i8] {
        self.run(number, 1)
    }

    /// One position after the other, from the first one on. No division: on a desktop it takes as long as a key.
    #[inline(always)]
    pub(crate) fn each(&self) -> impl Iterator<Item = &'a [i8]> + use<'a> {
        let Self { values, grid, width } = *self;
        let (mut line, mut column) = (grid.first, 0);
        core::iter::from_fn(move || {
            if column == grid.columns {
                (line, column) = (line + grid.line, 0);
            }
            let at = line + column * grid.pixel;
            column += 1;
            values.get(at..at + width)
        })
    }

    /// From the first channel of a position to the last one of `count` neighbours in memory, at least one.
    #[inline(always)]
    pub(crate) fn run(&self, number: usize, count: usize) -> &'a [i8] {
        let at = self.grid.at(number);
        self.values.get(at..at + (count - 1) * self.grid.pixel + self.width).unwrap_or_default()
    }
}

/// One head of one window.
pub(crate) struct Part<'a> {
    window: usize,
    head: usize,
    pub query: Rows<'a>,
    pub key: Rows<'a>,
    pub value: Rows<'a>,
    pub output: Grid,
}

/// Adds a bias or a mask to the logits of one query.
#[inline(always)]
pub(crate) fn add_offsets(row: &mut [i8], table: &[[u8; 2]]) {
    for (logit, &offset) in row.as_chunks_mut::<4>().0.iter_mut().zip(table) {
        let value = i32::from_le_bytes(logit.map(|byte| byte as u8));
        let moved = value.wrapping_add(i16::from_le_bytes(offset).into());
        *logit = moved.to_le_bytes().map(|byte| byte as i8);
    }
}

/// Four queries from `first` on; behind the last one it counts again.
#[inline(always)]
fn block<I: Isa>(isa: I, op: &Attention<'_>, part: &Part<'_>, first: usize, output: &mut [i8], scratch: &mut [i8]) {
    let (keys, last) = (op.keys(), op.queries() - 1);
    let numbers = [0, 1, 2, 3].map(|row| last.min(first + row));
    let queries = numbers.map(|number| part.query.row(number));
    let (scores, _) = scratch.split_at_mut((16 * keys).min(scratch.len()));
    let (mut rows, mut row) = (part.key.each().take(keys), Default::default());
    for key in (0..keys).step_by(4) {
        // Behind the last key it counts again.
        let four = [0; 4].map(|_| {
            row = rows.next().unwrap_or(row);
            row
        });
        let (above, below) = (dots(isa, [queries[0], queries[1]], four), dots(isa, [queries[2], queries[3]], four));
        let sums = [above[0], above[1], below[0], below[1]];
        for (row, sums) in scores.chunks_exact_mut(4 * keys).zip(sums) {
            isa.put(op, row.get_mut(4 * key..).unwrap_or_default(), sums);
        }
    }
    for (row, number) in scores.chunks_exact_mut(4 * keys).zip(numbers) {
        for table in op.offsets(part, number) {
            add_offsets(row, table);
        }
        isa.softmax_row(row);
    }
    let mut rows = scores.chunks_exact(4 * keys);
    let weights = [0; ROWS].map(|_| rows.next().unwrap_or_default().as_chunks().0.get(..keys).unwrap_or_default());
    let width = part.value.width;
    let mut channel = 0;
    while channel < width {
        if channel + 16 <= width {
            let sums = isa.mix(weights, &part.value, channel);
            numbers.into_iter().zip(&sums).for_each(|(number, sums)| store(op, part, number, channel, sums, output));
            channel += 16;
        } else {
            let sums = mix::<1>(weights, &part.value, channel);
            numbers.into_iter().zip(&sums).for_each(|(number, sums)| store(op, part, number, channel, sums, output));
            channel += 1;
        }
    }
}

#[inline(always)]
fn dots<I: Isa>(isa: I, queries: [&[i8]; 2], keys: [&[i8]; 4]) -> [[i32; 4]; 2] {
    if queries[0].len().is_multiple_of(4) {
        return isa.dot_2x4(queries, keys.map(arch::unsigned));
    }
    queries.map(|query| keys.map(|key| dot(query, key)))
}

/// Of any length.
#[inline(never)]
fn dot(query: &[i8], key: &[i8]) -> i32 {
    query.iter().zip(key).map(|(&query, &key)| i32::from(query) * i32::from(key)).sum()
}

/// Values mixed by the weights of four queries, `N` channels from `channel` on.
#[inline(always)]
pub(crate) fn mix<const N: usize>(weights: [&[[i8; 2]]; ROWS], values: &Rows<'_>, channel: usize) -> [[i32; N]; ROWS] {
    let mut sums = [[0; N]; ROWS];
    let keys = weights[0].len();
    if weights.iter().any(|row| row.len() != keys) {
        return sums;
    }
    for (key, row) in values.each().take(keys).enumerate() {
        let Some(row) = row.get(channel..).and_then(|row| row.first_chunk::<N>()) else { return sums };
        for (sums, weights) in sums.iter_mut().zip(weights) {
            let weight = i32::from(wide(weights[key]));
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += weight * i32::from(value);
            }
        }
    }
    sums
}

/// Logits of four keys; less at the end of a row. A call, as [`store`] is: inlined both are kilobytes on a Cortex-M.
#[inline(never)]
pub(crate) fn put(op: &Attention<'_>, row: &mut [i8], sums: [i32; 4]) {
    for (logit, sum) in row.as_chunks_mut().0.iter_mut().zip(sums) {
        *logit = op.logit(sum).to_le_bytes().map(|byte| byte as i8);
    }
}

/// Neighbouring outputs of one query.
#[inline(never)]
fn store(op: &Attention<'_>, part: &Part<'_>, number: usize, channel: usize, sums: &[i32], output: &mut [i8]) {
    let at = part.output.at(number) + channel;
    for (out, &sum) in output.get_mut(at..at + sums.len()).unwrap_or_default().iter_mut().zip(sums) {
        *out = op.finish(sum);
    }
}
