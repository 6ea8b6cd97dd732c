//! Convolutions: tiles of four windows by 16 output channels.
//!
//! A vector of weights has four bytes of each of four channels, so that a product with four bytes of a window adds to the sums of
//! four channels: nothing is summed across a vector, and sums lie as outputs do. Windows are read in place where they can.

use core::arch::aarch64::{int32x4_t, vget_low_s8, vst1_s8, vst1q_s8, vst1q_s16};

use super::dense;
use super::pack::Pack;
use super::rescale::{Rescale, scaled};
use super::strip::{Strip, Windows};
use crate::arch::room::with_room;
use crate::conv::{Conv, Packing, row_len};
use crate::element::Element;

/// Bytes of the most room on the stack.
const ROOM: usize = 512 << 10;

/// Windows of a tile.
pub(super) const ROWS: usize = 4;
/// Channels of which constants are loaded at once.
pub(super) const CHANNELS: usize = 8;
/// Output channels of a block: 16, or eight at the end.
const BLOCKS: [usize; 2] = [CHANNELS, 2 * CHANNELS];
/// Vectors of sums of a position.
const VECTORS: usize = 4;

/// A block of channels.
#[derive(Clone, Copy)]
pub(super) struct Block {
    /// As [`Pack`] writes them.
    pub(super) weights: *const i8,
    pub(super) bias: [int32x4_t; VECTORS],
    multiplier: [int32x4_t; VECTORS],
    shift: [int32x4_t; VECTORS],
    rescale: Rescale,
    /// Its first channel of the first position of the band.
    output: *mut i8,
    /// Bytes from one position of the output to the next.
    pitch: usize,
    /// Whether outputs are Int16.
    wide: bool,
}

impl Block {
    /// Rescales and stores the channels of the positions from one on.
    ///
    /// # Safety
    /// The output has the positions, and `COUNT` times four channels: 8 or 16.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) unsafe fn store<const COUNT: usize>(&self, position: usize, sums: [[int32x4_t; COUNT]; ROWS]) {
        let &Self { multiplier, shift, rescale, pitch, wide, .. } = self;
        let mut output = self.output.wrapping_add(position * pitch);
        let halves = sums.map(|sums| {
            let scaled = |vector: usize| scaled(sums[vector], multiplier[vector], shift[vector]);
            let half = |first: usize| rescale.narrow(scaled(first), scaled(first + 1));
            [half(0), half(COUNT - 2)]
        });
        if wide {
            for [low, high] in halves {
                // SAFETY: as the caller says; a vector may lie at any address.
                unsafe {
                    vst1q_s16(output.cast(), low);
                    if COUNT == VECTORS {
                        vst1q_s16(output.wrapping_add(16).cast(), high);
                    }
                }
                output = output.wrapping_add(pitch);
            }
            return;
        }
        for [low, high] in halves {
            let bytes = rescale.bytes(low, high);
            // SAFETY: as above.
            unsafe {
                if COUNT == VECTORS {
                    vst1q_s8(output, bytes);
                } else {
                    vst1_s8(output, vget_low_s8(bytes));
                }
            }
            output = output.wrapping_add(pitch);
        }
    }
}

/// All tiles of a band.
///
/// # Safety
/// The CPU has the products; the block has weights for the windows' lines and room for their outputs; shifts are 33..=54.
pub(super) type Tiles = unsafe fn(&Block, &Windows);

/// What an instruction set has of its own.
pub(super) struct Products {
    /// Bytes of a line that an instruction takes.
    pub(super) unit: usize,
    /// From rows, and from blocks.
    pub(super) packs: [Pack; 2],
    /// For blocks of eight channels and of 16.
    pub(super) tiles: [Tiles; 2],
}

/// Runs a checked convolution whose shifts are short, if its shapes are those that the tiles can do.
///
/// # Safety
/// The CPU has the products.
#[target_feature(enable = "dotprod")]
pub(super) unsafe fn conv(
    products: &Products,
    op: &Conv<'_>,
    input: &[i8],
    output: &mut [i8],
    scratch: &mut [i8],
) -> bool {
    let (outputs, groups) = (usize::from(op.output.channels), usize::from(op.groups));
    let channels = usize::from(op.input.channels) / groups;
    let row = row_len(op.window.kernel, channels);
    let (size, pitch) = (op.to.bytes(), op.output_bytes());
    let (positions, per_group) = (output.len() / pitch, outputs / groups);
    if per_group < BLOCKS[0] {
        return false;
    }
    let in_blocks = op.packing == Packing::Blocks;
    if positions < ROWS {
        if in_blocks {
            return false;
        }
        // SAFETY: the rescale is short, and there are channels enough.
        return unsafe { dense::dense(op, input, output, scratch) };
    }
    let strip = Strip::new(op, products.unit);
    let packed = BLOCKS[1] * strip.depth();
    let pack = products.packs[usize::from(in_blocks)];
    let lines = [op.window.kernel[0].into(), usize::from(op.window.kernel[1]) * channels];
    let rescale = Rescale::new(op, 0);
    with_room::<i8, ROOM>(packed + strip.need(), |room| {
        let copy = room.wrapping_add(packed);
        for group in 0..groups {
            for top in strip.bands() {
                // SAFETY: there is room for a band behind the weights.
                let windows = unsafe { strip.windows(input, group * channels, top, copy) };
                let start = top * usize::from(op.output.width);
                let Some(output) = output.get_mut(start * pitch..(start + windows.count) * pitch) else { return };
                for (first, wide) in blocks(per_group) {
                    let (first, len) = (group * per_group + first, BLOCKS[usize::from(wide)]);
                    let Some(weights) = op.weights.get(first * row..(first + len) * row) else { return };
                    // SAFETY: there is room, and a row for each channel.
                    let weights = unsafe { pack(weights, row, lines, room) };
                    // SAFETY: there are eight channels from each of them on.
                    let [low, high] = [first, first + len - CHANNELS].map(|first| unsafe { rescale.constants(first) });
                    let four = |[a, b]: [_; 2], [c, d]: [_; 2]| [a, b, c, d];
                    let block = Block {
                        weights,
                        bias: four(low.bias, high.bias),
                        multiplier: four(low.multiplier, high.multiplier),
                        shift: four(low.shift, high.shift),
                        rescale,
                        output: output.as_mut_ptr().wrapping_add(first * size),
                        pitch,
                        wide: op.to == Element::Int16,
                    };
                    // SAFETY: the output has the positions of the windows; shifts were checked above.
                    unsafe { products.tiles[usize::from(wide)](&block, &windows) };
                }
            }
        }
    })
}

/// First channels of blocks, and whether they have 16 of them or eight; in the last one channels may count again.
fn blocks(channels: usize) -> impl Iterator<Item = (usize, bool)> {
    let whole = channels / BLOCKS[1];
    let rest = channels % BLOCKS[1];
    let wide = rest > BLOCKS[0] && whole > 0;
    let last = (rest > 0).then(|| (channels - BLOCKS[usize::from(wide)].min(channels), wide));
    // Of nine to 15 channels twice eight.
    let first = (rest > BLOCKS[0] && whole == 0).then_some((0, false));
    (0..whole).map(|block| (block * BLOCKS[1], true)).chain(first).chain(last)
}
