//! From one quantisation to another, channel by channel.

use crate::element::{Element, saturated};
use crate::isa::Isa;
use crate::requant::Requant;
use crate::shape::{KernelError, check};

/// `saturate(zero_point + round((x + bias) · multiplier / 2^shift))`, with the constants of the channel; to Int16 without
/// zero point and bounds.
#[derive(Clone, Copy, Debug)]
pub struct Rescale<'a> {
    /// Channels; the tables have an entry for each.
    pub channels: u16,
    /// What the input holds.
    pub from: Element,
    /// What the output holds.
    pub to: Element,
    /// Constants.
    pub requant: Requant<'a>,
}

/// Runs a rescale over positions of `channels` values.
///
/// # Errors
/// [`KernelError`] if a slice has not the length that the channels give.
pub fn rescale_tensor<I: Isa>(isa: I, op: &Rescale<'_>, input: &[i8], output: &mut [i8]) -> Result<(), KernelError> {
    let channels = usize::from(op.channels);
    check(channels > 0, KernelError::Geometry)?;
    check(!input.is_empty() && input.len().is_multiple_of(channels * op.from.bytes()), KernelError::Input)?;
    check(output.len() / op.to.bytes() == input.len() / op.from.bytes(), KernelError::Output)?;
    check(output.len().is_multiple_of(op.to.bytes()), KernelError::Output)?;
    op.requant.check(isa, channels)?;
    isa.enter(
        #[inline(always)]
        || {
            let positions = input.chunks_exact(channels * op.from.bytes());
            for (pixel, out) in positions.zip(output.chunks_exact_mut(channels * op.to.bytes())) {
                match op.to {
                    Element::Int8 => {
                        for (channel, out) in out.iter_mut().enumerate() {
                            *out = op.requant.apply(channel, op.from.read(pixel, channel));
                        }
                    }
                    Element::Int16 => {
                        for (channel, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
                            *out = saturated(op.requant.rescaled(channel, op.from.read(pixel, channel)));
                        }
                    }
                }
            }
        },
    );
    Ok(())
}
