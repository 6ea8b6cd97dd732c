//! What a sparse detector's head computes beside layers: `docs/detector.md` has the arithmetic, section "Integers".
//!
//! Lengths are 1/16 pixel, logits, offsets and logarithms Q12: integers with 12 fraction bits.

mod boxes;
mod dense;
mod fixed;
mod mixing;
mod position;
mod sample;

pub use boxes::{
    Anchor, Detection, INVALID, Limits, MOST_BOXES, Patch, Probing, Rect, Region, State, cap, decode, detect,
    overlap_bias, remaining,
};
pub use dense::{Suppression, suppress, suppress_scratch};
pub use fixed::{cosine, exp2, log2, sigmoid, sine};
pub use mixing::{GroupNorm, Mixing, mix, mix_scratch, narrow};
pub use position::position_code;
pub use sample::{MOST_MAPS, Map, PointSampling, RegionPool, pool_regions, sample_points};
