//! Windows of a group as lines of bytes: in the map itself, or in a copy of a band of it that has the padding.

use core::arch::aarch64::{int8x16_t, vdupq_n_s8, vst1q_s8};
use core::ops::Range;

use super::conv::ROWS;
use super::product::next;
use crate::arch::line::Line;
use crate::conv::Conv;

/// Bytes that a band should not exceed: its windows are read again for each block of channels.
const BAND: usize = 32 << 10;
/// Bytes behind a copy: vectors are written whole, and the last line of a window may be read to a whole unit.
const BEHIND: usize = 16;

/// How the windows of a group lie in a band.
pub(super) struct Strip<'a> {
    op: &'a Conv<'a>,
    /// Windows lie inside the map, and their lines are whole units: nothing is copied.
    in_place: bool,
    /// Channels of the group.
    channels: usize,
    /// Columns of the map that the windows of a row of the output reach.
    across: usize,
    /// Rows of the output in a band.
    rows: usize,
    /// Bytes of a line of a window, whole units.
    line: usize,
}

/// The windows of some positions, row by row.
#[derive(Clone, Copy)]
pub(super) struct Windows {
    first: *const i8,
    /// Positions, at least [`ROWS`].
    pub(super) count: usize,
    /// Positions of a row of the output, and bytes from one row, and from one position, to the next.
    width: usize,
    steps: [usize; 2],
    /// Lines of a window, bytes of a line in whole units, and bytes from one line to the next.
    pub(super) lines: usize,
    pub(super) line: usize,
    pub(super) pitch: usize,
}

impl<'a> Strip<'a> {
    /// For products of `unit` bytes of a line; the output has [`ROWS`] positions or more.
    pub(super) fn new(op: &'a Conv<'a>, unit: usize) -> Self {
        let channels = usize::from(op.input.channels) / usize::from(op.groups);
        let [lines, columns] = op.window.kernel.map(usize::from);
        let [down, right] = op.window.stride.map(usize::from);
        let (height, width) = (usize::from(op.output.height), usize::from(op.output.width));
        let (along, across) = ((height - 1) * down + lines, (width - 1) * right + columns);
        let inside = along <= op.input.height.into() && across <= op.input.width.into() && op.window.pad[..2] == [0; 2];
        let in_place = inside && op.groups == 1 && (columns * channels).is_multiple_of(unit);
        let line = (columns * channels).next_multiple_of(unit);
        let mut strip = Self { op, in_place, channels, across, rows: ROWS.div_ceil(width), line };
        let more = BAND.saturating_sub(strip.bytes()) / (down * across * channels).max(1);
        strip.rows += more;
        if more > ROWS {
            // Whole tiles, where there is a choice.
            strip.rows -= strip.rows % ROWS;
        }
        strip.rows = strip.rows.min(height);
        strip
    }

    /// Lines that the windows of a band reach.
    fn lines(&self) -> usize {
        (self.rows - 1) * usize::from(self.op.window.stride[0]) + usize::from(self.op.window.kernel[0])
    }

    fn bytes(&self) -> usize {
        self.lines() * self.across * self.channels + BEHIND
    }

    /// Bytes of room that a band needs.
    pub(super) fn need(&self) -> usize {
        if self.in_place { 0 } else { self.bytes() }
    }

    /// Bytes of weights that a channel has, with lines of whole units.
    pub(super) fn depth(&self) -> usize {
        usize::from(self.op.window.kernel[0]) * self.line
    }

    /// Rows of the output at which bands begin; the last may begin before the one before it ends.
    pub(super) fn bands(&self) -> impl Iterator<Item = usize> + use<> {
        let (rows, last) = (self.rows, usize::from(self.op.output.height) - self.rows);
        (0..=last.div_ceil(rows)).map(move |band| last.min(band * rows))
    }

    /// The windows of the band from row `top` on, of the group whose first channel is `channel`.
    ///
    /// # Safety
    /// There is room for [`Self::need`] bytes.
    #[target_feature(enable = "neon")]
    pub(super) unsafe fn windows(&self, input: &[i8], channel: usize, top: usize, room: *mut i8) -> Windows {
        let op = self.op;
        let [down, right] = op.window.stride.map(usize::from);
        let width = usize::from(op.output.width);
        let pitch = self.channels * if self.in_place { op.input.width.into() } else { self.across };
        let steps = [down * pitch, right * self.channels];
        let first = if self.in_place {
            input.as_ptr().wrapping_add(top * steps[0])
        } else {
            // SAFETY: the caller has the room.
            unsafe { self.copy(input, channel, top, room) };
            room
        };
        let (lines, line) = (op.window.kernel[0].into(), self.line);
        Windows { first, count: self.rows * width, width, steps, lines, line, pitch }
    }

    /// Copies the lines that the windows of a band reach, with the padding.
    ///
    /// # Safety
    /// There is room for [`Self::bytes`].
    #[target_feature(enable = "neon")]
    unsafe fn copy(&self, input: &[i8], channel: usize, top: usize, mut room: *mut i8) {
        let [top, left] = self.op.window.start(top, 0);
        for number in 0..self.lines() as isize {
            let columns = left..left + self.across as isize;
            // SAFETY: there are as many lines; what is written behind one is the next one's, or `BEHIND`.
            room = unsafe { self.copy_line(input, channel, top + number, columns, room) };
        }
        // SAFETY: `BEHIND` is a vector.
        unsafe { vst1q_s8(room, vdupq_n_s8(0)) };
    }

    /// Pixels of one line of the map, padding where there are none; returns where they end.
    ///
    /// # Safety
    /// There is room for the pixels, and for a vector behind.
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn copy_line(
        &self,
        input: &[i8],
        channel: usize,
        y: isize,
        columns: Range<isize>,
        mut to: *mut i8,
    ) -> *mut i8 {
        let op = self.op;
        let pitch = usize::from(op.input.channels);
        let Line { before, inside, after } = op.line(y, columns);
        let padding = vdupq_n_s8(op.input_zero);
        // SAFETY: pixels before, inside and after are those of `columns`; each has the channels of the group.
        unsafe {
            to = fill(padding, before * self.channels, to);
            if pitch == self.channels {
                to = copy(input.get(inside.start * pitch..inside.end * pitch).unwrap_or_default(), to);
            } else {
                for pixel in inside {
                    let at = pixel * pitch + channel;
                    to = copy(input.get(at..at + self.channels).unwrap_or_default(), to);
                }
            }
            fill(padding, after * self.channels, to)
        }
    }
}

/// Where the windows of tiles are: [`ROWS`] positions each, and the first of them.
pub(super) struct Tiles {
    windows: Windows,
    done: usize,
    /// Where the row of the next position begins, and its column.
    row: *const i8,
    column: usize,
}

impl Windows {
    pub(super) fn tiles(&self) -> Tiles {
        Tiles { windows: *self, done: 0, row: self.first, column: 0 }
    }
}

impl Tiles {
    /// The last ones again rather than a tile of less: the same inputs give the same outputs.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Option<(usize, [*const i8; ROWS])> {
        let Windows { count, width, steps: [down, right], first, .. } = self.windows;
        if self.done >= count {
            return None;
        }
        let start = self.done.min(count - ROWS);
        self.done += ROWS;
        let (mut row, mut column) = (self.row, self.column);
        if column + ROWS > width {
            if start + ROWS == count {
                (row, column) = (first.wrapping_add(start / width.max(1) * down), start % width.max(1));
            }
            let places = [0; ROWS].map(|_| {
                let place = row.wrapping_add(column * right);
                column += 1;
                if column == width {
                    (row, column) = (row.wrapping_add(down), 0);
                }
                place
            });
            (self.row, self.column) = (row, column);
            return Some((start, places));
        }
        let place = row.wrapping_add(column * right);
        self.column += ROWS;
        if self.column == width {
            (self.row, self.column) = (row.wrapping_add(down), 0);
        }
        Some((start, [0, 1, 2, 3].map(|next| place.wrapping_add(next * right))))
    }
}

/// Writes the bytes; returns where they end.
///
/// # Safety
/// There is room for them, and for a vector behind.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn copy(bytes: &[i8], to: *mut i8) -> *mut i8 {
    let (vectors, rest) = bytes.as_chunks::<16>();
    let (mut from, mut at) = (vectors.as_ptr().cast(), to);
    for _ in vectors {
        // SAFETY: 16 bytes of both.
        unsafe { vst1q_s8(at, next(&mut from)) };
        at = at.wrapping_add(16);
    }
    for &byte in rest {
        // SAFETY: a byte of both.
        unsafe { at.write(byte) };
        at = at.wrapping_add(1);
    }
    at
}

/// Writes the same value `count` times; returns where it ends.
///
/// # Safety
/// As [`copy`].
#[inline]
#[target_feature(enable = "neon")]
unsafe fn fill(values: int8x16_t, count: usize, to: *mut i8) -> *mut i8 {
    for at in (0..count).step_by(16) {
        // SAFETY: as the caller promises.
        unsafe { vst1q_s8(to.wrapping_add(at), values) };
    }
    to.wrapping_add(count)
}
