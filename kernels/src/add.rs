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

/// Runs an addition.
///
/// # Errors
/// [`KernelError`] if the slices differ in length.
pub fn add<I: Isa>(isa: I, op: &Add, a: &[i8], b: &[i8], output: &mut [i8]) -> Result<(), KernelError> {
    check(a.len() == b.len(), KernelError::Input)?;
    check(a.len() == output.len(), KernelError::Output)?;
    let shift = u32::from(op.shift).min(30);
    let [m0, m1] = op.multiplier.map(i32::from);
    isa.enter(
        #[inline(always)]
        || {
            for ((out, &a), &b) in output.iter_mut().zip(a).zip(b) {
                let sum = (i32::from(a) * m0 + i32::from(b) * m1).wrapping_add(op.offset) >> shift;
                *out = sum.min(i32::from(op.max)).max(i32::from(op.min)) as i8;
            }
        },
    );
    Ok(())
}
