//! All that a board or a desktop must supply.

use plan::{ConfigId, CutId, SegmentId};

use crate::app::Outcome;
use crate::budget::Budget;

/// What happened, for logs, virtual clocks and cost tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A segment was run.
    Segment {
        /// Which.
        segment: SegmentId,
        /// Its ticks in the cost table.
        predicted: u32,
    },
    /// At a cut the path changed.
    Switch {
        /// Where.
        cut: CutId,
        /// Config until here.
        from: ConfigId,
        /// Config from here.
        to: ConfigId,
    },
    /// A frame is done.
    Frame(Outcome),
    /// No config fits the frame's budget; nothing was run.
    Refused(crate::RunError),
}

/// A clock, a source of frames and a sink for reports.
pub trait Platform {
    /// Ticks since some start, never decreasing, in the unit of the image's cost table.
    fn now(&mut self) -> u64;
    /// Writes the next frame, int8 `[H, W, C]` already preprocessed, and gives its budget; `None` ends the loop.
    fn next_frame(&mut self, input: &mut [i8]) -> Option<Budget>;
    /// Takes a report.
    fn report(&mut self, event: &Event);
}
