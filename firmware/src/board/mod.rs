//! What a board supplies: a clock, the sizes of the program, the cause of a fault.

#[cfg(feature = "mps2-an386")]
mod mps2_an386;

#[cfg(feature = "mps2-an386")]
pub use mps2_an386::{Clock, Sizes, fault_status, sizes, stack_high_water};
