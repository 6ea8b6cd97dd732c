//! x86-64 with AVX-512-VNNI: 64 products an instruction, summed in 32 bits without an intermediate that saturates.
//!
//! `vpdpbusd` multiplies unsigned by signed bytes; how an input becomes unsigned, and why sums are exact, says
//! [`super::vnni`]. Weights as [`Packing::Blocks`] lie as it takes them.
#![allow(unsafe_code)]

mod products;

use core::arch::x86_64::__cpuid_count;

use super::avx512::{self, Avx512};
use crate::add::Add;
use crate::attention::{Attention, ROWS, Rows};
use crate::conv::{Conv, Packing};
use crate::isa::Isa;
use crate::layer_norm::{LayerNorm, Row};
use crate::pool::Pool;
use crate::requant::Requant;

/// A CPU with AVX-512-VNNI, and AVX-512F, BW and VL with it.
#[derive(Clone, Copy, Debug)]
pub struct Avx512Vnni(Avx512);

impl Avx512Vnni {
    /// A proof that CPU and operating system support them, if they do.
    #[must_use]
    pub fn new() -> Option<Self> {
        let avx512 = Avx512::new()?;
        // Intel SDM vol. 2, CPUID: leaf 7 has AVX512_VNNI in bit 11 of ECX.
        (__cpuid_count(7, 0).ecx & (1 << 11) != 0).then_some(Self(avx512))
    }
}

impl Isa for Avx512Vnni {
    const NAME: &'static str = "avx512vnni";
    const PACKING: Packing = Packing::Blocks;

    #[inline(always)]
    fn enter<R>(self, body: impl FnOnce() -> R) -> R {
        self.0.enter(body)
    }

    #[inline(always)]
    fn conv(self, op: &Conv<'_>, input: &[i8], output: &mut [i8], scratch: &mut [i8], short: bool) -> bool {
        // SAFETY: `self` proves the features.
        let done = unsafe { avx512::conv::conv::<products::Bytes>(op, input, output, short) };
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
    fn curve(self, table: &[u8; 256], values: &mut [i8]) {
        self.0.curve(table, values);
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
    fn attention(self, op: &Attention<'_>, query: &[i8], key: &[i8], output: &mut [i8], _scratch: &mut [i8]) -> bool {
        // SAFETY: `self` proves the features.
        unsafe { avx512::attention::attention::<products::Bytes>(op, query, key, output) }
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
    fn dot_2x4(self, rows: [&[i8]; 2], weights: [&[u8]; 4]) -> [[i32; 4]; 2] {
        self.0.dot_2x4(rows, weights)
    }

    #[inline(always)]
    fn requant4(self, requant: &Requant<'_>, channel: usize, sums: [i32; 4]) -> [i8; 4] {
        self.0.requant4(requant, channel, sums)
    }

    #[inline(always)]
    fn softmax_row(self, row: &mut [i8]) {
        self.0.softmax_row(row);
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
