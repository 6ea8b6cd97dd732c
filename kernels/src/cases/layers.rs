//! Layers whose instructions are counted on a device, beside what a peer takes for the same shapes.
//!
//! Peers: CMSIS-NN at commit 99f736a6 (GCC 15.3.1, `-Ofast`), and where it is said TinyEngine at 47bb283, on a
//! Cortex-M4 and a Cortex-M55 that QEMU 10.0.2 emulates, from int8 input to int8 output, counted by instruction address;
//! random operands, zero points that are not zero, one scale per output channel. Those of single layers on the Cortex-M55 are
//! known to two decimals of instructions per multiply-accumulate: up to 2.5 % off.

use core::fmt::Arguments;

use super::table::{POINT, SAME_3X3, each_channel, plain};
use super::{
    AttentionCase, Case, ConvCase, Failure, Lent, Line, NormCase, Paint, Prepared, prepare, take, transformer,
};
use crate::arch::Scalar;
use crate::{Add, Element, Isa, Packing, Pool, PoolKind, Shape, Window, reference};

/// What a layer counts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Convolutions 3x3 and 1x1, and dense layers.
    Dense,
    /// Point convolution of few channels: the rescale is most of it. The peer is TinyEngine, on a Cortex-M55 CMSIS-NN.
    Shallow,
    /// The first layer.
    Stem,
    /// One filter per channel.
    Depthwise,
    /// Residual addition.
    Add,
    /// Pooling.
    Pool,
    /// Softmax of rows.
    Softmax,
    /// The other parts of a transformer.
    Token,
    /// Part of a whole network; no figure of a peer for it alone.
    Part,
}

/// Where peers were counted, by the instruction sets that are compared with them: a Cortex-M4, a Cortex-M55, and AArch64
/// without and with matrix products, where only whole networks were.
pub const CORES: [&str; 4] = ["dsp", "mve", "neon", "i8mm"];

/// No peer.
const NONE: [u32; 2] = [0; 2];

/// A layer.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    /// Shapes in words.
    pub name: &'static str,
    /// Group.
    pub group: Group,
    /// What runs.
    pub case: Case,
    /// Instructions of the peer on the first two of [`CORES`]; 0 without one.
    pub peer: [u32; 2],
    /// [`hash`] of the output of [`crate::reference`].
    pub expected: u32,
    /// How often it occurs in each of [`MODELS`].
    pub times: [u8; 4],
}

/// Sums of layers, with what a peer takes for the whole, all int8.
///
/// On Cortex-M: networks of MLPerf Tiny under TFLite Micro and CMSIS-NN, and a block of a transformer composed from CMSIS-NN's
/// kernels: matrix products 65x96x96 three times, 65x96x96, 65x96x384 and 65x384x96, two batched products and a softmax of
/// 65x65 for three heads, two additions. It has no layer normalisation and no curve, which ours are in.
///
/// On AArch64, in QEMU's user mode: LiteRT 2.3 (XNNPACK), and for DeiT-Ti ONNX Runtime 1.32; their figures have what a runtime
/// does beside its kernels in them. Ours has DeiT-Ti without its last layer, 0.02 % of its multiply-accumulates.
pub const MODELS: [(&str, [u32; 4]); 4] = [
    ("ResNet-8", [29_676_378, 4_676_029, 1_510_000, 1_270_000]),
    ("MobileNetV1-0.25 96x96", [24_406_890, 6_463_515, 1_940_000, 0]),
    ("transformer block 65x96, 3 heads", [block(0, 4_625_238 + 3_804_582), block(1, 742_810 + 503_194), 0, 0]),
    ("DeiT-Ti", [0, 0, 263_120_000, 218_440_000]),
];

const fn block(core: usize, wide: u32) -> u32 {
    4 * DENSE_96[core] + wide + ATTENTION[core] + 2 * ADD_6240[core]
}

/// CMSIS-NN's product of 65x96 and 96x96.
const DENSE_96: [u32; 2] = [1_156_368, 185_702];
/// CMSIS-NN's products of queries and keys and of scores and values, and its softmax of 65x65, for three heads.
const ATTENTION: [u32; 2] = [1_400_452 + 1_114_387 + 3 * 2_023_133, 324_480 + 275_808 + 3 * 406_868];
/// CMSIS-NN's addition of 16,384 elements, 74.5 and 10.0 for each, as one of 65x96.
const ADD_6240: [u32; 2] = [464_929, 62_400];

/// As TensorFlow pads a window of 3 and a step of 2 on an even side.
const HALVE_3X3: Window = Window { kernel: [3, 3], stride: [2, 2], pad: [0, 0, 1, 1] };
const HALVE_1X1: Window = Window { kernel: [1, 1], stride: [2, 2], pad: [0; 4] };

const fn conv(side: u16, [channels, outputs]: [u16; 2], window: Window) -> Case {
    Case::Conv(ConvCase { paint: Paint::Random(1), ..plain([side, side, channels], outputs, window) })
}

const fn gemm(rows: u16, depth: u16, outputs: u16) -> Case {
    Case::Conv(ConvCase { paint: Paint::Random(2), ..plain([1, rows, depth], outputs, POINT) })
}

const fn filter(side: u16, channels: u16, window: Window) -> Case {
    each_channel(ConvCase { paint: Paint::Random(3), ..plain([side, side, channels], channels, window) })
}

const fn addition(element: Element) -> Add {
    let elements = [element; 3];
    Add { multiplier: [20_000, 12_345], offset: 77_777, shift: 15, min: -128, max: 127, elements }
}

const fn sum(len: usize, element: Element) -> Case {
    Case::Add(addition(element), len, Paint::Random(4))
}

const fn sum_in_place(len: usize) -> Case {
    Case::AddInPlace(addition(Element::Int8), len, Paint::Random(4))
}

const fn mean(side: u16, channels: u16) -> Case {
    let kernel = [side as u8; 2];
    let window = Window { kernel, stride: kernel, pad: [0; 4] };
    pool(PoolKind::Average, side, channels, window, 1, 35)
}

const fn pool(kind: PoolKind, side: u16, channels: u16, window: Window, output: u16, shift: u8) -> Case {
    let op = Pool {
        kind,
        input: Shape { height: side, width: side, channels },
        output: Shape { height: output, width: output, channels },
        window,
        input_zero: -3,
        multiplier: 1_500_000_000,
        shift,
        zero_point: -3,
        min: -128,
        max: 127,
    };
    Case::Pool(op, Paint::Random(5))
}

const fn layer(name: &'static str, group: Group, case: Case, peer: [u32; 2], expected: u32, times: [u8; 2]) -> Layer {
    let [first, second] = times;
    Layer { name, group, case, peer, expected, times: [first, second, 0, 0] }
}

/// A layer of a transformer, and how often it is in a block.
const fn token(name: &'static str, group: Group, case: Case, peer: [u32; 2], expected: u32, times: u8) -> Layer {
    Layer { name, group, case, peer, expected, times: [0, 0, times, 0] }
}

/// A layer of DeiT-Ti, and how often it is there.
const fn deit(name: &'static str, case: Case, expected: u32, times: u8) -> Layer {
    Layer { name, group: Group::Part, case, peer: NONE, expected, times: [0, 0, 0, times] }
}

/// A matrix product of `rows` tokens: to 16 bits, or through a table.
const fn tokens(rows: u16, [depth, outputs]: [u16; 2], to: Element, curve: bool) -> Case {
    Case::Conv(ConvCase { to, curve, paint: Paint::Random(6), ..plain([1, rows, depth], outputs, POINT) })
}

const fn norm(positions: usize, channels: u16) -> Case {
    let line = Line::Noise(-4000, 8000, 1);
    Case::LayerNorm(NormCase { channels, positions, factor_bits: 10, factor: None, epsilon: 1000, line })
}

/// Three heads over all tokens.
const fn heads(rows: u16, width: u16) -> Case {
    Case::Attention(AttentionCase {
        windows: [1, 1],
        query_window: [1, rows],
        key_window: [1, rows],
        heads: 3,
        width: [width, width],
        interleaved: false,
        offsets: [false; 2],
        logit: (1_500_000_000, 34),
        shift: 44,
        paint: Paint::Random(7),
    })
}

/// Logits near to each other: each of them goes through the exponential, as in the peer's figure.
const fn weights(rows: u16, keys: u16) -> Case {
    Case::Softmax([keys, rows], Line::Noise(-1500, 3000, 1))
}

const HALVE_2X2: Window = Window { kernel: [2, 2], stride: [2, 2], pad: [0; 4] };

/// Every layer.
#[rustfmt::skip]
pub const LAYERS: [Layer; 54] = {
    use Element::{Int8, Int16};
    use Group::{Add, Dense, Depthwise, Part, Pool, Shallow, Softmax, Stem, Token};
    [
        layer("dense 17x64x64", Dense, gemm(17, 64, 64), [162_725, 27_156], 0x2cf0_0db1, [0, 0]),
        layer("dense 65x96x96", Dense, gemm(65, 96, 96), [1_156_368, 185_702], 0x6079_ea1a, [0, 0]),
        layer("dense 65x96x384", Dense, gemm(65, 96, 384), [4_625_238, 742_810], 0xee91_1f85, [0, 0]),
        layer("dense 65x384x96", Dense, gemm(65, 384, 96), [3_804_582, 503_194], 0x5e02_f410, [0, 0]),
        layer("dense 197x192x192", Dense, gemm(197, 192, 192), [12_089_946, 1_742_930], 0x0c6e_2a93, [0, 0]),
        layer("dense 65x192x768", Dense, gemm(65, 192, 768), [16_311_900, 2_300_314], 0x5e86_caef, [0, 0]),
        layer("dense 1x192x768", Dense, gemm(1, 192, 768), [313_863, 61_932], 0xf12e_9985, [0, 0]),
        layer("dense 1x64x10", Dense, gemm(1, 64, 10), [1_820, 621], 0x6d90_5b61, [1, 0]),
        layer("conv 3x3 16 to 16 at 32x32", Dense, conv(32, [16, 16], SAME_3X3), [5_482_733, 920_125], 0x8424_d2a2, [2, 0]),
        layer("conv 3x3 16 to 32 at 32x32 by 2", Dense, conv(32, [16, 32], HALVE_3X3), [2_515_912, 377_487], 0x2b52_356e, [1, 0]),
        layer("conv 3x3 32 to 32 at 16x16", Dense, conv(16, [32, 32], SAME_3X3), [4_538_433, 589_824], 0x88e8_6520, [1, 0]),
        layer("conv 3x3 32 to 64 at 16x16 by 2", Dense, conv(16, [32, 64], HALVE_3X3), [2_186_557, 271_319], 0x4c7c_9203, [1, 0]),
        layer("conv 3x3 64 to 64 at 8x8", Dense, conv(8, [64, 64], SAME_3X3), [4_152_689, 471_859], 0x7e93_3060, [1, 0]),
        layer("conv 1x1 64 to 64 at 8x8", Dense, conv(8, [64, 64], POINT), [564_124, 96_993], 0xe474_001a, [0, 0]),
        layer("conv 1x1 16 to 32 at 32x32 by 2", Dense, conv(32, [16, 32], HALVE_1X1), [642_449, 155_976], 0x71cb_39b6, [1, 0]),
        layer("conv 1x1 64 to 64 at 12x12", Dense, conv(12, [64, 64], POINT), [1_250_904, 218_235], 0x01f7_9f11, [0, 1]),
        layer("conv 1x1 256 to 256 at 3x3", Dense, conv(3, [256, 256], POINT), [1_170_114, 141_558], 0x8f58_979b, [0, 1]),
        layer("conv 1x1 16 to 32 at 32x32", Shallow, conv(32, [16, 32], POINT), [1_666_114, 508_559], 0xafa2_3067, [0, 0]),
        layer("stem 3x3 3 to 16 at 32x32", Stem, conv(32, [3, 16], SAME_3X3), [2_129_108, 601_620], 0x7176_5dab, [1, 0]),
        layer("depthwise 8 at 48x48", Depthwise, filter(48, 8, SAME_3X3), [1_441_049, 962_150], 0x21dd_985e, [0, 1]),
        layer("depthwise 16 at 48x48 by 2", Depthwise, filter(48, 16, HALVE_3X3), [689_685, 313_528], 0x31e2_086e, [0, 1]),
        layer("depthwise 32 at 24x24", Depthwise, filter(24, 32, SAME_3X3), [1_333_733, 471_122], 0x4bad_3f87, [0, 1]),
        layer("depthwise 64 at 12x12", Depthwise, filter(12, 64, SAME_3X3), [646_569, 197_407], 0x38fb_01f1, [0, 1]),
        layer("depthwise 128 at 6x6", Depthwise, filter(6, 128, SAME_3X3), [309_275, 99_533], 0xa8c5_b6c1, [0, 5]),
        layer("depthwise 256 at 3x3", Depthwise, filter(3, 256, SAME_3X3), [142_998, 49_559], 0xacfe_4394, [0, 1]),
        layer("add 16384", Add, sum(16_384, Int8), [1_220_725, 163_840], 0xefff_b9e8, [1, 0]),
        layer("mean 8x8 of 64", Pool, mean(8, 64), [26_270, 4_915], 0x2594_e12c, [1, 0]),
        layer("max 2x2 of 16 at 32x32", Pool, pool(PoolKind::Max, 32, 16, HALVE_2X2, 16, 1), [167_384, 39_813], 0x8217_0acf, [0, 0]),
        layer("add 8192", Part, sum(8_192, Int8), NONE, 0xb5e4_00a6, [1, 0]),
        layer("add 16384 in place", Part, sum_in_place(16_384), NONE, 0xefff_b9e8, [0, 0]),
        layer("add 4096", Part, sum(4_096, Int8), NONE, 0x9178_c500, [1, 0]),
        layer("conv 1x1 32 to 64 at 16x16 by 2", Part, conv(16, [32, 64], HALVE_1X1), NONE, 0x0664_f316, [1, 0]),
        layer("stem 3x3 3 to 8 at 96x96 by 2", Part, conv(96, [3, 8], HALVE_3X3), NONE, 0x6442_637a, [0, 1]),
        layer("conv 1x1 8 to 16 at 48x48", Part, conv(48, [8, 16], POINT), NONE, 0x0c56_d859, [0, 1]),
        layer("conv 1x1 16 to 32 at 24x24", Part, conv(24, [16, 32], POINT), NONE, 0x9ce2_9190, [0, 1]),
        layer("conv 1x1 32 to 32 at 24x24", Part, conv(24, [32, 32], POINT), NONE, 0x58fe_bca7, [0, 1]),
        layer("depthwise 32 at 24x24 by 2", Part, filter(24, 32, HALVE_3X3), NONE, 0x77dd_956e, [0, 1]),
        layer("conv 1x1 32 to 64 at 12x12", Part, conv(12, [32, 64], POINT), NONE, 0x618e_b3bd, [0, 1]),
        layer("depthwise 64 at 12x12 by 2", Part, filter(12, 64, HALVE_3X3), NONE, 0x44d8_f7b2, [0, 1]),
        layer("conv 1x1 64 to 128 at 6x6", Part, conv(6, [64, 128], POINT), NONE, 0x435a_a14e, [0, 1]),
        layer("conv 1x1 128 to 128 at 6x6", Part, conv(6, [128, 128], POINT), NONE, 0x2026_9894, [0, 5]),
        layer("depthwise 128 at 6x6 by 2", Part, filter(6, 128, HALVE_3X3), NONE, 0x1ebe_6eae, [0, 1]),
        layer("conv 1x1 128 to 256 at 3x3", Part, conv(3, [128, 256], POINT), NONE, 0x6a96_6aa2, [0, 1]),
        layer("mean 3x3 of 256", Part, mean(3, 256), NONE, 0x51c2_f0c1, [0, 1]),
        layer("dense 1x256x2", Part, gemm(1, 256, 2), NONE, 0xb503_1740, [0, 1]),
        token("softmax 65x65", Softmax, weights(65, 65), [2_023_133, 406_868], 0xe9c9_dee1, 0),
        token("softmax 24x197", Softmax, weights(24, 197), [2_240_053, 423_629], 0x6f28_8da2, 0),
        token("layer norm 65x96", Part, norm(65, 96), NONE, 0xa10b_ed03, 2),
        token("dense 65x96x288", Token, tokens(65, [96, 288], Int8, false), [3 * DENSE_96[0], 3 * DENSE_96[1]], 0xff60_6b27, 1),
        token("attention 65x96, 3 heads", Token, heads(65, 32), ATTENTION, 0xfa45_1510, 1),
        token("dense 65x96x96 to int16", Token, tokens(65, [96, 96], Int16, false), DENSE_96, 0x56a1_fc14, 1),
        token("dense 65x96x384 and a curve", Token, tokens(65, [96, 384], Int8, true), [4_625_238, 742_810], 0x8d93_3015, 1),
        token("dense 65x384x96 to int16", Token, tokens(65, [384, 96], Int16, false), [3_804_582, 503_194], 0x7de8_6785, 1),
        token("add 65x96 of int16", Token, sum(6240, Int16), ADD_6240, 0x6152_d757, 2),
    ]
};

/// What DeiT-Ti is made of beside: too large for a Cortex-M's memory.
pub const DEIT: [Layer; 8] = {
    use Element::{Int8, Int16};
    let patch = Window { kernel: [16, 16], stride: [16, 16], pad: [0; 4] };
    [
        deit("conv 16x16 3 to 192 at 224x224 by 16", conv(224, [3, 192], patch), 0x6a27_7c38, 1),
        deit("layer norm 197x192", norm(197, 192), 0xefbf_ba76, 25),
        deit("dense 197x192x576", tokens(197, [192, 576], Int8, false), 0xaf4a_3a72, 12),
        deit("attention 197x192, 3 heads", heads(197, 64), 0x4926_d6d6, 12),
        deit("dense 197x192x192 to int16", tokens(197, [192, 192], Int16, false), 0xc49f_8a31, 12),
        deit("dense 197x192x768 and a curve", tokens(197, [192, 768], Int8, true), 0xbf97_998a, 12),
        deit("dense 197x768x192 to int16", tokens(197, [768, 192], Int16, false), 0x9d6b_4008, 12),
        deit("add 197x192 of int16", sum(197 * 192, Int16), 0x090f_1f9d, 24),
    ]
};

impl Layer {
    /// Multiply-accumulates; of what multiplies nothing, or each value once, elements of one operand.
    #[must_use]
    pub fn work(&self) -> u64 {
        match &self.case {
            Case::Conv(case) | Case::Depthwise(case) => {
                let kernel = case.window.kernel.map(u64::from);
                let per_group = u64::from(case.input.channels / case.groups);
                case.output().len() as u64 * kernel[0] * kernel[1] * per_group
            }
            Case::Add(_, len, _) | Case::AddInPlace(_, len, _) => *len as u64,
            Case::Pool(op, _) => op.input.len() as u64,
            Case::Softmax([keys, rows], _) => u64::from(*keys) * u64::from(*rows),
            Case::LayerNorm(case) => u64::from(case.channels) * case.positions as u64,
            Case::Attention(case) => case.products(),
            _ => 0,
        }
    }
}

/// Memory for one layer at a time, aligned as weights in an image are.
#[repr(align(4))]
pub struct Memory<const ACTIVATIONS: usize = { 96 << 10 }, const CONSTANTS: usize = { 160 << 10 }> {
    activations: [i8; ACTIVATIONS],
    constants: [u8; CONSTANTS],
}

/// Memory for those of [`DEIT`].
pub type LargeMemory = Memory<{ 512 << 10 }>;

impl<const ACTIVATIONS: usize, const CONSTANTS: usize> Memory<ACTIVATIONS, CONSTANTS> {
    /// Memory for any of [`LAYERS`], if it is of the default size.
    #[must_use]
    pub const fn new() -> Self {
        Self { activations: [0; ACTIVATIONS], constants: [0; CONSTANTS] }
    }

    fn lend(&mut self) -> Lent<'_> {
        Lent { activations: &mut self.activations, constants: &mut self.constants }
    }
}

impl<const ACTIVATIONS: usize, const CONSTANTS: usize> Default for Memory<ACTIVATIONS, CONSTANTS> {
    fn default() -> Self {
        Self::new()
    }
}

/// FNV-1a of 32 bits.
pub(super) fn hash(values: &[i8]) -> u32 {
    values.iter().fold(0x811c_9dc5, |hash, &value| (hash ^ u32::from(value as u8)).wrapping_mul(0x0100_0193))
}

/// Runs layers, and says of each `layer|group|name|work|peer|instructions|times in each model`, then of each model
/// `model|name|peer`. Whether all outputs are right.
pub fn report<'a, I: Isa, const A: usize, const C: usize>(
    isa: I,
    layers: impl Iterator<Item = &'a Layer>,
    memory: &mut Memory<A, C>,
    mut measure: impl FnMut(&mut dyn FnMut()) -> u64,
    say: &mut dyn FnMut(Arguments<'_>),
) -> bool {
    let mut passed = true;
    let core = CORES.iter().position(|&name| name == I::NAME).unwrap_or_default();
    for layer in layers {
        let Layer { name, group, peer, times: [first, second, third, fourth], .. } = layer;
        match run(isa, layer, I::PACKING, memory, &mut measure) {
            Ok((instructions, hash)) if hash == layer.expected => {
                let (work, peer) = (layer.work(), peer.get(core).copied().unwrap_or_default());
                say(format_args!(
                    "layer|{group:?}|{name}|{work}|{peer}|{instructions}|{first}|{second}|{third}|{fourth}"
                ));
            }
            Ok((_, hash)) => {
                say(format_args!("{name}: output {hash:#010x}, not {:#010x}", layer.expected));
                passed = false;
            }
            Err(failure) => {
                say(format_args!("{name}: {failure:?}"));
                passed = false;
            }
        }
    }
    for (name, peer) in MODELS {
        say(format_args!("model|{name}|{}", peer[core]));
    }
    passed
}

/// Runs a layer: what `measure` makes of the call, and the hash of its output. Weights of a convolution lie as `packing` says,
/// where they can and the positions are more than a few, as an image has them.
///
/// # Errors
/// [`Failure`] if a body refuses it, or `memory` is too small.
pub fn run<I: Isa, T, const A: usize, const C: usize>(
    isa: I,
    layer: &Layer,
    packing: Packing,
    memory: &mut Memory<A, C>,
    measure: impl FnOnce(&mut dyn FnMut()) -> T,
) -> Result<(T, u32), Failure> {
    call(Some(isa), layer, packing, memory.lend(), measure)
}

/// The hash that [`Layer::expected`] should be.
///
/// # Errors
/// [`Failure`] if `memory` is too small.
pub fn expected<const A: usize, const C: usize>(layer: &Layer, memory: &mut Memory<A, C>) -> Result<u32, Failure> {
    Ok(call(None::<Scalar>, layer, Packing::Rows, memory.lend(), |work| work())?.1)
}

/// With an instruction set, or without one by [`crate::reference`].
fn call<I: Isa, T>(
    isa: Option<I>,
    layer: &Layer,
    packing: Packing,
    memory: Lent<'_>,
    measure: impl FnOnce(&mut dyn FnMut()) -> T,
) -> Result<(T, u32), Failure> {
    let mut result = Ok(());
    let Lent { activations: mut rest, constants } = memory;
    let (measured, output) = match &layer.case {
        Case::Conv(case) | Case::Depthwise(case) => {
            let depthwise = matches!(layer.case, Case::Depthwise(_));
            let lent = Lent { activations: rest, constants };
            let few = case.output().len() < 4 * usize::from(case.outputs);
            let packing = if few { Packing::Rows } else { packing };
            let Prepared { op, input, output, scratch, .. } = prepare(case, depthwise, packing, lent)?;
            let measured = measure(&mut || match isa {
                Some(isa) if depthwise => result = crate::depthwise(isa, &op, input, output, scratch),
                Some(isa) => result = crate::conv(isa, &op, input, output, scratch),
                None if depthwise => reference::depthwise(&op, input, output),
                None => reference::conv(&op, input, output),
            });
            (measured, output)
        }
        Case::Add(op, len, paint) => {
            let [a, b, output] = op.elements.map(|element| take(&mut rest, len * element.bytes()));
            let (a, b, output) = (a?, b?, output?);
            paint.fill(false, op.elements[0], a);
            paint.fill(true, op.elements[1], b);
            let measured = measure(&mut || match isa {
                Some(isa) => result = crate::add(isa, op, a, b, output),
                None => reference::add(op, a, b, output),
            });
            (measured, output)
        }
        Case::AddInPlace(op, len, paint) => {
            let [a, b, sums] = [*len; 3].map(|len| take(&mut rest, len));
            let (a, b, sums) = (a?, b?, sums?);
            paint.fill(false, Element::Int8, a);
            paint.fill(true, Element::Int8, b);
            let measured = measure(&mut || match isa {
                Some(isa) => result = crate::add_in_place(isa, op, a, b),
                None => {
                    reference::add(op, a, b, sums);
                    a.copy_from_slice(sums);
                }
            });
            (measured, a)
        }
        Case::Pool(op, paint) => {
            let (input, output) = (take(&mut rest, op.input.len())?, take(&mut rest, op.output.len())?);
            input.fill_with(paint.values(false));
            let measured = measure(&mut || match isa {
                Some(isa) => result = crate::pool(isa, op, input, output),
                None => reference::pool(op, input, output),
            });
            (measured, output)
        }
        // These compare with the reference themselves.
        case => {
            let lent = Lent { activations: rest, constants };
            let (mut measure, mut measured) = (Some(measure), None);
            let mut around = |work: &mut dyn FnMut()| measured = measure.take().map(|measure| measure(work));
            let hash = match isa {
                Some(isa) => transformer::run(isa, case, lent, &mut around)?,
                None => transformer::run(Scalar, case, lent, &mut around)?,
            };
            return Ok((measured.ok_or(Failure::Memory)?, hash));
        }
    };
    result?;
    Ok((measured, hash(output)))
}
