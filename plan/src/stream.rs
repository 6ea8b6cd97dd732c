//! Streams: ops that follow one another and run strip by strip, so that a map between two of them is never there whole.
//!
//! ```text
//! expand ─► rows ─► depthwise ─► rows ─► project ─► map
//!            ▲ the depthwise one has used the first: they are dropped, the rest moves up, expand goes on
//! ```
//!
//! An op with the flag [`crate::layout::STREAMED`] hands its output to the op behind it; the tensor has the rows that are held
//! at once, at least a window of them. How many rows there are in all follows from the windows. Maps of one row, such as tokens,
//! are streamed by columns: [`axis`].

use crate::record::{Op, OpKind, Tensor};

/// The side along which a stream that begins with this map runs: 0 for rows, 1 for columns.
#[must_use]
pub fn axis(input: &Tensor) -> usize {
    usize::from(input.shape[0] == 1)
}

/// Whether the last op of a stream may write each line where the first has read it: when line `r` is written, the first op has done
/// line `r` and so many more as the windows behind it reach forward, and no window of those to come reaches as far back.
pub fn stays_ahead(mut reaches: impl Iterator<Item = Option<Reach>>) -> bool {
    let Some(Some(first)) = reaches.next() else { return false };
    let ahead = reaches.try_fold(0, |ahead, reach| {
        let reach = reach.filter(|reach| reach.stride == 1)?;
        Some(ahead + reach.kernel.saturating_sub(1 + reach.before))
    });
    first.stride == 1 && ahead.is_some_and(|ahead| ahead >= first.before)
}

/// What an op reads along one side of a map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Lines of a window.
    pub kernel: usize,
    /// From one window to the next, at least 1.
    pub stride: usize,
    /// Padding before the map.
    pub before: usize,
    /// Padding behind the map.
    pub after: usize,
}

/// The lines that some windows read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reads {
    /// First line on the map.
    pub first: usize,
    /// The line behind the last one on the map.
    pub end: usize,
    /// Lines of padding before them.
    pub before: usize,
    /// Lines of padding behind them.
    pub after: usize,
}

impl Reach {
    const POINT: Self = Self { kernel: 1, stride: 1, before: 0, after: 0 };

    /// Along `axis`; none for an op that cannot be part of a stream.
    #[must_use]
    pub fn of(op: &Op, axis: usize) -> Option<Self> {
        let side = |pair: [u8; 2]| usize::from(pair[axis.min(1)]);
        let [top, left, bottom, right] = op.pad;
        match op.kind {
            OpKind::Conv | OpKind::Depthwise | OpKind::AveragePool | OpKind::MaxPool => Some(Self {
                kernel: side(op.kernel),
                stride: side(op.stride).max(1),
                before: side([top, left]),
                after: side([bottom, right]),
            }),
            OpKind::Add if op.input2 != op.input && op.input2.0 != crate::layout::NO_TENSOR => Some(Self::POINT),
            OpKind::LayerNorm | OpKind::Curve | OpKind::Rescale => Some(Self::POINT),
            _ => None,
        }
    }

    /// Windows on a map of `lines`.
    #[must_use]
    pub fn outputs(&self, lines: usize) -> usize {
        (lines + self.before + self.after).checked_sub(self.kernel).map_or(0, |rest| rest / self.stride + 1)
    }

    /// Windows of which every line is there when the first `lines` of a map are, and more follow.
    #[must_use]
    pub fn ready(&self, lines: usize) -> usize {
        (lines + self.before).checked_sub(self.kernel).map_or(0, |rest| rest / self.stride + 1)
    }

    /// First line on the map that window `output` and those behind it read.
    #[must_use]
    pub fn first(&self, output: usize) -> usize {
        (output * self.stride).saturating_sub(self.before)
    }

    /// What the windows from `first` to before `end`, at least one, read of a map of `lines`.
    #[must_use]
    pub fn reads(&self, first: usize, end: usize, lines: usize) -> Reads {
        let behind = end.saturating_sub(1) * self.stride + self.kernel;
        Reads {
            first: self.first(first),
            end: behind.saturating_sub(self.before).min(lines),
            before: self.before.saturating_sub(first * self.stride),
            after: behind.saturating_sub(self.before + lines),
        }
    }
}
