//! int8 and int16 arithmetic: one generic body per op, a few leaf functions per instruction set.
//!
//! Contract, the same on every instruction set, bit for bit:
//! - activations are int8 or int16, weights int8, sums are `i32` and do not overflow (the image parser has checked it);
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
mod attention;
#[cfg(any(test, feature = "reference"))]
pub mod cases;
mod conv;
mod curve;
mod depthwise;
mod element;
pub mod head;
mod isa;
mod layer_norm;
mod movement;
mod pool;
#[cfg(any(test, feature = "reference"))]
pub mod reference;
mod requant;
mod rescale;
mod shape;
mod softmax;

pub use add::{Add, add, add_constant, add_in_place};
pub use attention::{Attention, Heads, attention, attention_scratch};
pub use conv::{Conv, Packing, conv, conv_scratch};
pub use curve::curve;
pub use depthwise::{depthwise, depthwise_scratch};
pub use element::Element;
pub use head::{mix_scratch, suppress_scratch};
pub use isa::{Isa, Level};
pub use layer_norm::{LayerNorm, layer_norm};
pub use movement::{Move, Roll, move_tensor, prepend, roll};
pub use pool::{Pool, PoolKind, pool};
pub use requant::Requant;
pub use rescale::{Rescale, rescale_tensor};
pub use shape::{KernelError, Shape, Window};
pub use softmax::softmax;
