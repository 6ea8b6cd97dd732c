//! int8 arithmetic: one generic body per op, a few leaf functions per instruction set.
//!
//! Contract, the same on every instruction set, bit for bit:
//! - activations and weights are int8, sums are `i32` and do not overflow (the image parser has checked it);
//! - no instruction saturates an intermediate;
//! - one rounding rule, [`Requant::apply`].
//!
//! | op | scalar | avx2 | vnni | dsp |
//! |---|---|---|---|---|
//! | [`conv`] | yes | yes | yes | yes; the body of pairs for other rescales or less scratch |
//! | [`depthwise`] | yes | the scalar sums, compiled for AVX2; its own requantisation | as avx2 | 3x3 and channels in fours; else the scalar body |
//! | [`add`] | yes | the scalar body, compiled for AVX2 | as avx2 | yes |
//! | [`pool`] | yes | the scalar body, compiled for AVX2 | as avx2 | the scalar body |
//! | [`move_tensor`] | yes | scalar | scalar | scalar |
//!
//! Maps are `[H, W, C]`, row-major, channels last. Every op checks the lengths of its slices once.
#![no_std]
#![deny(unsafe_code, clippy::float_arithmetic)]

mod add;
pub mod arch;
#[cfg(any(test, feature = "reference"))]
pub mod cases;
mod conv;
mod depthwise;
mod isa;
mod movement;
mod pool;
#[cfg(any(test, feature = "reference"))]
pub mod reference;
mod requant;
mod shape;

pub use add::{Add, add, add_in_place};
pub use conv::{Conv, conv, conv_scratch};
pub use depthwise::{depthwise, depthwise_scratch};
pub use isa::{Isa, Level};
pub use movement::{Move, move_tensor};
pub use pool::{Pool, PoolKind, pool};
pub use requant::Requant;
pub use shape::{KernelError, Shape, Window};
