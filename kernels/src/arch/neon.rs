//! AArch64 with dot products (Armv8.2-A and later): SDOT adds 16 products of bytes to four sums of 32 bits, exactly.
//!
//! Stable Rust has no intrinsics for SDOT and SMMLA yet; two lines of assembly stand for them, the rest are intrinsics.
//! A core without dot products, such as a Cortex-A53 or A72, runs the portable bodies.
#![allow(unsafe_code)]

mod add;
mod attention;
mod conv;
mod dense;
mod depthwise;
mod features;
mod layer_norm;
mod matrix;
mod pack;
mod pool;
mod product;
mod rescale;
mod softmax;
mod strip;

use crate::add::Add;
use crate::attention::{Attention, ROWS, Rows};
use crate::conv::{Conv, Packing, row_by_blocks};
use crate::isa::Isa;
use crate::layer_norm::{LayerNorm, Row};
use crate::pool::Pool;

pub(super) use features::has_matrix_product;

/// A CPU with the dot products of bytes.
#[derive(Clone, Copy, Debug)]
pub struct Neon(());

impl Neon {
    /// A proof that the CPU has SDOT, if it has.
    #[must_use]
    pub fn new() -> Option<Self> {
        features::has_dot_product().then_some(Self(()))
    }
}

/// [`Isa::conv`] with matrix products, of short shifts.
///
/// # Safety
/// The CPU has SMMLA and SDOT.
#[inline]
pub(super) unsafe fn matrix_conv(op: &Conv<'_>, input: &[i8], output: &mut [i8], scratch: &mut [i8]) -> bool {
    // SAFETY: SMMLA is what these tiles need.
    let products = conv::Products {
        unit: 8,
        packs: [pack::pairs, pack::pairs_of_blocks],
        tiles: [matrix::narrow_tiles, matrix::tiles],
    };
    unsafe { conv::conv(&products, op, input, output, scratch) }
}

#[target_feature(enable = "dotprod")]
fn with_dot_product<R>(body: impl FnOnce() -> R) -> R {
    body()
}

impl Isa for Neon {
    const NAME: &'static str = "neon";
    const PACKING: Packing = Packing::Blocks;

    #[inline(always)]
    fn enter<R>(self, body: impl FnOnce() -> R) -> R {
        // SAFETY: `self` proves SDOT.
        unsafe { with_dot_product(body) }
    }

    #[inline(always)]
    fn conv(self, op: &Conv<'_>, input: &[i8], output: &mut [i8], scratch: &mut [i8], short: bool) -> bool {
        if !short {
            return false;
        }
        // SAFETY: `self` proves SDOT, which is what these tiles need.
        let products = conv::Products {
            unit: 4,
            packs: [pack::words, pack::blocks],
            tiles: [product::narrow_tiles, product::tiles],
        };
        unsafe { conv::conv(&products, op, input, output, scratch) }
    }

    #[inline(always)]
    fn depthwise(self, op: &Conv<'_>, input: &[i8], output: &mut [i8], short: bool) -> bool {
        // SAFETY: `self` proves SDOT.
        short && unsafe { depthwise::depthwise(op, input, output) }
    }

    #[inline(always)]
    fn pool(self, op: &Pool, input: &[i8], output: &mut [i8]) -> bool {
        // SAFETY: `self` proves NEON.
        unsafe { pool::pool(op, input, output) }
    }

    #[inline(always)]
    fn add(self, op: &Add, a: &[i8], b: &[i8], output: &mut [i8]) -> usize {
        // SAFETY: `self` proves NEON.
        unsafe { add::add(op, a, b, output) }
    }

    #[inline(always)]
    fn add_in_place(self, op: &Add, a_and_output: &mut [i8], b: &[i8]) -> usize {
        // SAFETY: `self` proves NEON.
        unsafe { add::add_in_place(op, a_and_output, b) }
    }

    #[inline(always)]
    fn softmax_row(self, row: &mut [i8]) {
        // SAFETY: `self` proves NEON.
        unsafe { softmax::row(row) }
    }

    #[inline(always)]
    fn put(self, op: &Attention<'_>, row: &mut [i8], sums: [i32; 4]) {
        // SAFETY: `self` proves NEON.
        unsafe { attention::put(op, row, sums) }
    }

    #[inline(always)]
    fn moments(self, row: &[i8]) -> (i32, u64) {
        // SAFETY: `self` proves NEON.
        unsafe { layer_norm::moments(row) }
    }

    #[inline(always)]
    fn normalise(self, op: &LayerNorm<'_>, row: Row, input: &[i8], output: &mut [i8]) {
        // SAFETY: `self` proves NEON.
        unsafe { layer_norm::normalise(op, row, input, output) }
    }

    #[inline(always)]
    fn mix(self, weights: [&[[i8; 2]]; ROWS], values: &Rows<'_>, channel: usize) -> [[i32; 16]; ROWS] {
        // SAFETY: `self` proves NEON.
        unsafe { attention::mix(weights, values, channel) }
    }

    #[inline(always)]
    fn dot_2x4(self, rows: [&[i8]; 2], weights: [&[u8]; 4]) -> [[i32; 4]; 2] {
        // SAFETY: `self` proves SDOT.
        unsafe { product::dot_2x4(rows, weights) }
    }

    #[inline(always)]
    fn row_in_blocks(self, op: &Conv<'_>, row: &[i8], out: &mut [i8]) {
        // SAFETY: `self` proves SDOT.
        row_by_blocks(self, op, row, out, |block| unsafe { product::dot_16(row, block) });
    }

    #[inline(always)]
    fn dot(self, row: &[i8], weights: &[u8]) -> i32 {
        // SAFETY: `self` proves SDOT.
        unsafe { product::dot(row, weights) }
    }
}
