//! Sum of two maps of different scales.

use crate::isa::Isa;
use crate::shape::{KernelError, check};

/// `clamp((a·m₀ + b·m₁ + offset) >> shift)`; the offset holds the rounding half and all zero points.
#[derive(Clone, Copy, Debug)]
pub struct Add {
    /// Factors of the operands.
    pub multiplier: [i16; 2],
    /// Constant; |a·m₀ + b·m₁ + offset| < 2³¹.
    pub offset: i32,
    /// Right shift, 0..=30.
    pub shift: u8,
    /// Least output.
    pub min: i8,
    /// Largest output.
    pub max: i8,
}

impl Add {
    #[inline(always)]
    fn apply(&self, a: i8, b: i8) -> i8 {
        let [m0, m1] = self.multiplier.map(i32::from);
        let sum = (i32::from(a) * m0 + i32::from(b) * m1).wrapping_add(self.offset) >> u32::from(self.shift).min(30);
        sum.min(i32::from(self.max)).max(i32::from(self.min)) as i8
    }
}

/// Runs an addition.
///
/// # Errors
/// [`KernelError`] if the slices differ in length.
pub fn add<I: Isa>(isa: I, op: &Add, a: &[i8], b: &[i8], output: &mut [i8]) -> Result<(), KernelError> {
    check(a.len() == b.len(), KernelError::Input)?;
    check(a.len() == output.len(), KernelError::Output)?;
    isa.enter(
        #[inline(always)]
        || {
            let done = isa.add(op, a, b, output);
            for ((out, &a), &b) in output.iter_mut().zip(a).zip(b).skip(done) {
                *out = op.apply(a, b);
            }
        },
    );
    Ok(())
}

/// Runs an addition whose output takes the place of `a`.
///
/// # Errors
/// [`KernelError`] if the slices differ in length.
pub fn add_in_place<I: Isa>(isa: I, op: &Add, a_and_output: &mut [i8], b: &[i8]) -> Result<(), KernelError> {
    check(a_and_output.len() == b.len(), KernelError::Input)?;
    isa.enter(
        #[inline(always)]
        || {
            let done = isa.add_in_place(op, a_and_output, b);
            for (a, &b) in a_and_output.iter_mut().zip(b).skip(done) {
                *a = op.apply(*a, b);
            }
        },
    );
    Ok(())
}
