//! x86-64 with AVX-512BW: 32 products an instruction, widened to 16 bits first so that nothing saturates.
//!
//! `vpmaddubsw` would do 64 of bytes, but it saturates the sum of two; `vpdpbusd`, which does not, is of later CPUs.
#![allow(unsafe_code)]

pub(super) mod attention;
pub(super) mod conv;
mod curve;
mod layer_norm;
pub(super) mod pack;
pub(super) mod products;
pub(super) mod rescale;
mod softmax;
pub(super) mod strip;
pub(super) mod tile;
mod winograd;

use core::arch::x86_64::__cpuid_count;

use super::avx2::{self, Avx2};
use crate::add::Add;
use crate::attention::{Attention, ROWS, Rows};
use crate::conv::{Conv, Packing};
use crate::isa::Isa;
use crate::layer_norm::{LayerNorm, Row};
use crate::pool::Pool;
use crate::requant::Requant;

/// Bytes of the most room on the stack.
const ROOM: usize = 832 << 10;

/// A CPU with AVX-512F, BW and VL, and AVX2 with them.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(Avx2);

impl Avx512 {
    /// A proof that CPU and operating system support them, if they do.
    #[must_use]
    pub fn new() -> Option<Self> {
        // Intel SDM vol. 1, 15.2: the system keeps masks and all of the wide registers, then the features in leaf 7.
        const KEPT: u64 = 0b1110_0110;
        const FEATURES: u32 = 1 << 16 | 1 << 30 | 1 << 31;
        let avx2 = Avx2::new()?;
        let has = avx2::kept(avx2) & KEPT == KEPT && __cpuid_count(7, 0).ebx & FEATURES == FEATURES;
        has.then_some(Self(avx2))
    }
}

#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
fn with_avx512<R>(body: impl FnOnce() -> R) -> R {
    body()
}

impl Isa for Avx512 {
    const NAME: &'static str = "avx512";
    const PACKING: Packing = Packing::Blocks;

    #[inline(always)]
    fn enter<R>(self, body: impl FnOnce() -> R) -> R {
        // SAFETY: `self` proves the features.
        unsafe { with_avx512(body) }
    }

    #[inline(always)]
    fn conv(self, op: &Conv<'_>, input: &[i8], output: &mut [i8], _scratch: &mut [i8], short: bool) -> bool {
        // SAFETY: `self` proves the features.
        unsafe { winograd::conv(op, input, output, short) || conv::conv::<products::Words>(op, input, output, short) }
    }

    #[inline(always)]
    fn curve(self, table: &[u8; 256], values: &mut [i8]) {
        // SAFETY: `self` proves the features.
        unsafe { curve::curve(table, values) }
    }

    #[inline(always)]
    fn attention(self, op: &Attention<'_>, query: &[i8], key: &[i8], output: &mut [i8], _scratch: &mut [i8]) -> bool {
        // SAFETY: `self` proves the features.
        unsafe { attention::attention::<products::Words>(op, query, key, output) }
    }

    #[inline(always)]
    fn moments(self, row: &[i8]) -> (i32, u64) {
        // SAFETY: `self` proves the features.
        unsafe { layer_norm::moments(row) }
    }

    #[inline(always)]
    fn normalise(self, op: &LayerNorm<'_>, row: Row, input: &[i8], output: &mut [i8]) {
        // SAFETY: `self` proves the features.
        unsafe { layer_norm::normalise(op, row, input, output) }
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
    fn dot_2x4(self, rows: [&[i8]; 2], weights: [&[u8]; 4]) -> [[i32; 4]; 2] {
        self.0.dot_2x4(rows, weights)
    }

    #[inline(always)]
    fn requant4(self, requant: &Requant<'_>, channel: usize, sums: [i32; 4]) -> [i8; 4] {
        self.0.requant4(requant, channel, sums)
    }

    #[inline(always)]
    fn softmax_row(self, row: &mut [i8]) {
        // SAFETY: `self` proves the features.
        unsafe { softmax::row(row) }
    }

    #[inline(always)]
    fn mix(self, weights: [&[[i8; 2]]; ROWS], values: &Rows<'_>, channel: usize) -> [[i32; 16]; ROWS] {
        self.0.mix(weights, values, channel)
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
