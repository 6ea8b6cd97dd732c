//! Convolution with one filter per channel.

use crate::conv::Conv;
use crate::isa::Isa;
use crate::shape::{KernelError, check};

/// Scratch bytes of [`depthwise`]: none, its windows are read in place.
#[must_use]
pub const fn depthwise_scratch(_channels: u16) -> usize {
    0
}

/// Runs a depthwise convolution: `groups`, input and output channels are equal, weights are `[KH][KW][C]`.
///
/// # Errors
/// [`KernelError`] if a slice has not the length that the shapes give.
pub fn depthwise<I: Isa>(
    isa: I,
    op: &Conv<'_>,
    input: &[i8],
    output: &mut [i8],
    _scratch: &mut [i8],
) -> Result<(), KernelError> {
    let channels = usize::from(op.output.channels);
    let taps = usize::from(op.window.kernel[0]) * usize::from(op.window.kernel[1]);
    check(op.input.channels == op.output.channels && op.groups == op.output.channels, KernelError::Geometry)?;
    check(input.len() == op.input.len() && !input.is_empty(), KernelError::Input)?;
    check(output.len() == op.output.len() && !output.is_empty(), KernelError::Output)?;
    check(op.weights.len() == taps * channels, KernelError::Weights)?;
    op.requant.check(channels)?;
    isa.enter(
        #[inline(always)]
        || {
            for (position, out) in output.chunks_exact_mut(channels).enumerate() {
                let width = usize::from(op.output.width);
                let start = op.window.start(position / width, position % width);
                let mut channel = 0;
                let (sixteens, rest) = out.as_chunks_mut::<16>();
                for out in sixteens {
                    let sums = sums::<16>(op, input, start, channel);
                    for (out, sums) in out.as_chunks_mut::<4>().0.iter_mut().zip(sums.as_chunks::<4>().0) {
                        *out = isa.requant4(&op.requant, channel, *sums);
                        channel += 4;
                    }
                }
                let (fours, rest) = rest.as_chunks_mut::<4>();
                for out in fours {
                    *out = isa.requant4(&op.requant, channel, sums::<4>(op, input, start, channel));
                    channel += 4;
                }
                for out in rest {
                    let [sum] = sums::<1>(op, input, start, channel);
                    *out = op.requant.apply(channel, sum);
                    channel += 1;
                }
            }
        },
    );
    Ok(())
}

/// Sums of one output position, `N` channels from `first` on.
#[inline(always)]
fn sums<const N: usize>(op: &Conv<'_>, input: &[i8], [top, left]: [isize; 2], first: usize) -> [i32; N] {
    let (height, width) = (usize::from(op.input.height), usize::from(op.input.width));
    let channels = usize::from(op.input.channels);
    let [rows, columns] = op.window.kernel.map(usize::from);
    let padding = [op.input_zero; N];
    let mut acc = [0i32; N];
    let mut weights = op.weights.get(first..).unwrap_or_default();
    for y in (top..).take(rows) {
        let line = usize::try_from(y).ok().filter(|&y| y < height).map(|y| y * width);
        for x in (left..).take(columns) {
            let pixel = match (line, usize::try_from(x)) {
                (Some(line), Ok(x)) if x < width => {
                    input.get((line + x) * channels + first..).and_then(|rest| rest.first_chunk()).unwrap_or(&padding)
                }
                _ => &padding,
            };
            let Some(weight) = weights.first_chunk::<N>() else { return acc };
            for ((acc, &pixel), &weight) in acc.iter_mut().zip(pixel).zip(weight) {
                *acc += i32::from(pixel) * i32::from(weight as i8);
            }
            weights = weights.get(channels..).unwrap_or_default();
        }
    }
    acc
}
