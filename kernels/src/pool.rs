//! Mean and maximum over a window.

use core::ops::Range;

use crate::isa::Isa;
use crate::requant::{finish, is_shift, rescale};
use crate::shape::{KernelError, Shape, Window, check};

/// What a pool takes of its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    /// Mean over the whole window; padding counts as 0.0.
    Average,
    /// Maximum; padding does not count.
    Max,
}

/// A pool.
#[derive(Clone, Copy, Debug)]
pub struct Pool {
    /// Mean or maximum.
    pub kind: PoolKind,
    /// Input map.
    pub input: Shape,
    /// Output map, of the same channels.
    pub output: Shape,
    /// Window.
    pub window: Window,
    /// Integer that stands for 0.0 in the input.
    pub input_zero: i8,
    /// Mean: rescale of the sum, 0..2³¹.
    pub multiplier: i32,
    /// Mean: right shift, 1..=62.
    pub shift: u8,
    /// Mean: integer that stands for 0.0 in the output.
    pub zero_point: i8,
    /// Least output.
    pub min: i8,
    /// Largest output.
    pub max: i8,
}

impl Pool {
    /// Rows and columns of the map under the window of an output position; maybe none.
    #[inline(always)]
    pub(crate) fn under(&self, row: usize, column: usize) -> [Range<usize>; 2] {
        let inside = |start: isize, kernel: u8, side: u16| {
            let end = (start + isize::from(kernel)).min(usize::from(side) as isize).max(0);
            start.max(0) as usize..end as usize
        };
        let [top, left] = self.window.start(row, column);
        let [height, width] = self.window.kernel;
        [inside(top, height, self.input.height), inside(left, width, self.input.width)]
    }
}

/// Channels that are held at once.
const BLOCK: usize = 16;

/// Runs a pool.
///
/// # Errors
/// [`KernelError`] if a slice has not the length that the shapes give.
pub fn pool<I: Isa>(isa: I, op: &Pool, input: &[i8], output: &mut [i8]) -> Result<(), KernelError> {
    check(op.input.channels == op.output.channels, KernelError::Geometry)?;
    check(op.kind == PoolKind::Max || is_shift(op.shift), KernelError::Weights)?;
    check(input.len() == op.input.len() && !input.is_empty(), KernelError::Input)?;
    check(output.len() == op.output.len() && !output.is_empty(), KernelError::Output)?;
    if isa.pool(op, input, output) {
        return Ok(());
    }
    let (channels, width) = (usize::from(op.output.channels), usize::from(op.output.width));
    isa.enter(
        #[inline(always)]
        || {
            for (position, out) in output.chunks_exact_mut(channels).enumerate() {
                let under = op.under(position / width, position % width);
                for (block, out) in out.chunks_mut(BLOCK).enumerate() {
                    reduce(op, input, &under, block * BLOCK, out);
                }
            }
        },
    );
    Ok(())
}

/// One output position, channels from `first` on.
#[inline(always)]
fn reduce(op: &Pool, input: &[i8], [rows, columns]: &[Range<usize>; 2], first: usize, out: &mut [i8]) {
    let (width, channels) = (usize::from(op.input.width), usize::from(op.input.channels));
    let mean = op.kind == PoolKind::Average;
    let mut acc = [if mean { 0 } else { i32::MIN }; BLOCK];
    for y in rows.clone() {
        for x in columns.clone() {
            let start = (y * width + x) * channels + first;
            let pixels = input.get(start..start + out.len()).unwrap_or_default();
            for (acc, &pixel) in acc.iter_mut().zip(pixels) {
                let value = i32::from(pixel);
                *acc = if mean { *acc + (value - i32::from(op.input_zero)) } else { value.max(*acc) };
            }
        }
    }
    for (out, acc) in out.iter_mut().zip(acc) {
        *out = if mean {
            finish(rescale(acc, op.multiplier, op.shift), op.zero_point, op.min, op.max)
        } else {
            finish(acc, 0, op.min, op.max)
        };
    }
}
