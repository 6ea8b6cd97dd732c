//! AArch64 with dot products and matrix products of bytes (Armv8.6-A and later): SMMLA multiplies two windows with two rows of
//! weights, 32 products an instruction. What has no tile here is what a core with dot products has.
#![allow(unsafe_code)]

use super::neon::{self, Neon};
use crate::add::Add;
use crate::attention::{Attention, ROWS, Rows};
use crate::conv::{Conv, Packing};
use crate::isa::Isa;
use crate::layer_norm::{LayerNorm, Row};
use crate::pool::Pool;

/// A CPU with the matrix products of bytes, and the dot products with them.
#[derive(Clone, Copy, Debug)]
pub struct I8mm(Neon);

impl I8mm {
    /// A proof that the CPU has SMMLA and SDOT, if it has.
    #[must_use]
    pub fn new() -> Option<Self> {
        let neon = Neon::new()?;
        neon::has_matrix_product().then_some(Self(neon))
    }
}

impl Isa for I8mm {
    const NAME: &'static str = "i8mm";
    const PACKING: Packing = Packing::Blocks;

    #[inline(always)]
    fn enter<R>(self, body: impl FnOnce() -> R) -> R {
        self.0.enter(body)
    }

    #[inline(always)]
    fn conv(self, op: &Conv<'_>, input: &[i8], output: &mut [i8], scratch: &mut [i8], short: bool) -> bool {
        // SAFETY: `self` proves SMMLA and SDOT. Rows that are no whole eight bytes are left to SDOT.
        let done = short && unsafe { neon::matrix_conv(op, input, output, scratch) };
        done || self.0.conv(op, input, output, scratch, short)
    }

    #[inline(always)]
    fn depthwise(self, op: &Conv<'_>, input: &[i8], output: &mut [i8], short: bool) -> bool {
        self.0.depthwise(op, input, output, short)
    }

    #[inline(always)]
    fn pool(self, op: &Pool, input: &[i8], output: &mut [i8]) -> bool {
        self.0.pool(op, input, output)
    }

    #[inline(always)]
    fn add(self, op: &Add, a: &[i8], b: &[i8], output: &mut [i8]) -> usize {
        self.0.add(op, a, b, output)
    }

    #[inline(always)]
    fn add_in_place(self, op: &Add, a_and_output: &mut [i8], b: &[i8]) -> usize {
        self.0.add_in_place(op, a_and_output, b)
    }

    #[inline(always)]
    fn softmax_row(self, row: &mut [i8]) {
        self.0.softmax_row(row);
    }

    #[inline(always)]
    fn put(self, op: &Attention<'_>, row: &mut [i8], sums: [i32; 4]) {
        self.0.put(op, row, sums);
    }

    #[inline(always)]
    fn moments(self, row: &[i8]) -> (i32, u64) {
        self.0.moments(row)
    }

    #[inline(always)]
    fn normalise(self, op: &LayerNorm<'_>, row: Row, input: &[i8], output: &mut [i8]) {
        self.0.normalise(op, row, input, output);
    }

    #[inline(always)]
    fn mix(self, weights: [&[[i8; 2]]; ROWS], values: &Rows<'_>, channel: usize) -> [[i32; 16]; ROWS] {
        self.0.mix(weights, values, channel)
    }

    #[inline(always)]
    fn dot_2x4(self, rows: [&[i8]; 2], weights: [&[u8]; 4]) -> [[i32; 4]; 2] {
        self.0.dot_2x4(rows, weights)
    }

    #[inline(always)]
    fn row_in_blocks(self, op: &Conv<'_>, row: &[i8], out: &mut [i8]) {
        self.0.row_in_blocks(op, row, out);
    }

    #[inline(always)]
    fn dot(self, row: &[i8], weights: &[u8]) -> i32 {
        self.0.dot(row, weights)
    }
}
