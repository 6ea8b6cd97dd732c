//! All that a board or a desktop must supply.

use plan::{ConfigId, CutId, SegmentId};

use crate::budget::Budget;
use crate::frame::Outcome;

/// What happened, for logs, virtual clocks and cost tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A segment was run. Sent before the clock is read.
    Segment {
        /// Which.
        segment: SegmentId,
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
    /// A hard limit of the frame excludes every config; nothing was run.
    Refused(crate::RunError),
}

/// A clock, a source of frames and a sink for reports.
pub trait Platform {
    /// Ticks since some start, in the unit of the target's costs. A clock that goes back is noticed: the segment is
    /// then charged its bound, and the outcome counts it.
    fn now(&mut self) -> u64;
    /// Microjoules since some start, if there is a meter. Without one the cost table is charged.
    fn energy_uj(&mut self) -> Option<u64> {
        None
    }
    /// How much slower than the target the core runs in the frame to come, in 1/256: 512 is half as fast, because it is
    /// hot, or to save energy. Costs stretch alike.
    fn slowdown_in_256(&mut self) -> u32 {
        256
    }
    /// Writes the next frame, int8 `[H, W, C]` already preprocessed, and gives its budget; `None` ends the loop.
    fn next_frame(&mut self, input: &mut [i8]) -> Option<Budget>;
    /// Takes the output of a frame that is done, before its report: int8 scores, or what [`crate::detections`] reads.
    fn answer(&mut self, _output: &[i8]) {}
    /// Takes a report.
    fn report(&mut self, event: &Event);
}
