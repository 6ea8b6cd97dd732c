//! One table of cases for every instruction set, on a desktop and on a device: no `std`, no heap.
//!
//! [`table`] visits the boundaries, [`random`] a seeded crowd; [`run`] runs one case in the [`Memory`] that it is
//! lent and compares with [`crate::reference`].

mod any;
pub mod layers;

pub use any::run_any;

use crate::conv::row_len;
use crate::{
    Add, Conv, Isa, KernelError, Move, Pool, PoolKind, Requant, Shape, Window, conv_scratch, depthwise_scratch,
    reference,
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
}

/// One comparison.
#[derive(Clone, Copy, Debug)]
pub enum Case {
    /// [`crate::conv`].
    Conv(ConvCase),
    /// [`crate::depthwise`].
    Depthwise(ConvCase),
    /// [`crate::add`] and [`crate::add_in_place`], with a length.
    Add(Add, usize, Paint),
    /// [`crate::pool`].
    Pool(Pool, Paint),
    /// [`crate::move_tensor`].
    Move(Move, Paint),
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
}

impl ConvCase {
    fn output(&self) -> Shape {
        let side = |side: u16, axis: usize| {
            let padded = side + u16::from(self.window.pad[axis]) + u16::from(self.window.pad[axis + 2]);
            (padded - u16::from(self.window.kernel[axis])) / u16::from(self.window.stride[axis]) + 1
        };
        Shape { height: side(self.input.height, 0), width: side(self.input.width, 1), channels: self.outputs }
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
        Case::Conv(case) => run_conv(isa, case, false, memory.lend()),
        Case::Depthwise(case) => run_conv(isa, case, true, memory.lend()),
        Case::Add(op, len, paint) => {
            let [a, b, found, expected] = [0; 4].map(|_| take(&mut rest, *len));
            let (a, b, found, expected) = (a?, b?, found?, expected?);
            a.fill_with(paint.values(false));
            b.fill_with(paint.values(true));
            reference::add(op, a, b, expected);
            found.fill(0x55);
            crate::add(isa, op, a, b, found)?;
            compare(found, expected)?;
            crate::add_in_place(isa, op, a, b)?;
            compare(a, expected)
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

fn prepare<'a>(case: &ConvCase, depthwise: bool, memory: Lent<'a>) -> Result<Prepared<'a>, Failure> {
    let (mut rest, mut constants) = (memory.activations, memory.constants);
    let (shape, outputs) = (case.output(), usize::from(case.outputs));
    let per_group = case.input.channels / case.groups;
    let kernel = case.window.kernel;
    let taps = usize::from(kernel[0]) * usize::from(kernel[1]) * usize::from(per_group);
    let row = if depthwise { taps } else { taps.next_multiple_of(4) };
    let weights = take(&mut constants, row * outputs)?;
    let mut values = case.paint.values(true);
    for row in weights.chunks_exact_mut(row) {
        row.fill(0);
        row[..taps].fill_with(|| values() as u8);
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
    let (min, max) = if outputs % 2 == 0 { (-128, 127) } else { (-90, 100) };
    let requant = Requant { bias, multiplier, shift, zero_point: -7, min, max };
    let op = Conv {
        input: case.input,
        output: shape,
        window: case.window,
        groups: case.groups,
        input_zero: 13,
        weights,
        requant,
    };
    let (input, output) = (take(&mut rest, case.input.len())?, take(&mut rest, shape.len())?);
    let positions = output.len() / outputs;
    let scratch = if depthwise { depthwise_scratch(case.outputs) } else { conv_scratch(kernel, per_group, positions) };
    let scratch = take(&mut rest, scratch)?;
    input.fill_with(case.paint.values(false));
    output.fill(0x55);
    scratch.fill(0x33);
    Ok(Prepared { op, input, output, scratch, rest })
}

fn run_conv<I: Isa>(isa: I, case: &ConvCase, depthwise: bool, memory: Lent<'_>) -> Result<(), Failure> {
    let Prepared { op, input, output, scratch, mut rest } = prepare(case, depthwise, memory)?;
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

const POINT: Window = Window { kernel: [1, 1], stride: [1, 1], pad: [0; 4] };
const SAME_3X3: Window = Window { kernel: [3, 3], stride: [1, 1], pad: [1; 4] };
/// The extremes: every sign, and both mixed.
const CORNERS: [Paint; 5] =
    [Paint::All(-128, -128), Paint::All(-128, 127), Paint::All(127, -128), Paint::All(127, 127), Paint::Extremes(7)];
/// 4, 8, 16, 32 and one less and more.
const BOUNDARIES: [u16; 14] = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33];

const fn plain(input: [u16; 3], outputs: u16, window: Window) -> ConvCase {
    let [height, width, channels] = input;
    ConvCase { input: Shape { height, width, channels }, outputs, window, groups: 1, shift: None, paint: Paint::Period }
}

const fn each_channel(case: ConvCase) -> Case {
    Case::Depthwise(ConvCase { groups: case.outputs, ..case })
}

/// Every boundary, in a fixed order.
pub fn table(visit: &mut dyn FnMut(&Case)) {
    convolutions(visit);
    depthwise(visit);
    windows(visit);
    additions(visit);
    pools(visit);
    moves(visit);
}

fn convolutions(visit: &mut dyn FnMut(&Case)) {
    for channels in BOUNDARIES {
        for outputs in [1, 3, 4, 5, 8] {
            visit(&Case::Conv(plain([5, 3, channels], outputs, POINT)));
            visit(&Case::Conv(plain([4, 5, channels], outputs, SAME_3X3)));
        }
        visit(&Case::Conv(plain([3, 3, 6], channels, SAME_3X3)));
    }
    for (channels, outputs, groups) in [(12, 18, 2), (12, 18, 3), (12, 18, 6), (8, 16, 8), (6, 6, 6), (64, 8, 2)] {
        visit(&Case::Conv(ConvCase { groups, ..plain([5, 5, channels], outputs, SAME_3X3) }));
        visit(&Case::Conv(ConvCase { groups, ..plain([3, 5, channels], outputs, POINT) }));
    }
    for paint in CORNERS {
        for window in [POINT, SAME_3X3] {
            visit(&Case::Conv(ConvCase { paint, ..plain([4, 4, 64], 9, window) }));
            // The least and the largest shift: a rescaled sum of more than 32 bits, and one of nothing.
            for shift in [1, 2, 30, 31, 32, 33, 61, 62] {
                visit(&Case::Conv(ConvCase { paint, shift: Some(shift), ..plain([3, 3, 8], 13, window) }));
                visit(&each_channel(ConvCase { paint, shift: Some(shift), ..plain([3, 3, 13], 13, window) }));
            }
        }
    }
    // Few positions, and their rows of weights: whole words, and pairs of them.
    for (positions, channels) in [(1, 8), (2, 40), (3, 24), (1, 12), (1, 32), (1, 264)] {
        for outputs in [1, 2, 3, 10] {
            visit(&Case::Conv(plain([1, positions, channels], outputs, POINT)));
        }
    }
    for paint in CORNERS {
        visit(&Case::Conv(ConvCase { paint, ..plain([1, 1, 128], 4, POINT) }));
    }
    // A dense layer: the window is the whole map.
    visit(&Case::Conv(plain([4, 4, 16], 10, Window { kernel: [4, 4], stride: [1, 1], pad: [0; 4] })));
}

fn depthwise(visit: &mut dyn FnMut(&Case)) {
    for channels in BOUNDARIES.into_iter().chain([63, 64, 65]) {
        visit(&each_channel(plain([5, 4, channels], channels, SAME_3X3)));
        let window = Window { kernel: [3, 3], stride: [2, 2], pad: [0, 1, 1, 0] };
        visit(&each_channel(plain([6, 7, channels], channels, window)));
    }
    // Rows that are longer than what an instruction set holds of them.
    for (width, stride) in [(32, 1), (33, 1), (70, 1), (31, 2), (34, 2), (70, 3), (90, 40)] {
        let window = Window { kernel: [3, 3], stride: [1, stride], pad: [1; 4] };
        visit(&each_channel(plain([4, width, 8], 8, window)));
    }
    for paint in CORNERS {
        visit(&each_channel(ConvCase { paint, ..plain([5, 5, 17], 17, SAME_3X3) }));
    }
}

/// Kernels, strides, and each side of padding alone.
fn windows(visit: &mut dyn FnMut(&Case)) {
    let mut both = |window| {
        visit(&Case::Conv(plain([9, 8, 6], 5, window)));
        visit(&each_channel(plain([9, 8, 6], 6, window)));
    };
    for kernel in [1, 2, 3, 4, 5, 7] {
        for stride in [1, 2, 3] {
            both(Window { kernel: [kernel; 2], stride: [stride; 2], pad: [kernel / 2; 4] });
        }
        both(Window { kernel: [kernel, 1], stride: [1, 2], pad: [0; 4] });
        both(Window { kernel: [1, kernel], stride: [2, 1], pad: [0; 4] });
    }
    for side in 0..4 {
        for width in [1, 2, 3] {
            let mut pad = [0; 4];
            pad[side] = width;
            both(Window { kernel: [3, 3], stride: [1, 1], pad });
            both(Window { kernel: [3, 3], stride: [2, 1], pad });
        }
    }
    // Windows that see nothing but padding.
    both(Window { kernel: [2, 2], stride: [1, 1], pad: [3; 4] });
}

fn additions(visit: &mut dyn FnMut(&Case)) {
    let op = Add { multiplier: [20_000, -12_345], offset: 77_777, shift: 14, min: -128, max: 90 };
    let ends = [
        Add { multiplier: [i16::MAX, i16::MAX], offset: 1 << 15, shift: 16, min: -128, max: 127 },
        Add { multiplier: [i16::MIN, i16::MIN], offset: -(1 << 15), shift: 16, min: -100, max: 127 },
        Add { multiplier: [1, -1], offset: 0, shift: 0, min: -128, max: 127 },
        Add { multiplier: [i16::MIN, i16::MIN], offset: i32::MAX - (1 << 23), shift: 30, min: -128, max: 127 },
    ];
    for len in BOUNDARIES.into_iter().chain([63, 64, 65, 1000]) {
        for paint in [Paint::Period, Paint::Random(len.into())] {
            visit(&Case::Add(op, len.into(), paint));
        }
    }
    for op in ends {
        for paint in CORNERS {
            visit(&Case::Add(op, 37, paint));
        }
    }
}

fn pools(visit: &mut dyn FnMut(&Case)) {
    for kind in [PoolKind::Average, PoolKind::Max] {
        let mut each = |side: [u16; 2], channels: u16, window: Window, paint: Paint| {
            let input = Shape { height: side[0], width: side[1], channels };
            let output = ConvCase { input, ..plain([1, 1, 1], channels, window) }.output();
            let log = (u32::from(window.kernel[0]) * u32::from(window.kernel[1])).ilog2() as u8;
            let (multiplier, shift) = (1_500_000_000, 30 + log);
            let (zero_point, min, max) = (-20, -100, 120);
            visit(&Case::Pool(
                Pool { kind, input, output, window, input_zero: -128, multiplier, shift, zero_point, min, max },
                paint,
            ));
        };
        for channels in BOUNDARIES {
            each([5, 4], channels, SAME_3X3, Paint::Period);
        }
        for (kernel, stride, pad) in
            [([8, 8], [1, 1], [0; 4]), ([2, 2], [2, 2], [0; 4]), ([3, 2], [2, 1], [1, 0, 1, 1])]
        {
            for paint in [Paint::Random(3), Paint::All(-128, 0), Paint::All(127, 0)] {
                each([8, 9], 17, Window { kernel, stride, pad }, paint);
            }
        }
        for side in 0..4 {
            let mut pad = [0; 4];
            pad[side] = 2;
            each([6, 5], 9, Window { kernel: [3, 3], stride: [1, 2], pad }, Paint::Period);
        }
        each([40, 255], 1, Window { kernel: [40, 255], stride: [1, 1], pad: [0; 4] }, Paint::Random(4));
    }
}

fn moves(visit: &mut dyn FnMut(&Case)) {
    let input = Shape { height: 6, width: 5, channels: 4 };
    let output = Shape { height: 7, width: 9, channels: 10 };
    for (origin, step, repeat) in [
        ([0, 0, 0], [1, 1], [1, 1]),
        ([0, 0, 0], [2, 2], [1, 1]),
        ([-1, -2, -3], [1, 1], [1, 1]),
        ([-1, -2, 2], [3, 2], [1, 1]),
        ([2, 1, 3], [1, 2], [1, 1]),
        ([0, 0, 1], [1, 1], [2, 3]),
        ([1, -1, 0], [1, 1], [3, 2]),
        ([7, 0, 0], [1, 1], [1, 1]),
    ] {
        for (first_channel, channels) in [(0, 10), (2, 7), (6, 4), (3, 0)] {
            let op =
                Move { input, output, origin, step, repeat, first_channel, channels, fill: -9, min: -100, max: 100 };
            visit(&Case::Move(op, Paint::Random(5)));
            visit(&Case::Move(Move { fill: 127, ..op }, Paint::Period));
        }
    }
}

/// `count` convolutions from a seed, every third one depthwise.
pub fn random(seed: u64, count: u64, visit: &mut dyn FnMut(&Case)) {
    let mut random = Random::new(seed);
    for number in 0..count {
        let kernel = [0; 2].map(|_| 1 + random.below(4) as u8);
        let pad = core::array::from_fn(|side| random.below(kernel[side % 2].into()) as u8);
        let stride = [0; 2].map(|_| 1 + random.below(3) as u8);
        let groups = 1 + random.below(3) as u16;
        let channels = groups * (1 + random.below(20) as u16);
        let depthwise = number % 3 == 0;
        let outputs = if depthwise { channels } else { groups * (1 + random.below(10) as u16) };
        let [height, width] = [0; 2].map(|_| 4 + random.below(6) as u16);
        let paint = if random.below(8) == 0 { Paint::Extremes(random.next()) } else { Paint::Random(random.next()) };
        let case = plain([height, width, channels], outputs, Window { kernel, stride, pad });
        let case = ConvCase { groups, paint, ..case };
        visit(&if depthwise { each_channel(case) } else { Case::Conv(case) });
    }
}
