//! Convolution, grouped or not. A dense layer is one whose window is the whole map.

use crate::element::{Element, saturated};
use crate::isa::Isa;
use crate::requant::Requant;
use crate::shape::{KernelError, Shape, Window, check};

/// How the weights of a convolution lie, int8 as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// A row `[KH][KW][C/groups]` per output channel, padded with zeros to a multiple of 4.
    Rows,
    /// `[outputs/16][KH·KW·C/4][16][4]`: four neighbours of a row of each of 16 channels, as vectors take them. For one group,
    /// outputs in sixteens, and lines of a window that are whole words.
    Blocks,
}

/// Output channels of a block of [`Packing::Blocks`].
pub(crate) const BLOCK: usize = 16;

/// A convolution.
#[derive(Clone, Copy, Debug)]
pub struct Conv<'a> {
    /// Input map.
    pub input: Shape,
    /// Output map.
    pub output: Shape,
    /// Window.
    pub window: Window,
    /// Groups; divide both channel counts.
    pub groups: u16,
    /// Integer that stands for 0.0 in the input; fills the padding.
    pub input_zero: i8,
    /// int8 as bytes. [`conv`]: as `packing` says. [`crate::depthwise`]: `[KH][KW][C]`.
    pub weights: &'a [u8],
    /// How they lie.
    pub packing: Packing,
    /// Rescale of the sums.
    pub requant: Requant<'a>,
    /// What the output holds.
    pub to: Element,
    /// Table that each finished int8 output v goes through: `curve[v as u8]`.
    pub curve: Option<&'a [u8; 256]>,
}

impl Conv<'_> {
    /// Bytes of an output position.
    pub(crate) fn output_bytes(&self) -> usize {
        usize::from(self.output.channels) * self.to.bytes()
    }

    /// Whether the input itself is the matrix: there is no window to gather, and rows are whole words.
    #[inline(always)]
    pub(crate) fn is_matrix(&self) -> bool {
        let same = self.input.height == self.output.height && self.input.width == self.output.width;
        self.window.is_point() && self.groups == 1 && self.input.channels.is_multiple_of(4) && same
    }

    /// Whether its weights can lie in blocks.
    pub(crate) fn fits_blocks(&self) -> bool {
        let line = usize::from(self.window.kernel[1]) * usize::from(self.input.channels);
        self.groups == 1 && usize::from(self.output.channels).is_multiple_of(BLOCK) && line.is_multiple_of(4)
    }

    /// The last step, where the body left it out.
    pub(crate) fn bend<I: Isa>(&self, isa: I, output: &mut [i8]) {
        if let Some(table) = self.curve {
            isa.curve(table, output);
        }
    }
}

/// Scratch bytes with which [`conv`] is fastest on every instruction set; `positions` are those of the output map.
///
/// Two gathered windows are what it needs (none, where the input itself is the matrix). On a Cortex-M five widened ones
/// and a gathered one save half of the instructions; of four positions, four.
#[must_use]
pub const fn conv_scratch(kernel: [u8; 2], channels_per_group: u16, positions: usize) -> usize {
    let row = row_len(kernel, channels_per_group as usize);
    let rows = match positions {
        0..4 => 3,
        4 => 9,
        _ => 11,
    };
    row.saturating_mul(rows).saturating_add(3)
}

pub(crate) const fn row_len(kernel: [u8; 2], channels: usize) -> usize {
    (kernel[0] as usize * kernel[1] as usize * channels).next_multiple_of(4)
}

/// Runs a convolution.
///
/// # Errors
/// [`KernelError`] if a slice has not the length that the shapes give.
pub fn conv<I: Isa>(
    isa: I,
    op: &Conv<'_>,
    input: &[i8],
    output: &mut [i8],
    scratch: &mut [i8],
) -> Result<(), KernelError> {
    let groups = usize::from(op.groups);
    let (inputs, outputs) = (usize::from(op.input.channels), usize::from(op.output.channels));
    check(groups > 0 && inputs % groups == 0 && outputs % groups == 0, KernelError::Geometry)?;
    check(input.len() == op.input.len() && !input.is_empty(), KernelError::Input)?;
    check(op.to == Element::Int8 || op.curve.is_none(), KernelError::Geometry)?;
    check(output.len() == op.output.len().saturating_mul(op.to.bytes()) && !output.is_empty(), KernelError::Output)?;
    let row = row_len(op.window.kernel, inputs / groups);
    check(row > 0 && op.weights.len() == row * outputs, KernelError::Weights)?;
    let in_blocks = op.packing == Packing::Blocks;
    check(!in_blocks || op.fits_blocks(), KernelError::Geometry)?;
    let short = op.requant.check(isa, outputs)?;
    let direct = op.is_matrix();
    check(direct || scratch.len() >= 2 * row, KernelError::Scratch)?;
    if (!in_blocks || I::PACKING == Packing::Blocks) && isa.conv(op, input, output, scratch, short) {
        op.bend(isa, output);
        return Ok(());
    }
    isa.enter(
        #[inline(always)]
        || {
            if direct {
                let size = op.output_bytes();
                for (pixels, out) in input.chunks(2 * row).zip(output.chunks_mut(2 * size)) {
                    let (first, second) = pixels.split_at(row);
                    products(isa, op, 0, [first, if second.is_empty() { first } else { second }], out);
                }
            } else {
                for group in 0..groups {
                    gathered(isa, op, group, input, output, scratch);
                }
            }
        },
    );
    op.bend(isa, output);
    Ok(())
}

/// All output positions of one group, two neighbours at a time.
#[inline(always)]
fn gathered<I: Isa>(isa: I, op: &Conv<'_>, group: usize, input: &[i8], output: &mut [i8], scratch: &mut [i8]) {
    let channels = usize::from(op.input.channels) / usize::from(op.groups);
    let row = row_len(op.window.kernel, channels);
    let (width, size) = (usize::from(op.output.width), op.output_bytes());
    let (first, second) = scratch.split_at_mut(row);
    let Some(second) = second.get_mut(..row) else { return };
    // The end of a row, behind the window, meets the zeros that pad the weights; gathering does not touch it.
    first.fill(0);
    second.fill(0);
    for (y, out_row) in output.chunks_mut(width * size).enumerate() {
        for (pair, out) in out_row.chunks_mut(2 * size).enumerate() {
            let two = out.len() > size;
            for (x, row) in [&mut *first, &mut *second].into_iter().enumerate().take(1 + usize::from(two)) {
                gather(op, group * channels, channels, input, op.window.start(y, 2 * pair + x), row);
            }
            products(isa, op, group, [&*first, if two { &*second } else { &*first }], out);
        }
    }
}

/// One window of the input, `channels` from `channel` on, as a row; padding is the zero point.
#[inline(always)]
pub(crate) fn gather(
    op: &Conv<'_>,
    channel: usize,
    channels: usize,
    input: &[i8],
    [top, left]: [isize; 2],
    row: &mut [i8],
) {
    let (width, pitch) = (usize::from(op.input.width), usize::from(op.input.channels));
    let [rows, columns] = op.window.kernel.map(usize::from);
    // Columns of the window that lie on the map.
    let from = (-left).clamp(0, columns as isize) as usize;
    let to = (width as isize - left).clamp(0, columns as isize) as usize;
    for (y, line) in row.chunks_exact_mut(columns * channels).take(rows).enumerate() {
        let source_y = top + y as isize;
        if source_y < 0 || source_y >= usize::from(op.input.height) as isize || from >= to {
            line.fill(op.input_zero);
            continue;
        }
        // Most windows have no padding: two calls that fill nothing would cost as much as the copy.
        let inside = if to - from == columns {
            line
        } else {
            let (before, rest) = line.split_at_mut(from * channels);
            let (inside, after) = rest.split_at_mut((to - from) * channels);
            before.fill(op.input_zero);
            after.fill(op.input_zero);
            inside
        };
        let start = (source_y as usize * width + (left + from as isize) as usize) * pitch + channel;
        if pitch == channels {
            if let Some(source) = input.get(start..start + inside.len()) {
                inside.copy_from_slice(source);
            }
        } else {
            for (pixel, source) in
                inside.chunks_exact_mut(channels).zip(input.get(start..).unwrap_or_default().chunks(pitch))
            {
                if let Some(source) = source.get(..channels) {
                    pixel.copy_from_slice(source);
                }
            }
        }
    }
}

/// All output channels of one group for two rows; `out` has one or two positions.
#[inline(always)]
fn products<I: Isa>(isa: I, op: &Conv<'_>, group: usize, rows: [&[i8]; 2], out: &mut [i8]) {
    let outputs = usize::from(op.output.channels);
    let per_group = outputs / usize::from(op.groups);
    let len = rows[0].len();
    let (out0, out1) = out.split_at_mut(op.output_bytes().min(out.len()));
    if op.packing == Packing::Blocks {
        for (row, out) in rows.into_iter().zip([out0, out1]).filter(|(_, out)| !out.is_empty()) {
            isa.row_in_blocks(op, row, out);
        }
        return;
    }
    let first = group * per_group;
    let weights = op.weights.get(first * len..(first + per_group) * len).unwrap_or_default();
    let mut channel = first;
    let mut fours = weights.chunks_exact(4 * len);
    for four in fours.by_ref() {
        let (w01, w23) = four.split_at(2 * len);
        let ((w0, w1), (w2, w3)) = (w01.split_at(len), w23.split_at(len));
        let [sums0, sums1] = isa.dot_2x4(rows, [w0, w1, w2, w3]);
        store4(isa, op, channel, sums0, out0);
        store4(isa, op, channel, sums1, out1);
        channel += 4;
    }
    for one in fours.remainder().chunks_exact(len) {
        for (out, row) in [&mut *out0, &mut *out1].into_iter().zip(rows) {
            store(op, channel, isa.dot(row, one), out);
        }
        channel += 1;
    }
}

/// See [`Isa::row_in_blocks`]. Small: a Cortex-M has it for images that were made for other CPUs.
#[inline(never)]
pub(crate) fn row_in_blocks(op: &Conv<'_>, row: &[i8], out: &mut [i8]) {
    for channel in 0..usize::from(op.output.channels) {
        let start = channel / BLOCK * BLOCK * row.len() + channel % BLOCK * 4;
        let weights = op.weights.get(start..).unwrap_or_default().chunks(4 * BLOCK);
        let mut sum = 0;
        for (word, weights) in row.chunks(4).zip(weights) {
            for (&value, &weight) in word.iter().zip(weights) {
                sum += i32::from(value) * i32::from(weight.cast_signed());
            }
        }
        store(op, channel, sum, out);
    }
}

/// As [`row_in_blocks`], with the dot products of the row with those of a block.
#[allow(dead_code, reason = "of instruction sets with such a leaf")]
#[inline(always)]
pub(crate) fn row_by_blocks<I: Isa>(
    isa: I,
    op: &Conv<'_>,
    row: &[i8],
    out: &mut [i8],
    dot: impl Fn(&[u8]) -> [[i32; 4]; 4],
) {
    for (number, block) in op.weights.chunks_exact(BLOCK * row.len()).enumerate() {
        for (four, sums) in dot(block).into_iter().enumerate() {
            store4(isa, op, BLOCK * number + 4 * four, sums, out);
        }
    }
}

/// Four sums of one position, of the channels from `channel` on; a position that is not there takes none.
#[inline(always)]
fn store4<I: Isa>(isa: I, op: &Conv<'_>, channel: usize, sums: [i32; 4], out: &mut [i8]) {
    if op.to == Element::Int8 {
        let values = isa.requant4(&op.requant, channel, sums);
        if let Some(slots) = out.get_mut(channel..).and_then(|out| out.first_chunk_mut()) {
            *slots = values;
        }
    } else {
        for (lane, sum) in sums.into_iter().enumerate() {
            store(op, channel + lane, sum, out);
        }
    }
}

/// One sum. A call: few images need it often, and inlined it is a kilobyte on a Cortex-M.
#[inline(never)]
fn store(op: &Conv<'_>, channel: usize, sum: i32, out: &mut [i8]) {
    match op.to {
        Element::Int8 => {
            if let Some(slot) = out.get_mut(channel) {
                *slot = op.requant.apply(channel, sum);
            }
        }
        Element::Int16 => {
            if let Some(slot) = out.as_chunks_mut().0.get_mut(channel) {
                *slot = saturated(op.requant.rescaled(channel, sum));
            }
        }
    }
}
