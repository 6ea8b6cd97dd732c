//! Armv8.1-M vectors (Helium): 16 products of bytes an instruction. Stable Rust has no intrinsics for them, and no
//! `target_feature` that `cfg` would see, so the bodies are assembly, and the cargo feature `mve` chooses them.
//!
//! The portable bodies are compiled for the vectors too: with `-C target-cpu` the compiler uses them where loops are simple.
//! `.cpu` in a naked body is for the tools that read assembly without knowing that flag.
#![allow(unsafe_code)]

mod conv;
mod depthwise;

use crate::arch::Scalar;
use crate::conv::Conv;
use crate::isa::Isa;

/// A Cortex-M core with integer vectors: the cargo feature `mve` says that the CPU has them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mve;

impl Isa for Mve {
    const NAME: &'static str = "mve";

    #[inline(always)]
    fn conv(self, op: &Conv<'_>, input: &[i8], output: &mut [i8], scratch: &mut [i8]) -> bool {
        conv::conv(op, input, output, scratch)
    }

    #[inline(always)]
    fn depthwise(self, op: &Conv<'_>, input: &[i8], output: &mut [i8]) -> bool {
        depthwise::depthwise(op, input, output)
    }

    #[inline(always)]
    fn dot_2x4(self, rows: [&[i8]; 2], weights: [&[u8]; 4]) -> [[i32; 4]; 2] {
        Scalar.dot_2x4(rows, weights)
    }

    #[inline(always)]
    fn dot(self, row: &[i8], weights: &[u8]) -> i32 {
        Scalar.dot(row, weights)
    }
}
