//! Windows of a map, written interleaved: four bytes (or eight) of the first window, of the second, and so on, so that a vector
//! holds the same places of four (or two) windows.

use core::arch::aarch64::{
    int8x16_t, int8x16x3_t, int32x4_t, int32x4x4_t, int64x2x2_t, vdupq_n_s8, vdupq_n_s32, vdupq_n_s64, vld1q_lane_s32,
    vld1q_lane_s64, vld1q_s8, vld1q_u8, vqtbl3q_s8, vreinterpretq_s32_s8, vreinterpretq_s32_s64, vreinterpretq_s64_s8,
    vreinterpretq_s64_s32, vst1q_s32, vst1q_s64, vst2q_s64, vst4q_s32, vzip1q_s32, vzip1q_s64, vzip2q_s32, vzip2q_s64,
};

use super::conv::next;
use crate::conv::{Conv, gather, row_len};

/// Windows in a vector.
pub(super) const fn interleaved(unit: usize) -> usize {
    16 / unit
}

/// Windows of one group, in the order of the output.
pub(super) struct Walk<'a, const UNIT: usize> {
    op: &'a Conv<'a>,
    input: &'a [i8],
    /// Channels of the group, and its first one.
    channels: usize,
    channel: usize,
    reading: Reading,
}

/// How windows are read.
enum Reading {
    /// In place: pixels are whole units.
    Units,
    /// At most three lines of at most 16 bytes: where each byte of the window is in three vectors, one for a line.
    Lines([[u8; 16]; 2]),
    /// Gathered one by one.
    Rows,
}

impl<'a, const UNIT: usize> Walk<'a, UNIT> {
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn new(op: &'a Conv<'a>, group: usize, input: &'a [i8]) -> Self {
        let channels = usize::from(op.input.channels) / usize::from(op.groups);
        let [rows, columns] = op.window.kernel.map(usize::from);
        let line = columns * channels;
        let reading = if op.groups == 1 && channels.is_multiple_of(UNIT) {
            Reading::Units
        } else if op.groups == 1 && UNIT == 4 && rows <= 3 && line <= 16 && rows * line <= 32 {
            let mut places = [[u8::MAX; 16]; 2];
            for at in 0..rows * line {
                places[at / 16][at % 16] = (16 * (at / line) + at % line) as u8;
            }
            Reading::Lines(places)
        } else {
            Reading::Rows
        };
        Self { op, input, channels, channel: group * channels, reading }
    }

    /// Writes the windows from `position` on, as many as a vector holds. `place` is that many rows, `plain` one.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn write(&self, position: usize, place: &mut [i8], plain: &mut [i8]) {
        let op = self.op;
        let width = usize::from(op.output.width);
        let (mut y, mut x) = (position / width, position % width);
        if matches!(self.reading, Reading::Units) && self.neighbours(y, x, place) {
            return;
        }
        let mut starts = [[0; 2]; 4];
        for start in starts.iter_mut().take(interleaved(UNIT)) {
            *start = op.window.start(y, x);
            x += 1;
            if x == width {
                (y, x) = (y + 1, 0);
            }
        }
        match &self.reading {
            Reading::Units => self.units(&starts, place),
            Reading::Lines(places) => self.lines(&starts, places, place, plain),
            Reading::Rows => {
                for (lane, &start) in starts.iter().enumerate().take(interleaved(UNIT)) {
                    gather(op, self.channel, self.channels, self.input, start, plain);
                    let units = place.as_chunks_mut::<UNIT>().0.iter_mut().skip(lane).step_by(interleaved(UNIT));
                    plain.as_chunks::<UNIT>().0.iter().zip(units).for_each(|(unit, to)| *to = *unit);
                }
            }
        }
    }

    /// Where a window that lies inside the map begins in it.
    #[inline]
    fn inside(&self, start: [isize; 2], columns: usize) -> Option<usize> {
        let op = self.op;
        // A start in the padding is a huge number here.
        let [top, left] = start.map(|at| at as usize);
        let (height, width) = (usize::from(op.input.height), usize::from(op.input.width));
        let rows = usize::from(op.window.kernel[0]);
        let inside = top < height && rows <= height - top && left < width && columns <= width - left;
        inside.then(|| (top * width + left) * self.channels)
    }

    /// Bytes from one row of the map to the next.
    #[inline]
    fn pitch(&self) -> usize {
        usize::from(self.op.input.width) * self.channels
    }

    /// Windows that all lie inside the map, one beside the other; false if they do not.
    #[inline]
    #[target_feature(enable = "neon")]
    fn neighbours(&self, y: usize, x: usize, place: &mut [i8]) -> bool {
        let (op, lanes) = (self.op, interleaved(UNIT));
        let step = usize::from(op.window.stride[1]);
        let columns = usize::from(op.window.kernel[1]);
        let first = if op.window.is_point() {
            // They follow each other from row to row.
            (y * usize::from(op.input.width) + x) * self.channels
        } else if x + lanes <= usize::from(op.output.width) {
            let Some(first) = self.inside(op.window.start(y, x), (lanes - 1) * step + columns) else { return false };
            first
        } else {
            return false;
        };
        let step = step * self.channels;
        self.interleave([first, first + step, first + 2 * step, first + 3 * step], place)
    }

    /// Windows of which some touch the padding.
    #[inline]
    #[target_feature(enable = "neon")]
    fn units(&self, starts: &[[isize; 2]; 4], place: &mut [i8]) {
        let lanes = interleaved(UNIT);
        let places = starts.map(|start| self.inside(start, self.op.window.kernel[1].into()));
        if let Some(some) = places.into_iter().take(lanes).flatten().next() {
            // Those that touch it are overwritten.
            self.interleave(places.map(|place| place.unwrap_or(some)), place);
        }
        for (lane, (&start, found)) in starts.iter().zip(places).enumerate().take(lanes) {
            if found.is_none() {
                self.edge(start, lane, place);
            }
        }
    }

    /// One window of a vector, padding included.
    #[inline]
    fn edge(&self, [top, left]: [isize; 2], lane: usize, place: &mut [i8]) {
        let op = self.op;
        let [rows, columns] = op.window.kernel.map(usize::from);
        let (height, width) = (usize::from(op.input.height), usize::from(op.input.width));
        let pixel = self.channels / UNIT;
        let padding = [op.input_zero; UNIT];
        let mut units = place.as_chunks_mut::<UNIT>().0.iter_mut().skip(lane).step_by(interleaved(UNIT));
        let before = (-left).clamp(0, columns as isize) as usize;
        let to = (width as isize - left).clamp(before as isize, columns as isize) as usize;
        for row in 0..rows {
            let y = top.wrapping_add_unsigned(row) as usize;
            if y >= height || before == to {
                units.by_ref().take(columns * pixel).for_each(|unit| *unit = padding);
                continue;
            }
            let from = y * self.pitch() + left.wrapping_add_unsigned(before) as usize * self.channels;
            let line = self.input.get(from..from + (to - before) * self.channels).unwrap_or_default();
            units.by_ref().take(before * pixel).for_each(|unit| *unit = padding);
            // The line ends first: an iterator of units that is asked once more would lose one.
            line.as_chunks::<UNIT>().0.iter().zip(units.by_ref()).for_each(|(from, unit)| *unit = *from);
            units.by_ref().take((columns - to) * pixel).for_each(|unit| *unit = padding);
        }
    }

    /// Short lines: three vectors of a window's lines to two of the window.
    #[inline]
    #[target_feature(enable = "neon")]
    fn lines(&self, starts: &[[isize; 2]; 4], places: &[[u8; 16]; 2], place: &mut [i8], plain: &mut [i8]) {
        let op = self.op;
        let [rows, columns] = op.window.kernel.map(usize::from);
        // SAFETY: 16 bytes each.
        let [low, high] = places.each_ref().map(|places| unsafe { vld1q_u8(places.as_ptr()) });
        let mut halves = [[vdupq_n_s8(0); 4]; 2];
        for (lane, &start) in starts.iter().enumerate() {
            let lines = self.inside(start, columns).and_then(|first| {
                let line = |row: usize| self.input.get(first + row.min(rows - 1) * self.pitch()..)?.first_chunk::<16>();
                Some([line(0)?, line(1)?, line(2)?])
            });
            let window = if let Some(lines) = lines {
                // SAFETY: 16 bytes each.
                let [a, b, c] = lines.map(|line| unsafe { vld1q_s8(line.as_ptr()) });
                let lines = int8x16x3_t(a, b, c);
                [vqtbl3q_s8(lines, low), vqtbl3q_s8(lines, high)]
            } else {
                gather(op, self.channel, self.channels, self.input, start, plain);
                let mut bytes = [0; 32];
                bytes.iter_mut().zip(&*plain).for_each(|(to, from)| *to = *from);
                // SAFETY: 16 bytes each.
                unsafe { [vld1q_s8(bytes.as_ptr()), vld1q_s8(bytes.as_ptr().wrapping_add(16))] }
            };
            halves[0][lane] = window[0];
            halves[1][lane] = window[1];
        }
        let words = row_len(op.window.kernel, self.channels) / 4;
        let vectors = halves.map(|rows| transposed(rows));
        for (vector, to) in vectors.as_flattened().iter().take(words).zip(place.as_chunks_mut::<16>().0) {
            // SAFETY: 16 bytes.
            unsafe { vst1q_s32(to.as_mut_ptr().cast(), *vector) };
        }
    }

    /// Windows inside the map that begin at `first`; false if one does not lie there.
    #[inline]
    #[target_feature(enable = "neon")]
    fn interleave(&self, first: [usize; 4], place: &mut [i8]) -> bool {
        let lanes = interleaved(UNIT);
        let [rows, columns] = self.op.window.kernel.map(usize::from);
        let line = columns * self.channels;
        let down = (rows - 1) * self.pitch() + line;
        if first.iter().take(lanes).any(|first| first + down > self.input.len()) || place.len() < rows * lanes * line {
            return false;
        }
        let mut sources = first.map(|first| self.input.as_ptr().wrapping_add(first));
        let mut to = place.as_mut_ptr();
        for _ in 0..rows {
            // SAFETY: `line` bytes of each source lie in the map, `place` has room for all; a line is whole units.
            unsafe { interleave::<UNIT>(sources, line, to) };
            sources = sources.map(|source| source.wrapping_add(self.pitch()));
            to = to.wrapping_add(lanes * line);
        }
        true
    }
}

/// Interleaves runs of `len` bytes.
///
/// # Safety
/// There are 16 / `UNIT` runs, and room for them; `len` is a multiple of `UNIT`, 4 or 8.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn interleave<const UNIT: usize>(mut from: [*const i8; 4], len: usize, mut to: *mut i8) {
    for _ in 0..len / 16 {
        let [a, b, c, d] = &mut from;
        if UNIT == 4 {
            // SAFETY: 16 bytes of each run.
            let four = unsafe { [next(a), next(b), next(c), next(d)].map(|run| vreinterpretq_s32_s8(run)) };
            // SAFETY: four times 16 bytes, of the room for the runs.
            unsafe { vst4q_s32(to.cast(), int32x4x4_t(four[0], four[1], four[2], four[3])) };
            to = to.wrapping_add(64);
        } else {
            // SAFETY: 16 bytes of both runs.
            let two = unsafe { [next(a), next(b)].map(|run| vreinterpretq_s64_s8(run)) };
            // SAFETY: 32 bytes of the room.
            unsafe { vst2q_s64(to.cast(), int64x2x2_t(two[0], two[1])) };
            to = to.wrapping_add(32);
        }
    }
    for _ in 0..len % 16 / UNIT {
        if UNIT == 4 {
            let mut words = vdupq_n_s32(0);
            // SAFETY: four bytes of each run.
            unsafe {
                words = vld1q_lane_s32::<0>(from[0].cast(), words);
                words = vld1q_lane_s32::<1>(from[1].cast(), words);
                words = vld1q_lane_s32::<2>(from[2].cast(), words);
                words = vld1q_lane_s32::<3>(from[3].cast(), words);
            }
            // SAFETY: 16 bytes of the room.
            unsafe { vst1q_s32(to.cast(), words) };
        } else {
            // SAFETY: eight bytes of both runs, 16 of the room.
            unsafe {
                let low = vld1q_lane_s64::<0>(from[0].cast(), vdupq_n_s64(0));
                vst1q_s64(to.cast(), vld1q_lane_s64::<1>(from[1].cast(), low));
            }
        }
        from = from.map(|run| run.wrapping_add(UNIT));
        to = to.wrapping_add(16);
    }
}

/// Four rows of four words to four columns.
#[inline]
#[target_feature(enable = "neon")]
fn transposed(rows: [int8x16_t; 4]) -> [int32x4_t; 4] {
    let [a, b, c, d] = rows.map(|row| vreinterpretq_s32_s8(row));
    let ab = [vzip1q_s32(a, b), vzip2q_s32(a, b)].map(|pairs| vreinterpretq_s64_s32(pairs));
    let cd = [vzip1q_s32(c, d), vzip2q_s32(c, d)].map(|pairs| vreinterpretq_s64_s32(pairs));
    [vzip1q_s64(ab[0], cd[0]), vzip2q_s64(ab[0], cd[0]), vzip1q_s64(ab[1], cd[1]), vzip2q_s64(ab[1], cd[1])]
        .map(|column| vreinterpretq_s32_s64(column))
}
