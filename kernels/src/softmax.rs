//! Softmax over base-2 exponents.
//!
//! A power of two is a shift of a table's entry, so nothing here approximates but the table and its rounding:
//!
//! ```text
//! d = max - t                                   8 fraction bits, not negative
//! e = (EXP2[d & 255] << 5) >> (d >> 8)          2^20 · 2^(-d/256), 0 from 20 binary orders on
//! f = ⌊2^47 / Σe⌋
//! p = min(round(e·f / 2^32), 32767)             15 fraction bits
//! ```

use crate::element::saturated;
use crate::isa::Isa;
use crate::shape::{KernelError, check};

/// Longest row: its sum of 2^20 each stays in 32 bits.
pub(crate) const MOST_KEYS: usize = 2048;
/// Powers from which on one counts as 0: 20 binary orders.
pub(crate) const VANISHED: u32 = 20 << 8;

/// `round(2^15 · 2^(-n/256))`.
pub const EXP2: [u16; 256] = {
    /// `⌊2^63 · 2^(-1/256)⌋`.
    const STEP: u128 = 9_198_432_556_164_277_330;
    let mut table = [0; 256];
    let mut power = 1u128 << 63;
    let mut index = 0;
    while index < 256 {
        table[index] = ((power + (1 << 47)) >> 48) as u16;
        power = (power * STEP) >> 63;
        index += 1;
    }
    table
};

/// Weights of rows of `keys` logits, at most 2048: i32 with 8 fraction bits, exponents of 2, in; Int16 with 15 fraction bits
/// out, so that a row adds up to 1. Both little-endian; the difference of two logits fits 32 bits. The logits are spent.
///
/// # Errors
/// [`KernelError`] if a slice is no whole row, or the rows differ in number.
pub fn softmax<I: Isa>(isa: I, keys: u16, logits: &mut [i8], weights: &mut [i8]) -> Result<(), KernelError> {
    let keys = usize::from(keys);
    check((1..=MOST_KEYS).contains(&keys), KernelError::Geometry)?;
    check(!logits.is_empty() && logits.len().is_multiple_of(4 * keys), KernelError::Input)?;
    check(2 * weights.len() == logits.len(), KernelError::Output)?;
    isa.enter(
        #[inline(always)]
        || {
            for (row, weights) in logits.chunks_exact_mut(4 * keys).zip(weights.chunks_exact_mut(2 * keys)) {
                isa.softmax_row(row);
                weights.copy_from_slice(row.split_at(2 * keys).0);
            }
        },
    );
    Ok(())
}

#[inline(always)]
pub(crate) fn word(bytes: [i8; 4]) -> i32 {
    i32::from_le_bytes(bytes.map(|byte| byte as u8))
}

/// `2^20 · 2^(-below/256)`.
#[inline(always)]
pub(crate) fn power(below: u32) -> u32 {
    let fraction = u32::from(EXP2[(below & 255) as usize]) << 5;
    if below < VANISHED { fraction >> (below >> 8) } else { 0 }
}

/// Whether the CPU divides 64 bits by itself.
const WIDE: bool = cfg!(target_pointer_width = "64");

/// `⌊2^47 / sum⌋`; the sum is at least the largest power, 2^20.
#[inline(always)]
pub(crate) fn inverse(sum: u32) -> u32 {
    let sum = sum.max(1 << 20);
    if WIDE { ((1u64 << 47) / u64::from(sum)) as u32 } else { narrow_inverse(sum) }
}

/// [`inverse`] without a division of 64 bits, for which a Cortex-M calls a function. The sum is 2^31 at most ([`MOST_KEYS`]), the
/// quotient 2^27, so nothing here overflows.
#[inline(always)]
fn narrow_inverse(sum: u32) -> u32 {
    let rest = |quotient: u32| (1i64 << 47) - (u64::from(quotient) * u64::from(sum)).cast_signed();
    let zeros = sum.leading_zeros();
    // Not 0, which is said here so that no check is compiled.
    let divisor = ((sum << zeros) >> 16).max(1);
    // From 16 bits of the sum, at most 2^-15 of it off; so the rest is 2^32 at most, and what it lacks 2^12.
    let near = ((u32::MAX / divisor) << zeros) >> 1;
    // near·rest / 2^47 is not above rest / sum, and floors only take away: at most one too small, never too large.
    let lacks = ((rest(near) >> 16) * i64::from(near)) >> 31;
    let quotient = near.wrapping_add(lacks as u32);
    quotient + u32::from(rest(quotient) >= i64::from(sum))
}

/// [`softmax`] of one row in place: the weights lie in its first half.
#[inline(always)]
pub(crate) fn row(row: &mut [i8]) {
    let logits = row.as_chunks_mut::<4>().0;
    let most = logits.iter().fold(i32::MIN, |most, &logit| most.max(word(logit)));
    let mut sum = 0u32;
    for logit in &mut *logits {
        let power = power(most.wrapping_sub(word(*logit)) as u32);
        sum = sum.wrapping_add(power);
        *logit = power.to_le_bytes().map(|byte| byte as i8);
    }
    weigh(row, 0, inverse(sum));
}

/// Weights of the powers from `first` on. Weight `key` lies before the power that is read next.
#[inline(always)]
pub(crate) fn weigh(row: &mut [i8], first: usize, factor: u32) {
    let powers = row.as_chunks_mut::<4>().0;
    for key in first..powers.len() {
        let power = u64::from(word(powers[key]) as u32);
        let weight = saturated(((power * u64::from(factor) + (1 << 31)) >> 32) as i32);
        powers[key / 2].as_chunks_mut().0[key % 2] = weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrow_division_is_exact() {
        let quotient = |sum: u32| ((1u64 << 47) / u64::from(sum)) as u32;
        for sum in [1 << 20, (1 << 20) + 1, (1 << 31) - 1, 1 << 31] {
            assert_eq!(narrow_inverse(sum), quotient(sum), "{sum}");
        }
        let mut state = 1u32;
        for round in 0..4_000_000u32 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Of every length, and where the quotient is about to change.
            let sum = ((1 << 20) + (state >> (1 + round % 12))).min(1 << 31);
            let edge = ((1u64 << 47) / u64::from(quotient(sum))) as u32;
            for sum in [sum, edge, edge + 1, edge - 1].map(|sum| sum.clamp(1 << 20, 1 << 31)) {
                assert_eq!(narrow_inverse(sum), quotient(sum), "{sum}");
            }
        }
    }
}
