//! Functions of one value, such as GELU, as tables.

use crate::shape::{KernelError, check};

/// Maps each value: `out = table[value as u8]`.
///
/// # Errors
/// [`KernelError`] if the slices differ in length.
pub fn curve(table: &[u8; 256], input: &[i8], output: &mut [i8]) -> Result<(), KernelError> {
    check(input.len() == output.len(), KernelError::Output)?;
    for (out, &value) in output.iter_mut().zip(input) {
        *out = at(table, value);
    }
    Ok(())
}

/// [`curve`] whose output takes the place of the input.
pub(crate) fn in_place(table: &[u8; 256], values: &mut [i8]) {
    for value in values {
        *value = at(table, *value);
    }
}

#[inline(always)]
fn at(table: &[u8; 256], value: i8) -> i8 {
    table[usize::from(value as u8)] as i8
}
