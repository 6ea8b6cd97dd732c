//! The portable bodies equal the reference on a few tiny cases of each op: little enough for Miri, which has no instructions of
//! x86. `cargo +nightly miri test --target armv7-unknown-linux-gnueabihf -p kernels --features reference --test miri`
//! compiles no other body, and counts in 32 bits.

use kernels::cases::{self, AttentionCase, Case, ConvCase, Line, Memory, MixCase, NormCase, Paint, RescaleCase};
use kernels::{Add, Element, Move, Pool, PoolKind, Roll, Shape, Window, arch};

const BYTE: Element = Element::Int8;
const WIDE: Element = Element::Int16;
const PADDED: Window = Window { kernel: [2, 3], stride: [1, 2], pad: [1, 1, 0, 1] };

#[track_caller]
fn check(cases: &[Case]) {
    let mut memory = Box::new(Memory::new());
    for case in cases {
        assert_eq!(cases::run(arch::Scalar, case, &mut memory), Ok(()), "{case:?}");
    }
}

const fn shape(height: u16, width: u16, channels: u16) -> Shape {
    Shape { height, width, channels }
}

fn conv(input: Shape, outputs: u16, window: Window) -> ConvCase {
    let paint = Paint::Random(1);
    ConvCase { input, outputs, window, groups: 1, shift: None, paint, to: BYTE, curve: false }
}

#[test]
fn convolutions() {
    let point = Window { kernel: [1, 1], stride: [1, 1], pad: [0; 4] };
    let extremes = Paint::Extremes(7);
    check(&[
        // Pairs of rows and one that is left, blocks of four channels and one that is left, a row that ends inside of a word.
        Case::Conv(conv(shape(3, 1, 6), 5, point)),
        Case::Conv(ConvCase { to: WIDE, ..conv(shape(1, 2, 5), 4, point) }),
        Case::Conv(ConvCase { curve: true, paint: extremes, ..conv(shape(1, 1, 8), 3, point) }),
        Case::Conv(conv(shape(2, 3, 2), 4, PADDED)),
        Case::Conv(ConvCase { groups: 2, ..conv(shape(2, 2, 4), 4, PADDED) }),
        // Weights in blocks.
        Case::Conv(conv(shape(1, 2, 4), 16, point)),
        Case::Conv(ConvCase { paint: extremes, shift: Some(1), ..conv(shape(1, 1, 4), 2, point) }),
        Case::Conv(ConvCase { paint: extremes, shift: Some(62), ..conv(shape(1, 1, 4), 2, point) }),
        Case::Depthwise(ConvCase { groups: 5, ..conv(shape(2, 3, 5), 5, PADDED) }),
        Case::Depthwise(ConvCase { groups: 2, curve: true, paint: extremes, ..conv(shape(2, 3, 2), 2, PADDED) }),
    ]);
}

#[test]
fn maps() {
    let op = Add { multiplier: [20_000, -12_345], offset: 77_777, shift: 14, min: -128, max: 90, elements: [BYTE; 3] };
    let (input, output) = (shape(3, 4, 5), shape(3, 2, 5));
    let (input_zero, multiplier, shift, zero_point, min, max) = (-128, 1_500_000_000, 32, -20, -100, 120);
    let kind = PoolKind::Average;
    let average = Pool { kind, input, output, window: PADDED, input_zero, multiplier, shift, zero_point, min, max };
    let (origin, step, repeat) = ([1, -1, 0], [1, 1], [2, 1]);
    let (output, first_channel, channels, fill) = (shape(4, 3, 7), 2, 5, -9);
    let moved = Move { input, output, origin, step, repeat, first_channel, channels, fill, min, max };
    check(&[
        Case::Add(op, 9, Paint::Extremes(1)),
        Case::Add(Add { elements: [WIDE, BYTE, WIDE], ..op }, 5, Paint::Extremes(2)),
        Case::Add(Add { elements: [BYTE, WIDE, BYTE], ..op }, 5, Paint::Random(3)),
        Case::Pool(average, Paint::Random(4)),
        Case::Pool(Pool { kind: PoolKind::Max, ..average }, Paint::Random(5)),
        Case::Move(moved, Paint::Random(6)),
        Case::Curve(5, Paint::Random(7)),
        Case::Prepend([3, 5], Paint::Random(8)),
        Case::Roll(Roll { shape: shape(2, 3, 2), by: [1, 2] }, Paint::Period),
    ]);
}

#[test]
fn transformers() {
    let rescale = RescaleCase { channels: 5, positions: 2, elements: [WIDE, BYTE], shift: 38, paint: Paint::Random(1) };
    let line = Line::Noise(-32_768, 65_536, 2);
    let norm = NormCase { channels: 6, positions: 2, factor_bits: 9, factor: None, epsilon: 5, line };
    let attention = AttentionCase {
        windows: [1, 2],
        query_window: [1, 5],
        key_window: [1, 3],
        heads: 2,
        width: [4, 3],
        interleaved: true,
        offsets: [true; 2],
        logit: (1_500_000_000, 33),
        shift: 44,
        paint: Paint::Random(1),
    };
    check(&[
        Case::Rescale(rescale),
        Case::Rescale(RescaleCase { elements: [BYTE, WIDE], paint: Paint::Extremes(2), ..rescale }),
        Case::LayerNorm(norm),
        Case::LayerNorm(NormCase { factor: Some(i16::MIN), epsilon: 0, line: Line::Outlier(-32_768, 32_767), ..norm }),
        Case::Softmax([5, 2], Line::Noise(-1500, 3000, 1)),
        Case::Softmax([3, 1], Line::Outlier(-(1 << 25), 1 << 25)),
        Case::Attention(attention),
        Case::Attention(AttentionCase { paint: Paint::Extremes(3), interleaved: false, width: [3, 17], ..attention }),
        Case::Mix(MixCase { shape: [4, 2, 4], paint: Paint::Extremes(3) }),
    ]);
}
