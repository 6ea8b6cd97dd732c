//! What a sparse detector's head computes beside layers: `docs/detector.md` has the arithmetic, section "Integers".
//!
//! Lengths are 1/16 pixel, logarithms Q12 of a length in 1/16 pixel, logits and offsets Q12.

mod fixed;

pub use fixed::{cosine, exp2, log2, sigmoid, sine};
