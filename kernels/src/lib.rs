//! int8 arithmetic: one generic body per op, a few leaf functions per instruction set.
//!
//! Contract, the same on every instruction set, bit for bit:
//! - activations and weights are int8, sums are `i32` and do not overflow (the image parser has checked it);
//! - no instruction saturates an intermediate;
//! - one rounding rule, [`Requant::apply`].
//!
//! `docs/kernels.md` has a table of what each instruction set runs, and what it takes.
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
