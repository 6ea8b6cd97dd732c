//! Everything that moves values without computing: strided slice, pad, part of a concatenation, nearest resize by
//! whole factors, clamp, tokens before a map, cyclic shift.

use crate::arch;
use crate::shape::{KernelError, Shape, check};

/// `out[y, x, first_channel + c] = in[y·step/repeat + origin₀, x·step/repeat + origin₁, c + origin₂]` for `c` below
/// `channels`, `fill` outside the input; clamped. Other channels of the output stay as they are.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    /// Input map.
    pub input: Shape,
    /// Output map.
    pub output: Shape,
    /// First row, column and channel that is read.
    pub origin: [i16; 3],
    /// Read step of rows and columns, at least 1.
    pub step: [u8; 2],
    /// How often a row and a column is repeated, at least 1.
    pub repeat: [u8; 2],
    /// First channel that is written.
    pub first_channel: u16,
    /// Channels that are written.
    pub channels: u16,
    /// Value outside the input.
    pub fill: i8,
    /// Least output.
    pub min: i8,
    /// Largest output.
    pub max: i8,
}

/// Runs a move.
///
/// # Errors
/// [`KernelError`] if a slice has not the length that the shapes give or a step is 0.
pub fn move_tensor(op: &Move, input: &[i8], output: &mut [i8]) -> Result<(), KernelError> {
    check(!op.step.contains(&0) && !op.repeat.contains(&0), KernelError::Geometry)?;
    check(input.len() == op.input.len() && !input.is_empty(), KernelError::Input)?;
    check(output.len() == op.output.len() && !output.is_empty(), KernelError::Output)?;
    let (first, channels) = (usize::from(op.first_channel), usize::from(op.channels));
    check(first + channels <= usize::from(op.output.channels), KernelError::Geometry)?;
    let source = |index: usize, axis: usize| {
        (index * usize::from(op.step[axis]) / usize::from(op.repeat[axis])) as isize + isize::from(op.origin[axis])
    };
    let (height, width) = (usize::from(op.input.height) as isize, usize::from(op.input.width) as isize);
    let inputs = usize::from(op.input.channels);
    let columns = usize::from(op.output.width);
    for (position, pixel) in output.chunks_exact_mut(usize::from(op.output.channels)).enumerate() {
        let (y, x) = (source(position / columns, 0), source(position % columns, 1));
        let inside = (0..height).contains(&y) && (0..width).contains(&x);
        let start = if inside { (y * width + x) as usize * inputs } else { 0 };
        let from = input.get(start..start + inputs).filter(|_| inside).unwrap_or_default();
        for (channel, out) in pixel.iter_mut().skip(first).take(channels).enumerate() {
            let index = channel as isize + isize::from(op.origin[2]);
            let value = usize::try_from(index).ok().and_then(|index| from.get(index)).copied().unwrap_or(op.fill);
            *out = value.min(op.max).max(op.min);
        }
    }
    Ok(())
}

/// Puts tokens of an image before those of a map: the bytes of `tokens`, then those of `input`, of any element.
///
/// # Errors
/// [`KernelError`] if the output has not the length of both.
pub fn prepend(tokens: &[u8], input: &[i8], output: &mut [i8]) -> Result<(), KernelError> {
    check(tokens.len().checked_add(input.len()) == Some(output.len()), KernelError::Output)?;
    let (first, rest) = output.split_at_mut(tokens.len());
    first.copy_from_slice(arch::signed(tokens));
    rest.copy_from_slice(input);
    Ok(())
}

/// A cyclic shift: `out[y, x] = in[(y + by₀) mod H, (x + by₁) mod W]`.
#[derive(Clone, Copy, Debug)]
pub struct Roll {
    /// Input and output map; its channels are the bytes of a position, so it has any element.
    pub shape: Shape,
    /// Rows and columns.
    pub by: [u16; 2],
}

/// Runs a cyclic shift.
///
/// # Errors
/// [`KernelError`] if a slice has not the length that the shape gives.
pub fn roll(op: &Roll, input: &[i8], output: &mut [i8]) -> Result<(), KernelError> {
    check(input.len() == op.shape.len() && !input.is_empty(), KernelError::Input)?;
    check(output.len() == input.len(), KernelError::Output)?;
    let (height, row) = (usize::from(op.shape.height), usize::from(op.shape.width) * usize::from(op.shape.channels));
    let left = usize::from(op.by[1] % op.shape.width) * usize::from(op.shape.channels);
    for (y, out) in output.chunks_exact_mut(row).enumerate() {
        let start = (y + usize::from(op.by[0])) % height * row;
        let Some((before, after)) = input.get(start..start + row).and_then(|line| line.split_at_checked(left)) else {
            return Err(KernelError::Input);
        };
        let (first, second) = out.split_at_mut(after.len());
        first.copy_from_slice(after);
        second.copy_from_slice(before);
    }
    Ok(())
}
