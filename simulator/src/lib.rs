//! The runtime on files and virtual time: what a device would do under a changing budget, on a desktop.
//!
//! This is the runtime's own frame loop with another [`runtime::Platform`]. Its clock does not measure: it adds
//! up the image's cost table, segment by segment, and now and then time that another task stole. So a replay
//! gives the same rows on every machine.
//!
//! ```text
//! Trace (budget per frame) ──┐
//! images and labels ─────────┼─► replay ──► Replay: one Row per frame, Summary, CSV
//! Theft (seed) ──────────────┘
//! ```
#![forbid(unsafe_code)]

mod faults;
mod platform;
mod replay;
mod trace;

pub use faults::Theft;
pub use platform::{Row, Virtual};
pub use replay::{Error, ImageSet, Replay, Summary, replay};
pub use trace::{Step, Trace, TraceError};
