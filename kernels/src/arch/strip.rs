//! Depthwise convolutions of 3x3 on a Cortex-M, some channels at a time.
//!
//! A strip of three rows of these channels is widened once, padding included, and walked by the window; a row of the map enters
//! it once. A map that fits into its place whole needs no turns of rows, and its padding is written once for all channels. What widens, and what multiplies, is the instruction set's: a [`Leaf`].
#![allow(unsafe_code)]

use crate::conv::Conv;

/// Columns of a strip.
const COLUMNS: usize = 34;

/// Constants of [`Leaf::CHANNELS`] neighbouring channels, and what is done with them.
pub(super) trait Leaf {
    /// Channels at a time.
    const CHANNELS: usize;
    /// Their values in one pixel, widened.
    type Pixel: Copy;

    /// Before the first [`Self::load`].
    fn empty() -> Self;

    /// The constants of the channels from `channel` on; false behind the end.
    fn load(&mut self, op: &Conv<'_>, channel: usize) -> bool;

    /// A pixel of one value.
    fn all(value: i8) -> Self::Pixel;

    /// Neighbouring pixels, `pitch` bytes apart, widened; false if there are fewer than `line` holds, or `line` is empty.
    fn widen(pixels: &[i8], pitch: usize, line: &mut [Self::Pixel]) -> bool;

    /// Some neighbours of one row of the output.
    ///
    /// # Safety
    /// `rows` are three rows of a strip, of 3 pixels and `step` bytes more for each position but the first; `output` has
    /// room for the values of each of `count` positions, `pitch` bytes apart; `count` is not 0; shifts are 33..=54.
    unsafe fn positions(
        &self,
        op: &Conv<'_>,
        rows: [*const Self::Pixel; 3],
        output: *mut i8,
        count: usize,
        step: usize,
    );
}

/// Runs a checked convolution whose shifts are short, if its shapes are those that a leaf can do.
#[inline(always)]
pub(super) fn depthwise<L: Leaf>(op: &Conv<'_>, input: &[i8], output: &mut [i8]) -> bool {
    let (channels, width) = (usize::from(op.output.channels), usize::from(op.output.width));
    let step = usize::from(op.window.stride[1]);
    let per_strip = (COLUMNS - 3).checked_div(step).map_or(0, |more| more + 1);
    if op.window.kernel != [3, 3] || channels < L::CHANNELS || per_strip == 0 {
        return false;
    }
    let mut leaf = L::empty();
    for column in (0..width).step_by(per_strip) {
        let mut part = Part::<L>::new(op, column, per_strip.min(width - column));
        let mut next = 0;
        while next < channels {
            // The last ones again rather than less: the same inputs give the same outputs.
            let channel = next.min(channels - L::CHANNELS);
            let done = leaf.load(op, channel)
                && if part.is_whole() {
                    part.run_whole(&leaf, channel, input, output)
                } else {
                    part.run(&leaf, channel, input, output)
                };
            if !done {
                return false;
            }
            next = channel + L::CHANNELS;
        }
    }
    true
}

/// Some neighbouring columns of the output, and the strip above them.
struct Part<'a, L: Leaf> {
    op: &'a Conv<'a>,
    column: usize,
    count: usize,
    /// Rows and columns under all windows.
    rows: usize,
    columns: usize,
    /// Columns of the strip that lie on the map, and the first one's column there, 0 if there is none; the others are padding
    /// in every row.
    from: usize,
    to: usize,
    left: usize,
    zero: L::Pixel,
    strip: [[L::Pixel; COLUMNS]; 3],
}

impl<'a, L: Leaf> Part<'a, L> {
    fn new(op: &'a Conv<'a>, column: usize, count: usize) -> Self {
        let under = |count: usize, stride: u8| (count - 1) * usize::from(stride) + 3;
        let [rows, columns] =
            [(op.output.height.into(), 0), (count, 1)].map(|(count, axis)| under(count, op.window.stride[axis]));
        let [_, left] = op.window.start(0, column);
        let from = (-left).clamp(0, columns as isize);
        let to = (op.input.width as isize - left).clamp(from, columns as isize);
        let zero = L::all(op.input_zero);
        let left = if from < to { (left + from) as usize } else { 0 };
        let (from, to) = (from as usize, to as usize);
        Self { op, column, count, rows, columns, from, to, left, zero, strip: [[zero; COLUMNS]; 3] }
    }

    /// Whether all rows fit at once; then each has as many pixels as it needs.
    fn is_whole(&self) -> bool {
        self.rows * self.columns <= 3 * COLUMNS
    }

    /// All rows of the output of a map that is there whole; false if a slice is too short.
    #[inline(always)]
    fn run_whole(&mut self, leaf: &L, channel: usize, input: &[i8], output: &mut [i8]) -> bool {
        let &mut Self { op, column, count, rows, columns, from, to, left, ref mut strip, .. } = self;
        let (channels, stride) = (usize::from(op.output.channels), op.window.stride.map(usize::from));
        let Some(strip) = strip.as_flattened_mut().get_mut(..rows * columns) else { return false };
        let on_map = strip.get_mut(usize::from(op.window.pad[0]) * columns + from..).unwrap_or_default();
        let mut pixels = input.get(left * channels + channel..).unwrap_or_default();
        // Behind the map there may be rows of padding, behind the last window some of the map.
        for line in on_map.chunks_mut(columns) {
            let Some(line) = line.get_mut(..to - from).filter(|line| !line.is_empty() && !pixels.is_empty()) else {
                break;
            };
            if !L::widen(pixels, channels, line) {
                return false;
            }
            pixels = pixels.get(usize::from(op.input.width) * channels..).unwrap_or_default();
        }
        let step = stride[1] * size_of::<L::Pixel>();
        let mut top = 0;
        for out in output
            .get_mut(column * channels + channel..)
            .unwrap_or_default()
            .chunks_mut(usize::from(op.output.width) * channels)
        {
            let Some(lines) = strip.get(top..top + 3 * columns) else { return false };
            if out.len() < (count - 1) * channels + L::CHANNELS {
                return false;
            }
            let three = [0, 1, 2].map(|row| lines.as_ptr().wrapping_add(row * columns));
            // SAFETY: `lines` are three of three pixels, and a stride for each position but the first; `out` has room for the
            // channels of each of `count` positions, `channels` apart; `depthwise` takes short shifts.
            unsafe { leaf.positions(op, three, out.as_mut_ptr(), count, step) };
            top += stride[0] * columns;
        }
        true
    }

    /// All rows of the output; false if a slice is too short.
    #[inline(always)]
    fn run(&mut self, leaf: &L, channel: usize, input: &[i8], output: &mut [i8]) -> bool {
        let &mut Self { op, column, count, from, to, left, zero, ref mut strip, .. } = self;
        let (channels, stride) = (usize::from(op.output.channels), op.window.stride.map(usize::from));
        let (above, height) = (usize::from(op.window.pad[0]), usize::from(op.input.height));
        let pitch = usize::from(op.input.width) * channels;
        let step = stride[1] * size_of::<L::Pixel>();
        // Rows, counted from the upper edge of the padding, that the strip has seen. Row n lies in line n % 3 of it, and so
        // that of the next one is that of the window's first one.
        let (mut seen, mut top, mut next) = (0, 0, 0);
        for out in output.chunks_exact_mut(usize::from(op.output.width) * channels) {
            if top > seen {
                next = top % 3;
            }
            for row in seen.max(top)..top + 3 {
                let Some(line) = strip.get_mut(next).and_then(|line| line.get_mut(from..to)) else { return false };
                next = if next == 2 { 0 } else { next + 1 };
                let on_map = row.wrapping_sub(above);
                if on_map >= height {
                    line.fill(zero);
                } else if !line.is_empty() {
                    let start = on_map * pitch + left * channels + channel;
                    if !L::widen(input.get(start..).unwrap_or_default(), channels, line) {
                        return false;
                    }
                }
            }
            seen = top + 3;
            let Some(out) = out.get_mut(column * channels + channel..) else { return false };
            if out.len() < (count - 1) * channels + L::CHANNELS {
                return false;
            }
            let [a, b, c] = strip.each_ref().map(|line| line.as_ptr());
            let rows = match next {
                0 => [a, b, c],
                1 => [b, c, a],
                _ => [c, a, b],
            };
            // SAFETY: a position reads three pixels of each row of the strip, a stride apart, at most `COLUMNS` in all;
            // `out` has room for the channels of each of `count` positions, `channels` apart; `depthwise` takes
            // short shifts.
            unsafe { leaf.positions(op, rows, out.as_mut_ptr(), count, step) };
            top += stride[0];
        }
        true
    }
}
