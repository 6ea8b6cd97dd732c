//! The position code of a box state.

use super::boxes::State;
use super::fixed::{cosine, sine};
use crate::shape::{KernelError, check};

/// z of a side of 4 pixels, twice: a state's unit of length is 1/16 pixel, the code's is 4 pixels.
const UNIT: i32 = 2 * (6 << 12);

/// Sines and cosines of x, y, z and r at several rates: Int16, Q14, for each state `[4, rates, (sine, cosine)]`.
///
/// `rates` is an u32 for each of the four and each rate: 2^32 of a turn for each 1/16 pixel of x and y, and for each 1/8192 of
/// z and r.
///
/// # Errors
/// [`KernelError`] if a slice has not the length that states and rates give.
pub fn position_code(states: &[State], rates: &[u8], output: &mut [i8]) -> Result<(), KernelError> {
    let (all, rest) = rates.as_chunks::<4>();
    check(!all.is_empty() && all.len().is_multiple_of(4) && rest.is_empty(), KernelError::Weights)?;
    check(output.len() == states.len().saturating_mul(4 * all.len()), KernelError::Output)?;
    for (state, row) in states.iter().zip(output.chunks_exact_mut(4 * all.len())) {
        let (w, h) = (i32::from(state.w), i32::from(state.h));
        let values = [state.x.into(), state.y.into(), w + h - UNIT, h - w];
        let codes = all.chunks_exact(all.len() / 4).zip(row.chunks_exact_mut(all.len()));
        for ((rates, out), value) in codes.zip(values) {
            for (&rate, pair) in rates.iter().zip(out.as_chunks_mut::<4>().0) {
                // Whole turns fall off.
                let turn = value.cast_unsigned().wrapping_mul(u32::from_le_bytes(rate));
                let phase = (turn.wrapping_add(0x8000) >> 16) as u16;
                let ([a, b], [c, d]) = (sine(phase).to_le_bytes(), cosine(phase).to_le_bytes());
                *pair = [a, b, c, d].map(u8::cast_signed);
            }
        }
    }
    Ok(())
}
