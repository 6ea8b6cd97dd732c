//! Armv7E-M: two 16-bit products per instruction. Stable Rust has no intrinsics for them, so each is one line of
//! assembly (Armv7-M Architecture Reference Manual, A7.7: SXTB16, SMLAD).
#![allow(unsafe_code)]

use core::arch::asm;

use crate::isa::Isa;

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

impl Isa for Dsp {
    const NAME: &'static str = "dsp";

    #[inline(always)]
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

    #[inline(always)]
    fn dot(self, row: &[i8], weights: &[u8]) -> i32 {
        row_words(row)
            .zip(words(weights))
            .fold(0, |sum, (x, w)| accumulate(odd(x), odd(w), accumulate(even(x), even(w), sum)))
    }
}
