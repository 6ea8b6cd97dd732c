//! Geometry, and the one error of this crate.

/// Map `[H, W, C]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
    /// Channels.
    pub channels: u16,
}

impl Shape {
    /// Elements.
    #[must_use]
    pub fn len(self) -> usize {
        // Saturates where `usize` has 32 bits: no slice has that length, so the op is refused.
        usize::from(self.height).saturating_mul(self.width.into()).saturating_mul(self.channels.into())
    }

    /// Whether it has no element.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// A window that walks over a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Rows, columns.
    pub kernel: [u8; 2],
    /// Step in rows and columns.
    pub stride: [u8; 2],
    /// Padding: top, left, bottom, right.
    pub pad: [u8; 4],
}

impl Window {
    /// First row and column under the window of an output position; negative in the padding.
    pub(crate) fn start(self, row: usize, column: usize) -> [isize; 2] {
        let at = |index: usize, stride: u8, pad: u8| (index * usize::from(stride)) as isize - isize::from(pad);
        [at(row, self.stride[0], self.pad[0]), at(column, self.stride[1], self.pad[1])]
    }

    /// Whether each output position sees exactly its own input position.
    pub(crate) fn is_point(self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.pad == [0; 4]
    }
}

/// A slice has not the length that the shapes ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelError {
    /// The input.
    Input,
    /// The output.
    Output,
    /// Weights, biases or requantisation; also a shift outside 1..=62.
    Weights,
    /// Scratch; see [`crate::conv_scratch`].
    Scratch,
    /// Groups do not divide the channels, or a step is 0.
    Geometry,
}

pub(crate) fn check(holds: bool, error: KernelError) -> Result<(), KernelError> {
    if holds { Ok(()) } else { Err(error) }
}
