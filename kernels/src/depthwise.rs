//! Convolution with one filter per channel.

use core::ops::Range;

use crate::conv::Conv;
use crate::element::Element;
use crate::isa::Isa;
use crate::shape::{KernelError, check};

/// Scratch bytes of [`depthwise`]: none, its windows are read in place.
#[must_use]
pub const fn depthwise_scratch(_channels: u16) -> usize {
    0
}

/// Runs a depthwise convolution: `groups`, input and output channels are equal, weights are `[KH][KW][C]`,
/// the output is int8.
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
    check(op.to == Element::Int8, KernelError::Geometry)?;
    check(input.len() == op.input.len() && !input.is_empty(), KernelError::Input)?;
    check(output.len() == op.output.len() && !output.is_empty(), KernelError::Output)?;
    check(op.weights.len() == taps * channels, KernelError::Weights)?;
    let short = op.requant.check(isa, channels)?;
    if isa.depthwise(op, input, output, short) {
        op.bend(isa, output);
        return Ok(());
    }
    isa.enter(
        #[inline(always)]
        || {
            for (position, out) in output.chunks_exact_mut(channels).enumerate() {
                let width = usize::from(op.output.width);
                let place = Place::new(op, position / width, position % width);
                let mut channel = 0;
                let (sixteens, rest) = out.as_chunks_mut::<16>();
                for out in sixteens {
                    let sums = sums::<16>(op, input, &place, channel);
                    for (out, sums) in out.as_chunks_mut::<4>().0.iter_mut().zip(sums.as_chunks::<4>().0) {
                        *out = isa.requant4(&op.requant, channel, *sums);
                        channel += 4;
                    }
                }
                let (fours, rest) = rest.as_chunks_mut::<4>();
                for out in fours {
                    *out = isa.requant4(&op.requant, channel, sums::<4>(op, input, &place, channel));
                    channel += 4;
                }
                for out in rest {
                    let [sum] = sums::<1>(op, input, &place, channel);
                    *out = op.requant.apply(channel, sum);
                    channel += 1;
                }
            }
        },
    );
    op.bend(isa, output);
    Ok(())
}

/// The window of one output position.
struct Place {
    /// Rows and columns of the window that lie on the map.
    rows: Range<usize>,
    columns: Range<usize>,
    /// Index of the first element in the input; wraps where that lies before the map.
    start: usize,
}

impl Place {
    #[inline(always)]
    fn new(op: &Conv<'_>, row: usize, column: usize) -> Self {
        let [top, left] = op.window.start(row, column);
        let inside = |start: isize, kernel: u8, side: u16| {
            let clip = |at: isize| at.clamp(0, isize::from(kernel)) as usize;
            clip(-start)..clip(usize::from(side) as isize - start)
        };
        let (width, channels) = (usize::from(op.input.width), usize::from(op.input.channels));
        let start = (top as usize).wrapping_mul(width).wrapping_add(left as usize).wrapping_mul(channels);
        Self {
            rows: inside(top, op.window.kernel[0], op.input.height),
            columns: inside(left, op.window.kernel[1], op.input.width),
            start,
        }
    }
}

/// Sums of one output position, `N` channels from `first` on.
#[inline(always)]
fn sums<const N: usize>(op: &Conv<'_>, input: &[i8], place: &Place, first: usize) -> [i32; N] {
    let channels = usize::from(op.input.channels);
    let [rows, columns] = op.window.kernel.map(usize::from);
    let padding = [op.input_zero; N];
    let mut acc = [0i32; N];
    let mut weight_at = first;
    for row in 0..rows {
        // 254 rows of padding behind the map times a row of it may exceed 32 bits; such a row is not read.
        let down = row.wrapping_mul(usize::from(op.input.width)).wrapping_mul(channels);
        let line = place.start.wrapping_add(down).wrapping_add(first);
        let mut at = line;
        for column in 0..columns {
            let inside = place.rows.contains(&row) && place.columns.contains(&column);
            let pixel = if inside { block(input, at) } else { Some(&padding) };
            let (Some(pixel), Some(weight)) = (pixel, block::<_, N>(op.weights, weight_at)) else { return acc };
            for ((acc, &pixel), &weight) in acc.iter_mut().zip(pixel).zip(weight) {
                *acc += i32::from(pixel) * i32::from(weight as i8);
            }
            at = at.wrapping_add(channels);
            weight_at += channels;
        }
    }
    acc
}

#[inline(always)]
fn block<T, const N: usize>(values: &[T], at: usize) -> Option<&[T; N]> {
    values.get(at..)?.first_chunk()
}
