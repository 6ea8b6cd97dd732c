//! Portable leaves.

use crate::isa::Isa;

/// Any CPU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scalar;

impl Isa for Scalar {
    const NAME: &'static str = "scalar";

    #[inline(always)]
    fn dot_2x4(self, [row0, row1]: [&[i8]; 2], [w0, w1, w2, w3]: [&[u8]; 4]) -> [[i32; 4]; 2] {
        let mut sums = [[0i32; 4]; 2];
        let weights = w0.iter().zip(w1).zip(w2.iter().zip(w3));
        for ((&x0, &x1), ((&a, &b), (&c, &d))) in row0.iter().zip(row1).zip(weights) {
            let (x0, x1) = (i32::from(x0), i32::from(x1));
            for (channel, weight) in [a, b, c, d].into_iter().enumerate() {
                let weight = i32::from(weight as i8);
                sums[0][channel] += x0 * weight;
                sums[1][channel] += x1 * weight;
            }
        }
        sums
    }

    #[inline(always)]
    fn dot(self, row: &[i8], weights: &[u8]) -> i32 {
        row.iter().zip(weights).map(|(&x, &w)| i32::from(x) * i32::from(w as i8)).sum()
    }
}
