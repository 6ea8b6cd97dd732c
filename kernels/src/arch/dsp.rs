//! Armv7E-M: two 16-bit products per instruction. Stable Rust has no intrinsics for them, so each is one line of
//! assembly (Armv7-M Architecture Reference Manual, A7.7: SXTB16, SMLAD).
#![allow(unsafe_code)]

mod add;
mod attention;
mod conv;
mod depthwise;
mod layer_norm;
mod pool;
mod rows;
mod softmax;

use core::arch::asm;

use crate::add::Add;
use crate::attention::{Attention, ROWS, Rows};
use crate::conv::Conv;
use crate::isa::Isa;
use crate::layer_norm::{LayerNorm, Row};
use crate::pool::Pool;

/// A Cortex-M core with DSP instructions: the cargo feature `dsp` says that the CPU has them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dsp;

/// Bytes 0 and 2, sign-extended to halves.
#[inline(always)]
fn even(word: u32) -> u32 {
    let halves;
    // SAFETY: reads and writes registers only.
    unsafe { asm!("sxtb16 {}, {}", lateout(reg) halves, in(reg) word, options(pure, nomem, nostack, preserves_flags)) };
    halves
}

/// Bytes 1 and 3, sign-extended to halves.
#[inline(always)]
fn odd(word: u32) -> u32 {
    let halves;
    // SAFETY: reads and writes registers only.
    unsafe {
        asm!("sxtb16 {}, {}, ror #8", lateout(reg) halves, in(reg) word, options(pure, nomem, nostack, preserves_flags));
    };
    halves
}

/// `sum` plus both products of halves. The sum cannot overflow (validated), so the Q flag stays as it is.
#[inline(always)]
fn accumulate(a: u32, b: u32, sum: i32) -> i32 {
    let result;
    // SAFETY: reads and writes registers only.
    unsafe {
        asm!("smlad {}, {}, {}, {}", lateout(reg) result, in(reg) a, in(reg) b, in(reg) sum, options(pure, nomem, nostack));
    };
    result
}

#[inline(always)]
fn row_words(row: &[i8]) -> impl Iterator<Item = u32> {
    row.as_chunks::<4>().0.iter().map(|&[a, b, c, d]| u32::from_le_bytes([a as u8, b as u8, c as u8, d as u8]))
}

#[inline(always)]
fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks::<4>().0.iter().map(|&chunk| u32::from_le_bytes(chunk))
}

/// Zeros behind the window of a row of whole words: gathering does not touch them.
fn end_with_zeros(op: &Conv<'_>, channels: usize, row: &mut [i8]) {
    let taps = usize::from(op.window.kernel[0]) * usize::from(op.window.kernel[1]) * channels;
    row.get_mut(taps..).unwrap_or_default().fill(0);
}

/// Bounds that are narrower than those of a byte, to which the assembly clamps.
fn clamp(min: i8, max: i8, values: &mut [i8]) {
    if (min, max) != (i8::MIN, i8::MAX) {
        for value in values {
            *value = (*value).min(max).max(min);
        }
    }
}

impl Isa for Dsp {
    const NAME: &'static str = "dsp";

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
    fn attention(self, op: &Attention<'_>, query: &[i8], key: &[i8], out: &mut [i8], scratch: &mut [i8]) -> bool {
        attention::attention(op, query, key, out, scratch)
    }

    #[inline(always)]
    fn softmax_row(self, row: &mut [i8]) {
        softmax::row(row);
    }

    // Only widths that the own body leaves out come here, and 64 sums at once would be ten kilobytes.
    #[inline(never)]
    fn mix(self, weights: [&[[i8; 2]]; ROWS], values: &Rows<'_>, channel: usize) -> [[i32; 16]; ROWS] {
        let mut sums = [[0; 16]; ROWS];
        for next in 0..16 {
            let four = crate::attention::mix::<1>(weights, values, channel + next);
            sums.iter_mut().zip(four).for_each(|(sums, [sum])| sums[next] = sum);
        }
        sums
    }

    #[inline(always)]
    fn moments(self, row: &[i8]) -> (i32, u64) {
        layer_norm::moments(row)
    }

    #[inline(always)]
    fn normalise(self, op: &LayerNorm<'_>, row: Row, input: &[i8], output: &mut [i8]) {
        layer_norm::normalise(op, row, input, output);
    }

    // Calls: only what has no body of its own comes here, and flash counts.
    #[inline(never)]
    fn dot_2x4(self, [row0, row1]: [&[i8]; 2], [w0, w1, w2, w3]: [&[u8]; 4]) -> [[i32; 4]; 2] {
        // Four rows at once spill registers; two weight rows at a time keep all sums in registers.
        let pair = |wa: &[u8], wb: &[u8]| {
            let mut sums = [0i32; 4];
            for ((x0, x1), (a, b)) in row_words(row0).zip(row_words(row1)).zip(words(wa).zip(words(wb))) {
                let (x0e, x0o, x1e, x1o) = (even(x0), odd(x0), even(x1), odd(x1));
                let (ae, ao) = (even(a), odd(a));
                sums[0] = accumulate(x0o, ao, accumulate(x0e, ae, sums[0]));
                sums[1] = accumulate(x1o, ao, accumulate(x1e, ae, sums[1]));
                let (be, bo) = (even(b), odd(b));
                sums[2] = accumulate(x0o, bo, accumulate(x0e, be, sums[2]));
                sums[3] = accumulate(x1o, bo, accumulate(x1e, be, sums[3]));
            }
            sums
        };
        let ([a0, a1, b0, b1], [c0, c1, d0, d1]) = (pair(w0, w1), pair(w2, w3));
        [[a0, b0, c0, d0], [a1, b1, c1, d1]]
    }

    #[inline(never)]
    fn dot(self, row: &[i8], weights: &[u8]) -> i32 {
        row_words(row)
            .zip(words(weights))
            .fold(0, |sum, (x, w)| accumulate(odd(x), odd(w), accumulate(even(x), even(w), sum)))
    }
}
