//! Convolutions: tiles of four or eight windows by eight output channels.
//!
//! Windows are written to scratch interleaved, as the products want them; rows of weights lie in the image as for every other
//! CPU. What is written once serves every output channel.

use core::arch::aarch64::int8x16_t;
use core::arch::asm;

use super::dense;
use super::rescale::Rescale;
use super::windows::{Walk, interleaved};
use crate::conv::{Conv, row_len};
use crate::element::Element;

/// Output channels of a tile.
pub(super) const CHANNELS: usize = 8;

/// What a tile needs.
pub(super) struct Run {
    /// Fours of windows, each interleaved.
    pub(super) windows: *const i8,
    /// Rows of weights, one for each channel.
    pub(super) weights: *const u8,
    /// Bytes of a row.
    pub(super) row: usize,
    /// Channels, at least [`CHANNELS`].
    pub(super) channels: usize,
    pub(super) rescale: Rescale,
    /// First channel of the first position.
    pub(super) output: *mut i8,
    /// Bytes from one position of the output to the next.
    pub(super) pitch: usize,
    /// Whether outputs are Int16.
    pub(super) wide: bool,
}

impl Run {
    /// First channels of the tiles: in the last one channels may count again.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn tiles(&self) -> impl Iterator<Item = usize> + use<> {
        let last = self.channels - CHANNELS;
        (0..self.channels.div_ceil(CHANNELS)).map(move |tile| last.min(tile * CHANNELS))
    }
}

/// The next 16 bytes of a row of weights. By itself the compiler has one pointer for all eight rows, and an addition for each.
///
/// # Safety
/// The bytes are there.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn next(row: &mut *const i8) -> int8x16_t {
    let bytes;
    // SAFETY: reads 16 bytes, as the caller promises, and moves the pointer on.
    unsafe {
        asm!("ldr {0:q}, [{1}], #16", out(vreg) bytes, inout(reg) *row, options(readonly, nostack, preserves_flags));
    }
    bytes
}

/// All channels for four or eight windows.
///
/// # Safety
/// The CPU has the tile's products; the pointers cover what the lengths say; shifts are 33..=54.
pub(super) type Tile = unsafe fn(&Run);

/// Runs a checked convolution, if its shapes and its rescale are those that the tiles can do. `UNIT` bytes of a window lie
/// side by side when it is interleaved with others.
///
/// # Safety
/// The CPU has the products of `tiles`, for four and for eight windows.
#[target_feature(enable = "dotprod")]
pub(super) unsafe fn conv<const UNIT: usize>(
    tiles: [Tile; 2],
    op: &Conv<'_>,
    input: &[i8],
    output: &mut [i8],
    scratch: &mut [i8],
) -> bool {
    let (outputs, groups) = (usize::from(op.output.channels), usize::from(op.groups));
    let row = row_len(op.window.kernel, usize::from(op.input.channels) / groups);
    let (size, pitch) = (op.to.bytes(), op.output_bytes());
    let (positions, per_group) = (output.len() / pitch, outputs / groups);
    if per_group < CHANNELS || !op.requant.is_short() || !row.is_multiple_of(UNIT) {
        return false;
    }
    if positions < 4 {
        // SAFETY: the rescale is short, and there are channels enough.
        return unsafe { dense::dense(op, input, output, scratch) };
    }
    let Some((windows, plain)) = scratch.split_at_mut_checked(8 * row) else { return false };
    let Some(plain) = plain.get_mut(..row) else { return false };
    // The end of a row, behind the window, meets the zeros that pad the weights; gathering does not touch it.
    plain.fill(0);
    for group in 0..groups {
        let walk = Walk::<UNIT>::new(op, group, input);
        let first = group * per_group;
        let Some(weights) = op.weights.get(first * row..(first + per_group) * row) else { return false };
        let mut done = 0;
        while done < positions {
            let count = if positions - done > 4 && positions >= 8 { 8 } else { 4 };
            // The last ones again rather than a tile of less: the same inputs give the same outputs.
            let start = done.min(positions - count);
            done = start + count;
            let lanes = interleaved(UNIT);
            for (next, place) in windows.chunks_exact_mut(lanes * row).take(count / lanes).enumerate() {
                walk.write(start + next * lanes, place, plain);
            }
            let Some(output) = output.get_mut(start * pitch + first * size..done * pitch) else { return false };
            let run = Run {
                windows: windows.as_ptr(),
                weights: weights.as_ptr(),
                row,
                channels: per_group,
                rescale: Rescale::new(op, first),
                output: output.as_mut_ptr(),
                pitch,
                wide: op.to == Element::Int16,
            };
            // SAFETY: `count` windows were written, and there is a row of weights and an entry of the tables for each channel;
            // `output` has `count` positions, `pitch` apart; the shifts were checked above.
            unsafe { tiles[count / 8](&run) };
        }
    }
    true
}
