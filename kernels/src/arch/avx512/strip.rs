//! A band of a map with its padding, each value as a [`Value`], so that each window is some lines of it.

use core::arch::x86_64::{
    __mmask32, _mm256_loadu_si256, _mm256_maskz_loadu_epi8, _mm512_cvtepi8_epi16, _mm512_mask_storeu_epi16,
    _mm512_set1_epi16, _mm512_storeu_si512,
};
use core::ops::Range;

use super::tile::{DEPTH, ROWS};
use crate::arch::line::Line;
use crate::arch::unsigned;
use crate::conv::Conv;

/// What a strip holds of a value of the map.
pub(in crate::arch) trait Value: Copy {
    /// Writes the values; returns where they end.
    ///
    /// # Safety
    /// The CPU has AVX-512; there is room for them.
    unsafe fn copy(values: &[i8], to: *mut Self) -> *mut Self;

    /// Writes a value `count` times; returns where they end.
    ///
    /// # Safety
    /// The CPU has AVX-512; there is room for them.
    unsafe fn fill(value: i8, count: usize, to: *mut Self) -> *mut Self;
}

/// The value itself.
impl Value for i16 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn copy(values: &[i8], mut to: *mut Self) -> *mut Self {
        let (blocks, rest) = unsigned(values).as_chunks::<32>();
        for block in blocks {
            // SAFETY: 32 bytes are read, and 32 values of the room are written; a vector may lie at any address.
            unsafe { _mm512_storeu_si512(to.cast(), _mm512_cvtepi8_epi16(_mm256_loadu_si256(block.as_ptr().cast()))) };
            to = to.wrapping_add(32);
        }
        let mask = mask(rest.len());
        // SAFETY: only lanes of the mask are read and written.
        unsafe {
            let values = _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(mask, rest.as_ptr().cast()));
            _mm512_mask_storeu_epi16(to, mask, values);
        }
        to.wrapping_add(rest.len())
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn fill(value: i8, count: usize, mut to: *mut Self) -> *mut Self {
        let values = _mm512_set1_epi16(value.into());
        for _ in 0..count / 32 {
            // SAFETY: 32 values of the room.
            unsafe { _mm512_storeu_si512(to.cast(), values) };
            to = to.wrapping_add(32);
        }
        // SAFETY: only lanes of the mask are written.
        unsafe { _mm512_mask_storeu_epi16(to, mask(count % 32), values) };
        to.wrapping_add(count % 32)
    }
}

/// Values behind a strip: what a last step reads behind the last window meets weights of 0.
const BEHIND: usize = DEPTH;

/// How the windows of one group lie in its strips.
pub(in crate::arch) struct Strip<'a> {
    pub(super) op: &'a Conv<'a>,
    /// Channels of the group.
    pub(super) channels: usize,
    /// Lines of a window, and values of a line. A window of one pixel is one line; its positions follow each other.
    pub(super) lines: usize,
    pub(super) line: usize,
    /// Values from one line to the next.
    pub(super) pitch: usize,
}

/// Where the windows of a band begin, one position after the other.
pub(super) struct Places {
    width: usize,
    column: usize,
    row: usize,
    /// From one column, and from one row, of the output to the next.
    steps: [usize; 2],
}

impl Places {
    #[inline]
    pub(super) fn next(&mut self) -> usize {
        let place = self.row * self.steps[0] + self.column * self.steps[1];
        self.column += 1;
        if self.column == self.width {
            (self.column, self.row) = (0, self.row + 1);
        }
        place
    }
}

impl<'a> Strip<'a> {
    pub(super) fn new(op: &'a Conv<'a>, channels: usize) -> Self {
        let [lines, columns] = op.window.kernel.map(usize::from);
        let across = (usize::from(op.output.width) - 1) * usize::from(op.window.stride[1]) + columns;
        Self { op, channels, lines, line: columns * channels, pitch: across * channels }
    }

    fn is_pixel(&self) -> bool {
        self.op.window.kernel == [1, 1]
    }

    /// Positions that `room` values are enough for: whole rows of the output, but for windows of a pixel.
    pub(super) fn band(&self, room: usize) -> Option<usize> {
        let room = room.checked_sub(BEHIND)?;
        if self.is_pixel() {
            let most = room / self.channels.max(1);
            return (most >= ROWS).then_some(most / ROWS * ROWS);
        }
        let more = (room / self.pitch.max(1)).checked_sub(self.lines)?;
        let rows = 1 + more.checked_div(self.op.window.stride[0].into()).unwrap_or(0);
        Some(rows * usize::from(self.op.output.width))
    }

    /// Values of a strip of `count` positions.
    pub(super) fn len(&self, count: usize) -> usize {
        if self.is_pixel() {
            return count * self.channels + BEHIND;
        }
        let rows = count / usize::from(self.op.output.width);
        ((rows - 1) * usize::from(self.op.window.stride[0]) + self.lines) * self.pitch + BEHIND
    }

    /// Of the positions from the band's first one on.
    pub(super) fn places(&self) -> Places {
        let [down, right] = self.op.window.stride.map(usize::from);
        if self.is_pixel() {
            return Places { width: usize::MAX, column: 0, row: 0, steps: [0, self.channels] };
        }
        let steps = [down * self.pitch, right * self.channels];
        Places { width: self.op.output.width.into(), column: 0, row: 0, steps }
    }

    /// Writes the strip of `count` positions from `start` on, channels from `channel` on.
    ///
    /// # Safety
    /// `count` is at most the band's, and there is room for a strip.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(super) unsafe fn fill<V: Value>(
        &self,
        input: &[i8],
        channel: usize,
        start: usize,
        count: usize,
        strip: *mut V,
    ) {
        let op = self.op;
        let width = usize::from(op.output.width);
        let mut to = strip;
        let same_map = [op.input.height, op.input.width] == [op.output.height, op.output.width];
        if op.window.is_point() && same_map && op.groups == 1 {
            let from = input.get(start * self.channels..(start + count) * self.channels).unwrap_or_default();
            // SAFETY: as many values as the positions have.
            to = unsafe { V::copy(from, to) };
        } else if self.is_pixel() {
            let (mut row, mut column) = (start / width, start % width);
            for _ in 0..count {
                let [top, left] = op.window.start(row, column);
                // SAFETY: a pixel of each position.
                to = unsafe { self.line(input, channel, top, left..left + 1, to) };
                column += 1;
                if column == width {
                    (row, column) = (row + 1, 0);
                }
            }
        } else {
            let [top, left] = op.window.start(start / width, 0);
            let across = (self.pitch / self.channels.max(1)) as isize;
            let lines = (count / width - 1) * usize::from(op.window.stride[0]) + self.lines;
            for number in 0..lines as isize {
                // SAFETY: as many lines as the rows of positions have.
                to = unsafe { self.line(input, channel, top + number, left..left + across, to) };
            }
        }
        // SAFETY: what is behind the strip.
        unsafe { V::fill(0, BEHIND, to) };
    }

    /// Pixels of one line of the map, padding where there are none; returns where they end.
    ///
    /// # Safety
    /// There is room for the pixels.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn line<V: Value>(
        &self,
        input: &[i8],
        channel: usize,
        y: isize,
        columns: Range<isize>,
        mut to: *mut V,
    ) -> *mut V {
        let op = self.op;
        let pitch = usize::from(op.input.channels);
        let Line { before, inside, after } = op.line(y, columns);
        // SAFETY: pixels before, inside and after are those of `columns`; each has the channels of the group.
        unsafe {
            to = V::fill(op.input_zero, before * self.channels, to);
            if pitch == self.channels {
                to = V::copy(input.get(inside.start * pitch..inside.end * pitch).unwrap_or_default(), to);
            } else {
                for pixel in inside {
                    let at = pixel * pitch + channel;
                    to = V::copy(input.get(at..at + self.channels).unwrap_or_default(), to);
                }
            }
            V::fill(op.input_zero, after * self.channels, to)
        }
    }
}

/// The first `count` lanes.
pub(super) fn mask(count: usize) -> __mmask32 {
    ((1u64 << count) - 1) as __mmask32
}
