//! Armv8.1-M vectors (Helium): 16 products of bytes an instruction. Stable Rust has no intrinsics for them, and no
//! `target_feature` that `cfg` would see, so the bodies are assembly, and the cargo feature `mve` chooses them.
//!
//! Vectors of 16 and 32 bits lie at multiples of 2 and 4 in memory, or the core faults: where a slice of bytes may not, a body
//! loads bytes, or leaves it to the portable one.
//!
//! The portable bodies are compiled for the vectors too: with `-C target-cpu` the compiler uses them where loops are simple.
//! `.cpu` in a naked body is for the tools that read assembly without knowing that flag.
#![allow(unsafe_code)]

mod add;
mod attention;
mod conv;
mod depthwise;
mod layer_norm;
mod pool;
mod softmax;

use crate::add::Add;
use crate::arch::Scalar;
use crate::attention::{ROWS, Rows};
use crate::conv::Conv;
use crate::isa::Isa;
use crate::layer_norm::{LayerNorm, Row};
use crate::pool::Pool;

/// A Cortex-M core with integer vectors: the cargo feature `mve` says that the CPU has them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mve;

impl Isa for Mve {
    const NAME: &'static str = "mve";

    #[inline(always)]
    fn are_short(self, shifts: &[u8]) -> bool {
        conv::are_short(shifts)
    }

    #[inline(always)]
    fn conv(self, op: &Conv<'_>, input: &[i8], output: &mut [i8], scratch: &mut [i8], short: bool) -> bool {
        short && conv::conv(op, input, output, scratch)
    }

    #[inline(always)]
    fn depthwise(self, op: &Conv<'_>, input: &[i8], output: &mut [i8], short: bool) -> bool {
        short && depthwise::depthwise(op, input, output)
    }

    #[inline(always)]
    fn pool(self, op: &Pool, input: &[i8], output: &mut [i8]) -> bool {
        pool::pool(op, input, output)
    }

    #[inline(always)]
    fn add(self, op: &Add, a: &[i8], b: &[i8], output: &mut [i8]) -> usize {
        add::add(op, a, b, output)
    }

    #[inline(always)]
    fn add_in_place(self, op: &Add, a_and_output: &mut [i8], b: &[i8]) -> usize {
        add::add_in_place(op, a_and_output, b)
    }

    #[inline(always)]
    fn softmax_row(self, row: &mut [i8]) {
        softmax::row(row);
    }

    #[inline(always)]
    fn mix(self, weights: [&[[i8; 2]]; ROWS], values: &Rows<'_>, channel: usize) -> [[i32; 16]; ROWS] {
        attention::mix(weights, values, channel)
    }

    #[inline(always)]
    fn moments(self, row: &[i8]) -> (i32, u64) {
        layer_norm::moments(row)
    }

    #[inline(always)]
    fn normalise(self, op: &LayerNorm<'_>, row: Row, input: &[i8], output: &mut [i8]) {
        layer_norm::normalise(op, row, input, output);
    }

    #[inline(always)]
    fn dot_2x4(self, rows: [&[i8]; 2], weights: [&[u8]; 4]) -> [[i32; 4]; 2] {
        attention::dot_2x4(rows, weights)
    }

    #[inline(always)]
    fn dot(self, row: &[i8], weights: &[u8]) -> i32 {
        Scalar.dot(row, weights)
    }
}
