//! The one definition of rescaling and rounding.

use crate::isa::Isa;
use crate::shape::{KernelError, check};

/// Rescale of a row of sums, per output channel. Tables are bytes in flash, little-endian.
#[derive(Clone, Copy, Debug)]
pub struct Requant<'a> {
    /// `i32` per channel, input zero point folded in.
    pub bias: &'a [u8],
    /// `i32` per channel, 0..2³¹.
    pub multiplier: &'a [u8],
    /// `u8` per channel, 1..=62.
    pub shift: &'a [u8],
    /// Integer that stands for 0.0; unused, as both bounds are, where the output is Int16.
    pub zero_point: i8,
    /// Least output.
    pub min: i8,
    /// Largest output.
    pub max: i8,
}

/// Constants of four neighbouring channels, as they lie in flash.
pub(crate) struct Four<'a> {
    pub bias: &'a [u8; 16],
    pub multiplier: &'a [u8; 16],
    pub shift: [u8; 4],
}

/// Shifts that [`rescale`] computes; each op checks its own once.
pub(crate) fn is_shift(shift: u8) -> bool {
    (1..=62).contains(&shift)
}

/// Shifts for which one 32-bit sum and one shift are the whole rescale: the product's low word decides nothing from 33 on, and
/// up to 54 the zero point, moved to the place of the result, leaves the sum below 2^31.
#[inline(always)]
pub(crate) fn is_short(shift: u8) -> bool {
    (33..=54).contains(&shift)
}

/// `value · multiplier / 2^shift`, rounded to nearest, halves up; one rounding, product in 64 bits, saturated
/// to 32.
///
/// gemmlowp and CMSIS-NN round twice (a doubling high multiply, then a shift), so a result may be one off the
/// nearest; with the product in 64 bits one addition and one shift are both exact and shorter.
#[inline(always)]
pub(crate) fn rescale(value: i32, multiplier: i32, shift: u8) -> i32 {
    let shift = u32::from(shift);
    let product = i64::from(value) * i64::from(multiplier);
    if shift > 32 {
        // The half, 2^(shift-1), has no bit in the low word, and a floor of a floor is a floor: the high word is
        // enough. |high| <= 2^30 and the half is at most 2^29. A 32-bit CPU saves the 64-bit addition and shift.
        return ((product >> 32) as i32).wrapping_add(1i32.wrapping_shl(shift - 33)).wrapping_shr(shift - 32);
    }
    rescale_wide(product, shift)
}

/// [`rescale`] for shifts up to 32: multipliers that enlarge. Out of line, it is long on a 32-bit CPU.
#[cold]
#[inline(never)]
fn rescale_wide(product: i64, shift: u32) -> i32 {
    let scaled = (product + 1i64.wrapping_shl(shift.wrapping_sub(1))).wrapping_shr(shift);
    // A small shift leaves more than 32 bits; the clamp that follows must still see the sign.
    i32::try_from(scaled).unwrap_or(if scaled < 0 { i32::MIN } else { i32::MAX })
}

/// Adds the zero point and clamps; saturating, so that no rescaled sum can wrap.
#[inline(always)]
pub(crate) fn finish(value: i32, zero_point: i8, min: i8, max: i8) -> i8 {
    value.saturating_add(i32::from(zero_point)).min(i32::from(max)).max(i32::from(min)) as i8
}

#[inline(always)]
fn word(table: &[u8], channel: usize) -> i32 {
    table.as_chunks::<4>().0.get(channel).map_or(0, |bytes| i32::from_le_bytes(*bytes))
}

impl<'a> Requant<'a> {
    /// `clamp(zero_point + round((sum + bias) · multiplier / 2^shift))` for one channel.
    #[inline(always)]
    #[must_use]
    pub fn apply(&self, channel: usize, sum: i32) -> i8 {
        finish(self.rescaled(channel, sum), self.zero_point, self.min, self.max)
    }

    /// `round((sum + bias) · multiplier / 2^shift)` for one channel; what an Int16 output saturates.
    #[inline(always)]
    pub(crate) fn rescaled(&self, channel: usize, sum: i32) -> i32 {
        let acc = sum.wrapping_add(word(self.bias, channel));
        let shift = self.shift.get(channel).copied().unwrap_or(1);
        rescale(acc, word(self.multiplier, channel), shift)
    }

    /// [`Self::apply`] to four channels from `channel` on. A call, as the loops around it keep more in registers
    /// without it: depthwise on a Cortex-M4 takes 2.5 % more instructions with it inlined.
    #[inline(never)]
    #[must_use]
    pub fn apply4(&self, channel: usize, sums: [i32; 4]) -> [i8; 4] {
        let Some(four) = self.four(channel) else { return [0; 4] };
        let mut values = [0; 4];
        for lane in 0..4 {
            let acc = sums[lane].wrapping_add(word(four.bias, lane));
            let scaled = rescale(acc, word(four.multiplier, lane), four.shift[lane]);
            values[lane] = finish(scaled, self.zero_point, self.min, self.max);
        }
        values
    }

    /// The constants of four channels; `None` behind the end.
    #[inline(always)]
    pub(crate) fn four(&self, channel: usize) -> Option<Four<'a>> {
        let bias = self.bias.get(4 * channel..)?.first_chunk()?;
        let multiplier = self.multiplier.get(4 * channel..)?.first_chunk()?;
        Some(Four { bias, multiplier, shift: *self.shift.get(channel..)?.first_chunk()? })
    }

    /// Checks lengths and shifts; whether the latter are [short](are_short).
    pub(crate) fn check<I: Isa>(&self, isa: I, channels: usize) -> Result<bool, KernelError> {
        let tables = self.bias.len() == 4 * channels && self.multiplier.len() == 4 * channels;
        check(tables && self.shift.len() == channels, KernelError::Weights)?;
        let short = isa.are_short(self.shift);
        check(short || self.shift.iter().copied().all(is_shift), KernelError::Weights)?;
        Ok(short)
    }
}

/// Whether all shifts are 33..=54, as [`is_short`] says.
///
/// A call: unrolled by the compiler, it is long on a Cortex-M4.
#[inline(never)]
pub(crate) fn are_short(shifts: &[u8]) -> bool {
    let (fours, rest) = shifts.as_chunks::<4>();
    // Four at once: 54 + 73 is the last below 128, 33 - 33 the first that is not negative. What a wrong byte carries
    // into the next one does not matter: the lowest wrong byte has its top bit set in one of the three words.
    let wrong = fours.iter().fold(0, |wrong, four| {
        let word = u32::from_le_bytes(*four);
        wrong | word | word.wrapping_add(0x4949_4949) | word.wrapping_sub(0x2121_2121)
    });
    wrong & 0x8080_8080 == 0 && rest.iter().all(|&shift| is_short(shift))
}

#[cfg(test)]
mod tests {
    use super::are_short;

    #[test]
    fn one_long_shift_is_seen_wherever_it_is() {
        for channels in 1..10 {
            for channel in 0..channels {
                for others in [33, 40, 54] {
                    for shift in 0..=255 {
                        let mut shifts = [others; 10];
                        shifts[channel] = shift;
                        let shifts = &shifts[..channels];
                        assert_eq!(are_short(shifts), (33..=54).contains(&shift), "{shifts:?}");
                    }
                }
            }
        }
    }
}
