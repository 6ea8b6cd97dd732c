//! Takes the way k: runs a config of an image under a budget.
//!
//! ```text
//! Image::parse(bytes) ──► Engine::new(isa, image, arena) ──► preprocess(pixels) ──► run_config(k) ──► scores
//!                                                       └──► run(engine, platform): the frame loop
//! ```
//!
//! [`Engine::step`] runs one segment, so a caller can yield between segments; at every cut it may change to a
//! config that shares the path so far ([`Engine::switch`]), which copies nothing. [`policy`] decides which.
//! No heap, no float, no clock of its own: time comes from [`Platform`].
#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::float_arithmetic, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod app;
mod arena;
mod budget;
mod engine;
mod error;
mod exec;
mod frame;
mod platform;
pub mod policy;
mod sort;

pub use app::run;
pub use budget::{Budget, Limit};
pub use engine::{Engine, Progress};
pub use error::RunError;
pub use exec::head::{Detection, detections};
pub use frame::{Frame, Outcome, Verdict};
pub use platform::{Event, Platform};
