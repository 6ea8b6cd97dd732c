//! One table of cases for every instruction set, on a desktop and on a device: no `std`, no heap.
//!
//! [`table`] visits the boundaries of every op, [`random`] a seeded crowd; [`run`] runs one case in the [`Memory`] that it is
//! lent and compares with [`crate::reference`].

mod any;
mod head;
pub mod layers;
mod table;
mod transformer;

pub use any::run_any;
pub use head::MixCase;
pub use table::{random, table};
pub use transformer::{AttentionCase, Line, NormCase, RescaleCase};

use crate::conv::row_len;
use crate::{
    Add, Conv, Element, Isa, KernelError, Move, Packing, Pool, Requant, Roll, Shape, Window, conv_scratch,
    depthwise_scratch, reference,
};

/// What tensors hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// 0, 1, .. 250, 0, ..: no row length divides the period, so a row that is read from a wrong place differs.
    Period,
    /// Input and weights (or second operand) all of one value.
    All(i8, i8),
    /// -128 and 127, from a seed.
    Extremes(u64),
    /// Any value, from a seed.
    Random(u64),
}

/// Geometry of a convolution; the output shape follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvCase {
    /// Input map.
    pub input: Shape,
    /// Output channels.
    pub outputs: u16,
    /// Window.
    pub window: Window,
    /// Groups.
    pub groups: u16,
    /// Right shift of every channel; without one, shifts around the size of the sums.
    pub shift: Option<u8>,
    /// Contents.
    pub paint: Paint,
    /// What the output holds.
    pub to: Element,
    /// Whether the output goes through a table.
    pub curve: bool,
}

/// One comparison.
#[derive(Clone, Copy, Debug)]
pub enum Case {
    /// [`crate::conv`].
    Conv(ConvCase),
    /// [`crate::depthwise`].
    Depthwise(ConvCase),
    /// [`crate::add`], [`crate::add_constant`] and, of int8, [`crate::add_in_place`], with a number of elements.
    Add(Add, usize, Paint),
    /// The same; a layer takes [`crate::add_in_place`].
    AddInPlace(Add, usize, Paint),
    /// [`crate::pool`].
    Pool(Pool, Paint),
    /// [`crate::move_tensor`].
    Move(Move, Paint),
    /// [`crate::rescale_tensor`].
    Rescale(RescaleCase),
    /// [`crate::curve`] of a number of values.
    Curve(usize, Paint),
    /// [`crate::prepend`] of a number of bytes to another.
    Prepend([usize; 2], Paint),
    /// [`crate::roll`].
    Roll(Roll, Paint),
    /// [`crate::layer_norm`].
    LayerNorm(NormCase),
    /// [`crate::softmax`] of rows of a number of keys.
    Softmax([u16; 2], Line),
    /// [`crate::attention`].
    Attention(AttentionCase),
    /// [`crate::head::mix`].
    Mix(MixCase),
}

/// Why a case failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The body refused it.
    Kernel(KernelError),
    /// It needs more than [`Memory`] has.
    Memory,
    /// A result differs from the reference.
    Differs {
        /// Index in the output.
        at: usize,
        /// What the body wrote.
        found: i8,
        /// What the reference wrote.
        expected: i8,
    },
}

impl From<KernelError> for Failure {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error)
    }
}

/// Memory for one case at a time, aligned as weights in an image are.
#[repr(align(4))]
pub struct Memory {
    activations: [i8; 20 << 10],
    constants: [u8; 16 << 10],
}

impl Memory {
    /// Memory for any case of this module.
    #[must_use]
    pub const fn new() -> Self {
        Self { activations: [0; 20 << 10], constants: [0; 16 << 10] }
    }
}

/// Memory of whichever size, lent to one case.
struct Lent<'a> {
    activations: &'a mut [i8],
    constants: &'a mut [u8],
}

impl Memory {
    fn lend(&mut self) -> Lent<'_> {
        Lent { activations: &mut self.activations, constants: &mut self.constants }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        // The state must not be 0.
        Self(seed.wrapping_mul(2).wrapping_add(1))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

impl Paint {
    /// Values of the input, or (`second`) of the weights.
    fn values(self, second: bool) -> impl FnMut() -> i8 {
        let seed = if let Self::Extremes(seed) | Self::Random(seed) = self { seed } else { 0 };
        let mut random = Random::new(2 * seed + u64::from(second));
        let mut index = 0u32;
        move || match self {
            Self::Period => {
                index += 1;
                ((index - 1) % 251) as i8
            }
            Self::All(input, weight) => {
                if second {
                    weight
                } else {
                    input
                }
            }
            Self::Extremes(_) => [i8::MIN, i8::MAX][random.below(2) as usize],
            Self::Random(_) => random.next() as i8,
        }
    }

    /// Fills a slice of `element`s; as [`Self::values`], but an Int16 has the whole range.
    fn fill(self, second: bool, element: Element, values: &mut [i8]) {
        let mut next = self.values(second);
        if element == Element::Int8 {
            values.fill_with(next);
            return;
        }
        let low = Self::Random(77).values(second);
        for (pair, low) in values.as_chunks_mut::<2>().0.iter_mut().zip(core::iter::repeat_with(low)) {
            *pair = match (self, next()) {
                (Self::Random(_) | Self::Period, high) => [low, high],
                (Self::All(..) | Self::Extremes(_), i8::MAX) => [-1, i8::MAX],
                (Self::All(..) | Self::Extremes(_), high) => [0, high],
            };
        }
    }
}

impl ConvCase {
    fn output(&self) -> Shape {
        let side = |side: u16, axis: usize| {
            let padded = side + u16::from(self.window.pad[axis]) + u16::from(self.window.pad[axis + 2]);
            (padded - u16::from(self.window.kernel[axis])) / u16::from(self.window.stride[axis]) + 1
        };
        Shape { height: side(self.input.height, 0), width: side(self.input.width, 1), channels: self.outputs }
    }

    /// Whether weights can lie in blocks.
    fn fits_blocks(&self) -> bool {
        let line = u16::from(self.window.kernel[1]) * self.input.channels;
        self.groups == 1 && self.outputs.is_multiple_of(16) && line.is_multiple_of(4)
    }

    /// A shift that brings sums of `taps` products near to 8 bits: such a sum is about √taps · 2^12.5 for random
    /// values and taps · 2^14 for constant ones, and multipliers are near 2^31.
    fn shift(&self, taps: usize, channel: usize) -> u8 {
        let log = taps.max(1).ilog2() as u8;
        let near = if matches!(self.paint, Paint::All(..)) { 38 + log } else { 36 + log / 2 };
        self.shift.unwrap_or(near + (channel % 3) as u8)
    }
}

fn take<'a, T>(rest: &mut &'a mut [T], len: usize) -> Result<&'a mut [T], Failure> {
    rest.split_off_mut(..len).ok_or(Failure::Memory)
}

fn compare(found: &[i8], expected: &[i8]) -> Result<(), Failure> {
    match found.iter().zip(expected).position(|(found, expected)| found != expected) {
        Some(at) => Err(Failure::Differs { at, found: found[at], expected: expected[at] }),
        None => Ok(()),
    }
}

/// Runs one case.
///
/// # Errors
/// [`Failure`], the first difference from the reference.
pub fn run<I: Isa>(isa: I, case: &Case, memory: &mut Memory) -> Result<(), Failure> {
    let mut rest = &mut memory.activations[..];
    match case {
        Case::Conv(case) => {
            run_conv(isa, case, false, Packing::Rows, memory.lend())?;
            if case.fits_blocks() { run_conv(isa, case, false, Packing::Blocks, memory.lend()) } else { Ok(()) }
        }
        Case::Depthwise(case) => run_conv(isa, case, true, Packing::Rows, memory.lend()),
        Case::Add(op, len, paint) | Case::AddInPlace(op, len, paint) => {
            let [of_a, of_b, of_output] = op.elements;
            let slices = [of_a, of_b, of_output, of_output].map(|element| take(&mut rest, len * element.bytes()));
            let [a, b, found, expected] = slices;
            let (a, b, found, expected) = (a?, b?, found?, expected?);
            paint.fill(false, of_a, a);
            paint.fill(true, of_b, b);
            reference::add(op, a, b, expected);
            found.fill(0x55);
            crate::add(isa, op, a, b, found)?;
            compare(found, expected)?;
            let constant = take(&mut &mut memory.constants[..], b.len())?;
            constant.iter_mut().zip(&*b).for_each(|(constant, &value)| *constant = value as u8);
            found.fill(0x55);
            crate::add_constant(isa, op, a, constant, found)?;
            compare(found, expected)?;
            if op.elements == [Element::Int8; 3] {
                crate::add_in_place(isa, op, a, b)?;
                compare(a, expected)?;
            }
            Ok(())
        }
        Case::Pool(op, paint) => {
            let [input, found, expected] = [op.input, op.output, op.output].map(|shape| take(&mut rest, shape.len()));
            let (input, found, expected) = (input?, found?, expected?);
            input.fill_with(paint.values(false));
            reference::pool(op, input, expected);
            found.fill(0x55);
            crate::pool(isa, op, input, found)?;
            compare(found, expected)
        }
        Case::Move(op, paint) => {
            let [input, found, expected] = [op.input, op.output, op.output].map(|shape| take(&mut rest, shape.len()));
            let (input, found, expected) = (input?, found?, expected?);
            input.fill_with(paint.values(false));
            // Values that are not written stay.
            found.fill(0x55);
            expected.fill(0x55);
            reference::move_tensor(op, input, expected);
            crate::move_tensor(op, input, found)?;
            compare(found, expected)
        }
        Case::Mix(case) => head::run(isa, case, memory),
        other => transformer::run(isa, other, memory.lend(), &mut |work| work()).map(|_| ()),
    }
}

/// A convolution with its operands.
struct Prepared<'a> {
    op: Conv<'a>,
    input: &'a mut [i8],
    output: &'a mut [i8],
    scratch: &'a mut [i8],
    rest: &'a mut [i8],
}

/// With weights as `packing` says, where they can lie so.
fn prepare<'a>(case: &ConvCase, depthwise: bool, packing: Packing, memory: Lent<'a>) -> Result<Prepared<'a>, Failure> {
    let (mut rest, mut constants) = (memory.activations, memory.constants);
    let (shape, outputs) = (case.output(), usize::from(case.outputs));
    let per_group = case.input.channels / case.groups;
    let kernel = case.window.kernel;
    let taps = usize::from(kernel[0]) * usize::from(kernel[1]) * usize::from(per_group);
    let row = if depthwise { taps } else { taps.next_multiple_of(4) };
    let weights = take(&mut constants, row * outputs)?;
    let packing = if case.fits_blocks() && !depthwise { packing } else { Packing::Rows };
    let mut values = case.paint.values(true);
    weights.fill(0);
    for channel in 0..outputs {
        for tap in 0..taps {
            let place = match packing {
                Packing::Rows => channel * row + tap,
                Packing::Blocks => ((channel / 16 * row + tap) / 4) * 64 + channel % 16 * 4 + tap % 4,
            };
            weights[place] = values() as u8;
        }
    }
    let (bias, multiplier) = (take(&mut constants, 4 * outputs)?, take(&mut constants, 4 * outputs)?);
    let shift = take(&mut constants, outputs)?;
    let mut random = Random::new(u64::from(case.outputs));
    for (channel, shift) in shift.iter_mut().enumerate() {
        let word = 4 * channel..4 * channel + 4;
        bias[word.clone()].copy_from_slice(&(random.below(20_000) as i32 - 10_000).to_le_bytes());
        let factor = if channel % 5 == 4 { i32::MAX } else { (1 << 30) + random.below(1 << 30) as i32 };
        multiplier[word].copy_from_slice(&factor.to_le_bytes());
        *shift = case.shift(taps, channel);
    }
    let curve = if case.curve { Some(painted_table(take(&mut constants, 256)?)?) } else { None };
    let (min, max) = if outputs % 2 == 0 { (-128, 127) } else { (-90, 100) };
    let requant = Requant { bias, multiplier, shift, zero_point: -7, min, max };
    let op = Conv {
        input: case.input,
        output: shape,
        window: case.window,
        groups: case.groups,
        input_zero: 13,
        weights,
        packing,
        requant,
        to: case.to,
        curve,
    };
    let (input, output) = (take(&mut rest, case.input.len())?, take(&mut rest, shape.len() * case.to.bytes())?);
    let positions = shape.len() / outputs;
    let scratch = if depthwise { depthwise_scratch(case.outputs) } else { conv_scratch(kernel, per_group, positions) };
    let scratch = take(&mut rest, scratch)?;
    input.fill_with(case.paint.values(false));
    output.fill(0x55);
    scratch.fill(0x33);
    Ok(Prepared { op, input, output, scratch, rest })
}

/// Entries that follow no order.
fn painted_table(entries: &mut [u8]) -> Result<&[u8; 256], Failure> {
    let mut values = Paint::Random(9).values(true);
    entries.fill_with(|| values() as u8);
    entries.first_chunk().ok_or(Failure::Memory)
}

fn run_conv<I: Isa>(
    isa: I,
    case: &ConvCase,
    depthwise: bool,
    packing: Packing,
    memory: Lent<'_>,
) -> Result<(), Failure> {
    let Prepared { op, input, output, scratch, mut rest } = prepare(case, depthwise, packing, memory)?;
    let expected = take(&mut rest, output.len())?;
    if depthwise {
        reference::depthwise(&op, input, expected);
        crate::depthwise(isa, &op, input, output, scratch)?;
    } else {
        reference::conv(&op, input, expected);
        crate::conv(isa, &op, input, output, scratch)?;
        compare(output, expected)?;
        // With the least scratch, which another body may run.
        let least = 2 * row_len(op.window.kernel, usize::from(op.input.channels / op.groups));
        output.fill(0x55);
        crate::conv(isa, &op, input, output, scratch.get_mut(..least).unwrap_or_default())?;
    }
    compare(output, expected)
}
