//! Sum of two maps of different scales.

use crate::arch;
use crate::element::{Element, saturated, wide};
use crate::isa::Isa;
use crate::shape::{KernelError, check};

/// `(a·m₀ + b·m₁ + offset) >> shift`, clamped where the output is int8, saturated where it is Int16; the offset holds the
/// rounding half and all zero points.
#[derive(Clone, Copy, Debug)]
pub struct Add {
    /// Factors of the operands.
    pub multiplier: [i16; 2],
    /// Constant; |a|·|m₀| + |b|·|m₁| + |offset| < 2³¹.
    pub offset: i32,
    /// Right shift, 0..=30.
    pub shift: u8,
    /// Least int8 output.
    pub min: i8,
    /// Largest int8 output.
    pub max: i8,
    /// What both operands and the output hold.
    pub elements: [Element; 3],
}

pub(crate) const BYTES: [Element; 3] = [Element::Int8; 3];
pub(crate) const WORDS: [Element; 3] = [Element::Int16; 3];

impl Add {
    #[inline(always)]
    fn sum(&self, a: i32, b: i32) -> i32 {
        let [m0, m1] = self.multiplier.map(i32::from);
        a.wrapping_mul(m0).wrapping_add(b.wrapping_mul(m1)).wrapping_add(self.offset) >> u32::from(self.shift).min(30)
    }

    #[inline(always)]
    fn apply(&self, a: i8, b: i8) -> i8 {
        self.narrow(self.sum(a.into(), b.into()))
    }

    #[inline(always)]
    fn narrow(&self, sum: i32) -> i8 {
        sum.min(i32::from(self.max)).max(i32::from(self.min)) as i8
    }
}

/// Runs an addition.
///
/// # Errors
/// [`KernelError`] if the slices do not hold the same number of elements.
pub fn add<I: Isa>(isa: I, op: &Add, a: &[i8], b: &[i8], output: &mut [i8]) -> Result<(), KernelError> {
    let [of_a, of_b, of_output] = op.elements.map(Element::bytes);
    let len = a.len() / of_a;
    check(a.len() == len * of_a && b.len() == len * of_b, KernelError::Input)?;
    check(output.len() == len * of_output, KernelError::Output)?;
    isa.enter(
        #[inline(always)]
        || {
            let done = isa.add(op, a, b, output);
            match op.elements {
                BYTES => {
                    for ((out, &a), &b) in output.iter_mut().zip(a).zip(b).skip(done) {
                        *out = op.apply(a, b);
                    }
                }
                WORDS => {
                    let operands = a.as_chunks().0.iter().zip(b.as_chunks().0);
                    for (out, (&a, &b)) in output.as_chunks_mut().0.iter_mut().zip(operands).skip(done) {
                        *out = saturated(op.sum(wide(a).into(), wide(b).into()));
                    }
                }
                elements => mixed(op, elements, done..len, a, b, output),
            }
        },
    );
    Ok(())
}

/// Operands and output of different types: no image has much of it.
fn mixed(
    op: &Add,
    [of_a, of_b, of_output]: [Element; 3],
    range: core::ops::Range<usize>,
    a: &[i8],
    b: &[i8],
    output: &mut [i8],
) {
    for index in range {
        let sum = op.sum(of_a.read(a, index), of_b.read(b, index));
        if of_output == Element::Int8 {
            if let Some(out) = output.get_mut(index) {
                *out = op.narrow(sum);
            }
        } else if let Some(out) = output.as_chunks_mut().0.get_mut(index) {
            *out = saturated(sum);
        }
    }
}

/// Runs an addition whose second operand lies in flash, such as the embedding of positions.
///
/// # Errors
/// As [`add`].
pub fn add_constant<I: Isa>(isa: I, op: &Add, a: &[i8], b: &[u8], output: &mut [i8]) -> Result<(), KernelError> {
    add(isa, op, a, arch::signed(b), output)
}

/// Runs an addition whose output takes the place of `a`; all three are int8.
///
/// # Errors
/// [`KernelError`] if the slices differ in length, or one element is not int8.
pub fn add_in_place<I: Isa>(isa: I, op: &Add, a_and_output: &mut [i8], b: &[i8]) -> Result<(), KernelError> {
    check(op.elements == BYTES, KernelError::Geometry)?;
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
