//! Everything that moves values without computing: strided slice, pad, part of a concatenation, nearest resize by
//! whole factors, clamp.

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
