//! The runtime on files and virtual time: what a device would do under a changing budget, on a desktop.
//!
//! This is the runtime's own frame loop with another [`runtime::Platform`]. Its clock does not measure: it adds
//! up the image's cost table, segment by segment, and what faults add to it. So a replay gives the same rows on every
//! machine.
//!
//! ```text
//! Scenario (budget per frame) ─┐
//! images and labels ───────────┼─► replay ──► Replay: one Row per frame, Summary, CSV
//! Faults (seed) ───────────────┤   watch ───► segment by segment, nothing kept
//! Strategy (who decides) ──────┘
//! ```
#![forbid(unsafe_code)]

mod faults;
mod memory;
mod platform;
mod replay;
mod scenario;
mod strategy;
mod trace;
mod view;

pub use faults::{Draw, Faults};
pub use memory::PolicyMemory;
pub use platform::{Row, Switch, Watch};
pub use replay::{Error, ImageSet, Replay, Setup, Summary, replay, watch};
pub use scenario::{Conditions, Scenario};
pub use strategy::Strategy;
pub use trace::{Step, Trace, TraceError};
pub use view::View;
