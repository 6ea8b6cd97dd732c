//! Lines of a map with its padding, for instruction sets that copy them.

use core::ops::Range;

use crate::conv::Conv;

/// Pixels of a line of a map that has its padding.
pub(super) struct Line {
    /// Of padding before those on the map; all, where none is.
    pub before: usize,
    /// On the map: their places in it, in pixels.
    pub inside: Range<usize>,
    /// Of padding behind them.
    pub after: usize,
}

impl Conv<'_> {
    /// The pixels of `columns` of row `y` of the input; rows and columns beside the map are padding.
    #[inline(always)]
    pub(super) fn line(&self, y: isize, columns: Range<isize>) -> Line {
        let (height, width) = (self.input.height as isize, self.input.width as isize);
        let [start, end] = [columns.start, columns.end].map(|column| column.clamp(0, width));
        if !(0..height).contains(&y) || start >= end {
            return Line { before: columns.len(), inside: 0..0, after: 0 };
        }
        let place = |column: isize| (y * width + column) as usize;
        Line {
            before: (start - columns.start) as usize,
            inside: place(start)..place(end),
            after: (columns.end - end) as usize,
        }
    }
}
