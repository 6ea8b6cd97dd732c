//! The image: the bytes that are written to flash and hold a whole family of networks.
//!
//! ```text
//! header | section table | sections …
//!   meta      one record: input, output, arena, where labels and the self test are
//!   cuts      where a path may be left and entered; one quantisation each
//!   tensors   activations and scratch of each segment, with their place in the arena
//!   ops       what is computed, 64 bytes each
//!   segments  blocks and stitches: a range of ops and a range of tensors, from cut to cut
//!   configs   paths: a range of the path list, a range of overlays, cost, score
//!   path      segment numbers
//!   overlays  other biases for an op, for one config
//!   data      weights, biases, requantisation, names, tables: used in place
//! ```
//!
//! Everything is little-endian and of fixed length, offsets are `u32` and there is no pointer. [`Image::parse`]
//! checks every rule of `docs/image-format.md` once; after that no accessor fails. An op is a straight line,
//! there is no jump: running an image ends.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(feature = "alloc", allow(clippy::missing_panics_doc))]
#![deny(clippy::float_arithmetic, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

#[cfg(any(test, feature = "alloc"))]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod bytes;
mod error;
mod image;
pub mod layout;
mod record;
#[cfg(any(test, feature = "alloc"))]
#[allow(clippy::expect_used)]
pub mod sample;
pub mod stream;
mod validate;
#[cfg(any(test, feature = "alloc"))]
mod write;

pub use bytes::{checksum, crc32, seal};
pub use error::{ImageError, Rule, Section};
pub use image::{ConfigName, Image};
pub use record::{
    Attention, Config, ConfigId, Cost, Cut, CutId, Element, Generator, Meta, Mixing, Op, OpId, OpKind, Overlay, Range,
    Run, Sampling, Segment, SegmentId, SegmentKind, Target, TargetId, Tensor, TensorId,
};
#[cfg(any(test, feature = "alloc"))]
pub use write::ImageWriter;
