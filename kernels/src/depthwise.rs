//! Convolution with one filter per channel.

use crate::conv::Conv;
use crate::isa::Isa;
use crate::shape::{KernelError, check};

/// Channels whose sums are held at once.
const BLOCK: usize = 16;

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
                for (block, out) in out.chunks_mut(BLOCK).enumerate() {
                    sums(op, input, start, block * BLOCK, out);
                }
            }
        },
    );
    Ok(())
}

/// One output position, channels from `first` on.
#[inline(always)]
fn sums(op: &Conv<'_>, input: &[i8], [top, left]: [isize; 2], first: usize, out: &mut [i8]) {
    let (height, width) = (usize::from(op.input.height), usize::from(op.input.width));
    let channels = usize::from(op.input.channels);
    let columns = usize::from(op.window.kernel[1]);
    let mut acc = [0i32; BLOCK];
    for (tap, weights) in op.weights.chunks_exact(channels).enumerate() {
        let weights = weights.get(first..first + out.len()).unwrap_or_default();
        let (y, x) = (top + (tap / columns) as isize, left + (tap % columns) as isize);
        if y >= 0 && x >= 0 && (y as usize) < height && (x as usize) < width {
            let start = (y as usize * width + x as usize) * channels + first;
            let pixels = input.get(start..start + out.len()).unwrap_or_default();
            for ((acc, &pixel), &weight) in acc.iter_mut().zip(pixels).zip(weights) {
                *acc += i32::from(pixel) * i32::from(weight as i8);
            }
        } else {
            for (acc, &weight) in acc.iter_mut().zip(weights) {
                *acc += i32::from(op.input_zero) * i32::from(weight as i8);
            }
        }
    }
    for ((channel, out), sum) in out.iter_mut().enumerate().zip(acc) {
        *out = op.requant.apply(first + channel, sum);
    }
}
