//! Each kernel on each instruction set of this CPU, at the shapes of the bundled family and of MLPerf Tiny's ResNet-8.
//!
//! Elements are multiply-accumulates (of an addition or a pool: the values of one operand), so `elem/s` reads as
//! MAC/s. `cargo bench -p benches --bench kernels -- avx2` runs one instruction set.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use kernels::{
    Add, Attention, Conv, Element, Heads, Isa, LayerNorm, Level, Packing, Pool, PoolKind, Requant, Shape, Window,
    attention_scratch, conv_scratch,
};

/// A convolution over a square map, padded so that stride 1 keeps its size.
struct Case {
    name: &'static str,
    side: u16,
    channels: u16,
    outputs: u16,
    kernel: u8,
    stride: u8,
    depthwise: bool,
}

const fn dense(name: &'static str, side: u16, [channels, outputs]: [u16; 2], kernel: u8, stride: u8) -> Case {
    Case { name, side, channels, outputs, kernel, stride, depthwise: false }
}

/// The widths of ResNet-8 are those of the family's medium anchor.
const CASES: [Case; 9] = [
    dense("stem 3x3 3 to 16 at 32x32", 32, [3, 16], 3, 1),
    // The small anchor: a row of 108 is no whole number of vectors.
    dense("conv 3x3 12 to 12 at 32x32", 32, [12, 12], 3, 1),
    dense("conv 3x3 16 to 16 at 32x32", 32, [16, 16], 3, 1),
    dense("conv 3x3 32 to 32 at 16x16", 16, [32, 32], 3, 1),
    dense("conv 3x3 64 to 64 at 8x8", 8, [64, 64], 3, 1),
    // The large anchor spends its work here.
    dense("conv 3x3 112 to 112 at 8x8", 8, [112, 112], 3, 1),
    // A stitch reads the map in place; a shortcut has a stride, so its windows are gathered.
    dense("conv 1x1 64 to 128 at 8x8", 8, [64, 128], 1, 1),
    dense("conv 1x1 32 to 64 at 16x16 by 2", 16, [32, 64], 1, 2),
    Case { depthwise: true, ..dense("depthwise 3x3 64 at 16x16", 16, [64, 64], 3, 1) },
];

/// `len` values that follow no pattern: a multiplicative hash of the index.
fn paint<T>(len: usize, value: impl Fn(u8) -> T) -> Vec<T> {
    (0..len as u32).map(|index| value((index.wrapping_mul(0x9e37_79b1) >> 24) as u8)).collect()
}

fn square(side: u16, channels: u16) -> Shape {
    Shape { height: side, width: side, channels }
}

fn convolution<I: Isa>(group: &mut BenchmarkGroup<'_, WallTime>, isa: I, case: &Case) {
    let (channels, outputs) = (usize::from(case.channels), usize::from(case.outputs));
    let groups = if case.depthwise { case.channels } else { 1 };
    let taps = usize::from(case.kernel) * usize::from(case.kernel) * (channels / usize::from(groups));
    let row = if case.depthwise { taps } else { taps.next_multiple_of(4) };
    let weights = paint(row * outputs, |value| value);
    let words = |value: i32| value.to_le_bytes().repeat(outputs);
    // Multipliers are 2^30 to 2^31, so this shift brings sums of such rows near to 8 bits.
    let (bias, multiplier, shift) = (words(100), words(1_500_000_000), vec![41; outputs]);
    let requant = Requant { bias: &bias, multiplier: &multiplier, shift: &shift, zero_point: -3, min: -128, max: 127 };
    // Weights are noise: they may as well lie in blocks, where they can, if the instruction set wants them so.
    let in_blocks = !case.depthwise && outputs.is_multiple_of(16) && channels.is_multiple_of(4);
    let packing = if in_blocks && std::env::var_os("ROWS").is_none() { I::PACKING } else { Packing::Rows };
    let op = Conv {
        input: square(case.side, case.channels),
        output: square(case.side / u16::from(case.stride), case.outputs),
        window: Window { kernel: [case.kernel; 2], stride: [case.stride; 2], pad: [case.kernel / 2; 4] },
        groups,
        input_zero: -3,
        weights: &weights,
        packing,
        requant,
        to: Element::Int8,
        curve: None,
    };
    let input = paint(op.input.len(), u8::cast_signed);
    let mut output = vec![0; op.output.len()];
    let mut scratch = vec![0; conv_scratch(op.window.kernel, case.channels, output.len() / outputs)];
    group.throughput(Throughput::Elements((taps * output.len()) as u64));
    group.bench_function(case.name, |bencher| {
        bencher.iter(|| {
            let op = black_box(&op);
            if case.depthwise {
                kernels::depthwise(isa, op, black_box(&input), &mut output, &mut scratch)
            } else {
                kernels::conv(isa, op, black_box(&input), &mut output, &mut scratch)
            }
            .expect("the lengths are those of the shapes");
            black_box(&mut output);
        });
    });
}

fn addition<I: Isa>(group: &mut BenchmarkGroup<'_, WallTime>, isa: I) {
    let len = square(32, 16).len();
    let (a, b) = (paint(len, u8::cast_signed), paint(len, |value| value.wrapping_add(91).cast_signed()));
    let mut output = vec![0; len];
    let elements = [Element::Int8; 3];
    let op = Add { multiplier: [20_000, 12_345], offset: 1 << 14, shift: 15, min: -128, max: 127, elements };
    group.throughput(Throughput::Elements(len as u64));
    group.bench_function("add 16 at 32x32", |bencher| {
        bencher.iter(|| {
            kernels::add(isa, black_box(&op), black_box(&a), black_box(&b), &mut output).expect("one length");
            black_box(&mut output);
        });
    });
}

/// The mean before the classifier, and the maximum that halves a map.
fn pools<I: Isa>(group: &mut BenchmarkGroup<'_, WallTime>, isa: I) {
    let cases = [
        ("mean 8x8 of 64 at 8x8", PoolKind::Average, square(8, 64), 8),
        ("max 2x2 of 32 at 16x16", PoolKind::Max, square(16, 32), 2),
    ];
    for (name, kind, input, side) in cases {
        let output = square(input.height / u16::from(side), input.channels);
        let window = Window { kernel: [side; 2], stride: [side; 2], pad: [0; 4] };
        let (multiplier, shift) = (1 << 30, 36);
        let (input_zero, zero_point, min, max) = (-3, -3, -128, 127);
        let op = Pool { kind, input, output, window, input_zero, multiplier, shift, zero_point, min, max };
        let values = paint(input.len(), u8::cast_signed);
        let mut result = vec![0; output.len()];
        group.throughput(Throughput::Elements(input.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                kernels::pool(isa, black_box(&op), black_box(&values), &mut result).expect("lengths of the shapes");
                black_box(&mut result);
            });
        });
    }
}

/// What a transformer of 64 positions and a class token adds: 96 channels, 3 heads.
fn tokens<I: Isa>(group: &mut BenchmarkGroup<'_, WallTime>, isa: I) {
    const TOKENS: u16 = 65;
    const CHANNELS: u16 = 96;
    let (positions, len) = (usize::from(TOKENS), usize::from(TOKENS) * usize::from(CHANNELS));
    let map = |channels| Shape { height: 1, width: TOKENS, channels };
    let heads = |first| Heads { first, per_head: 32, width: 32 };
    let window = [1, TOKENS];
    let op = Attention {
        query_map: map(3 * CHANNELS),
        key_map: map(3 * CHANNELS),
        heads: 3,
        query: heads(0),
        key: heads(CHANNELS),
        value: heads(2 * CHANNELS),
        query_window: window,
        key_window: window,
        logit_multiplier: 1_500_000_000,
        logit_shift: 34,
        bias: &[],
        mask: &[],
        multiplier: 1_500_000_000,
        shift: 44,
        zero_point: 0,
        min: -128,
        max: 127,
    };
    let (values, mut output) = (paint(3 * len, u8::cast_signed), vec![0; len]);
    let mut scratch = vec![0; attention_scratch(positions, 32)];
    group.throughput(Throughput::Elements((2 * len * positions) as u64));
    group.bench_function("attention 65x96, 3 heads", |bencher| {
        bencher.iter(|| {
            kernels::attention(isa, black_box(&op), &values, &values, &mut output, &mut scratch).expect("its lengths");
            black_box(&mut output);
        });
    });
    let (factor, offset) = (paint(2 * usize::from(CHANNELS), |value| value), vec![0; 4 * usize::from(CHANNELS)]);
    let (factor, offset) = (&*factor, &*offset);
    let op = LayerNorm { channels: CHANNELS, factor, factor_bits: 10, offset, epsilon: 1000, min: -128, max: 127 };
    group.throughput(Throughput::Elements(len as u64));
    group.bench_function("layer norm 65x96", |bencher| {
        bencher.iter(|| {
            kernels::layer_norm(isa, black_box(&op), black_box(&values[..2 * len]), &mut output).expect("its lengths");
            black_box(&mut output);
        });
    });
}

fn every_kernel<I: Isa>(criterion: &mut Criterion, isa: I) {
    let mut group = criterion.benchmark_group(I::NAME);
    for case in &CASES {
        convolution(&mut group, isa, case);
    }
    addition(&mut group, isa);
    pools(&mut group, isa);
    tokens(&mut group, isa);
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    for level in Level::available() {
        kernels::with_isa!(level, |isa| every_kernel(&mut criterion, isa));
    }
    criterion.final_summary();
}
